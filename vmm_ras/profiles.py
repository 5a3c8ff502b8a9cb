"""Guest profiles: what a guest does with what it is told.  Data only; each statement cites its observation."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """Blocks remembered by content: an identical one is acknowledged, and nothing is done."""
    cache_seconds: float
    evidence: dict[str, str] = field(default_factory=dict, compare=False)
    """Statement to the observation behind it."""


PROFILES: dict[str, GuestProfile] = {
    p.name: p
    for p in (
        GuestProfile(
            name="linux",
            doc="Debian's arm64 kernels 6.1, 6.12 and 7.2.",
            notifications=frozenset({N.POLLED, N.SEA, N.SDEI, N.GSIV, N.GPIO_SIGNAL, N.SCI}),
            claims_sea_at_el1=False,
            walks_all_sea_sources=True,
            cache_slots=4,
            cache_seconds=10.0,
            evidence={
                "notifications": "seen on 6.1, 6.12 and 7.2: SEA, SDEI, polled, GSIV and GPIO are bound; for SEI the "
                "log says 'Unknown notification type: 9' and the probe fails with -22",
                "claims_sea_at_el1": "seen on 6.1, 6.12 and 7.2: an SEA at EL1 ends in an Oops, the record stays "
                "unread and the ack register 0",
                "walks_all_sea_sources": "Linux 7.2, ghes_notify_sea(): every SEA walks the list of all SEA sources",
                "cache": "Linux 7.2, ghes.c: GHES_ESTATUS_CACHES_SIZE 4, GHES_ESTATUS_IN_CACHE_MAX_NSEC 10 s; a hit is "
                "acknowledged and queues no memory_failure",
            },
        ),
        GuestProfile(
            name="generic",
            doc="A guest that binds every notification type, looks for a record on every SEA and forgets nothing.",
            notifications=frozenset({N.POLLED, N.SEA, N.SEI, N.SDEI, N.GSIV, N.GPIO_SIGNAL, N.SCI}),
            claims_sea_at_el1=True,
            walks_all_sea_sources=False,
            cache_slots=0,
            cache_seconds=0.0,
            evidence={
                "notifications": "ACPI 6.5, 18.3.2.9: what the specification allows; no observed guest stands behind it"
            },
        ),
    )
}
