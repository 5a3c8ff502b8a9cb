"""Guest profiles: what a guest does with what it is told.  Data only; each statement cites its observation.

The kernels are Debian's arm64 ones: 6.1.176, 6.12.43, 6.12.95, 7.2.12.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from acpi.hest import NotificationType as N

WAYS: dict[N, str] = {
    N.SEA: "sea",
    N.SEI: "sei",
    N.SDEI: "sdei",
    N.GSIV: "gsiv",
    N.GPIO_SIGNAL: "gpio",
    N.POLLED: "polled",
}
"""Notification type of a source to the delivery that it stands for."""

SECTION_TYPES: Final[dict[str, UUID]] = {
    "platform_memory": UUID("a5bc1114-6f64-4ede-b863-3e83ed7c83b1"),
    "processor_generic": UUID("9876ccad-47b4-4bdb-b65e-16f193c4f3db"),
    "arm_processor": UUID("e19e3d16-bc11-11e4-9caa-c2051d5d46b0"),
    "pcie": UUID("d995e954-bbc1-430f-ad91-b44dcb3c6f35"),
    "firmware_error_record": UUID("81212a96-09ed-4996-9471-8d729c8e69ed"),
    "cxl_protocol": UUID("80b9efb4-52b5-4de3-a777-68784b771048"),
    "cxl_general_media": UUID("fbcd0a77-c260-417f-85a9-088b1621eba6"),
    "cxl_dram": UUID("601dcbb3-9c06-4eab-b8af-4e9bfb5c9624"),
    "cxl_memory_module": UUID("fe927475-dd59-4339-a586-79bab113b774"),
}
"""Section types that some profile knows, by name (UEFI 2.10, N.2.3)."""
_BEFORE_CXL: Final = frozenset(u for name, u in SECTION_TYPES.items() if not name.startswith("cxl"))
_ALL_SECTIONS: Final = frozenset(SECTION_TYPES.values())


@dataclass(frozen=True)
class GuestProfile:
    """How one kind of guest takes errors."""

    name: str
    doc: str
    notifications: frozenset[N]
    """Notification types whose sources the guest binds."""
    claims_sea_at_el1: bool
    """Whether an SEA taken from EL1 makes the guest look for a record."""
    walks_all_sea_sources: bool
    """Whether each SEA reads every SEA source, or only the vCPU's own."""
    cache_slots: int
    """Blocks remembered by content, of those that were printed: an identical one is not printed again."""
    cache_seconds: float
    cache_swallows: frozenset[N]
    """Notification types by which an identical block is acknowledged, and nothing is done; by others it is handled."""
    printed_blocks: int
    """Blocks printed in ``printed_seconds``, of corrected and informational ones, and of all others."""
    printed_seconds: float
    serror_survived: frozenset[str]
    """Types (AET) of an SError without a record that the guest goes on after."""
    sea_unrecovered: bool
    """Whether a process gets a SIGBUS (SI_KERNEL) where an SEA's record leads to no memory failure."""
    memory_failure_outside_ram: bool
    """Whether an address that is not RAM is reported as a memory failure (and ignored), or refused before."""
    arm_error_types: str
    """How the guest reads Type of an ARM processor error: ``mask`` (UEFI 2.9A) or ``ordinal`` (before)."""
    sections: frozenset[UUID]
    """Section types that the guest knows; it shows others as bytes."""
    ras: bool = True
    """Whether its PEs have FEAT_RAS."""
    evidence: dict[str, str] = field(default_factory=dict, compare=False)
    """Member to the observation behind it."""


_FOUR = "seen on 6.1.176, 6.12.43, 6.12.95 and 7.2.12"
_THREE = "seen on 6.1, 6.12 and 7.2"

