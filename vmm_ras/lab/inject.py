"""A synchronous external abort for a vCPU of QEMU's emulation, through the debugger stub.

The stub cannot write system registers, so the CPU does it itself.  The instruction at the pc becomes an undefined one
and is stepped: the CPU takes a real exception to EL1, and ELR, SPSR, PSTATE and the vector are its own work.  Then one
instruction in the unused AArch32 vector slot writes ESR_EL1 (and FAR_EL1 where it is known), everything else is put
back, and the vCPU stands at the vector as after an SEA.
"""

from __future__ import annotations

import struct

from vmm_ras import arm64
from vmm_ras.errors import GuestError
from vmm_ras.events import VcpuState
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.gdb import Debugger

UNDEFINED = struct.pack("<I", 0)
MSR_ESR_EL1_X0 = struct.pack("<I", 0xD5185200)
MSR_FAR_EL1_X1 = struct.pack("<I", 0xD5186001)
_UNUSED_VECTOR = arm64.VECTOR_LOWER_AARCH32
"""Linux' arm64 guests of the lab run no AArch32 programs."""


def state(debugger: Debugger) -> VcpuState:
    """What the stopped vCPU holds."""
    x = tuple(debugger.read(f"x{number}") for number in range(18))
    return VcpuState(debugger.read("pc"), debugger.read("cpsr"), x, vbar=debugger.read("VBAR_EL1"))


def take_sea(debugger: Debugger, text: int, esr: int, far: int | None) -> None:
    """Let the selected vCPU take an SEA at its pc, whose guest physical address is ``text``.

    Raises GuestError where the vCPU went somewhere else, Failure where it did not move.
    """
    pc, pstate, vbar = debugger.read("pc"), debugger.read("cpsr"), debugger.read("VBAR_EL1")
    _step_undefined(debugger, text)
    vector = vbar + arm64.vector_block(pstate & arm64.PSTATE_M)
    at = debugger.read("pc")
    if at != vector:
        raise GuestError(f"the vCPU is at {at:#x} after an undefined instruction at {pc:#x}, not at {vector:#x}")
    _write_syndrome(debugger, vbar + _UNUSED_VECTOR, esr, far)
    if debugger.read("pc") != vector or debugger.read("ESR_EL1") != esr:
        raise GuestError("the syndrome was not written")


def _step_undefined(debugger: Debugger, text: int) -> None:
    # physically: PSTATE.PAN hides user pages from the stub once the exception is taken
    debugger.physical(True)
    old = debugger.read_memory(text, 4)
    debugger.write_memory(text, UNDEFINED)
    try:
        debugger.step()
    finally:
        debugger.write_memory(text, old)
        debugger.physical(False)


def _write_syndrome(debugger: Debugger, slot: int, esr: int, far: int | None) -> None:
    code = MSR_ESR_EL1_X0 + (MSR_FAR_EL1_X1 if far is not None else b"")
    kept = {name: debugger.read(name) for name in ("x0", "x1", "pc")}
    old = debugger.read_memory(slot, len(code))
    debugger.write_memory(slot, code)
    debugger.write("x0", esr)
    debugger.write("x1", far or 0)
    debugger.write("pc", slot)
    for _ in range(len(code) // 4):
        debugger.step()
    if debugger.read("pc") != slot + len(code):
        raise Failure("the vCPU left the unused vector")
    debugger.write_memory(slot, old)
    for name, value in kept.items():
        debugger.write(name, value)
