"""Carrying out effects, as every adapter of a real guest does it (``vmm_ras.effects``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vmm_ras.effects import Effect
from vmm_ras.errors import GuestError
from vmm_ras.events import Done, Event, Failed


def carry_out(
    effects: Sequence[Effect],
    one: Callable[[Effect], Event | None],
    errors: tuple[type[Exception], ...] = (GuestError,),
) -> list[Event]:
    """Carry out effects in order; the answers.  ``one`` carries out a single one, and gives its answer if it has one.

    Where it raises one of ``errors`` the effect has failed, and later effects for the same source are skipped: those
    that belong to no source go on.
    """
    out: list[Event] = []
    failed: set[int] = set()
    for e in effects:
        source = getattr(e, "source_id", None)
        if source in failed:
            continue
        try:
            answer = one(e)
        except errors as error:
            if source is not None:
                failed.add(source)
            answer = Failed(e.id, str(error))
        if answer is not None:
            out.append(answer)
    if effects:
        out.append(Done(effects[-1].id))
    return out
