"""vCPUs that cannot be stopped, or are held: what was to be told on them is told elsewhere, once, and in time."""

from __future__ import annotations

from typing import Any

import pytest

from acpi.ghes import ErrorStatusHeader
from acpi.presets import PRESETS
from cper.common import Severity
from tests.machine import CONSUMED, GPA, HVA, SDEI, SIZE, TABLES, Gated, Machine, of, stops
from vmm_ras import sdei_table as t
from vmm_ras.effects import Acked, Decided, Dropped, Hold, InjectSea, Posted, Release, SetRegisters, Stop, TakenBack
from vmm_ras.events import (
    Code,
    Failed,
    GuestAbort,
    HostSignal,
    Proceed,
    Replaced,
    Stopped,
    TellRecord,
    TellSdei,
    TellSea,
)
from vmm_ras.memory import ACKED, HEALTHY, POSTED, MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import load_policy
from vmm_ras.sdei_state import EventDescription

NEVER = float("inf")
FOUND = '[[rule]]\nname = "r"\nwhen = { code = "AO" }\ndeliver = ["gsiv"]\n'
BY_GSIV = "version = 1\n" + FOUND + CONSUMED
BY_SEI = BY_GSIV.replace('["gsiv"]', '["sei", "gsiv"]\nunacked = { after_ms = 500 }')
RECORD = ErrorStatusHeader(uncorrectable=True, severity=Severity.INFORMATIONAL).encode()
SEA, SDEI_SOURCE, SEI, GSIV = 0, 1, 3, 4


def told(effects: list[Any]) -> list[tuple[str, tuple[int, ...]]]:
    """By which way which pages were told."""
    return [(e.delivery, tuple((gpa - GPA) >> 12 for gpa, _ in e.pages)) for e in of(effects, Posted)]


# -- what it consumed ---------------------------------------------------------------------------


@pytest.mark.parametrize(("lsb", "pages"), [(12, (5,)), (14, (4, 5, 6, 7))])
def test_what_it_consumed_is_told_as_found(lsb: int, pages: tuple[int, ...]) -> None:
    m = Gated(BY_GSIV)
    m.deaf = {1}
    m.ar(5, 1, lsb)

    effects = m.fail(1)

    assert told(effects) == [("gsiv", pages)]
    assert [e.code for e in of(effects, Decided)] == [Code.AR]
    m.wait(0.1)
    assert [m.state(page) for page in pages] == [ACKED] * len(pages)
    assert not m.core.aborts


def test_a_rule_for_its_address_decides() -> None:
    there = '[[rule]]\nname = "there"\nwhen = { code = "AO", gpa_from = 0x40005000 }\ndeliver = ["gpio"]\n'
    m = Gated("version = 1\n" + there + FOUND + CONSUMED)
    m.deaf = {1}
    m.ar(5, 1)

    assert told(m.fail(1)) == [("gpio", (5,))]


def test_an_abort_at_an_unknown_address_leaves_nothing_behind() -> None:
    m = Gated(BY_GSIV)
    m.deaf = {1}
    m.receive(GuestAbort(1, 0x92000010))

    assert m.fail(1) == []
    assert not m.core.aborts
    assert not any(m.core.poison.counts[1:])


def test_page_0_is_a_page() -> None:
    image = PRESETS["all"].place(TABLES)
    core = Notifier(
        image.sources, MemoryMap([MemorySlot(HVA, 0, SIZE)]), threads={100: 0}, policy=load_policy(BY_GSIV)
    )  # fmt: skip
    (stop,) = core.receive(HostSignal(Code.AR, HVA, 12, 100), 0.0)

    effects = core.receive(Failed(stop.id, "the thread is gone"), 0.0)

    assert [e.pages for e in of(effects, Posted)] == [((0, 4096),)]


def test_what_it_was_to_take_is_dropped_with_the_reason() -> None:
    m = Gated(BY_GSIV)
    m.deaf = {1}
    m.receive(TellSea(1, 0x92000410))

    (dropped,) = of(m.fail(1), Dropped)

    assert (dropped.what, dropped.reason) == ("sea", "the thread is gone")


# -- what it was to be told ---------------------------------------------------------------------


def test_an_serror_that_no_vcpu_comes_for_is_told_by_the_next_way_and_tried_again() -> None:
    m = Gated(BY_SEI, guest="generic")
    m.deaf = {0}
    m.ao(1)

    effects = m.fail(0)

    assert [(e.source_id, e.reason) for e in of(effects, TakenBack)] == [(SEI, "the thread is gone")]
    assert told(effects) == [("gsiv", (1,))]
    m.deaf = set()
    m.wait(0.45)
    assert told(m.ao(2)) == [("gsiv", (2,))], "not before after_ms is over"
    m.wait(0.06)
    assert told(m.ao(3)) == [("sei", (3,))]
    m.wait(0.1)
    assert [m.state(page) for page in (1, 2, 3)] == [ACKED] * 3


