"""The model guest, given what a real guest was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from acpi.image import Image, PlacedSource
from vmm_ras.effects import Effect, Posted
from vmm_ras.events import Event
from vmm_ras.guests.model import ModelGuest
from vmm_ras.lab.errors import Failure
from vmm_ras.notifier import Notifier
from vmm_ras.profiles import PROFILES

MAX_ROUNDS = 100
"""Of polls and acknowledgements after one event."""


class ModelRun(NamedTuple):
    """What came of it."""

    posted: list[Posted]
    consumed: list[bytes]
    """Every block as the model read it."""
    outcomes: list[str]
    """What the model did about each."""


def play(
    image: Image, vcpus: int, notifier: Callable[[tuple[PlacedSource, ...]], Notifier], events: Sequence[Event]
) -> ModelRun:
    """Boot the model from ``image``, and let a core that is made for its sources tell it the events."""
    model = ModelGuest(image, PROFILES["linux"], vcpus=vcpus)
    core = notifier(model.os.sources)
    for slot in core.memory.slots:
        model.memory.add_region(slot.gpa, slot.size)
    model.start_sdei(core, 0.0)
    seen, consumed, outcomes, now = list[Effect](), list[bytes](), list[str](), 0.0
    for event in events:
        model.drive(core, core.receive(event, now), now, seen.extend)
        for _ in range(MAX_ROUNDS):
            if not any(source.state.pages for source in core.sources.values()):
                break
            now = min(model.os.next_time(now), core.next_deadline() or now + 1.0)
            model.os.advance(now)
            model.drive(core, core.expire(now), now, seen.extend)
        else:
            raise Failure(f"the model guest does not acknowledge within {MAX_ROUNDS} rounds")
        actions = model.os.drain()
        consumed += [action.raw for action in actions if action.raw]
        outcomes += [action.outcome for action in actions]
        now += 1.0
    return ModelRun([e for e in seen if isinstance(e, Posted)], consumed, outcomes)
