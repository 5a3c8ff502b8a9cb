"""What changed for KVM_GET_REG_LIST and KVM_SET_ONE_REG on arm64, kernel by kernel.  Data, with references."""

from __future__ import annotations

from typing import Final, NamedTuple


class Change(NamedTuple):
    """One change."""

    kernel: tuple[int, int]
    """First kernel with it."""
    topic: str
    """A word by which verdicts refer to it."""
    what: str
    reference: str
    """A commit of Linux, or where it was seen."""


_SEEN: Final = "seen on Debian's kernels (fixtures/hosts)"
HISTORY: Final[tuple[Change, ...]] = (
    Change((4, 15), "id-registers",
           "ID registers are in the register list; before, a guest sees the hardware's and a stream has none",
           "93390c0a1b20 arm64: KVM: Hide unsupported AArch64 CPU features from guests"),
    Change((5, 2), "zfr0-gone",
           "ID_AA64ZFR0_EL1 leaves the list of a guest without SVE, which a source before 5.2 sends",
           "73433762fcae KVM: arm64/sve: System register context switch and access support"),
    Change((5, 10), "zfr0-back",
           "ID_AA64ZFR0_EL1 is in the list again, as zero where the guest has no SVE",
           "f81cb2c3ad41 KVM: arm64: Don't hide ID registers from userspace"),
    Change((5, 11), "csv", "ID_AA64PFR0_EL1.CSV2 and CSV3 can be set, to less than the host's",
           "23711a5e662c KVM: arm64: Allow setting of ID_AA64PFR0_EL1.CSV2 from userspace; 4f1df628d4ec for CSV3"),
    Change((6, 2), "pmuver", "ID_AA64DFR0_EL1.PMUVer and ID_DFR0_EL1.PerfMon can be set, to less than the host's",
           "60e651ff1f48 KVM: arm64: PMU: Allow ID_AA64DFR0_EL1.PMUver to be set from userspace"),
    Change((6, 3), "caches", "CLIDR_EL1 and CCSIDR_EL1 are made up, the same on every host, and can be set",
           "7af0c2534f4c KVM: arm64: Normalize cache configuration"),
    Change((6, 7), "id-writable", "ID registers can be set field by field; KVM_ARM_GET_REG_WRITABLE_MASKS says which",
           "45b890f7689e KVM/arm64 updates for 6.7"),
    Change((6, 8), "debug-8.8", "ID_AA64DFR0_EL1.DebugVer is up to 8, where it was 6 on every host",
           f"{_SEEN}: 6 on 6.1, 8 on 6.12"),
    Change((6, 11), "ctr", "CTR_EL0 can be set: DIC, IDC and the line sizes",
           "2843cae26644 KVM: arm64: Treat CTR_EL0 as a VM feature ID register"),
    Change((6, 13), "psci-1.3", "PSCI_VERSION is 1.3, where it was 1.1; an older host refuses that",
           f"8be82d536a9f KVM: arm64: Add support for PSCI v1.2 and v1.3; {_SEEN}: 1.1 on 6.12, 1.3 on 7.2"),
    Change((6, 13), "hidden-features", "TCR2_EL1, PIR_EL1 and PIRE0_EL1 leave the list of a guest without the feature",
           f"0fcb4eea5345 KVM: arm64: Hide TCR2_EL1 from userspace when disabled for guests; {_SEEN}"),
    Change((6, 15), "implementation", "MIDR_EL1, REVIDR_EL1 and AIDR_EL1 can be set (KVM_CAP_ARM_WRITABLE_IMP_ID_REGS)",
           "0afd104fb352 KVM/arm64 updates for 6.15"),
    Change((6, 15), "vendor-2", "VENDOR_HYP_BMAP_2: the guest can be told of the CPUs that it may move to",
           "0afd104fb352 KVM/arm64 updates for 6.15"),
    Change((7, 2), "ras-writable", "ID_AA64PFR0_EL1.RAS can be set to less than the host's",
           f"{_SEEN}: not in the mask of 6.12, in that of 7.2"),
)  # fmt: skip
"""Oldest first."""


def change(topic: str) -> Change:
    """The change of this topic.  Raises KeyError."""
    for found in HISTORY:
        if found.topic == topic:
            return found
    raise KeyError(topic)