def test_a_record_for_it_waits_and_is_told_when_it_can_be_stopped_again() -> None:
    m = Gated(BY_GSIV)
    m.deaf = {2}
    m.receive(TellRecord(RECORD, SEA, 2))
    m.fail(2)
    assert len(m.core.inbox.records) == 1

    m.deaf = set()
    effects = m.wait(1.0)

    assert [e.vcpu for e in of(effects, InjectSea)] == [2]
    assert [e.source_id for e in of(effects, Acked)] == [SEA]


def test_a_block_that_is_posted_for_another_vcpu_by_now_stays() -> None:
    """The guest read it without its SError, and the source holds another one since."""
    m = Gated(BY_GSIV, guest="generic")
    m.deaf = {0}
    m.receive(TellRecord(RECORD, SEI, 0))
    placed = m.core.sources[SEI].placed
    m.guest.memory.write(placed.block, bytes(4))
    m.guest.memory.write(placed.ack, placed.ack_write.to_bytes(8, "little"))
    m.wait(0.5)
    m.os.ack_delay[SEI] = NEVER
    m.receive(TellRecord(RECORD, SEI, 2))

    effects = m.fail(0)

    assert of(effects, TakenBack) == []
    assert SEI in m.core.busy


def test_blocks_of_others_stay() -> None:
    m = Gated(BY_GSIV)
    m.os.ack_delay = {None: NEVER}
    m.ao(1)
    m.ar(2, vcpu=1)
    m.deaf = {1}
    m.receive(TellSea(1, 0x92000410))

    assert of(m.fail(1), TakenBack) == []
    assert set(m.core.busy) == {SEA, GSIV}


def test_the_event_moves_on_as_long_as_there_is_somebody() -> None:
    m = Gated(SDEI.replace('["sdei"]', '["sdei", "gsiv"]') + CONSUMED)
    m.mask(2, 3)
    m.deaf = {0, 1}
    m.ao(1)
    assert stops(m.fail(0)) == [1]
    assert m.core.sources[1].state.vcpu == 1
    assert told(m.fail(1)) == [("gsiv", (1,))]


def test_an_event_without_a_record_moves_on_too() -> None:
    m = Gated()
    m.deaf = {0}
    m.receive(TellSdei(0x324))

    assert stops(m.fail(0)) == [1]
    assert m.entered == [(1, 1)]


def test_those_that_could_not_be_stopped_are_asked_again_when_there_is_nobody_else() -> None:
    m = Gated()
    m.mask(1, 2, 3)
    m.deaf = {0}
    m.receive(TellSdei(0x324))
    m.fail(0)
    m.deaf = set()

    m.ao(1)

    assert m.entered == [(0, 1)]
    assert m.state(1) == ACKED


def test_an_event_and_an_serror_of_one_vcpu_both_find_their_way() -> None:
    m = Gated(guest="generic")
    m.deaf = {0}
    m.ao(1)
    m.receive(TellRecord(RECORD, SEI, 0))

    effects = m.fail(0)

    assert m.entered == [(1, SDEI_SOURCE)]
    assert [e.source_id for e in of(effects, TakenBack)] == [SEI]
    assert len(m.core.inbox.records) == 1


def test_whose_handler_was_told_and_did_not_answer_is_no_reason_to_wait() -> None:
    """The handler has ended, the acknowledgement is missing, and its vCPU is gone."""
    m = Gated()
    m.os.ack_delay[SDEI_SOURCE] = NEVER
    m.ao(1)
    m.deaf = {0}
    m.receive(TellSea(0, 0x92000410))

    m.fail(0)

    assert m.entered == [(0, SDEI_SOURCE), (1, SDEI_SOURCE)]


def test_a_record_whose_handler_went_with_its_vcpu_is_told_by_another_way() -> None:
    m = Gated(SDEI.replace('["sdei"]', '["sdei", "gsiv"]') + CONSUMED)
    m.deaf = {0}
    m.ao(1)
    m.unanswered.clear()
    entered = m.core.receive(Stopped(0, m.guest.vcpus[0].state()), m.now)
    assert [type(e) for e in entered] == [SetRegisters, Release]
    m.receive(TellSea(0, 0x92000410))

    assert told(m.fail(0)) == [("gsiv", (1,))]


