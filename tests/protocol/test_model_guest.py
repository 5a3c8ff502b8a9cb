"""What the model guest does by itself: polls, late acknowledgements, the calls of its SDEI client."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

import pytest

from acpi.hest import NotificationType
from tests.machine import GPA, Machine
from vmm_ras import sdei_table as t
from vmm_ras.effects import Escalate, InjectSea, PollAck, Release, Reply, Stop, TakenBack, WriteGuest
from vmm_ras.events import AckRead, Failed, Stopped
from vmm_ras.guests.os import SDEI_ENTRY, VBAR, GuestOs
from vmm_ras.profiles import SECTION_TYPES
from vmm_ras.record import memory_block
from vmm_ras.sdei_state import EventDescription

NEVER = float("inf")
POLLED = 'version = 1\n[[rule]]\nname = "all"\ndeliver = ["sea", "polled"]\n'


def source(m: Machine, kind: NotificationType) -> Any:
    return next(placed for placed in m.image.sources if placed.notification == kind)


def test_it_looks_at_a_polled_source_each_interval() -> None:
    m = Machine()
    placed, interval = source(m, NotificationType.POLLED), 0.25
    m.os.bind((placed._replace(poll_interval_ms=250),))
    assert m.os.next_time(7.0) == NEVER  # nothing was written there: no look is needed

    m.os.block_written(placed.source_id)

    for periods, now in ((0, 0.0), (1, 0.001), (1, interval), (2, interval + 0.001), (9, 8.5 * interval)):
        assert m.os.next_time(now) == pytest.approx(periods * interval)


def test_what_waits_for_a_poll_is_read_when_it_is_due() -> None:
    m = Machine(policy=POLLED)
    interval = source(m, NotificationType.POLLED).poll_interval_ms / 1000
    m.now = 3.25 * interval
    m.ao(1)
    assert m.did() == []
    m.wait(0.5 * interval)
    assert m.did() == []
    m.wait(0.25 * interval)
    assert m.did() == [(source(m, NotificationType.POLLED).source_id, "offlined")]
    assert m.os.next_time(m.now) == NEVER


@pytest.mark.parametrize("why", ["stopped", "panicked"])
def test_who_does_not_poll_never_reads(why: str) -> None:
    m = Machine(policy=POLLED)
    m.ao(1)
    if why == "stopped":
        m.os.polls_stopped = True
    else:
        m.os.panicked = "SError"
    assert m.os.next_time(m.now) == NEVER
    m.os.advance(1000.0)
    assert m.did() == []


def test_a_late_acknowledgement_comes_at_its_time_and_once() -> None:
    m = Machine()
    sea = source(m, NotificationType.SEA)
    m.os.ack_delay = {None: 0.5}
    m.guest.drive(m.core, m.ar(1), m.now)

    def acked() -> bool:
        return bool(m.guest.memory.word(sea.ack) & sea.ack_write)

    assert (m.os.next_time(m.now), acked()) == (1.5, False)
    m.os.advance(1.499)
    assert not acked()
    m.os.advance(1.5)
    assert acked()
    assert m.os.next_time(1.5) == NEVER


def test_the_delay_of_a_source_goes_before_that_of_all() -> None:
    m = Machine()
    m.os.ack_delay = {None: 5.0, source(m, NotificationType.SEA).source_id: 0.25}
    m.ar(1)
    assert m.os.next_time(m.now) == 1.25
    m.wait(1.0)
    m.os.ack_delay = {source(m, NotificationType.SEA).source_id: NEVER}
    m.ar(2)
    assert m.os.next_time(m.now) == NEVER


def test_a_late_acknowledgement_that_meets_poison_is_seen_at_its_source() -> None:
    m = Machine()
    sea = source(m, NotificationType.SEA)
    m.os.ack_delay = {None: 0.5}
    m.ar(1)
    m.did()
    m.guest.memory.poison(sea.ack & ~0xFFF, 0x1000)
    m.os.advance(2.0)
    assert m.did() == [(sea.source_id, "unreadable")]


# -- what it does about the sections of a block ---------------------------------------------------

MEMORY, ARM, OTHER = SECTION_TYPES["platform_memory"], SECTION_TYPES["arm_processor"], UUID(int=7)
ONE, TWO, OUTSIDE = GPA + 0x1000, GPA + 0x1_0000, 0x7FFF_1234_5000


def memory_error(address: int, length: int = 80) -> tuple[UUID, bytes]:
    """A Platform Memory section with a physical address, by hand; 73 bytes before UEFI 2.3."""
    return MEMORY, struct.pack("<QQQ", 2, 0, address).ljust(length, b"\0")


def cache_error(*addresses: int) -> tuple[UUID, bytes]:
    """An ARM Processor section with cache errors, by hand."""
    body = struct.pack("<IHHI12x16x", 0, len(addresses), 0, 0)
    for address in addresses:
        body += struct.pack("<BBHBHBQQQ", 0, 32, 16, 2, 0, 0, 0, 0, address)
    return ARM, body


def does(*sections: tuple[UUID, bytes]) -> tuple[str, list[int], int]:
    """A guest reads a recoverable block of these: the outcome, the pages that it offlined, how many it reported."""
    m = Machine()
    sea = source(m, NotificationType.SEA)
    entries = b"".join(
        struct.pack("<16sIHBBI16x20x8x", kind.bytes_le, 0, 0x300, 0, 0, len(body)) + body for kind, body in sections
    )
    m.guest.memory.write(sea.block, struct.pack("<IIIII", 1 | len(sections) << 4, 0, 0, len(entries), 0) + entries)
    assert m.os.read_source(sea, 1.0)
    ((_, outcome),) = m.did()
    return outcome, [first << 12 for first, count in m.os.offlined.runs() for _ in range(count)], m.os.memory_failures


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ([memory_error(ONE)], ("offlined", [ONE], 1)),
        ([cache_error(ONE), memory_error(TWO)], ("offlined", [ONE, TWO], 2)),
        ([(OTHER, b"abc"), memory_error(ONE)], ("offlined", [ONE], 1)),
        ([memory_error(ONE, 73)], ("offlined", [ONE], 1)),
        ([memory_error(ONE, 72), memory_error(TWO)], ("offlined", [TWO], 1)),
        ([memory_error(OUTSIDE), memory_error(OUTSIDE)], ("ignored", [], 2)),
        ([cache_error(OUTSIDE)], ("ignored", [], 1)),
        ([memory_error(ONE), cache_error(OUTSIDE, OUTSIDE)], ("offlined", [ONE], 3)),
    ],
)  # fmt: skip
def test_each_section_of_a_block_is_acted_upon(sections: Any, expected: Any) -> None:
    """Linux reports an address outside RAM too, and goes on with the next section (ghes_do_proc)."""
    assert does(*sections) == expected


def test_a_threshold_that_was_exceeded_takes_the_page_out_softly() -> None:
    m = Machine()
    sea = source(m, NotificationType.SEA)
    for flags, expected in ((0, "ignored"), (8, "soft-offlined")):
        kind, body = memory_error(ONE)
        entry = struct.pack("<16sIHBBI16x20x8x", kind.bytes_le, 2, 0x300, 0, flags, len(body)) + body
        other = struct.pack("<16sIHBBI16x20x8x", kind.bytes_le, 2, 0x300, 0, flags, 80).ljust(152, b"\0")  # no address
        m.guest.memory.write(sea.block, struct.pack("<IIIII", 2 | 2 << 4, 0, 0, 304, 2) + other + entry)
        m.os.read_source(sea, 1.0)
        assert m.did() == [(sea.source_id, expected)]
        assert (ONE >> 12 in m.os.offlined) == (flags == 8)
    assert m.os.memory_failures == 0


def test_which_sources_an_sea_reads() -> None:
    """The SEA sources are all read, or the vCPU's own (the profile says so), where there are several."""
    for guest, per_vcpu, index, read in (
        ("linux", True, 1, [0, 1]), ("generic", True, 0, [0]), ("generic", True, 1, [1]), ("generic", True, 2, [0]),
        ("generic", False, 1, [0]), ("linux", False, 1, [0]),
    ):  # fmt: skip
        m = Machine(guest=guest)
        one = source(m, NotificationType.SEA)
        sources = [one, one._replace(source_id=1, ack=None, register=GPA, block=GPA + 0x1000)][: 1 + per_vcpu]
        sources[0] = one._replace(source_id=0)
        m.guest.memory.write(GPA, struct.pack("<Q", GPA + 0x1000))
        for placed in sources:
            m.guest.memory.write(placed.block, memory_block([(TWO, 4096)], number=placed.source_id))
        m.os.by_type[NotificationType.SEA] = sources
        m.guest.vcpus[index].take_sea(0x92000410, None)
        m.os.run(index, 1.0)
        assert m.did() == [(source_id, "offlined") for source_id in read]


