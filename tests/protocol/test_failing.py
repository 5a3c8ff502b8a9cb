"""What fails, what is late, and what is told instead: each effect, each way, each step against a silent guest."""

from __future__ import annotations

from typing import Any

import pytest

from acpi.ghes import StatusBlock
from acpi.presets import PRESETS
from tests.machine import GPA, HVA, SIZE, TABLES, Machine, of
from vmm_ras import sdei_table as t
from vmm_ras.deciding import Hook
from vmm_ras.effects import (
    Acked,
    ArmAck,
    Decided,
    Escalate,
    HookFailed,
    InjectSea,
    OwnMemory,
    PollAck,
    Posted,
    RaiseLine,
    Release,
    Stop,
    TakenBack,
    Undelivered,
    WriteGuest,
)
from vmm_ras.events import (
    Code,
    Failed,
    GuestAbort,
    GuestCall,
    HostSignal,
    MemoryFault,
    Proceed,
    Replaced,
    Stopped,
    TellRecord,
    TellSea,
    VcpuState,
)
from vmm_ras.memory import ACKED, HEALTHY, POSTED, UNREPORTED, MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import load_policy

NEVER = float("inf")
SEA, SDEI, POLLED, SEI, GSIV, GPIO, SEA_2 = range(7)
CONSUMED = '[[rule]]\nname = "consumed"\nwhen = { code = "AR" }\ndeliver = ["sea"]\n'
THERE = '[[rule]]\nname = "there"\nwhen = { code = "AO", gpa_from = 0x40005000 }\ndeliver = ["gpio"]\n'


def found(*ways: str, more: str = "", consumed: str = CONSUMED) -> str:
    listed = ", ".join(f'"{way}"' for way in ways)
    return f'version = 1\n{consumed}[[rule]]\nname = "found"\ndeliver = [{listed}]\n{more}\n'


def told(effects: list[Any]) -> list[tuple[str, list[int]]]:
    """By which way which pages were told."""
    return [(e.delivery, [(gpa - GPA) >> 12 for gpa, _ in e.pages]) for e in of(effects, Posted)]


def fail(m: Machine, effect: Any, reason: str = "no") -> list[Any]:
    return m.receive(Failed(effect.id, reason))


def call(m: Machine, vcpu: int, function: int, *args: int) -> list[Any]:
    state = m.guest.vcpus[vcpu].state()
    return m.receive(GuestCall(vcpu, function, args, state._replace(pstate=5)))


# -- which effect failed ------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "which"), [(ArmAck, 0), (WriteGuest, 0), (WriteGuest, 1)])
def test_a_source_that_cannot_be_written_is_never_used_again(kind: type, which: int) -> None:
    m = Machine(policy=found("gsiv", "gpio"))
    posted = m.core.receive(HostSignal(Code.AO, HVA + 0x3000, 12, 1), m.now)

    effects = fail(m, of(posted, kind)[which], "the host lost that page")

    (back,) = of(effects, TakenBack)
    assert (back.source_id, back.pages, back.reason) == (GSIV, ((GPA + 0x3000, 4096),), "the host lost that page")
    assert back.id > posted[-1].id
    assert told(effects) == [("gpio", [3])]
    m.wait(100.0)
    assert told(m.ao(4)) == [("gpio", [4])]


def test_a_line_that_cannot_be_raised_is_tried_again_when_its_time_has_come() -> None:
    m = Machine(policy=found("gsiv", "gpio", more="unacked = { after_ms = 500 }"))
    posted = m.core.receive(HostSignal(Code.AO, HVA + 0x3000, 12, 1), m.now)

    assert told(fail(m, of(posted, RaiseLine)[0])) == [("gpio", [3])]

    m.wait(0.45)
    assert told(m.ao(4)) == [("gpio", [4])]
    m.wait(0.06)
    assert told(m.ao(5)) == [("gsiv", [5])]


def test_a_line_that_works_again_does_not_wait_for_a_source_that_is_silent() -> None:
    m = Machine(policy=found("gpio", "polled", more="unacked = { after_ms = 500 }"))
    m.os.polls_stopped = True
    for page in (3, 4):
        posted = m.core.receive(HostSignal(Code.AO, HVA + (page << 12), 12, 1), m.now)
        after = fail(m, of(posted, RaiseLine)[0])
        assert told(after) == ([("polled", [3])] if page == 3 else [])
        if page == 3:
            m.wait(300.0)

    assert told(m.wait(0.51)) == [("gpio", [4])]


