"""What became of all events of a trace."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from vmm_ras.rows import LOST, PANIC


@dataclass
class Summary:
    """What became of a whole trace."""

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

    @property
    def events(self) -> int:
        """How many there were."""
        return sum(self.kinds.values())

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
