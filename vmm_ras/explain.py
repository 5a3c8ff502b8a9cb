"""Why each event of a trace was decided as it was: which rules were tried, and what did not hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vmm_ras.deciding import Lost, View
from vmm_ras.replay import Replay
from vmm_ras.rows import Row


@dataclass(frozen=True)
class Decision:
    """One decision.  An event may need several: a consumed page in a large loss has neighbours that were found."""

    code: str
    rule: str
    tried: tuple[tuple[str, str], ...]
    """(rule, what did not hold), up to the one that decided, whose reason is empty; empty where the hook decided."""

    def plain(self) -> dict[str, Any]:
        """What JSON holds of it."""
        tried = [{"rule": name, "reason": reason or None} for name, reason in self.tried]
        return {"code": self.code, "rule": self.rule, "by": "rules" if tried else "hook", "tried": tried}


def explain(run: Replay, entries: Iterable[tuple[int, float | None, Any]]) -> Iterator[tuple[Row, list[Decision]]]:
    """Replay a trace; each row with the decisions that were made while its event was handled."""
    decisions: dict[int, list[Decision]] = {}
    decider = run.notifier.decider

    def note(lost: Lost, view: View, index: int) -> None:
        row = run.ledger.handling
        if row is None:
            return
        by_hook = decider.asked(lost, view)[0] is not None  # it is a pure function: asking again changes nothing
        tried = () if by_hook else tuple(decider.explain(lost, view))
        made = decisions.setdefault(row.seq, [])
        decision = Decision(lost.code.name, decider.rules[index].name, tried)
        if decision not in made:
            made.append(decision)

    run.notifier.decided = note
    for row in run.run(entries):
        yield row, decisions.pop(row.seq, [])