@pytest.mark.parametrize(("failing", "broken"), [(0, True), (1, True), (2, False)])
def test_without_an_ack_register_two_writes_publish(failing: int, broken: bool) -> None:
    m = Machine()
    placed = next(s.placed for s in m.core.ways["gsiv"])._replace(ack=None)
    core = Notifier([placed], m.core.memory, guest=m.core.guest, policy=load_policy(found("gsiv")))
    effects = core.receive(HostSignal(Code.AO, HVA, 12, 1), 0.0)
    of_source = [e for e in effects if getattr(e, "source_id", None) is not None]
    assert [type(e) for e in of_source[:3]] == [WriteGuest, WriteGuest, RaiseLine]

    core.receive(Failed(of_source[failing].id, "no"), 0.0)

    assert bool(core.sources[placed.source_id].state.broken) == broken
    assert core.poison.state(GPA >> 12) == UNREPORTED


def test_an_event_whose_block_could_not_be_written_is_not_told() -> None:
    m = Machine(policy=found("sdei"))
    for vcpu in range(4):
        call(m, vcpu, t.PE_MASK)
    posted = m.core.receive(HostSignal(Code.AO, HVA, 12, 1), m.now)
    assert m.core.sdei.pending(0x324)

    fail(m, of(posted, ArmAck)[0])

    assert not m.core.sdei.pending(0x324)


@pytest.mark.parametrize(("page", "way"), [(4, "gsiv"), (5, "gpio")])
def test_an_abort_that_could_not_be_made_is_told_by_the_rule_for_its_address(page: int, way: str) -> None:
    m = Machine(policy=found("gsiv", consumed=CONSUMED + THERE))
    m.os.ack_delay[SEA] = NEVER
    (sea,) = of(m.ar(page), InjectSea)

    assert told(fail(m, sea)) == [(way, [page])]


# -- who consumed it is told by what there is -----------------------------------------------------


def test_the_first_way_that_is_open_takes_what_was_consumed() -> None:
    rule = CONSUMED.replace('["sea"]', '["sea", "sdei", "gsiv"]')
    m = Machine(sdei=False, policy=found("gsiv", consumed=THERE + rule))
    m.core.sources[SEA].state.broken = "it is lost"

    effects = m.ar(1)

    assert told(effects) == [("gsiv", [1])], "SDEI is not registered"
    assert of(effects, InjectSea) == [], "the access is repeated"
    assert len(of(effects, Release)) == 1


@pytest.mark.parametrize("registered", [True, False])
def test_where_no_way_is_open_the_vcpu_gets_an_abort_without_a_record(registered: bool) -> None:
    """Else it would go on, consume the page again, and so on."""
    rule = CONSUMED.replace('["sea"]', '["sea", "sdei"]')
    m = Machine(sdei=registered, policy=found("gsiv", consumed=rule))
    m.core.sources[SEA].state.broken = "it is lost"

    effects = m.ar(1)

    assert [e.source_id for e in of(effects, InjectSea)] == ([] if registered else [None])
    assert told(effects) == [("sdei" if registered else "gsiv", [1])]


@pytest.mark.parametrize(("page", "entry"), [(17, (17, 1)), (18, (18, 2)), (19, (18, 2))])
def test_the_entry_of_a_consumed_page_spans_what_is_left_of_its_host_page(page: int, entry: tuple[int, int]) -> None:
    rule = CONSUMED + 'large = "mask"\nreport = "first"\nreport_ms = 500\n'
    m = Machine(policy=found("gsiv", consumed=rule))
    m.ar(page, lsb=14)
    m.receive(Replaced(GPA + 0x10000, 0x1000))

    (posted,) = of(m.receive(Proceed("consumed")), Posted)[:1]

    first, count = entry
    assert posted.delivery == "sea"
    ((gpa, size),) = posted.pages
    assert (gpa & -size, size) == (GPA + (first << 12), count << 12)


