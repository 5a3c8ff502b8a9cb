"""What is told because somebody asked for it: records as they are, aborts, SErrors, SDEI events."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from acpi.ghes import Entry, StatusBlock
from cper.memory import PlatformMemory
from tests.machine import Machine, of
from vmm_ras.arm64 import ISS_FNV
from vmm_ras.effects import (
    Acked,
    Dropped,
    Escalate,
    InjectSea,
    InjectSerror,
    Posted,
    Queued,
    Release,
    SetRegisters,
    Stop,
    TakenBack,
    WriteGuest,
)
from vmm_ras.errors import InputError
from vmm_ras.events import Failed, GuestCall, TellRecord, TellSdei, TellSea, TellSerror
from vmm_ras.inbox import MAX_ORDERS, MAX_RECORDS
from vmm_ras.sdei_state import EventDescription
from vmm_ras.state import put, take

SEA_EL0 = 0x92000410
SEA, SDEI, POLLED, SEI, GSIV, GPIO = range(6)


def block(number: int = 0) -> bytes:
    """A record about no memory, like no other."""
    return StatusBlock.of([Entry.of(PlatformMemory(node=number & 0xFFFF), fru_text=f"record {number}")]).encode()


def asked(m: Machine, event: Any) -> list[Any]:
    return m.receive(event)


# -- records


def test_a_record_goes_by_the_first_open_way_of_found_memory_and_arrives_unchanged() -> None:
    m = Machine()

    effects = asked(m, TellRecord(block(1)))

    (posted,) = of(effects, Posted)
    assert (posted.source_id, posted.delivery, posted.pages, posted.block) == (SDEI, "sdei", (), block(1))
    assert [a.raw for a in m.os.drain()] == [block(1)]
    assert of(effects, Acked)
    assert m.core.inbox.told == 1
    assert sum(m.core.poison.counts) == 0, "a record is no lost page"


@pytest.mark.parametrize("source", [SDEI, POLLED, SEI, GSIV, GPIO])
def test_a_record_goes_through_the_source_that_was_named(source: int) -> None:
    m = Machine(guest="generic")

    effects = asked(m, TellRecord(block(), source, 2))
    effects += m.wait(2.0)

    (posted,) = of(effects, Posted)
    assert posted.source_id == source
    assert m.did() == [(source, "ignored")]
    assert of(effects, Acked)
    assert [e.vcpu for e in of(effects, InjectSerror)] == ([2] if source == SEI else [])


def test_a_record_by_sea_is_found_by_the_vcpu_that_was_named() -> None:
    m = Machine()

    effects = asked(m, TellRecord(block(), SEA, 3))

    (sea,) = of(effects, InjectSea)
    assert (sea.source_id, sea.vcpu, sea.esr, sea.far) == (SEA, 3, SEA_EL0, None)
    assert m.did() == [(SEA, "ignored")]
    assert of(effects, Acked)


def test_records_wait_in_order_while_the_source_is_busy() -> None:
    m = Machine()
    m.os.ack_delay[None] = 0.5

    first = asked(m, TellRecord(block(1), GSIV))
    second, third = asked(m, TellRecord(block(2), GSIV)), asked(m, TellRecord(block(3), GSIV))

    assert of(first, Queued) == []
    assert [e.waiting for e in of(second, Queued) + of(third, Queued)] == [1, 2]
    assert of(second, WriteGuest) == [], "a posted block is never touched"
    m.wait(3.0)
    assert [a.raw for a in m.os.drain()] == [block(1), block(2), block(3)]
    assert not m.core.inbox.records


def test_a_record_for_another_source_does_not_wait_behind() -> None:
    m = Machine()
    m.os.ack_delay[GSIV] = float("inf")
    asked(m, TellRecord(block(1), GSIV))
    asked(m, TellRecord(block(2), GSIV))

    assert of(asked(m, TellRecord(block(3), GPIO)), Posted)
    assert list(m.core.inbox.records) == [TellRecord(block(2), GSIV)]


def test_memory_is_told_before_records() -> None:
    m = Machine(policy='version = 1\n[[rule]]\nname = "all"\ndeliver = ["gsiv"]\n')
    m.os.ack_delay[None] = 0.5
    asked(m, TellRecord(block(1)))
    asked(m, TellRecord(block(2)))
    m.ao(7)

    effects = m.wait(3.0)

    assert [bool(e.pages) for e in of(effects, Posted)] == [True, False]


def test_what_the_queue_does_not_hold_is_counted_and_said() -> None:
    m = Machine()
    m.os.ack_delay[None] = float("inf")
    for number in range(MAX_RECORDS + 1):
        assert of(asked(m, TellRecord(block(number), GSIV)), Dropped) == []

    effects = asked(m, TellRecord(block(), GSIV))

    (dropped,) = of(effects, Dropped)
    assert (dropped.what, dropped.reason) == ("record", f"{MAX_RECORDS} wait already")
    assert (len(m.core.inbox.records), m.core.inbox.dropped) == (MAX_RECORDS, 1)


def test_a_record_whose_notification_fails_is_told_again_later() -> None:
    m = Machine()
    effects = m.core.receive(TellRecord(block(4), GSIV), m.now)
    line = effects[3]
    assert type(line).__name__ == "RaiseLine"
    m.guest.perform(effects[:3], m.now)

    back = m.drive(m.core.receive(Failed(line.id, "the line is stuck"), m.now))

    assert of(back, TakenBack)
    assert list(m.core.inbox.records) == [TellRecord(block(4), GSIV)]
    assert of(m.wait(2.0), Posted), "the refusal is over after the rule's unacked.after_ms"
    assert m.did() == [(GSIV, "ignored")]


def test_a_record_whose_only_source_broke_is_dropped_and_counted() -> None:
    m = Machine()
    effects = m.core.receive(TellRecord(block(), GSIV), m.now)
    write = of(effects, WriteGuest)[0]

    after = m.core.receive(Failed(write.id, "the block is poisoned"), m.now)

    assert [e.what for e in of(after, Dropped)] == ["record"]
    assert m.core.inbox.dropped == 1
    assert not m.core.inbox.records


def test_a_record_of_no_named_source_takes_another_when_one_breaks() -> None:
    m = Machine()
    effects = m.core.receive(TellRecord(block()), m.now)

    after = m.core.receive(Failed(of(effects, WriteGuest)[0].id, "the block is poisoned"), m.now)

    assert [e.source_id for e in of(after, Posted)] == [GSIV]


def test_a_record_waits_for_the_guest_to_register_its_event() -> None:
    m = Machine(sdei=False)
    asked(m, TellRecord(block(), SDEI))
    assert len(m.core.inbox.records) == 1
    assert m.core.next_deadline() is None

    m.guest.start_sdei(m.core, m.now)

    assert m.did() == [(SDEI, "ignored")]


def test_an_unacknowledged_record_is_repeated_and_escalated() -> None:
    m = Machine()
    m.os.ack_delay[None] = float("inf")
    asked(m, TellRecord(block(), GSIV))

    (escalated,) = of(m.wait(10.0), Escalate)

    assert escalated.source_id == GSIV


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (TellRecord(b""), "a status block has at least 20"),
        (TellRecord(bytes(100)), "block status 0"),
        (TellRecord(b"\1" * 4097), "a record of 4097 bytes: the source's block holds 4096"),
        (TellRecord(block(), 9), "source 9: the guest has 0, 1, 2, 4, 5"),
        (TellRecord(block(), GSIV, 4), "vCPU 4: the guest has 0 to 3"),
        (TellSea(4, SEA_EL0), "vCPU 4: the guest has 0 to 3"),
        (TellSea(0, 0xBE000011), "EC is no data or instruction abort's"),
        (TellSea(0, SEA_EL0, 1 << 64), "no 64-bit address"),
        (TellSerror(0, 1 << 25), "only bits 24:0 exist"),
        (TellSdei(5), "SDEI event 0x5: the platform offers 0x0, 0x324"),
        (TellSdei(0), "event 0: expected a vCPU"),
        (TellSdei(0x324, 4), "vCPU 4"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(event: Any, reason: str) -> None:
    m = Machine()
    before = take(m.core)

    with pytest.raises(InputError, match=reason):
        m.core.receive(event, m.now)

    assert take(m.core) == before


def test_a_guest_without_an_asynchronous_source_needs_a_name() -> None:
    m = Machine("qemu-7.2")

    with pytest.raises(InputError, match="name a source"):
        m.core.receive(TellRecord(block()), m.now)
    assert of(asked(m, TellRecord(block(), SEA, 1)), Acked)


def test_a_record_that_is_malformed_reaches_the_guest_all_the_same() -> None:
    m = Machine()

    asked(m, TellRecord(b"\1\0\0\0" + b"\xff" * 100))

    assert m.did() == [(SDEI, "malformed")]


# -- aborts and SErrors


@pytest.mark.parametrize("el", [0, 1])
def test_an_abort_has_the_syndrome_that_was_chosen_with_the_class_of_its_level(el: int) -> None:
    m = Machine(guest="generic")
    m.guest.vcpus[2].run_at(el)

    effects = asked(m, TellSea(2, 0x93800014, 0xFFFF_1234))

    (sea,) = of(effects, InjectSea)
    assert (sea.source_id, sea.vcpu, sea.esr, sea.far) == (None, 2, 0x93800014 | el << 26, 0xFFFF_1234)
    assert m.guest.vcpus[2].esr == sea.esr
    assert m.did() == [(None, "objerr" if el == 0 else "oops")]


def test_an_abort_of_an_instruction_stays_one() -> None:
    m = Machine()

    effects = asked(m, TellSea(0, 0x86000010 | ISS_FNV))

    assert [e.esr for e in of(effects, InjectSea)] == [0x82000410]


def test_an_serror_becomes_pending_with_its_syndrome() -> None:
    m = Machine()
    m.guest.vcpus[1].mask_serror()

    effects = asked(m, TellSerror(1, 0x811))

    assert [(e.vcpu, e.vsesr) for e in of(effects, InjectSerror)] == [(1, 0x811)]
    assert m.guest.vcpus[1].vsesr == 0x811


def test_a_vcpu_takes_one_thing_at_each_stop() -> None:
    m = Machine()
    m.core.receive(TellSea(0, SEA_EL0), m.now)
    stop = m.core.receive(TellSea(0, SEA_EL0), m.now)
    assert stop == [], "it is being stopped already"
    m.core.stopping.clear()

    effects = asked(m, TellSerror(0, 0x11))

    kinds = [type(e) for e in effects if isinstance(e, Stop | InjectSea | InjectSerror | Release)]
    assert kinds == [Stop, InjectSea, Release, Stop, InjectSea, Release, Stop, InjectSerror, Release]
    assert not m.core.inbox.orders


def test_a_held_vcpu_takes_it_when_it_goes() -> None:
    m = Machine()
    m.os.ack_delay[SEA] = 0.5
    m.ar(1, 0)
    m.ar(2, 1)
    assert 1 in m.core.aborts

    assert of(asked(m, TellSea(1, SEA_EL0)), InjectSea) == []
    effects = m.wait(5.0)

    assert [e.source_id for e in of(effects, InjectSea)] == [SEA, None]
    assert not m.core.inbox.orders


@pytest.mark.parametrize(("event", "what"), [(TellSea(0, SEA_EL0), "sea"), (TellSerror(0, 0x11), "serror")])
def test_a_vcpu_with_too_much_to_take_takes_no_more(event: Any, what: str) -> None:
    m = Machine()
    for _ in range(MAX_ORDERS):
        m.core.receive(TellSea(0, SEA_EL0), m.now)

    (dropped,) = m.core.receive(event, m.now)

    assert (dropped.what, m.core.inbox.dropped) == (what, 1)
    assert "16 wait for vCPU 0" in dropped.reason


@pytest.mark.parametrize("far", [0, (1 << 64) - 1])
def test_an_abort_may_name_any_address(far: int) -> None:
    m = Machine()

    assert [e.far for e in of(asked(m, TellSea(0, SEA_EL0, far)), InjectSea)] == [far]


def test_a_record_that_fills_its_block_goes_and_one_byte_more_does_not() -> None:
    m = Machine()
    room = m.core.sources[GSIV].placed.block_length
    full = block().ljust(room, b"\1")

    assert [e.source_id for e in of(asked(m, TellRecord(full, GSIV)), Posted)] == [GSIV]
    with pytest.raises(InputError, match=f"holds {room}"):
        asked(m, TellRecord(full + b"\1", GSIV))


def test_what_a_vcpu_that_cannot_be_stopped_was_to_take_is_dropped_and_counted() -> None:
    m = Machine()
    (stop,) = m.core.receive(TellSea(0, SEA_EL0), m.now)
    m.core.receive(TellSerror(0, 0x11), m.now)

    effects = m.core.receive(Failed(stop.id, "the thread is gone"), m.now)

    assert [e.what for e in of(effects, Dropped)] == ["sea", "serror"]
    assert m.core.inbox.dropped == 2
    assert not m.core.inbox.orders


def test_an_injection_that_the_host_refused_is_counted() -> None:
    m = Machine()
    (injected,) = of(asked(m, TellSea(0, SEA_EL0)), InjectSea)

    (dropped,) = m.core.receive(Failed(injected.id, "EINVAL"), m.now)

    assert (dropped.what, dropped.reason) == ("injection", "EINVAL")
    assert m.core.inbox.dropped == 1


# -- SDEI events

EVENTS = [EventDescription(0x100), EventDescription(0x101, shared=True), EventDescription(0x102, critical=True)]


def registered(m: Machine, *calls: tuple[int, int, tuple[int, ...]]) -> None:
    """The guest's client makes these calls (vCPU, function, arguments)."""
    for vcpu, function, args in calls:
        state = m.guest.vcpus[vcpu].state()._replace(pstate=5)
        m.core.receive(GuestCall(vcpu, function, args, state), m.now)
    m.core.stopping.clear()