# -- a source that is empty, malformed or out of reach ---------------------------------------------


@pytest.fixture
def filled() -> tuple[Machine, Any]:
    """A machine whose SEA source holds a record that is not yet acknowledged."""
    m = Machine()
    sea = source(m, NotificationType.SEA)
    m.guest.memory.write(sea.block, memory_block([(ONE, 4096)]))
    m.guest.memory.write(sea.ack, bytes(8))
    return m, sea


def left(m: Machine, sea: Any) -> tuple[bool, bool]:
    """Whether the block is still there, and whether it was acknowledged."""
    return m.guest.memory.read(sea.block, 4) != bytes(4), bool(m.guest.memory.word(sea.ack) & sea.ack_write)


def test_nothing_is_read_where_there_is_nothing(filled: Any) -> None:
    m, sea = filled
    m.os.panicked = "SError"
    assert m.os.read_source(sea, 1.0) is False
    m.os.panicked = ""
    address = m.guest.memory.read(sea.register, 8)
    m.guest.memory.write(sea.register, bytes(8))
    assert m.os.read_source(sea, 1.0) is False
    m.guest.memory.write(sea.register, address)
    assert (m.did(), left(m, sea)) == ([], (True, False))
    assert m.os.read_source(sea, 1.0) is True
    assert (m.did(), left(m, sea)) == ([(sea.source_id, "offlined")], (False, True))
    m.guest.memory.write(sea.ack, bytes(8))
    assert m.os.read_source(sea, 1.0) is False  # it is empty now, and what is empty is not acknowledged
    assert (m.did(), left(m, sea)) == ([], (False, False))