def test_while_the_sea_source_is_busy_the_next_free_one_takes_it() -> None:
    rule = CONSUMED.replace('["sea"]', '["sea", "gpio", "gsiv"]\nbusy = "next"')
    m = Machine(policy=found("gpio", consumed=rule))
    m.os.ack_delay = {SEA: NEVER, GPIO: NEVER}
    m.ao(1)
    m.ar(2, vcpu=0)

    assert told(m.ar(3, vcpu=1)) == [("gsiv", [3])]


def test_beside_the_page_that_was_consumed_go_those_of_the_same_host_page() -> None:
    m = Machine(policy=found("gsiv"))
    m.os.ack_delay[GSIV] = NEVER
    for page in (1, 15, 18, 20):
        m.ao(page)

    (posted,) = of(m.ar(17, lsb=14), Posted)

    assert posted.pages == tuple((GPA + (page << 12), 4096) for page in (17, 16, 18, 19))


def test_a_second_sea_source_takes_what_the_first_refuses() -> None:
    m = Machine("conformance", policy=found("gsiv"))
    m.core.sources[SEA].state.broken = "it is lost"

    effects = m.ar(1)

    assert [(e.source_id, e.vcpu) for e in of(effects, InjectSea)] == [(SEA_2, 0)]
    assert m.state(1) == ACKED


def test_a_source_refuses_by_rule() -> None:
    other = '[[rule]]\nname = "kernel"\nwhen = { code = "AR", el = 1 }\ndeliver = ["sea"]\nsea = { set = "uc" }\n'
    m = Machine(guest="generic", policy=found("gsiv", consumed=other + CONSUMED))
    m.os.ack_delay[SEA] = NEVER
    (sea,) = of(m.ar(1), InjectSea)
    fail(m, sea)

    bare = m.ar(2)
    m.guest.vcpus[1].run_at(1)
    whole = m.ar(3, vcpu=1)

    assert [e.source_id for e in of(bare, InjectSea)] == [None]
    assert [e.source_id for e in of(whole, InjectSea)] == [SEA]


# -- a silent guest -----------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["report", "stop", "reset", "migrate"])
def test_in_the_end_it_is_the_orchestrators(then: str) -> None:
    m = Machine(policy=found("gsiv", more=f'unacked = {{ after_ms = 100, tries = 2, then = "{then}" }}'))
    m.os.ack_delay[None] = NEVER
    m.ao(1)

    early, late = m.wait(0.295), m.wait(0.01)

    assert of(early, Escalate) == []
    assert [(e.source_id, e.action) for e in of(late, Escalate)] == [(GSIV, then)]
    assert of(late, Escalate)[0].id == m.core.last_id
    assert of(late, Escalate)[0].reason.endswith("no acknowledgement in 300 ms")
    looks = [e for e in of(early, PollAck) if e.size == 4]
    assert len(looks) == 2, "it was asked twice whether it has read the block"
    assert of(m.wait(100.0), Escalate) == []


SILENT = 'unacked = { after_ms = 100, tries = 0, then = "next" }'


@pytest.mark.parametrize(
    ("closed", "way"),
    [("", "sdei"), ("unregistered", "gpio"), ("busy", "gpio"), ("refused", "gpio"), ("other rule", "sdei")],
)
def test_what_it_does_not_acknowledge_is_told_by_the_next_way_that_is_open(closed: str, way: str) -> None:
    m = Machine(policy=found("gsiv", "sdei", "gpio", more=SILENT), sdei=closed != "unregistered")
    m.os.ack_delay = {GSIV: NEVER, SDEI: NEVER}
    if closed == "busy":
        m.core.sources[SDEI].state.record = TellRecord(bytes(20))
    elif closed:
        m.core.sources[SDEI].state.refused = {1 if closed == "refused" else 0: 50.0}
    m.ao(1)

    effects = m.wait(0.11)

    assert told(effects) == [(way, [1])]
    assert of(effects, Escalate) == []


def test_a_full_block_is_told_by_the_next_way_too() -> None:
    m = Machine(policy=found("gsiv", "gpio", more=SILENT))
    m.os.ack_delay[GSIV] = NEVER
    m.core.sources[GPIO].capacity = 2
    m.ao(4, lsb=13)

    effects = m.wait(0.11)

    assert told(effects) == [("gpio", [4, 5])]
    assert of(effects, Escalate) == []