REGISTER, ENABLE, UNMASK = 0xC4000021, 0xC4000022, 0xC400002C
ENTRY = 0xFFFF_8000_0802_0000


def client(m: Machine, number: int, vcpu: int) -> None:
    registered(m, (vcpu, REGISTER, (number, ENTRY, 7, 0, 0)), (vcpu, ENABLE, (number,)), (vcpu, UNMASK, ()))


@pytest.mark.parametrize("number", [0, 0x100, 0x101, 0x102])
def test_any_event_enters_its_handler_on_the_chosen_vcpu(number: int) -> None:
    m = Machine(sdei=False, sdei_events=EVENTS)
    client(m, number, 2)

    effects = m.core.receive(TellSdei(number, 2), m.now)
    assert [e.vcpu for e in of(effects, Stop)] == [2]
    effects = m.core.receive(m.guest.perform(effects, m.now)[0], m.now)

    (entered,) = of(effects, SetRegisters)
    assert (entered.vcpu, entered.pc, entered.x[:2]) == (2, ENTRY, (number, 7))
    assert entered.source_id is None


def test_a_shared_event_goes_to_the_vcpu_that_was_named() -> None:
    m = Machine()

    assert [e.vcpu for e in of(asked(m, TellSdei(0x324, 2)), Stop)] == [2]


