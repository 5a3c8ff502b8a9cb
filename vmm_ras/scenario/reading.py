"""What a journal says of one page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vmm_ras.effects import Acked, Posted, TakenBack
from vmm_ras.events import GuestAbort, HostSignal, MemoryFault
from vmm_ras.guests.os import Action
from vmm_ras.scenario.journal import Moment, Place
from vmm_ras.scenario.told import Telling


def tellings(journal: Iterable[Moment], place: Place, gpa: int) -> list[Telling]:
    """Everything that the guest was told of the page at ``gpa``, in order."""
    where, out = place.page(gpa), list[Telling]()
    latest: dict[int, Telling] = {}
    happened: float | None = None
    for at, what in journal:
        if isinstance(what, HostSignal | GuestAbort | MemoryFault):
            if happened is None and gpa in lost(what, place):
                happened = at
        elif isinstance(what, Posted):
            if what.source_id in latest:
                out.append(latest.pop(what.source_id))
            if any(first <= gpa < first + size for first, size in what.pages):
                since = at if happened is None else happened
                latest[what.source_id] = Telling(where, gpa, what, "", since, at)
                happened = None
        elif isinstance(what, Action | Acked | TakenBack) and what.source_id in latest:
            telling = latest[what.source_id]
            latest[what.source_id] = _followed(telling, at, what)
            if isinstance(what, TakenBack):
                happened = telling.happened_at
    return sorted([*out, *latest.values()], key=lambda t: t.posted.id if t.posted else 0)


def lost(event: HostSignal | GuestAbort | MemoryFault, place: Place) -> range:
    """The guest physical addresses that an event is about, in whole pages of the guest."""
    page = 1 << place.page_shift
    if isinstance(event, HostSignal):
        low, size = place.gpa(event.hva & -(1 << event.lsb)), 1 << event.lsb
    elif isinstance(event, GuestAbort):
        low, size = (0, 0) if event.gpa is None else (event.gpa & -page, page)
    else:
        low, size = event.gpa, event.size
    return range(low & -page, low + size + page - 1 & -page)


def _followed(telling: Telling, at: float, what: Action | Acked | TakenBack) -> Telling:
    """The telling, after this happened to its source."""
    assert telling.posted is not None
    if isinstance(what, Acked):
        return replace(telling, acked_at=at)
    if isinstance(what, TakenBack):
        return replace(telling, taken_back=what.reason)
    garbled = what.raw and what.raw != telling.posted.block
    return replace(telling, outcome="garbled" if garbled else what.outcome)