@pytest.mark.parametrize("large", ["pages", "mask"])
def test_what_was_replaced_meanwhile_is_not_told_by_the_next_way(large: str) -> None:
    m = Machine(policy=found("gsiv", "gpio", more=SILENT + f'\nlarge = "{large}"'))
    m.os.ack_delay[GSIV] = NEVER
    m.ao(4, lsb=14)
    m.receive(Replaced(GPA + 0x4000, 0x3000))
    (block,) = of(m.wait(0.11), Posted)
    assert block.pages == (((GPA + 0x7000, 4096),) if large == "pages" else ((GPA + 0x4000, 0x4000),))


def test_of_what_was_replaced_as_a_whole_the_orchestrator_hears() -> None:
    m = Machine(policy=found("gsiv", "gpio", more=SILENT))
    m.os.ack_delay[GSIV] = NEVER
    m.ao(8)
    m.receive(Replaced(GPA + 0x8000, 0x1000))

    effects = m.wait(0.11)

    assert of(effects, Posted) == []
    assert [e.action for e in of(effects, Escalate)] == ["report"]


def test_what_a_vcpu_does_not_acknowledge_is_no_other_vcpus_abort() -> None:
    rule = CONSUMED.replace('["sea"]', f'["sea", "gpio"]\n{SILENT}')
    m = Machine("conformance", "generic", policy=found("gsiv", consumed=rule))
    m.os.ack_delay[SEA] = NEVER
    m.ar(1)

    effects = m.wait(0.11)

    assert told(effects) == [("gpio", [1])]
    assert of(effects, InjectSea) == []


@pytest.mark.parametrize(("lsb", "waits"), [(12, False), (13, True)])
def test_after_two_pages_at_once_the_guest_gets_time(lsb: int, waits: bool) -> None:
    m = Machine(policy=found("gsiv", more="pause_ms = 1000"))
    m.os.ack_delay[None] = 0.05
    m.ao(2, lsb=lsb)
    m.ao(8)

    assert told(m.wait(0.5)) == ([] if waits else [("gsiv", [8])])
    m.wait(2.0)
    assert m.state(8) == ACKED


# -- an abort by a record's own source -------------------------------------------------------------


@pytest.mark.parametrize(("el", "esr"), [(0, 0x92000410), (1, 0x96000410)])
def test_a_repeated_abort_knows_no_address(el: int, esr: int) -> None:
    """Its FAR is not valid (FnV), whoever it was that consumed the page."""
    m = Machine(guest="generic", policy=found("gsiv", consumed=CONSUMED + "unacked = { after_ms = 100 }\n"))
    m.guest.vcpus[0].mask_serror()
    posted = m.core.receive(GuestAbort(0, 0x92000010, 0x1000, GPA), m.now)
    stopped = m.core.receive(Stopped(0, m.guest.vcpus[0].state()), m.now)
    assert [type(e) for e in posted] == [Stop]
    for e in of(stopped, WriteGuest):
        m.guest.memory.write(e.gpa, e.data)  # the guest does not see the first one
    m.guest.vcpus[0].run_at(el)

    effects = m.wait(0.2)

    (again,) = of(effects, InjectSea)
    assert (again.source_id, again.vcpu, again.esr, again.far) == (SEA, 0, esr, None)
    assert [e.source_id for e in of(effects, Acked)] == [SEA]


# -- what the host saw ----------------------------------------------------------------------------


def test_the_time_of_a_lost_range_is_that_of_the_record() -> None:
    m = Machine(policy=found("gsiv"))

    (posted,) = of(m.receive(MemoryFault(GPA, 4096, 1_700_000_000.0)), Posted)

    assert str(StatusBlock.decode(posted.block).entries[0].header.timestamp) == "2023-11-14 22:13:20"


def test_a_byte_of_a_page_is_the_page() -> None:
    m = Machine(policy=found("gsiv"))

    assert told(m.receive(MemoryFault(GPA + 0x1FFF, 2))) == [("gsiv", [1, 2])]