_LINUX_72 = GuestProfile(
    name="linux-7.2",
    doc="Linux 7.2.12.",
    notifications=frozenset({N.POLLED, N.SEA, N.SDEI, N.GSIV, N.GPIO_SIGNAL, N.SCI}),
    claims_sea_at_el1=False,
    walks_all_sea_sources=True,
    cache_slots=4,
    cache_seconds=10.0,
    cache_swallows=frozenset({N.SEA, N.SDEI}),
    printed_blocks=2,
    printed_seconds=5.0,
    serror_survived=frozenset({"ueo", "ce"}),
    sea_unrecovered=True,
    memory_failure_outside_ram=True,
    arm_error_types="mask",
    sections=_ALL_SECTIONS,
    evidence={
        "notifications": f"{_THREE}: SEA, SDEI, polled, GSIV and GPIO are bound; for SEI the log says 'Unknown "
        "notification type: 9' and the probe fails with -22; SCI was not seen: ghes.c has it beside these two",
        "claims_sea_at_el1": f"{_THREE}: an SEA at EL1 ends in an Oops, the record stays unread and the ack register 0",
        "walks_all_sea_sources": "Linux 7.2, ghes_notify_sea(): every SEA walks the list of all SEA sources",
        "cache_slots": "Linux 7.2, ghes.c: GHES_ESTATUS_CACHES_SIZE 4",
        "cache_seconds": "Linux 7.2, ghes.c: GHES_ESTATUS_IN_CACHE_MAX_NSEC 10 s; seen on 7.2 in real time",
        "cache_swallows": "Linux 7.2: ghes_in_nmi_queue_one_entry() drops an identical block, ghes_proc() handles it; "
        "seen on 7.2 (polled): it is acknowledged and traced, and not printed",
        "printed_blocks": f"{_THREE}: of three SEAs in a row all are handled, the third is not printed; Linux 7.2, "
        "ghes_print_estatus(): 2 in 5 s, two classes",
        "printed_seconds": "Linux 7.2, ghes_print_estatus(): 5 s; seen when the blocks of fixtures/linux were told",
        "serror_survived": f"{_THREE}: ISS 0x811 and 0x1811 are survived; 0x11, 0x411, 0xc11, 0 and 0x1000000 panic",
        "sea_unrecovered": "seen on 6.1.176, 6.12.95 and 7.2.12: 'synchronous unrecoverable error (SIGBUS)', and the "
        "process gets a SIGBUS with code 128 (SI_KERNEL); not looked at on 6.12.43",
        "memory_failure_outside_ram": "seen on 7.2.12 (fixtures/linux, mem-recoverable-outside): 'Memory failure: "
        "0x7fff12345: recovery action for non struct page pfn: Ignored'; nothing is said of a threshold",
        "arm_error_types": "seen on 6.1.176, 6.12.95 and 7.2.12 (arm-recov-cache-ram): type 0x02 is a cache error, and "
        "its page is offlined",
        "sections": "seen on 6.12.43, 6.12.95 and 7.2.12 (cxl-dram, cxlprot-agent0): CXL sections are named",
        "ras": f"{_FOUR}: booted on QEMU's neoverse-n1, whose ID_AA64PFR0_EL1.RAS is 1",
    },
)
_LINUX_612 = replace(
    _LINUX_72,
    name="linux-6.12",
    doc="Linux 6.12.95.",
    memory_failure_outside_ram=False,
    evidence=_LINUX_72.evidence
    | {
        "memory_failure_outside_ram": "seen on 6.1.176, 6.12.43 and 6.12.95 (fixtures/linux, mem-recoverable-outside): "
        "'GHES: Invalid address in generic error data', no memory failure",
    },
)
_LINUX_61243 = replace(
    _LINUX_612,
    name="linux-6.12.43",
    doc="Linux 6.12.43, the last observed kernel that reads ARM error types as ordinals.",
    arm_error_types="ordinal",
    evidence=_LINUX_612.evidence
    | {
        "arm_error_types": "seen on 6.12.43 (arm-recov-cache-ord-ram, arm-recov-cache-ram): type 0 is a cache error, "
        "and its page is offlined; 0x02 is 'bus error', and nothing is done",
    },
)
_LINUX_61 = replace(
    _LINUX_612,
    name="linux-6.1",
    doc="Linux 6.1.176.",
    sections=_BEFORE_CXL,
    evidence=_LINUX_612.evidence
    | {"sections": "seen on 6.1.176 (cxl-dram, cxlprot-agent0): 'section type: unknown', and bytes"},
)