@pytest.mark.parametrize("late", [{}, {None: 5.0}])
def test_a_malformed_block_is_cleared_and_acknowledged_and_claims_nothing(filled: Any, late: Any) -> None:
    m, sea = filled
    m.os.ack_delay = late
    m.guest.memory.write(sea.block + 12, b"\1")  # data_length
    assert m.os.read_source(sea, 1.0) is False
    assert (m.did(), left(m, sea)) == ([(sea.source_id, "malformed")], (False, not late))


def test_a_block_is_as_long_as_its_source_says_at_most(filled: Any) -> None:
    m, sea = filled
    size = len(memory_block([(ONE, 4096)]))
    for length, outcome in ((size - 1, "malformed"), (size, "offlined"), (1 << 32, "offlined")):
        m.guest.memory.write(sea.block, memory_block([(ONE, 4096)], number=length))
        m.os.read_source(sea._replace(block_length=length), 1.0)
        assert m.did() == [(sea.source_id, outcome)]


@pytest.mark.parametrize(("raw", "outcome"), [(65536, "offlined"), (65537, "malformed")])
def test_linux_reads_64_kib_of_a_block(filled: Any, raw: int, outcome: str) -> None:
    m, sea = filled
    block = m.guest.memory.read(sea.block, len(memory_block([(ONE, 4096)])))
    m.guest.memory.write(GPA, struct.pack("<Q", GPA + 0x1000))
    m.guest.memory.write(GPA + 0x1000, block)
    m.guest.memory.write(GPA + 0x1004, struct.pack("<II", len(block), raw - len(block)))  # raw data behind the entries
    m.os.read_source(sea._replace(register=GPA, block_length=1 << 20), 1.0)
    assert m.did() == [(sea.source_id, outcome)]


