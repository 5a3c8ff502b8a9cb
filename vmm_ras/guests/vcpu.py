"""A model vCPU at EL0 and EL1: taking exceptions, and virtual SError (Arm ARM D1.3; RAS supplement 2.5).

It executes nothing: whoever plays the guest says what it does (``run_at``, ``eret``, ``esb``), and the exceptions that
follow are taken as hardware takes them.
"""

from __future__ import annotations

from vmm_ras import arm64
from vmm_ras.arm64 import EL0T, EL1H, PSTATE_A, PSTATE_DAIF, PSTATE_IL, PSTATE_M, PSTATE_NZCV, PSTATE_PAN, VECTOR_SERROR
from vmm_ras.effects import SetRegisters
from vmm_ras.errors import InputError, StateError
from vmm_ras.events import VcpuState

_BLOCK = {mode: arm64.vector_block(mode) for mode in arm64.EL_MODES}


class Vcpu:
    """Registers of one vCPU, and the SError that waits for it.

    A synchronous external abort is never masked, and comes before an SError: taking it masks the SError (PSTATE.A).
    The registers are plain attributes; after writing ``pstate`` directly call ``poll_serror``.
    """

    __slots__ = (
        "_implemented",
        "_keep",
        "_sctlr",
        "_set",
        "disr",
        "elr",
        "esr",
        "far",
        "features",
        "pc",
        "pstate",
        "sp_el0",
        "sp_el1",
        "spsr",
        "vbar",
        "vsesr",
        "x",
    )

    def __init__(self, features: arm64.Features = arm64.NEOVERSE_N1, *, vbar: int = 0, sctlr: int = 0) -> None:
        self.features = features
        self._implemented = arm64.implemented_bits(features)
        self.x: list[int] = [0] * 31
        self.sp_el0 = 0
        self.sp_el1 = 0
        self.pc = 0
        self.pstate = PSTATE_DAIF | EL1H
        self.elr = 0
        self.spsr = 0
        self.esr = 0
        self.far = 0
        self.vbar = vbar
        self.sctlr = sctlr
        self.disr = 0
        """DISR_EL1: what an ESB deferred.  The guest clears it by writing 0."""
        self.vsesr: int | None = None
        """Syndrome of the pending virtual SError, or None."""

    @property
    def sctlr(self) -> int:
        """SCTLR_EL1; SPAN and DSSBS decide what an exception does to PSTATE."""
        return self._sctlr

    @sctlr.setter
    def sctlr(self, value: int) -> None:
        self._sctlr = value
        self._keep, self._set = arm64.entry_bits(self.features, value)

    @property
    def el(self) -> int:
        """Exception level: 0 or 1."""
        return arm64.exception_level(self.pstate)

    @property
    def isr(self) -> int:
        """ISR_EL1: bit 8 (A) while an SError is pending, masked or not."""
        return 0 if self.vsesr is None else arm64.ISR_A

    def take_sea(self, esr: int, far: int | None) -> None:
        """Take a synchronous external abort to EL1, now (D1.3.1).

        ELR_EL1 is the aborted instruction, which is where ``pc`` stands.  FAR_EL1 keeps its value where ``far`` is
        None (FnV).
        """
        old = self.pstate
        self.spsr = old
        self.elr = self.pc
        self.esr = esr
        if far is not None:
            self.far = far
        self.pc = self.vbar + _BLOCK[old & PSTATE_M]
        self.pstate = old & self._keep | self._set

    def pend_serror(self, vsesr: int) -> bool:
        """Make a virtual SError pending with this syndrome (IDS and ISS, 25 bits); True if it was taken at once.

        While one is pending already, the worse syndrome stays (DDI 0587 2.5.3).  Without FEAT_RAS there is none.
        """
        if vsesr & ~arm64.ESR_ISS:
            raise InputError(f"SError syndrome {vsesr:#x}: only bits 24:0 exist")
        self.vsesr = arm64.merge_serror(self.vsesr, vsesr) if self.features.ras else 0
        return self.poll_serror()

    def poll_serror(self) -> bool:
        """Take the pending SError if PSTATE.A lets it through; True if it was taken."""
        old = self.pstate
        vsesr = self.vsesr
        if vsesr is None or old & PSTATE_A:
            return False
        self.vsesr = None
        self.spsr = old
        self.elr = self.pc
        self.esr = arm64.serror_esr(vsesr)
        self.pc = self.vbar + _BLOCK[old & PSTATE_M] + VECTOR_SERROR
        self.pstate = old & self._keep | self._set
        return True

    def mask_serror(self) -> None:
        """MSR DAIFSet, #4."""
        self.pstate |= PSTATE_A

    def unmask_serror(self) -> bool:
        """MSR DAIFClr, #4; True if a pending SError was taken."""
        self.pstate &= ~PSTATE_A
        return self.poll_serror()

    def esb(self) -> bool:
        """Error synchronization barrier: a pending SError that is masked goes to DISR_EL1; True if one did.

        One that is not masked is taken instead.  Without FEAT_RAS the instruction is a NOP.
        """
        vsesr = self.vsesr
        if vsesr is None or not self.features.ras or self.poll_serror():
            return False
        self.disr = arm64.DISR_A | vsesr
        self.vsesr = None
        return True

    def eret(self) -> bool:
        """Return from an exception: PC and PSTATE from ELR_EL1 and SPSR_EL1; True if a pending SError was taken then.

        A return to a mode that EL1 cannot return to is an illegal one: EL and SP stay, and PSTATE.IL is set (D1.4.4).
        Raises StateError at EL0, where there is no ERET.
        """
        if self.el != 1:
            raise StateError("ERET at EL0")
        spsr = self.spsr & self._implemented
        self.pc = self.elr
        if spsr & PSTATE_M in _BLOCK:
            self.pstate = spsr
        else:
            self.pstate = spsr & (PSTATE_NZCV | PSTATE_DAIF | PSTATE_PAN) | PSTATE_IL | self.pstate & PSTATE_M
        return self.poll_serror()

    def run_at(self, el: int, pc: int | None = None, bits: int = 0) -> bool:
        """Let the guest run at EL0t or EL1h, with all exceptions unmasked; ``bits`` are further PSTATE bits.

        A pending SError is taken at once unless ``bits`` has PSTATE.A; True if it was.
        """
        if el not in (0, 1) or bits & PSTATE_M:
            raise InputError(f"EL{el}, PSTATE bits {bits:#x}: expected EL 0 or 1, and no mode bits")
        self.pstate = bits | (EL1H if el else EL0T)
        if pc is not None:
            self.pc = pc
        return self.poll_serror()

    def state(self) -> VcpuState:
        """What the core is told of a vCPU that was stopped."""
        return VcpuState(self.pc, self.pstate, tuple(self.x[:18]), self.vsesr, self.vbar, self._sctlr)

    def set_registers(self, effect: SetRegisters) -> bool:
        """Carry out an SDEI dispatch or completion; True if a pending SError was taken when the vCPU went on."""
        if len(effect.x) > len(self.x):
            raise InputError(f"SetRegisters.x has {len(effect.x)} registers: there are {len(self.x)}")
        if effect.pstate & PSTATE_M not in _BLOCK:
            raise InputError(f"SetRegisters.pstate {effect.pstate:#x}: neither EL0 nor EL1")
        self.x[: len(effect.x)] = effect.x
        self.pc = effect.pc
        self.pstate = effect.pstate
        if effect.elr is not None:
            self.elr = effect.elr
        if effect.spsr is not None:
            self.spsr = effect.spsr
        return self.poll_serror()