def test_who_waits_for_a_source_need_not_wait_for_a_vcpu_that_is_gone() -> None:
    m = Gated(BY_GSIV)
    m.deaf = {2}
    m.receive(TellRecord(RECORD, SEA, 2))
    m.ar(1, vcpu=1)
    assert set(m.core.aborts) == {1}

    m.fail(2)

    assert not m.core.aborts
    m.wait(2.0)
    assert m.state(1) == ACKED


def test_what_waited_behind_a_handler_that_could_not_be_entered_is_next() -> None:
    m = Gated(sdei_events=[EventDescription(0x400, shared=True)])
    m.call(0, t.EVENT_REGISTER, 0x400, 0xFFFF_8000_0803_0000, 0, 0, 0)
    m.call(0, t.EVENT_ENABLE, 0x400)
    m.mask(1, 2, 3)
    m.deaf = {0}
    m.receive(TellSdei(0x324))
    m.receive(TellSdei(0x400))
    m.unanswered.clear()
    (entered, _) = m.core.receive(Stopped(0, m.guest.vcpus[0].state()), m.now)

    (stop,) = m.core.receive(Failed(entered.id, "EINVAL"), m.now)

    assert (type(stop), stop.vcpu) == (Stop, 0)


# -- who is held --------------------------------------------------------------------------------


def test_a_hold_ends_in_time_however_often_the_source_is_acknowledged_meanwhile() -> None:
    m = Machine(policy=BY_GSIV + "hold_ms = 1200\n")
    m.os.ack_delay[SEA] = 0.5
    for vcpu in (3, 0, 2, 1):
        m.ar(vcpu, vcpu)

    effects = m.wait(1.3)

    assert [(e.vcpu, e.source_id) for e in of(effects, InjectSea)] == [(0, SEA), (2, SEA), (1, None)]
    assert of(effects, Hold) == [], "who waits on is not held anew"


def test_who_waits_for_the_orchestrator_keeps_nobody_from_the_source() -> None:
    asking = '[[rule]]\nname = "asking"\nwhen = { code = "AR", vcpu = [1] }\ndeliver = ["sea"]\nreport = "first"\n'
    m = Machine(policy="version = 1\n" + asking + FOUND + CONSUMED)
    m.os.ack_delay[SEA] = 0.1
    for vcpu in range(3):
        m.ar(vcpu, vcpu)
    assert list(m.core.aborts) == [1, 2]

    effects = m.wait(0.2)

    assert [(e.vcpu, e.source_id) for e in of(effects, InjectSea)] == [(2, SEA)]


FIRST = "version = 1\n" + FOUND + CONSUMED + 'report = "first"\nreport_ms = 500\n'


@pytest.mark.parametrize("word", [True, False])
@pytest.mark.parametrize("el", [0, 1])
def test_an_abort_at_an_unknown_address_waits_for_the_orchestrator_too(word: bool, el: int) -> None:
    m = Machine(guest="generic", policy=FIRST)
    m.guest.vcpus[2].run_at(el)
    m.receive(GuestAbort(2, 0x92000010, 0x1000))
    assert set(m.core.aborts) == {2}

    effects = m.receive(Proceed("c")) if word else m.wait(0.51)

    (sea,) = of(effects, InjectSea)
    assert (sea.vcpu, sea.source_id, sea.esr, sea.far) == (2, None, 0x96000010 if el else 0x92000010, 0x1000)
    assert [e.vcpu for e in of(effects, Release)] == [2]


def test_who_has_the_orchestrators_word_waits_for_the_source_then() -> None:
    m = Machine(policy=FIRST)
    m.os.ack_delay[SEA] = 1.0
    m.ar(0, vcpu=0)
    m.ar(1, vcpu=1)
    m.receive(Proceed("c"))
    assert set(m.core.aborts) == {1}

    effects = m.wait(1.5)

    assert [(e.vcpu, e.source_id) for e in of(effects, InjectSea)] == [(1, SEA)]


def test_a_hold_has_the_time_of_its_rule_to_the_millisecond() -> None:
    m = Machine(policy=BY_GSIV + "hold_ms = 3000\n")
    m.os.ack_delay[SEA] = NEVER
    m.ar(0, vcpu=0)
    (hold,) = of(m.ar(1, vcpu=1), Hold)

    assert hold.until == m.now + 3.0
    assert "source 0" in hold.reason
    assert of(m.wait(2.9999), InjectSea) == []
    assert [(e.vcpu, e.source_id) for e in of(m.wait(0.001), InjectSea)] == [(1, None)]


RELAYED = (
    "version = 1\n" + FOUND + '[[rule]]\nname = "b"\nwhen = { code = "AR" }\naction = "bare"\nsea = { relay = true }\n'
)