@pytest.mark.parametrize(("page", "way"), [(4, "gsiv"), (5, "gpio")])
def test_an_abort_of_a_vcpu_that_there_is_not_is_found_memory(page: int, way: str) -> None:
    m = Machine(policy=found("gsiv", consumed=CONSUMED + THERE))

    effects = m.receive(GuestAbort(4, 0x92000010, None, GPA + (page << 12), 1_700_000_000.0))

    assert told(effects) == [(way, [page])]
    assert [e.code for e in of(effects, Decided)] == [Code.AR]
    block = StatusBlock.decode(of(effects, Posted)[0].block)
    assert str(block.entries[0].header.timestamp) == "2023-11-14 22:13:20"
    m.wait(0.1)
    assert m.state(page) == ACKED


@pytest.mark.parametrize("gpa", [GPA - 1, GPA + SIZE, None])
def test_an_abort_outside_guest_memory_has_no_page(gpa: int | None) -> None:
    m = Machine(policy=found("gsiv"))

    effects = m.receive(GuestAbort(3, 0x92000010, None, gpa))

    assert [e.gpa for e in of(effects, Decided)] == [-1]
    assert [(e.vcpu, e.source_id) for e in of(effects, InjectSea)] == [(3, None)]
    assert not any(m.core.poison.counts[1:])


@pytest.mark.parametrize("kind", ["abort", "range"])
def test_every_report_of_an_address_has_its_time(kind: str) -> None:
    """Three within a second are a storm, however they are reported."""
    storm = '[[rule]]\nname = "storm"\nwhen = { code = "AO", rate = { events = 3, seconds = 1 } }\ndeliver = ["gpio"]\n'
    m = Machine(policy=found("gsiv", consumed=CONSUMED + storm))

    def report(page: int) -> list[Any]:
        gpa = GPA + (page << 12)
        effects = m.receive(GuestAbort(9, 0, None, gpa) if kind == "abort" else MemoryFault(gpa, 4096))
        m.wait(0.4)
        return told(effects)

    ways = [report(page)[0][0] for page in range(4)]
    m.wait(1.0)

    assert [*ways, report(9)[0][0]] == ["gsiv", "gsiv", "gpio", "gpio", "gsiv"]


@pytest.mark.parametrize(("gpa", "size"), [(GPA - 4096, 4096), (GPA + SIZE, 4096)])
def test_what_lies_beside_guest_memory_is_none(gpa: int, size: int) -> None:
    m = Machine(policy=found("gsiv"))

    (notice,) = m.receive(MemoryFault(gpa, size))

    assert isinstance(notice, Undelivered)
    assert notice.rule == ""
    assert notice.id == m.core.last_id
    assert f"{gpa:#x}" in notice.reason


@pytest.mark.parametrize(("size", "way"), [(0x2000, "gpio"), (0x3000, "gpio"), (0x4000, "gsiv")])
def test_a_lost_range_has_a_size_for_the_rules(size: int, way: str) -> None:
    small = '[[rule]]\nname = "small"\nwhen = { code = "AO", lsb_max = 13 }\ndeliver = ["gpio"]\n'
    m = Machine(policy=found("gsiv", consumed=CONSUMED + small))

    assert told(m.receive(MemoryFault(GPA, size))) == [(way, list(range(size >> 12)))]


def test_a_range_over_two_slots_is_lost_and_replaced_in_both() -> None:
    m = Machine(policy=found("gsiv"))
    m.os.ack_delay[None] = NEVER
    m.core.add_slot(MemorySlot(HVA + 2 * SIZE, GPA + SIZE + 0x4000, 0x4000))
    last = (SIZE >> 12) - 1

    m.receive(MemoryFault(GPA + SIZE - 0x1000, 0x7000))
    assert sum(m.core.poison.counts[1:]) == 3, "there is nothing between the slots"
    m.receive(Replaced(GPA + SIZE - 0x1000, 0x6000))

    assert [m.state(last + n) for n in (0, 5, 6)] == [HEALTHY, HEALTHY, UNREPORTED]


def test_half_a_page_is_not_replaced() -> None:
    m = Machine(policy=found("gsiv"))
    m.ao(3)
    m.receive(Replaced(GPA + 0x3000, 0xFFF))
    m.receive(Replaced(GPA + 0x2001, 0x1FFE))
    assert m.state(3) == POSTED


