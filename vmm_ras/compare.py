"""What if: one trace under several policies and guests, side by side.

Each run is a :class:`~vmm_ras.replay.Replay` that reads the trace itself; all go through it in step, so that what
became of an event is compared while it is at hand, and nothing is kept of it but counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import frexp
from typing import Any, NamedTuple

from vmm_ras.replay import Replay
from vmm_ras.rows import Row


class Times:
    """A distribution in bounded memory: least and greatest exact, a percentile at most 0.2 % below the exact one."""

    def __init__(self) -> None:
        self.count = 0
        self.least = self.greatest = 0.0
        self._slots: dict[tuple[int, int], list[float]] = {}
        """Exponent and the first 9 bits of the mantissa, to how many there are and the least of them."""

    def add(self, seconds: float) -> None:
        """Take a time in, zero or more."""
        self.greatest = max(self.greatest, seconds)
        self.least = min(self.least, seconds) if self.count else seconds
        self.count += 1
        mantissa, exponent = frexp(seconds)
        slot = self._slots.get((exponent, int(mantissa * 1024)))
        if slot is None:
            self._slots[exponent, int(mantissa * 1024)] = [1, seconds]
        else:
            slot[0] += 1
            slot[1] = min(slot[1], seconds)

    def at(self, fraction: float) -> float | None:
        """The least time that this part of all do not exceed (nearest rank); None where there are none."""
        rank = max(1, -int(-fraction * self.count // 1))
        for count, least in sorted(self._slots.values(), key=lambda s: s[1]):
            rank -= int(count)
            if rank <= 0:
                return least
        return None


class Figure(NamedTuple):
    """One thing that is compared."""

    key: str
    words: str
    better: int
    """-1: less is better; 1: more; 0: neither."""


FIGURES = (
    Figure("events", "events", 0),
    Figure("told", "events told and acknowledged", 1),
    Figure("untold", "events not told", -1),
    Figure("signalled", "processes signalled", -1),
    Figure("panicked", "guests panicked", -1),
    Figure("oopses", "aborts in the kernel (Oops)", -1),
    Figure("offlined", "pages offlined", 0),
    Figure("unseen", "pages lost but unseen", -1),
    Figure("swallowed", "swallowed as repetitions", -1),
    Figure("lost", "told in vain, those included", -1),
    Figure("escalations", "escalations", -1),
    Figure("reports", "reports to the orchestrator", 0),
    Figure("taken_back", "blocks taken back", -1),
    Figure("blocks", "blocks published", 0),
    Figure("report_min", "time to report: min", -1),
    Figure("report_p50", "time to report: p50", -1),
    Figure("report_p99", "time to report: p99", -1),
    Figure("report_max", "time to report: max", -1),
)
"""``untold``: the policy tells nothing, or they wait still, or stand in a block that nobody read.  ``unseen``: pages
that are owed to the guest, so not what a policy keeps from it.  ``lost``: ``vmm_ras.rows.LOST``.  ``report_*``: seconds
from event until its acknowledgement was seen, of events told and acknowledged; where runs differ in these, less is not
better.
"""
Value = int | float | None


@dataclass
class Run:
    """One policy under one guest, and how it went."""

    policy: str
    guest: str
    replay: Replay
    times: Times = field(default_factory=Times)

    def take(self, row: Row) -> None:
        """Take in what became of an event."""
        if row.acked_at is not None:
            self.times.add(row.acked_at - row.at)

    def figures(self) -> dict[str, Value]:
        """The value of each of ``FIGURES``, by key."""
        s, times = self.replay.summary, self.times
        outcomes, failures = s.outcomes, s.failures
        return {
            "events": s.events, "told": times.count,
            "untold": sum(n for (_, way, what), n in s.kinds.items() if _untold(way, what)),
            "signalled": s.signalled, "panicked": int(bool(s.panicked)),
            "oopses": outcomes["oops"], "offlined": s.offlined, "unseen": failures["unseen"],
            "swallowed": outcomes["swallowed"], "lost": failures["lost"], "escalations": s.escalated,
            "reports": s.reports, "taken_back": s.taken_back, "blocks": s.blocks,
            "report_min": times.least if times.count else None, "report_p50": times.at(0.5),
            "report_p99": times.at(0.99), "report_max": times.greatest if times.count else None,
        }  # fmt: skip


def _untold(way: str | None, outcome: str) -> bool:
    return outcome == "waiting" or (way is None and outcome in {"ignored", "on-touch"})


class Fate(NamedTuple):
    """What became of one event in one run."""

    delivery: str | None
    outcome: str
    acked: bool


class Different(NamedTuple):
    """An event that did not fare alike in all runs."""

    line: int
    at: float
    code: str
    gpa: int | None
    fates: tuple[Fate, ...]


class Comparison:
    """Policies under guests, a run for each pair, policies first.

    A run is compared with the first policy's under the same guest; where there is one policy, with the first guest's.
    ``keep``: how many of the events that differ are kept.
    """

    def __init__(self, runs: Sequence[Run], keep: int = 10) -> None:
        self.runs, self.keep = tuple(runs), keep
        one = len({run.policy for run in runs}) == 1
        first = {run.guest: index for index, run in reversed(list(enumerate(self.runs)))}
        self.base = tuple(0 if one else first[run.guest] for run in self.runs)
        """Index of the run that each is compared with."""
        self.differing = 0
        """Events that did not fare alike."""
        self.examples: list[Different] = []
        self._pairs = [(i, b) for i, b in enumerate(self.base) if i != b]
        for run in self.runs:
            polled = [s.poll_interval_ms for s in run.replay.image.sources if s.poll_interval_ms]
            run.replay.wait(min(polled, default=0) / 2000)  # the first event comes midway between two polls

    def play(self, traces: Sequence[Iterable[Any]]) -> Iterator[int]:
        """Go through the trace, which each run reads from an iterable of its own; yields the number of each event.

        Raises what iterating the traces raises.
        """
        rows = [run.replay.run(trace) for run, trace in zip(self.runs, traces, strict=True)]
        for number, found in enumerate(zip(*rows, strict=True)):
            for run, row in zip(self.runs, found, strict=True):
                run.take(row)
            fates = [Fate(r.delivery, r.outcome, r.acked) for r in found]
            if any(fates[i] != fates[b] for i, b in self._pairs):
                self.differing += 1
                if len(self.examples) < self.keep:
                    r = found[0]
                    self.examples.append(Different(r.line, r.at, r.code, r.gpa, tuple(fates)))
            yield number

    def table(self) -> Iterator[tuple[Figure, list[tuple[Value, Value]]]]:
        """Each figure, with each run's value and the value of the run that it is compared with."""
        values = [run.figures() for run in self.runs]
        for figure in FIGURES:
            yield figure, [(v[figure.key], values[b][figure.key]) for v, b in zip(values, self.base, strict=True)]

    def differs(self) -> bool:
        """Whether any run differs from the one that it is compared with."""
        return bool(self.differing) or any(value != base for _, cells in self.table() for value, base in cells)

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the comparison."""
        return {
            "runs": [
                {
                    "policy": run.policy,
                    "guest": run.guest,
                    "compared_with": base,
                    "figures": run.figures(),
                    "summary": run.replay.summary.plain(),
                }
                for run, base in zip(self.runs, self.base, strict=True)
            ],
            "differs": self.differs(),
            "differing_events": self.differing,
            "events": [e._asdict() | {"fates": [f._asdict() for f in e.fates]} for e in self.examples],
        }