def test_an_event_that_nobody_enabled_stays_pending() -> None:
    m = Machine(sdei=False, sdei_events=EVENTS)

    assert asked(m, TellSdei(0x100, 1)) == []

    assert m.core.sdei.pending(0x100)


# -- the state


def test_what_waits_is_in_the_state_and_comes_back() -> None:
    def life(swap: bool) -> list[Any]:
        m = Machine(sdei_events=EVENTS)
        m.os.ack_delay[None] = 0.5
        seen: list[Any] = []
        steps = [
            lambda: m.receive(TellRecord(block(1), GSIV)), lambda: m.receive(TellRecord(block(2), GSIV, 3)),
            lambda: m.receive(TellRecord(block(3))), lambda: m.ar(1, 0), lambda: m.ar(2, 1),
            lambda: m.receive(TellSea(1, SEA_EL0, 0x1234)), lambda: m.receive(TellSerror(1, 0x11)),
            lambda: m.receive(TellSdei(0x101)), lambda: m.wait(0.7), lambda: m.wait(5.0),
        ]  # fmt: skip
        for step in steps:
            if swap:
                put(m.core, orjson.loads(orjson.dumps(take(m.core))))
            seen += step()
        return [*seen, take(m.core)]

    plain = life(False)
    assert life(True) == plain
    assert len(of(plain, Queued)) == 1
    assert len(of(plain, Posted)) >= 5
    assert len(of(plain, InjectSerror)) == 1


def test_a_state_of_before_there_was_an_inbox_is_taken() -> None:
    m = Machine()
    state = take(m.core)
    del state["inbox"]
    for source in state["sources"]:
        del source["record"]

    put(m.core, state)

    assert take(m.core)["inbox"]["records"] == []