@pytest.mark.parametrize("el", [0, 1])
def test_who_goes_because_its_page_was_replaced_takes_what_waits_for_it(el: int) -> None:
    m = Machine(guest="generic", policy=found("gsiv", consumed=CONSUMED + 'report = "first"\nreport_ms = 5000\n'))
    m.guest.vcpus[1].run_at(el)
    m.ar(3, vcpu=1)
    assert m.receive(TellSea(1, 0x92000410)) == []

    effects = m.receive(Replaced(GPA + 0x3000, 0x1000))

    assert [(type(e), e.vcpu) for e in effects] == [(InjectSea, 1), (Release, 1)]
    assert effects[0].esr >> 26 == (0x25 if el else 0x24)


@pytest.mark.parametrize("el", [0, 1])
def test_who_goes_because_its_source_refuses_takes_what_waits_for_it(el: int) -> None:
    rule = CONSUMED.replace('["sea"]', '["sea", "gsiv"]')
    m = Machine(guest="generic", policy=found("gsiv", consumed=rule))
    m.os.ack_delay[SEA] = NEVER
    (sea,) = of(m.ar(1), InjectSea)
    m.guest.vcpus[1].run_at(el)
    m.ar(2, vcpu=1)
    m.receive(TellSea(1, 0x92000410))

    effects = fail(m, sea)

    assert [(e.vcpu, e.esr >> 26) for e in of(effects, InjectSea)] == [(1, 0x25 if el else 0x24)]
    m.wait(1.0)
    assert [m.state(page) for page in (1, 2)] == [ACKED] * 2


# -- the page at address 0 -------------------------------------------------------------------------


def low() -> Notifier:
    """The core of a guest whose memory begins at address 0."""
    image = PRESETS["all"].place(TABLES)
    memory = MemoryMap([MemorySlot(HVA, 0, 1 << 20)])
    return Notifier(image.sources, memory, threads={100: 0, 101: 1}, vcpus=2, policy=load_policy(found("gsiv")))


def consume(core: Notifier, vcpu: int) -> list[Any]:
    core.receive(HostSignal(Code.AR, HVA, 12, 100 + vcpu), 0.0)
    return core.receive(Stopped(vcpu, VcpuState(0x400000, 0)), 0.0)


def test_page_0_is_told_and_held() -> None:
    core = low()

    effects = consume(core, 0)
    assert [(e.delivery, e.pages) for e in of(effects, Posted)] == [("sea", ((0, 4096),))]
    assert [e.gpa for e in of(effects, Decided)] == [0]

    held = consume(core, 1)
    assert of(held, InjectSea) == []
    assert core.poison.state(0) == UNREPORTED

    bare = core.expire(2.0)
    assert [(e.source_id, e.vcpu) for e in of(bare, InjectSea)] == [(None, 1)]
    assert [(e.delivery, e.pages) for e in of(bare, Posted)] == [("gsiv", ((0, 4096),))]


# -- a hook that fails everywhere -------------------------------------------------------------------


def test_a_hook_that_always_fails_changes_nothing_but_says_so() -> None:
    def lives(hook: Hook | None) -> list[Any]:
        sync = '[[rule]]\nname = "sync"\nwhen = { code = "AO", thread = "vcpu", lsb_min = 13 }\naction = "consumed"\n'
        m = Machine("conformance", policy=found("gsiv", "gpio", consumed=sync + CONSUMED), hook=hook)
        m.os.ack_delay[SEA] = 0.5
        seen = m.core.receive(HostSignal(Code.AR, HVA + 0x30000, 12, 100), m.now)
        seen += m.core.receive(Stopped(0, m.guest.vcpus[0].state()), m.now)
        seen += fail(m, of(seen, InjectSea)[0]) + m.wait(2.0)
        seen += m.ar(1, 0, lsb=14) + m.ar(9, 1, lsb=14) + m.receive(HostSignal(Code.AO, HVA + 0x14000, 14, 102))
        seen += m.receive(Proceed("consumed")) + m.wait(5.0)
        m.core.sources[SEA].state.broken = m.core.sources[SEA_2].state.broken = "it is lost"
        seen += m.ar(25, 3, lsb=14) + m.receive(GuestAbort(0, 0x92000010)) + m.wait(5.0)
        return [e[1:] for e in seen if not isinstance(e, (HookFailed, OwnMemory))]

    def decide(lost: object, view: object) -> str:
        raise ValueError("no")

    assert lives(Hook(decide, "0" * 64)) == lives(None)
