"""A synchronous external abort, an SError, or an SDEI event, for a vCPU of QEMU's emulation, through the debugger stub.

The stub cannot write system registers, so the CPU does it itself.  The instruction at the pc becomes an undefined one
and is stepped: the CPU takes a real exception to EL1, and ELR, SPSR, PSTATE and the vector are its own work.  Then one
instruction in the unused AArch32 vector slot writes ESR_EL1 (and FAR_EL1 where it is known), everything else is put
back, and the vCPU stands at the vector as after an SEA.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from vmm_ras import arm64
from vmm_ras.effects import SetRegisters
from vmm_ras.errors import GuestError
from vmm_ras.events import VcpuState
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.io.qemu.gdb import Debugger

UNDEFINED = struct.pack("<I", 0)
MSR_ESR_EL1_X0 = struct.pack("<I", 0xD5185200)
MSR_FAR_EL1_X1 = struct.pack("<I", 0xD5186001)
MSR_ELR_EL1_X0, MSR_SPSR_EL1_X1 = struct.pack("<I", 0xD5184020), struct.pack("<I", 0xD5184001)
_UNUSED_VECTOR = arm64.VECTOR_LOWER_AARCH32
"""Linux' arm64 guests of the lab run no AArch32 programs."""


def state(debugger: Debugger) -> VcpuState:
    """What the stopped vCPU holds."""
    x = tuple(debugger.read(f"x{number}") for number in range(18))
    vbar, sctlr = debugger.read("VBAR_EL1"), debugger.read("SCTLR_EL1")
    return VcpuState(debugger.read("pc"), debugger.read("cpsr"), x, vbar=vbar, sctlr=sctlr)


def take_sea(debugger: Debugger, text: int, esr: int, far: int | None) -> None:
    """Let the selected vCPU take an SEA at its pc, whose guest physical address is ``text`` (0: the kernel's own).

    Raises GuestError where the vCPU went somewhere else, Failure where it did not move.
    """
    _take(debugger, text, esr, far)


def take_serror(debugger: Debugger, text: int, vsesr: int) -> None:
    """Let the selected vCPU take an SError at its pc, as :func:`take_sea`; ``vsesr``: IDS and ISS.

    Raises GuestError, where PSTATE.A masks it too.
    """
    if debugger.read("cpsr") & arm64.PSTATE_A:
        raise GuestError("PSTATE.A is set: the SError would stay pending, and nothing here can keep it")
    vector = _take(debugger, text, arm64.EC_SERROR << arm64.ESR_EC_SHIFT | arm64.ESR_IL | vsesr, None)
    debugger.write("pc", vector + arm64.VECTOR_SERROR)


def _take(debugger: Debugger, text: int, esr: int, far: int | None) -> int:
    """Take a synchronous exception with this syndrome; the vector."""
    pc, pstate, vbar = debugger.read("pc"), debugger.read("cpsr"), debugger.read("VBAR_EL1")
    _step_undefined(debugger, text, pc)
    vector = vbar + arm64.vector_block(pstate & arm64.PSTATE_M)
    at = debugger.read("pc")
    if at != vector:
        raise GuestError(f"the vCPU is at {at:#x} after an undefined instruction at {pc:#x}, not at {vector:#x}")
    _write_syndrome(debugger, vbar + _UNUSED_VECTOR, esr, far)
    if debugger.read("pc") != vector or debugger.read("ESR_EL1") != esr:
        raise GuestError("the syndrome was not written")
    return vector


def _step_undefined(debugger: Debugger, text: int, pc: int) -> None:
    # physically: PSTATE.PAN hides user pages from the stub once the exception is taken
    debugger.physical(bool(text))
    at = text or pc
    old = debugger.read_memory(at, 4)
    debugger.write_memory(at, UNDEFINED)
    try:
        debugger.step()
    finally:
        debugger.write_memory(at, old)
        debugger.physical(False)


def _write_syndrome(debugger: Debugger, slot: int, esr: int, far: int | None) -> None:
    code = [MSR_ESR_EL1_X0] + ([MSR_FAR_EL1_X1] if far is not None else [])
    _run(debugger, slot, code, esr, far or 0)


def set_registers(debugger: Debugger, e: SetRegisters) -> None:
    """What an SDEI dispatch or completion sets.  Raises GuestError for another exception level: the stub has no way."""
    pstate, vbar = debugger.read("cpsr"), debugger.read("VBAR_EL1")
    if (pstate ^ e.pstate) & arm64.PSTATE_M:
        raise GuestError(f"the vCPU is at EL{pstate >> 2 & 3}, and cannot be put at EL{e.pstate >> 2 & 3}")
    if e.elr is not None and e.spsr is not None:
        _run(debugger, vbar + _UNUSED_VECTOR, [MSR_ELR_EL1_X0, MSR_SPSR_EL1_X1], e.elr, e.spsr)
    for number, value in enumerate(e.x):
        debugger.write(f"x{number}", value)
    debugger.write("cpsr", e.pstate)
    debugger.write("pc", e.pc)


def _run(debugger: Debugger, slot: int, code: Sequence[bytes], x0: int, x1: int) -> None:
    """Let the selected vCPU run a few instructions in the unused vector with these registers, and put all else back."""
    kept = {name: debugger.read(name) for name in ("x0", "x1", "pc")}
    old = debugger.read_memory(slot, 4 * len(code))
    debugger.write_memory(slot, b"".join(code))
    debugger.write("x0", x0)
    debugger.write("x1", x1)
    debugger.write("pc", slot)
    for _ in code:
        debugger.step()
    if debugger.read("pc") != slot + 4 * len(code):
        raise Failure("the vCPU left the unused vector")
    debugger.write_memory(slot, old)
    for name, value in kept.items():
        debugger.write(name, value)