_PLAINEST = (
    "claims_sea_at_el1", "walks_all_sea_sources", "cache_slots", "cache_seconds", "cache_swallows", "printed_blocks",
    "printed_seconds", "sea_unrecovered", "memory_failure_outside_ram",
)  # fmt: skip
_GENERIC = GuestProfile(
    name="generic",
    doc="A guest that binds every notification type, looks for a record on every SEA and forgets nothing.",
    notifications=frozenset({N.POLLED, N.SEA, N.SEI, N.SDEI, N.GSIV, N.GPIO_SIGNAL, N.SCI}),
    claims_sea_at_el1=True,
    walks_all_sea_sources=False,
    cache_slots=0,
    cache_seconds=0.0,
    cache_swallows=frozenset(),
    printed_blocks=0,
    printed_seconds=0.0,
    serror_survived=frozenset({"ueo", "ce"}),
    sea_unrecovered=False,
    memory_failure_outside_ram=False,
    arm_error_types="mask",
    sections=_ALL_SECTIONS,
    evidence=dict.fromkeys(_PLAINEST, "no observed guest: the plainest that one can think of")
    | {
        "notifications": "ACPI 6.5, 18.3.2.9: what the specification allows; no observed guest stands behind it",
        "serror_survived": "RAS supplement: a restartable or corrected error leaves the PE able to go on",
        "arm_error_types": "UEFI 2.9A, N.2.4.4: a bit mask",
        "sections": "UEFI 2.10, N.2.3: those that some observed guest knows",
        "ras": "as on a Neoverse N1",
    },
)

PROFILES: dict[str, GuestProfile] = {"linux": _LINUX_72} | {
    p.name: p
    for p in (
        _LINUX_61,
        _LINUX_612,
        _LINUX_61243,
        _LINUX_72,
        _GENERIC,
        replace(
            _LINUX_72,
            name="generic-sei",
            doc="As Linux 7.2, but that it binds SEI sources too: an SError makes it look for a record.",
            notifications=_LINUX_72.notifications | {N.SEI},
            evidence=_LINUX_72.evidence
            | {
                "notifications": "ACPI 6.5, 18.3.2.9 allows SEI; no observed guest binds it, all else is as on Linux",
            },
        ),
        replace(
            _LINUX_612,
            name="no-ras",
            doc="Linux 6.12 on PEs without FEAT_RAS: records are taken as ever, an SError says nothing.",
            serror_survived=frozenset(),
            ras=False,
            evidence=_LINUX_612.evidence
            | {
                "notifications": "seen on 6.1.176 and 6.12.95 on QEMU's cortex-a72, which has no FEAT_RAS: the lab's "
                "smoke test holds, so SEA, polled, GSIV and GPIO work as on a Neoverse N1",
                "serror_survived": f"{_THREE}: an SError with ISS 0 panics; Linux 7.2, traps.c, arm64_is_ras_serror(): "
                "without the RAS capability every SError is taken for one without syndrome",
                "ras": "QEMU's cortex-a72: ID_AA64PFR0_EL1.RAS is 0",
            },
        ),
        replace(
            _LINUX_612,
            name="no-apei",
            doc="Linux 6.12 that uses no HEST: nothing is bound, and nobody looks for a record.",
            notifications=frozenset(),
            evidence=_LINUX_612.evidence
            | {
                "notifications": f"{_THREE}: an SEA for which no record is found gives BUS_OBJERR from EL0, an Oops "
                "from EL1",
            },
        ),
    )
}
"""By name.  ``linux`` is the newest observed kernel: one real guest, not a mean of several."""
