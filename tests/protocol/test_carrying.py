"""Carrying out effects: an effect that fails takes those of its source with it, and no others (``vmm_ras.effects``)."""

from __future__ import annotations

from vmm_ras.effects import ArmAck, Effect, InjectSea, PollAck, WriteGuest
from vmm_ras.errors import GuestError
from vmm_ras.events import AckRead, Done, Event, Failed
from vmm_ras.guests.carrying import carry_out

RAM = 0x4000_0000


def test_what_fails_takes_its_source_with_it() -> None:
    done: list[int] = []

    def one(e: Effect) -> Event | None:
        if e.id == 1:
            raise GuestError("no such page")
        done.append(e.id)
        return AckRead(e.id, e.source_id, 1) if isinstance(e, PollAck) else None

    effects = [ArmAck(1, 3, RAM, 0), WriteGuest(2, 3, RAM, b"x"), WriteGuest(3, 4, RAM, b"y"), PollAck(4, 4, RAM, 1)]
    assert carry_out(effects, one) == [Failed(1, "no such page"), AckRead(4, 4, 1), Done(4)]
    assert done == [3, 4]


def test_what_belongs_to_no_source_takes_nothing_with_it() -> None:
    done: list[int] = []

    def one(e: Effect) -> Event | None:
        if e.id == 1:
            raise GuestError("its vCPU has stopped")
        done.append(e.id)
        return None

    asked = [InjectSea(n, None, n, 0x9600_0410, None) for n in (1, 2)]
    assert carry_out(asked, one) == [Failed(1, "its vCPU has stopped"), Done(2)]
    assert done == [2]


def test_nothing_to_do_is_not_answered() -> None:
    assert carry_out([], lambda e: None) == []