def test_raw_data_among_the_entries_is_malformed(filled: Any) -> None:
    m, sea = filled
    size = len(memory_block([(ONE, 4096)]))
    m.guest.memory.write(sea.block + 4, struct.pack("<II", size - 4, 8))
    assert m.os.read_source(sea, 1.0) is False
    assert m.did() == [(sea.source_id, "malformed")]
    assert ONE >> 12 not in m.os.offlined


@pytest.mark.parametrize("part", ["register", "block", "ack"])
def test_what_is_poisoned_is_unreadable(filled: Any, part: str) -> None:
    m, sea = filled
    places = {"register": GPA, "block": GPA + 0x1000, "ack": GPA + 0x2000}
    m.guest.memory.write(GPA, struct.pack("<Q", GPA + 0x1000))
    m.guest.memory.write(GPA + 0x1000, memory_block([(TWO, 4096)]))
    m.guest.memory.poison(places[part], 4096)
    held = m.os.read_source(sea._replace(register=GPA, ack=GPA + 0x2000), 1.0)
    assert held is (part == "ack")
    assert m.did() == [(sea.source_id, "offlined")] * held + [(sea.source_id, "unreadable")]


def test_only_polled_sources_are_polled() -> None:
    m = Machine()
    polled, sea = (source(m, kind) for kind in (NotificationType.POLLED, NotificationType.SEA))
    os = GuestOs(m.guest.memory, [], m.os.profile)
    os.bind((polled, polled._replace(source_id=70, poll_interval_ms=0), sea._replace(source_id=71, poll_interval_ms=9)))
    assert set(os.polled) == {polled.source_id}


@pytest.mark.parametrize(("at", "handled"), [(0, True), (0x700, False), (0x800, False), (-4, False)])
def test_what_stands_at_a_vector_is_a_handler(at: int, handled: bool) -> None:
    m = Machine()
    vcpu = m.guest.vcpus[0]
    vcpu.pc, vcpu.pstate, vcpu.elr, vcpu.spsr = VBAR + at, 0x3C5, 0x1000, 0x345
    m.os.run(0, 1.0)
    assert m.did() == ([(None, "oops")] if handled else [])
    assert (vcpu.pc == 0x1000) == (0 <= at < 0x800)


# -- the SDEI client ------------------------------------------------------------------------------


def with_two_events() -> tuple[GuestOs, int]:
    """A guest with two SDEI sources, one whose event nobody named, and a platform event of each scope."""
    os: GuestOs = Machine().os
    one = next(s for s in os.sources if s.notification == NotificationType.SDEI)
    os.sources = (*os.sources, one._replace(vector=0x777), one._replace(vector=0))
    os.sdei_events = (EventDescription(0x900, True), EventDescription(0x901))
    return os, one.vector


def test_the_client_registers_shared_events_once_and_private_ones_on_each_vcpu() -> None:
    os, first = with_two_events()
    others = len(os.sources)
    index = next(n for n, s in enumerate(os.sources) if s.vector == first and s.notification == NotificationType.SDEI)

    def ready(event: int, argument: int) -> list[tuple[int, tuple[int, ...]]]:
        return [(t.EVENT_REGISTER, (event, SDEI_ENTRY, argument, t.RM_ANY, 0)), (t.EVENT_ENABLE, (event,))]

    own = ready(0x901, others)
    assert list(os.register_sdei(True)) == [
        (t.VERSION, ()), (t.PRIVATE_RESET, ()), (t.SHARED_RESET, ()), *ready(first, index), *ready(0x777, others - 2),
        *ready(0x900, others), *own, (t.PE_UNMASK, ()),
    ]  # fmt: skip
    assert list(os.register_sdei(False)) == [(t.VERSION, ()), (t.PRIVATE_RESET, ()), *own, (t.PE_UNMASK, ())]


def test_the_client_gives_up_the_events_of_its_sources() -> None:
    os, first = with_two_events()
    assert list(os.unregister_sdei()) == [
        (call, (event,)) for event in (first, 0x777) for call in (t.EVENT_DISABLE, t.EVENT_UNREGISTER)
    ]