@pytest.mark.parametrize(
    ("gva", "esr"), [(None, 0x92000410), (0x1234, 0x92000010)], ids=["no address", "with the guest's address"]
)
def test_an_abort_without_a_record_knows_the_address_or_says_that_it_does_not(gva: int | None, esr: int) -> None:
    m = Machine(policy=RELAYED)

    (sea,) = of(m.receive(GuestAbort(1, 0x92000010, gva, GPA)), InjectSea)

    assert (sea.esr, sea.far) == (esr, gva)


def test_an_abort_without_a_record_relays_what_the_host_was_told() -> None:
    """Of an instruction that could not be fetched."""
    m = Machine(policy=RELAYED)

    (sea,) = of(m.receive(GuestAbort(1, 0x82000010, 0x1234, GPA)), InjectSea)

    assert sea.esr >> 26 == 0x20


def test_whose_source_is_free_does_not_wait_for_who_waits_for_another() -> None:
    m = Machine("conformance", "generic", policy=BY_GSIV)
    m.os.ack_delay = {SEA: NEVER, 6: 0.5}
    m.ar(0, vcpu=0)
    m.ar(1, vcpu=1)
    m.ar(2, vcpu=2)
    m.ar(3, vcpu=3)

    effects = m.wait(1.0)

    assert [(e.vcpu, e.source_id) for e in of(effects, InjectSea)] == [(3, 6)]
    assert set(m.core.aborts) == {2}


def test_a_source_whose_record_was_taken_back_is_free_for_who_waits_for_it() -> None:
    m = Machine(policy=BY_GSIV)
    m.os.ack_delay[SEA] = NEVER
    failing = of(m.ar(1, vcpu=0), InjectSea)[0]
    m.ar(2, vcpu=1)
    assert set(m.core.aborts) == {1}

    effects = m.receive(Failed(failing.id, "EINVAL"))

    assert [e.vcpu for e in of(effects, Release)] == [1]
    assert not m.core.aborts


def test_a_held_vcpu_is_not_asked_for() -> None:
    """It is out: an answer under way while its hold ends would be taken for one of afterwards."""
    m = Machine(guest="generic", policy=BY_SEI)
    m.os.ack_delay[SEA] = NEVER
    m.ar(1, vcpu=1)
    m.ar(2, vcpu=0)

    assert stops(m.ao(3)) == []

    assert m.core.wanted == {0: [SEI]}
    m.wait(3.0)
    assert [m.state(page) for page in (2, 3)] == [ACKED] * 2


# -- replaced while it comes --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "count", "left"),
    [(17, 1, {16, 18, 19}), (16, 2, {18, 19}), (18, 2, {16, 17}), (16, 4, set()), (12, 3, {16, 17, 18, 19})],
)
def test_of_a_large_page_what_was_not_replaced_is_told(first: int, count: int, left: set[int]) -> None:
    m = Gated(BY_GSIV)
    m.deaf = {1}
    m.ar(17, vcpu=1, lsb=14)
    m.receive(Replaced(GPA + (first << 12), count << 12))
    m.answer(1)
    m.wait(1.0)

    assert {page for page in range(12, 24) if m.state(page) == ACKED} == left
    assert {page for page in range(12, 24) if m.state(page) == HEALTHY} == set(range(12, 24)) - left


# -- withdrawing --------------------------------------------------------------------------------


def test_a_block_that_cannot_be_withdrawn_is_the_sources_last() -> None:
    """What was posted in its place in the same list was skipped: it is told by another way."""
    rules = '[[rule]]\nname = "large"\nwhen = { code = "AO", lsb_min = 13 }\ndeliver = ["gsiv", "gpio"]\n'
    m = Machine(policy="version = 1\n" + rules + FOUND + CONSUMED)
    m.os.ack_delay = {GSIV: NEVER}
    m.ao(1)
    m.ao(4, lsb=14)
    source = m.core.sources[GSIV]
    effects = m.core.receive(Failed(source.state.last, "no such line"), m.now)
    assert told(effects)[0][0] == "gsiv", "posted anew"

    m.receive(Failed(source.state.withdrawn, "the block's memory is lost"))

    assert source.state.broken
    m.wait(0.1)
    assert [m.state(page) for page in (4, 5, 6, 7)] == [ACKED] * 4


def test_a_page_that_the_policy_ignores_when_found_does_not_wait_for_a_way() -> None:
    """The abort could not be made: the access is repeated, and told again."""
    m = Machine(policy='version = 1\n[[rule]]\nname = "r"\nwhen = { code = "AO" }\naction = "ignore"\n' + CONSUMED)
    m.os.ack_delay[SEA] = NEVER
    failing = of(m.ar(1), InjectSea)[0]
    assert m.state(1) == POSTED

    m.receive(Failed(failing.id, "EINVAL"))

    assert m.state(1) == HEALTHY
