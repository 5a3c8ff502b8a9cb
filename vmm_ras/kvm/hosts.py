"""Host profiles: in what KVM of several kernels differs for who injects errors.  Data only, with observations.

The observations are of real KVM, nested in emulation (``fixtures/kvm/ORIGIN.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class HostProfile:
    """What one host kernel's KVM does."""

    name: str
    sea_at_set: bool
    """``ext_dabt_pending`` is carried out by SET; else PC, PSTATE, ELR and SPSR change at the next KVM_RUN, and only
    ESR_EL1 and FAR_EL1 at SET."""
    esr_sign_extended: bool
    """Bits 63:32 of the ESR_EL1 of such an abort are copies of bit 31."""
    serror_at_set: bool
    """An SError that PSTATE.A does not mask is taken by SET; else it is pending until KVM_RUN."""
    sea_despite_refusal: bool
    """A SET that is refused for its ``serror_esr`` has carried out its ``ext_dabt_pending``."""
    zero_clears_serror: bool
    """SET with ``serror_pending`` 0 takes the pending SError back."""
    second_serror_replaces: bool
    """SET replaces the syndrome of an SError that is pending, however bad that one is."""
    init_clears_serror: bool
    """KVM_ARM_VCPU_INIT, which resets a vCPU, drops its pending SError."""
    smccc_filter: bool
    """Ranges of SMCCC calls, such as SDEI's, can be forwarded to user space."""
    sea_exit: bool
    """KVM_CAP_ARM_SEA_TO_USER: KVM_EXIT_ARM_SEA exists."""
    implementation_ids_writable: bool
    """KVM_CAP_ARM_WRITABLE_IMP_ID_REGS: MIDR, REVIDR and AIDR can be set before the first run."""
    el2: bool
    """KVM_CAP_ARM_EL2: vCPUs can have EL2."""
    hugetlb_address_exact: bool
    """An AO of a hugetlb page has the address of the 4 KiB that were lost; else of the huge page."""
    evidence: dict[str, str] = field(default_factory=dict, compare=False)
    """Member to the observation behind it."""


_SEEN_612_72 = "seen on 6.12 and 7.2"
_SOURCE = "Linux, arch/arm64/kvm/guest.c, __kvm_arm_vcpu_set_events()"
_EVIDENCE = {
    "sea_at_set": "seen: 6.1 and 6.12 keep PC until KVM_RUN, 7.2 commits at SET",
    "esr_sign_extended": "seen: the guest of 6.1 reads ESR_EL1 0xffffffff96000010; of 6.12 and 7.2 0x96000010",
    "serror_at_set": "seen: with PSTATE.A clear, 7.2 delivers at SET; until 6.12 hardware does, by HCR_EL2.VSE",
    "sea_despite_refusal": f"{_SOURCE}: the abort comes before the check of the syndrome in 7.2, after it before",
    "zero_clears_serror": f"{_SEEN_612_72}: a pending SError survives SET(serror_pending=0)",
    "second_serror_replaces": f"{_SEEN_612_72}: GET shows the second syndrome",
    "init_clears_serror": f"{_SEEN_612_72}: a stale SError survives KVM_ARM_VCPU_INIT",
    "smccc_filter": "seen: KVM_SET_DEVICE_ATTR of the filter gives EINVAL on 6.1, works on 6.12 and 7.2",
    "sea_exit": "Linux 7.2 headers have capability 245 and exit 41; emulation cannot provoke the exit",
    "implementation_ids_writable": "seen: capability 239 works on 7.2 only",
    "el2": "Linux: the headers of 7.2 have capability 240, those of 6.12 do not",
    "hugetlb_address_exact": "seen: si_addr is the base of the huge page on 6.1, the 4 KiB page on 6.12 and 7.2",
}
_SEEN_61 = {
    "zero_clears_serror": "seen by the lab: a pending SError survives SET(serror_pending=0)",
    "second_serror_replaces": "seen by the lab: GET shows the second syndrome",
    "init_clears_serror": "seen by the lab: KVM_ARM_VCPU_INIT of a vCPU that ran leaves none pending",
}

HOSTS: dict[str, HostProfile] = {
    p.name: p
    for p in (
        HostProfile(
            name="linux-6.1",
            sea_at_set=False,
            esr_sign_extended=True,
            serror_at_set=False,
            sea_despite_refusal=False,
            zero_clears_serror=False,
            second_serror_replaces=True,
            init_clears_serror=True,
            smccc_filter=False,
            sea_exit=False,
            implementation_ids_writable=False,
            el2=False,
            hugetlb_address_exact=False,
            evidence=_EVIDENCE | _SEEN_61,
        ),
        HostProfile(
            name="linux-6.12",
            sea_at_set=False,
            esr_sign_extended=False,
            serror_at_set=False,
            sea_despite_refusal=False,
            zero_clears_serror=False,
            second_serror_replaces=True,
            init_clears_serror=False,
            smccc_filter=True,
            sea_exit=False,
            implementation_ids_writable=False,
            el2=False,
            hugetlb_address_exact=True,
            evidence=_EVIDENCE,
        ),
        HostProfile(
            name="linux-7.2",
            sea_at_set=True,
            esr_sign_extended=False,
            serror_at_set=True,
            sea_despite_refusal=True,
            zero_clears_serror=False,
            second_serror_replaces=True,
            init_clears_serror=False,
            smccc_filter=True,
            sea_exit=True,
            implementation_ids_writable=True,
            el2=True,
            hugetlb_address_exact=True,
            evidence=_EVIDENCE,
        ),
    )
}
"""By name; the kernels are Debian's."""
