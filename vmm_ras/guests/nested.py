"""A model vCPU with EL2 for a guest hypervisor: which EL takes an external abort or an SError (Arm ARM D1.3).

The rules are those by which KVM of Linux 7.2 routes what user space injects (``kvm_inject_sea``,
``kvm_inject_serror_esr``).  Virtual SErrors that the guest hypervisor makes for its own guest (HCR_EL2.VSE) are not
modelled.
"""

from __future__ import annotations

from typing import ClassVar

from vmm_ras import arm64
from vmm_ras.arm64 import EL2H, EL2T, PSTATE_A, PSTATE_M, VECTOR_SERROR
from vmm_ras.events import VcpuState
from vmm_ras.guests.vcpu import Vcpu

_WITHOUT_EL1 = arm64.EL_MODES - {arm64.EL1T, arm64.EL1H} | {EL2T, EL2H}


class NestedVcpu(Vcpu):
    """A vCPU with EL0, EL1 and EL2."""

    MODES: ClassVar[frozenset[int]] = arm64.EL_MODES | {EL2T, EL2H}
    STATE: ClassVar[tuple[str, ...]] = (
        *Vcpu.STATE, "_hcr", "_hcrx", "_vbar_el2", "_sctlr_el2", "_sctlr2_el2", "elr_el2", "esr_el2", "far_el2",
        "spsr_el2",
    )  # fmt: skip

    __slots__ = (
        "_asynchronous_el2",
        "_hcr",
        "_hcrx",
        "_keep_el2",
        "_sctlr2_el2",
        "_sctlr_el2",
        "_serror_mask_el2",
        "_set_el2",
        "_synchronous_el2",
        "_vbar_el2",
        "elr_el2",
        "esr_el2",
        "far_el2",
        "spsr_el2",
    )

    def __init__(
        self, features: arm64.Features = arm64.NEOVERSE_N1, *, vbar: int = 0, sctlr: int = 0, sctlr2: int = 0
    ) -> None:
        self._hcr = self._hcrx = self._vbar_el2 = self._sctlr_el2 = self._sctlr2_el2 = 0
        self.elr_el2 = self.esr_el2 = self.far_el2 = self.spsr_el2 = 0
        super().__init__(features, vbar=vbar, sctlr=sctlr, sctlr2=sctlr2)

    def set_el2(
        self,
        *,
        hcr: int | None = None,
        hcrx: int | None = None,
        vbar: int | None = None,
        sctlr: int | None = None,
        sctlr2: int | None = None,
        running: bool = True,
    ) -> bool:
        """Write HCR_EL2, HCRX_EL2, VBAR_EL2, SCTLR_EL2, SCTLR2_EL2; True if a pending SError was taken then.

        One is, where the vCPU is ``running`` and not stopped.
        """
        self._hcr = self._hcr if hcr is None else hcr
        self._hcrx = self._hcrx if hcrx is None else hcrx
        self._vbar_el2 = self._vbar_el2 if vbar is None else vbar
        self._sctlr_el2 = self._sctlr_el2 if sctlr is None else sctlr
        self._sctlr2_el2 = self._sctlr2_el2 if sctlr2 is None else sctlr2
        self._prepare()
        return running and self.poll_serror()

    @property
    def _host(self) -> bool:
        """EL2 runs an operating system, and EL0 is its EL0."""
        return self._hcr & (arm64.HCR_E2H | arm64.HCR_TGE) == arm64.HCR_E2H | arm64.HCR_TGE

    @property
    def _tmea(self) -> bool:
        return self.features.double_fault2 and bool(self._hcrx & arm64.HCRX_TMEA)

    @property
    def _implicit_esb(self) -> bool:
        return self._has_iesb(self._sctlr_el2 if self.el == 2 else self._sctlr)

    def _effective_sctlr2(self) -> int:
        return super()._effective_sctlr2() if self._hcrx & arm64.HCRX_SCTLR2EN else 0

    def _prepare(self) -> None:
        super()._prepare()
        sctlr2 = self._sctlr2_el2 if self.features.double_fault2 else 0
        blocks = arm64.vector_blocks(2, self._host)
        self._keep_el2, self._set_el2 = arm64.entry_bits(self.features, self._sctlr_el2, mode=EL2H, span=self._host)
        self._asynchronous_el2 = {mode: self._vbar_el2 + block + VECTOR_SERROR for mode, block in blocks.items()}
        self._synchronous_el2 = self._asynchronous_el2
        if not sctlr2 & arm64.SCTLR2_EASE:
            self._synchronous_el2 = {mode: self._vbar_el2 + block for mode, block in blocks.items()}
        self._serror_mask_el2 = 0 if sctlr2 & arm64.SCTLR2_NMEA else PSTATE_A
        self._synchronizes = True  # which registers say so depends on the EL: looked at when it happens

    def sea_target(self) -> int:
        """The EL that takes a synchronous external abort now."""
        el = self.el
        if el == 2 or self._hcr & (arm64.HCR_TGE | arm64.HCR_TEA):
            return 2
        return 2 if el == 1 and self.pstate & PSTATE_A and self._tmea else 1

    def serror_target(self) -> int | None:
        """The EL that takes an SError now, or None while it is masked.

        At EL2 it waits for HCR_EL2.AMO or TGE.  From below, PSTATE.A does not mask what goes to EL2.  HCRX_EL2.TMEA
        looks at PSTATE.A only: SCTLR2_EL1.NMEA does not count for it at EL1.
        """
        el, masked = self.el, bool(self.pstate & PSTATE_A)
        to_el2 = bool(self._hcr & (arm64.HCR_AMO | arm64.HCR_TGE))
        if el == 2 or (el == 0 and self._host):
            return 2 if to_el2 and not self.pstate & self._serror_mask_el2 else None
        if to_el2 or (self._tmea and masked and (el == 1 or self._serror_mask)):
            return 2
        return None if self.pstate & self._serror_mask else 1

    def take_sea(self, esr: int, far: int | None) -> None:
        """Take a synchronous external abort, now, to the EL that HCR_EL2 and HCRX_EL2 say.

        EC of ``esr`` becomes that of the EL, for who made it may not know where it goes.
        """
        target = self.sea_target()
        same = 1 << arm64.ESR_EC_SHIFT
        esr = esr | same if self.el == target else esr & ~same
        if target == 1:
            super().take_sea(esr, far)
            return
        if far is not None:
            self.far_el2 = far
        self._enter_el2(esr, self._synchronous_el2)

    def _enter_el2(self, esr: int, vectors: dict[int, int]) -> None:
        old = self.pstate
        self.spsr_el2, self.elr_el2, self.esr_el2 = old, self.pc, esr
        self.pc = vectors[old & PSTATE_M]
        self.pstate = old & self._keep_el2 | self._set_el2
        self._synchronize()

    def _unmasked(self) -> bool:
        return self.serror_target() is not None

    def poll_serror(self) -> bool:
        """Take the pending SError if it is not masked where it goes; True if it was taken."""
        vsesr = self.vsesr
        target = None if vsesr is None else self.serror_target()
        if vsesr is None or target is None:
            return False
        if target == 1:
            return super().poll_serror()
        self.vsesr = None
        self._enter_el2(arm64.serror_esr(vsesr), self._asynchronous_el2)
        return True

    def eret(self) -> bool:
        """Return from an exception, at EL2 by ELR_EL2 and SPSR_EL2; with HCR_EL2.TGE there is no return to EL1."""
        if self.el != 2:
            return super().eret()
        if self._synchronize():
            return True
        self.pc = self.elr_el2
        spsr = self._returned(self.spsr_el2)
        modes = _WITHOUT_EL1 if self._hcr & arm64.HCR_TGE else self._modes
        self.pstate = spsr if spsr & PSTATE_M in modes else self._illegal(spsr)
        return self.poll_serror()

    def state(self) -> VcpuState:
        """What the core is told of a vCPU that was stopped; VBAR and SCTLR are those of the EL that runs it."""
        state = super().state()
        if self.el == 2 or self._host:
            return state._replace(vbar=self._vbar_el2, sctlr=self._sctlr_el2)
        return state
