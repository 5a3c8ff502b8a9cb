"""What became of the events of a trace: a row for each, and a summary of all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

LOST = frozenset({"swallowed", "malformed", "garbled", "unreadable", "objerr"})
"""Outcomes in which the guest was told and did nothing about the page."""
PANIC: Final = frozenset({"panic", "oops", "serror-panic"})
OUTCOMES = {
    "offlined": "guest offlined the page",
    "soft-offlined": "guest soft-offlined the page",
    "known": "guest knows it already",
    "ignored": "told nothing, or guest did nothing",
    "swallowed": "guest took it for a repetition and did nothing",
    "malformed": "guest could not read the block",
    "garbled": "guest read other bytes than were posted",
    "unreadable": "the block's memory is poisoned",
    "objerr": "no record found: process got BUS_OBJERR",
    "oops": "abort in the kernel: Oops",
    "panic": "guest panicked",
    "serror-panic": "guest panicked on the SError",
    "own-memory": "the VMM's own memory: not for the guest",
    "no-guest-memory": "no guest memory there",
    "waiting": "not told yet",
}
"""What became of an event, in words."""


def size_of(lsb: int) -> str:
    """2^lsb bytes in words."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if lsb >= shift:
            return f"{1 << lsb - shift} {unit}"
    return f"{1 << lsb} B"


@dataclass
class Row:
    """What became of one event of the trace."""

    seq: int
    line: int
    at: float
    code: str
    """``AR`` or ``AO``."""
    hva: int | None
    gpa: int | None
    """Guest physical address of the page, None where it is no guest memory."""
    lsb: int
    vcpu: int | None = None
    rule: str | None = None
    delivery: str | None = None
    source_id: int | None = None
    esr: int | None = None
    pages: int = 0
    """Entries in the block."""
    block: bytes | None = None
    crc32c: int | None = None
    """CRC-32C of the block."""
    outcome: str = "waiting"
    acked: bool = False
    posted_at: float | None = None
    """When the block was published; ``acked_at``: when its acknowledgement was seen."""
    acked_at: float | None = None
    closed: bool = False

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the row."""
        block = self.block
        return {
            "seq": self.seq, "line": self.line, "time": self.at, "code": self.code, "hva": self.hva, "gpa": self.gpa,
            "lsb": self.lsb, "vcpu": self.vcpu, "rule": self.rule, "delivery": self.delivery,
            "source_id": self.source_id, "esr": self.esr, "entries": self.pages,
            "block": None if block is None else block.hex(), "crc32c": self.crc32c, "outcome": self.outcome,
            "acked": self.acked, "posted_at": self.posted_at, "acked_at": self.acked_at,
        }  # fmt: skip


@dataclass
class Summary:
    """What became of a whole trace."""

    events: int = 0
    kinds: dict[tuple[str, str | None, str], int] = field(default_factory=dict)
    """Events by code, delivery and outcome."""
    blocks: int = 0
    pages: dict[str, int] = field(default_factory=dict)
    """Pages by what the guest was told: unreported, posted, acked."""
    offlined: int = 0
    """Pages that the guest took out of use."""
    signalled: int = 0
    """Processes of the guest that got a SIGBUS."""
    panicked: str = ""
    escalations: list[str] = field(default_factory=list)
    """The first of them, in words."""
    escalated: int = 0
    """How many there were."""
    reports: int = 0
    """Times that the orchestrator was told of an error."""
    undelivered: Counter[str] = field(default_factory=Counter)
    taken_back: int = 0
    bad_lines: int = 0
    unlocated: int = 0
    """Errors of which the trace does not say where: nothing can be made of them, and they are no ``events``."""
    windows: list[tuple[int, int, int]] = field(default_factory=list)
    """(hva, gpa, size) of memory that was mapped by order of appearance."""

    def count(self, row: Row) -> None:
        """Take a row in."""
        self.events += 1
        kind = row.code, row.delivery, row.outcome
        self.kinds[kind] = self.kinds.get(kind, 0) + 1

    def _by(self, index: int) -> Counter[str]:
        found: Counter[str] = Counter()
        for kind, count in self.kinds.items():
            found[kind[index] or "none"] += count
        return found

    @property
    def codes(self) -> Counter[str]:
        """Events by code, ``AR`` and ``AO``."""
        return self._by(0)

    @property
    def deliveries(self) -> Counter[str]:
        """Events by delivery; ``none`` where the guest was not told."""
        return self._by(1)

    @property
    def outcomes(self) -> Counter[str]:
        """Events by outcome."""
        return self._by(2)

    @property
    def failures(self) -> dict[str, int]:
        """For ``--fail-on``: how many events were lost, never seen by the guest, or ended in a panic."""
        outcomes = self.outcomes
        return {
            "lost": sum(outcomes[o] for o in LOST),
            "unseen": self.pages.get("unreported", 0) + self.pages.get("posted", 0),
            "panic": sum(outcomes[o] for o in PANIC) or int(bool(self.panicked)),
        }

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the summary."""
        return {
            "events": self.events, "codes": dict(self.codes), "deliveries": dict(self.deliveries),
            "outcomes": dict(self.outcomes), "blocks": self.blocks, "pages": self.pages, "offlined": self.offlined,
            "signalled": self.signalled, "panicked": self.panicked or None, "escalations": self.escalations,
            "escalated": self.escalated, "reports": self.reports, "undelivered": dict(self.undelivered),
            "taken_back": self.taken_back, "bad_lines": self.bad_lines, "unlocated": self.unlocated,
            "windows": [{"hva": h, "gpa": g, "size": s} for h, g, s in self.windows], "failures": self.failures,
        }  # fmt: skip