def test_an_event_that_is_no_sources_own_is_counted_and_reads_nothing() -> None:
    m = Machine()
    vcpu, sources = m.guest.vcpus[0], len(m.os.sources)
    for event, argument in ((0x900, sources), (0x900, sources), (0x901, 0), (0x901, sources + 9)):
        vcpu.pc, vcpu.x[:4] = SDEI_ENTRY, [event, argument, 0x1000, 0]
        m.os.run(0, 1.0)
    assert m.os.sdei_handled == {0x900: 2, 0x901: 2}
    assert m.did() == []


# -- as an adapter: effects are carried out, events answer -------------------------------------------


def test_a_reply_is_x0_in_twos_complement() -> None:
    guest = Machine().guest
    guest.vcpus[2].x[:] = range(31)
    assert guest.perform([Reply(1, 2, t.DENIED)], 1.0) == []
    assert guest.vcpus[2].x == [(1 << 64) - 3, *range(1, 31)]


@pytest.mark.parametrize(("size", "value"), [(8, 0x8877_6655_4433_2211), (4, 0x4433_2211), (2, 0x2211), (1, 0x11)])
def test_a_look_at_an_acknowledgement_is_as_wide_as_its_register(size: int, value: int) -> None:
    guest = Machine().guest
    guest.memory.write(GPA, bytes(range(0x11, 0x99, 0x11)))
    assert guest.perform([PollAck(1, 7, GPA, size)], 1.0) == [AckRead(1, 7, value)]


def test_after_a_failure_nothing_more_is_done_for_that_source_but_to_say_so() -> None:
    guest = Machine().guest
    heard: list[int] = []
    guest.listen({TakenBack: lambda e, now: heard.append(e.id)})
    answers = guest.perform(
        [
            PollAck(1, 8, GPA, 1), WriteGuest(2, 7, 0, b"b"), WriteGuest(3, 8, GPA + 1, b"c"),
            WriteGuest(4, 7, GPA + 2, b"d"), TakenBack(5, 7, (), "it failed"), PollAck(6, 8, GPA + 1, 1),
        ],
        1.0,
    )  # fmt: skip
    assert [(type(answer), answer[0]) for answer in answers] == [(AckRead, 1), (Failed, 2), (AckRead, 6)]
    assert (guest.memory.read(GPA, 4), heard) == (b"\0c\0\0", [5])


@pytest.mark.parametrize(("data", "due"), [(b"\1\0\0\0", True), (bytes(4), False), (b"\1" * 8, False)])
def test_a_polled_block_is_there_when_its_status_is_written(data: bytes, due: bool) -> None:
    m = Machine()
    placed = source(m, NotificationType.POLLED)
    m.guest.perform([WriteGuest(1, placed.source_id, placed.block, data)], 1.0)
    assert (m.os.next_time(1.0) < NEVER) == due


def test_a_call_is_answered_before_its_vcpu_stops() -> None:
    guest = Machine().guest
    guest.programs[0] = iter(())  # it has called, and has nothing to call after that
    stopped = guest.perform([Stop(1, 0), Stop(2, 1)], 1.0)
    assert [e.vcpu for e in stopped if isinstance(e, Stopped)] == [1]
    (answer,) = guest.perform([Reply(3, 0, 0), Release(4, 0)], 1.0)
    assert isinstance(answer, Stopped)
    assert (answer.vcpu, answer.state) == (0, guest.vcpus[0].state())
    assert guest.perform([Release(5, 0)], 1.0) == []


def test_what_the_orchestrator_is_asked_for_is_heard() -> None:
    guest = Machine().guest
    heard: list[Any] = []
    guest.listen({Escalate: lambda e, now: heard.append((e, now)), InjectSea: lambda e, now: heard.append((e, now))})
    asked, bare = Escalate(1, 7, "stop", "because"), InjectSea(2, None, 0, 0x92000410, None)
    guest.perform([asked, bare, InjectSea(3, 7, 1, 0x92000410, None)], 2.0)
    assert heard == [(asked, 2.0), (bare, 2.0)]  # an abort that has a record is heard of by that
    assert asked in guest.escalated
