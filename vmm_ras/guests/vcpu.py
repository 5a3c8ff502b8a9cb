"""A model vCPU at EL0 and EL1: taking exceptions, and virtual SError (Arm ARM D1.3; RAS supplement 2.5).

It executes nothing: whoever plays the guest says what it does (``run_at``, ``eret``, ``esb``), and the exceptions that
follow are taken as hardware takes them.  ``guests/nested.py`` adds EL2.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Final

from vmm_ras import arm64
from vmm_ras.arm64 import (
    EL0T,
    EL1H,
    PSTATE_A,
    PSTATE_ALLINT,
    PSTATE_DAIF,
    PSTATE_EL,
    PSTATE_IL,
    PSTATE_M,
    PSTATE_NRW,
    PSTATE_NZCV,
    PSTATE_PAN,
    VECTOR_SERROR,
)
from vmm_ras.effects import SetRegisters
from vmm_ras.errors import InputError, SnapshotError, StateError
from vmm_ras.events import VcpuState, new

_MODES: Final = arm64.EL_MODES  # names that compiled code need not look up
_VcpuState: Final = VcpuState
_REINSTATED: Final = PSTATE_NZCV | PSTATE_PAN | PSTATE_ALLINT | PSTATE_DAIF
"""What an exception return takes from SPSR even where it is illegal (D1.4.4)."""
_REGISTERS: Final = 31
"""X0 to X30."""


class Vcpu:
    """Registers of one vCPU, and the SError that waits for it.

    A synchronous external abort is never masked, and comes before an SError: taking it masks the SError (PSTATE.A).
    The registers are plain attributes; after writing ``pstate`` or ``sctlr2`` directly call ``poll_serror``.  What an
    exception does depends on features, VBAR, SCTLR and SCTLR2 only: it is worked out when one of these is written.
    """

    MODES: ClassVar[frozenset[int]] = arm64.EL_MODES
    """PSTATE.M values that the vCPU can be in."""
    STATE: ClassVar[tuple[str, ...]] = (
        "x", "sp_el0", "sp_el1", "pc", "pstate", "elr", "spsr", "esr", "far", "disr", "vsesr", "latent", "_vbar",
        "_sctlr", "_sctlr2",
    )  # fmt: skip
    """All that the vCPU remembers; everything else is worked out of it."""

    __slots__ = (
        "_asynchronous",
        "_implemented",
        "_implemented_aarch32",
        "_keep",
        "_modes",
        "_sctlr",
        "_sctlr2",
        "_serror_mask",
        "_set",
        "_synchronizes",
        "_synchronous",
        "_vbar",
        "disr",
        "elr",
        "esr",
        "far",
        "features",
        "latent",
        "pc",
        "pstate",
        "sp_el0",
        "sp_el1",
        "spsr",
        "vsesr",
        "x",
    )

    def __init__(
        self, features: arm64.Features = arm64.NEOVERSE_N1, *, vbar: int = 0, sctlr: int = 0, sctlr2: int = 0
    ) -> None:
        self.features = features
        self._implemented = arm64.implemented_bits(features)
        self._implemented_aarch32 = arm64.implemented_bits(features, aarch32=True)
        self._modes = self.MODES
        self.x: list[int] = [0] * _REGISTERS
        self.sp_el0 = 0
        self.sp_el1 = 0
        self.pc = 0
        self.pstate = PSTATE_DAIF | EL1H
        self.elr = 0
        self.spsr = 0
        self.esr = 0
        self.far = 0
        self.disr = 0
        """DISR_EL1: what an ESB deferred.  The guest clears it by writing 0."""
        self.vsesr: int | None = None
        """Syndrome of the pending SError, or None."""
        self.latent: int | None = None
        """Syndrome of an error that no barrier has synchronized yet: nothing shows it, and it is not pending."""
        self._vbar, self._sctlr, self._sctlr2 = vbar, sctlr, sctlr2
        self._prepare()

    def _prepare(self) -> None:
        """Work out what taking an exception will do."""
        features, vbar = self.features, self._vbar
        sctlr2 = self._effective_sctlr2()
        self._keep, self._set = arm64.entry_bits(features, self._sctlr)
        self._asynchronous = _entries(vbar + VECTOR_SERROR)
        self._synchronous = self._asynchronous if sctlr2 & arm64.SCTLR2_EASE else _entries(vbar)
        self._serror_mask = 0 if sctlr2 & arm64.SCTLR2_NMEA else PSTATE_A
        self._synchronizes = self._implicit_esb

    def _effective_sctlr2(self) -> int:
        return self._sctlr2 if self.features.double_fault2 else 0

    @property
    def vbar(self) -> int:
        """VBAR_EL1: where the vectors are."""
        return self._vbar

    @vbar.setter
    def vbar(self, value: int) -> None:
        self._vbar = value
        self._prepare()

    @property
    def sctlr(self) -> int:
        """SCTLR_EL1; SPAN, DSSBS, SPINTMASK and IESB decide what an exception does."""
        return self._sctlr

    @sctlr.setter
    def sctlr(self, value: int) -> None:
        self._sctlr = value
        self._prepare()

    @property
    def sctlr2(self) -> int:
        """SCTLR2_EL1; with FEAT_DoubleFault2, EASE and NMEA count."""
        return self._sctlr2

    @sctlr2.setter
    def sctlr2(self, value: int) -> None:
        self._sctlr2 = value
        self._prepare()

    @property
    def _implicit_esb(self) -> bool:
        return self._has_iesb(self._sctlr)

    def _has_iesb(self, sctlr: int) -> bool:
        """FEAT_IESB needs FEAT_RAS."""
        return self.features.ras and self.features.iesb and bool(sctlr & arm64.SCTLR_IESB)

    @property
    def el(self) -> int:
        """Exception level."""
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
        self.pc = self._synchronous[old & PSTATE_M]
        self.pstate = old & self._keep | self._set
        if self._synchronizes:
            self._synchronize()

    def pend_serror(self, vsesr: int) -> bool:
        """Make an SError pending with this syndrome (IDS and ISS, 25 bits); True if it was taken at once.

        While one is pending already, the worse syndrome stays (DDI 0587 2.5.3).  Without FEAT_RAS there is none.
        """
        if vsesr & ~arm64.ESR_ISS:
            raise InputError(f"SError syndrome {vsesr:#x}: only bits 24:0 exist")
        self.vsesr = arm64.merge_serror(self.vsesr, vsesr) if self.features.ras else 0
        return self.poll_serror()

    def note_error(self, vsesr: int) -> None:
        """An error happened asynchronously, and stays ``latent`` until something synchronizes it.

        That is an ESB or, with SCTLR_EL1.IESB, taking an exception to EL1 or returning from one.
        """
        if vsesr & ~arm64.ESR_ISS:
            raise InputError(f"SError syndrome {vsesr:#x}: only bits 24:0 exist")
        self.latent = arm64.merge_serror(self.latent, vsesr)

    def _synchronize(self) -> bool:
        """The implicit ESB: a latent error becomes pending; True if an SError was taken.

        Unlike an ESB instruction it defers nothing to DISR_EL1.  ISS.IESB of an SError that is taken at once says so,
        where the syndrome is an architected one.
        """
        latent = self.latent if self._implicit_esb else None
        if latent is not None:
            self.latent = None
            if not latent & arm64.ISS_IDS and latent & arm64.ISS_DFSC == arm64.DFSC_SERROR and self._unmasked():
                latent |= arm64.ISS_IESB
            self.vsesr = arm64.merge_serror(self.vsesr, latent)
        return self.poll_serror()

    def _unmasked(self) -> bool:
        return not self.pstate & self._serror_mask

    def poll_serror(self) -> bool:
        """Take the pending SError if PSTATE.A lets it through; True if it was taken."""
        old = self.pstate
        vsesr = self.vsesr
        if vsesr is None or old & self._serror_mask:
            return False
        self.vsesr = None
        self.spsr = old
        self.elr = self.pc
        self.esr = arm64.serror_esr(vsesr)
        self.pc = self._asynchronous[old & PSTATE_M]
        self.pstate = old & self._keep | self._set
        if self._synchronizes:
            self._synchronize()
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
        if not self.features.ras:
            return False
        if self.latent is not None:
            self.vsesr, self.latent = arm64.merge_serror(self.vsesr, self.latent), None
        vsesr = self.vsesr
        if vsesr is None or self.poll_serror():
            return False
        self.disr = arm64.DISR_A | vsesr
        self.vsesr = None
        return True

    def eret(self) -> bool:
        """Return from an exception: PC and PSTATE from ELR_EL1 and SPSR_EL1; True if an SError was taken.

        With SCTLR_EL1.IESB an unmasked error is taken before the return, with ELR_EL1 at the ERET.  A return to a mode
        that EL1 cannot return to is an illegal one: EL and SP stay, and PSTATE.IL is set (D1.4.4).
        Raises StateError at EL0, where there is no ERET.
        """
        if not self.pstate & PSTATE_EL:
            raise StateError("ERET at EL0")
        if self._synchronizes and self._synchronize():
            return True
        self.pc = self.elr
        spsr = self._returned(self.spsr)
        self.pstate = spsr if spsr & PSTATE_M in _MODES else self._illegal(spsr)
        return self.vsesr is not None and self.poll_serror()

    def _returned(self, spsr: int) -> int:
        """What of an SPSR the PE has."""
        return spsr & (self._implemented_aarch32 if spsr & PSTATE_NRW else self._implemented)

    def _illegal(self, spsr: int) -> int:
        """PSTATE after an illegal exception return."""
        return spsr & self._implemented & _REINSTATED | PSTATE_IL | self.pstate & PSTATE_M

    def run_at(self, el: int, pc: int | None = None, bits: int = 0) -> bool:
        """Let the guest run at EL0t or EL1h, with all exceptions unmasked; ``bits`` are further PSTATE bits.

        A pending SError is taken at once unless ``bits`` has PSTATE.A; True if it was.
        """
        mode = el << 2 | 1 if el else EL0T
        if el < 0 or mode not in self.MODES or bits & PSTATE_M:
            raise InputError(f"EL{el}, PSTATE bits {bits:#x}: expected an EL that the vCPU has, and no mode bits")
        self.pstate = bits | mode
        if pc is not None:
            self.pc = pc
        return self.poll_serror()

    def state(self) -> VcpuState:
        """What the core is told of a vCPU that was stopped."""
        return new(_VcpuState, (self.pc, self.pstate, tuple(self.x[:18]), self.vsesr, self._vbar, self._sctlr, False))

    def take(self) -> dict[str, Any]:
        """All that the vCPU remembers, as JSON-able values that share nothing with it."""
        return {name.lstrip("_"): getattr(self, name) for name in self.STATE} | {"x": list(self.x)}

    def put(self, value: object) -> None:
        """Make a vCPU with these features remember what ``take`` gave.  Raises SnapshotError, and changes nothing."""
        names = _names(self.STATE)
        if not isinstance(value, dict) or value.keys() != names.keys():
            raise SnapshotError(f"vCPU: expected {', '.join(names)}")
        for name, number in value.items():
            if name == "x":
                fits = isinstance(number, list) and len(number) == len(self.x) and set(map(type, number)) == {int}
                fits = fits and min(number) >= 0 and max(number) <= arm64.U64
            elif name in {"vsesr", "latent"}:
                fits = number is None or _is_word(number, arm64.ESR_ISS)
            else:
                fits = _is_word(number)
            if not fits:
                raise SnapshotError(f"vCPU: {name}: {str(number)[:40]} is no value of it")
        if value["pstate"] & PSTATE_M not in self.MODES:
            raise SnapshotError(f"vCPU: pstate {value['pstate']:#x}: not a mode that the vCPU has")
        for name, number in value.items():
            setattr(self, names[name], list(number) if name == "x" else number)
        self._prepare()

    def set_registers(self, effect: SetRegisters) -> bool:
        """Carry out an SDEI dispatch or completion; True if a pending SError was taken when the vCPU went on."""
        _, _, _, x, pc, pstate, elr, spsr = effect
        count = len(x)
        if count > _REGISTERS:
            raise InputError(f"SetRegisters.x has {count} registers: there are {_REGISTERS}")
        if pstate & PSTATE_M not in self._modes:
            raise InputError(f"SetRegisters.pstate {pstate:#x}: not a mode that the vCPU has")
        self.x[:count] = x
        self.pc, self.pstate = pc, pstate
        if elr is not None:
            self.elr = elr
        if spsr is not None:
            self.spsr = spsr
        return self.vsesr is not None and self.poll_serror()


@lru_cache(64)
def _entries(base: int) -> Mapping[int, int]:
    """Where an exception that is taken in each mode goes; the vCPUs of a guest have the same vectors."""
    return {mode: base + block for mode, block in arm64.vector_blocks().items()}


@lru_cache(8)
def _names(state: tuple[str, ...]) -> Mapping[str, str]:
    """Attributes by what a snapshot calls them."""
    return {name.lstrip("_"): name for name in state}


def _is_word(number: object, limit: int = arm64.U64) -> bool:
    return type(number) is int and 0 <= number <= limit
