"""What the core promises, each promise by an ordinary case: who is told what, by which way, and what if not."""

from __future__ import annotations

import pytest

from acpi.ghes import ErrorStatusHeader, StatusBlock
from cper.common import SectionFlags, Severity
from cper.memory import PlatformMemory
from tests.machine import GPA, HVA, Machine, of
from vmm_ras.effects import (
    Acked,
    ArmAck,
    Decided,
    Escalate,
    Hold,
    InjectSea,
    InjectSerror,
    OwnMemory,
    PollAck,
    Posted,
    Release,
    SetRegisters,
    Stop,
    TakenBack,
    Undelivered,
    WriteGuest,
)
from vmm_ras.events import AckRead, Code, Done, Failed, GuestAbort, HostSignal, MemoryFault, Stopped, TellRecord
from vmm_ras.memory import ACKED, HEALTHY, POSTED, UNREPORTED
from vmm_ras.record import memory_block


def only(found: list) -> object:
    assert len(found) == 1, found
    return found[0]


# -- AR ---------------------------------------------------------------------------------------


def test_a_consumed_error_is_told_by_sea_and_acknowledged() -> None:
    m = Machine()

    effects = m.ar(5)

    sea = only(of(effects, InjectSea))
    assert (sea.vcpu, sea.esr, sea.far) == (0, 0x92000410, None)
    assert m.did() == [(0, "offlined")]
    assert (GPA >> 12) + 5 in m.os.offlined
    assert m.os.signalled == 1
    assert m.state(5) == ACKED
    assert only(of(effects, Acked)).pages == ((GPA + 0x5000, 4096),)
    assert m.guest.vcpus[0].el == 0, "the handler returned"


def test_the_vcpu_is_stopped_before_anything_is_decided() -> None:
    m = Machine()

    effects = m.core.receive(HostSignal(Code.AR, HVA, 12, 102), 0.0)

    assert effects == [Stop(effects[0].id, 2)]


def test_effects_of_an_ar_come_in_publish_order() -> None:
    m = Machine()

    kinds = [type(e) for e in m.ar(1)]

    wanted = [ArmAck, WriteGuest, WriteGuest, InjectSea, Release, PollAck]
    assert [k for k in kinds if k in wanted] == wanted
    ids = [e.id for e in m.ar(2)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("gva", "el", "esr"),
    [
        (None, 0, 0x92000410),
        (None, 1, 0x96000410),
        (0xFFFF_AA44_7040, 0, 0x92000010),
        (0xFFFF_AA44_7040, 1, 0x96000010),
    ],
)
def test_syndrome_of_an_abort_with_and_without_a_guest_address(gva: int | None, el: int, esr: int) -> None:
    m = Machine(guest="generic")
    m.guest.vcpus[1].run_at(el)

    effects = m.receive(GuestAbort(1, 0x92000410, gva, GPA + 0x7123))

    sea = only(of(effects, InjectSea))
    assert (sea.esr, sea.far) == (esr, gva)
    assert m.guest.vcpus[1].esr == esr
    if gva is not None:
        assert m.guest.vcpus[1].far == gva
    assert m.did() == [(0, "offlined")]
    assert m.state(7) == ACKED


def test_far_is_left_alone_without_a_guest_address() -> None:
    m = Machine()
    m.guest.vcpus[0].far = 0x1234

    m.ar(1)

    assert m.guest.vcpus[0].far == 0x1234


def test_relay_passes_the_hosts_syndrome_on_with_the_class_rewritten() -> None:
    policy = 'version=1\n[[rule]]\nname="all"\ndeliver=["sea","polled"]\nsea={relay=true}\n'
    m = Machine(policy=policy)

    effects = m.receive(GuestAbort(0, 0x92000650, 0x1000, GPA))  # EC lower EL, EA, WnR, DFSC 0x10

    assert only(of(effects, InjectSea)).esr == 0x92000250


def test_an_abort_without_any_address_still_reaches_the_guest() -> None:
    m = Machine()

    effects = m.receive(GuestAbort(0, 0x92000410))

    assert only(of(effects, InjectSea)).source_id is None
    assert m.did() == [(None, "objerr")]
    assert of(effects, Posted) == []


def test_kernel_abort_under_linux_leaves_no_stale_record() -> None:
    m = Machine()
    m.guest.vcpus[0].run_at(1)

    effects = m.ar(9)

    assert only(of(effects, InjectSea)).source_id is None
    assert of(effects, InjectSea)[0].esr == 0x96000410
    assert [p.delivery for p in of(effects, Posted)] == ["sdei"], "the page is told by an asynchronous way"
    assert m.did() == [(None, "oops"), (1, "offlined")]
    assert m.state(9) == ACKED
    m.guest.vcpus[0].run_at(0)
    m.ar(10)
    assert m.did() == [(0, "offlined")], "the next SEA finds its own record"


def test_a_repeated_ar_is_not_swallowed_by_the_cache_of_linux() -> None:
    m = Machine()

    for _ in range(3):
        m.ar(5)

    assert m.did() == [(0, "offlined")] * 3
    assert m.os.signalled == 3


def test_identical_blocks_would_be_swallowed() -> None:
    """The model has the cache that makes the rule above necessary."""
    from vmm_ras.record import QEMU

    m = Machine(style=QEMU)
    m.ar(5)
    m.ar(5)

    assert m.did() == [(0, "offlined"), (0, "swallowed")]


def test_a_second_vcpu_is_held_until_the_acknowledgement() -> None:
    m = Machine()
    m.os.ack_delay[None] = 0.5
    m.ar(1, vcpu=0)

    effects = m.ar(2, vcpu=1)

    assert only(of(effects, Hold)).vcpu == 1
    assert of(effects, WriteGuest) == []
    assert [e for e in of(effects, Release) if e.vcpu == 1] == []
    assert m.state(2) == UNREPORTED
    later = m.wait(2.0)
    assert [p.vcpu for p in of(later, Posted)] == [1]
    assert [e.vcpu for e in of(later, Release)] == [1]
    assert m.did() == [(0, "offlined"), (0, "offlined")]
    assert m.state(1) == m.state(2) == ACKED


def test_the_hold_ends_without_a_record_and_nothing_is_lost() -> None:
    m = Machine()
    m.os.ack_delay[0] = float("inf")
    m.ar(1, vcpu=0)
    m.ar(2, vcpu=1)

    later = m.wait(3.0)

    bare = [e for e in of(later, InjectSea) if e.source_id is None]
    assert [e.vcpu for e in bare] == [1]
    assert m.state(1) == POSTED
    assert m.state(2) == ACKED, "told by SDEI instead"


def test_nothing_is_written_while_a_block_is_unacknowledged() -> None:
    m = Machine(policy=POLLED_ONLY)
    m.os.polls_stopped = True
    m.ao(1)
    block = m.guest.memory.read(m.core.sources[2].placed.block, 172)

    effects = [e for page in range(2, 40) for e in m.ao(page)]
    effects += m.wait(100.0)

    assert of(effects, WriteGuest) == of(effects, ArmAck) == []
    assert m.guest.memory.read(m.core.sources[2].placed.block, 172) == block
    assert m.core.poison.counts[UNREPORTED] == 38
    m.os.polls_stopped = False
    m.wait(100.0)
    assert m.core.poison.counts[ACKED] == 39
    assert m.os.offlined.count == 39


def test_unread_blocks_are_notified_again_then_escalated() -> None:
    m = Machine()
    deaf = m.os.by_type.pop(8)
    m.ar(1)

    effects = m.wait(10.0)

    again = [e for e in of(effects, InjectSea) if e.source_id == 0]
    assert len(again) == 2
    assert of(effects, WriteGuest) == [], "with the block as it was"
    assert [e.action for e in of(effects, Escalate)] == ["report"]
    m.os.by_type[8] = deaf
    m.os.read_source(deaf[0], m.now)
    assert of(m.wait(120.0), Acked), "a late reader still counts"


def test_a_block_that_was_read_is_not_notified_again() -> None:
    """A repeated SEA would find no record, and kill a process for nothing."""
    m = Machine()
    m.os.ack_delay[None] = float("inf")
    m.ar(1)

    effects = m.wait(10.0)

    assert of(effects, InjectSea) == []
    assert [e.action for e in of(effects, Escalate)] == ["report"]
    assert m.did() == [(0, "offlined")]


def test_a_thread_that_is_no_vcpu_consumes_for_nobody() -> None:
    m = Machine()

    effects = m.receive(HostSignal(Code.AR, HVA, 12, 7))

    assert of(effects, InjectSea) == []
    assert only(of(effects, Posted)).delivery == "sdei"


# -- AO ---------------------------------------------------------------------------------------

POLLED_ONLY = 'version=1\n[[rule]]\nname="all"\ndeliver=["sea","polled"]\n'


def way(name: str) -> str:
    return f'version=1\n[[rule]]\nname="all"\ndeliver=["{name}"]\n'


@pytest.mark.parametrize("name", ["sdei", "gsiv", "gpio", "polled"])
def test_a_found_error_by_each_asynchronous_way(name: str) -> None:
    m = Machine(policy=way(name))

    effects = m.ao(3) + m.wait(2.0)

    posted = only(of(effects, Posted))
    assert posted.delivery == name
    entry = StatusBlock.decode(posted.block).entries[0]
    assert entry.header.flags == SectionFlags.LATENT_ERROR
    assert [outcome for _, outcome in m.did()] == ["offlined"]
    assert m.state(3) == ACKED


def test_the_first_way_that_the_guest_accepts_is_taken() -> None:
    assert only(of(Machine().ao(1), Posted)).delivery == "sdei"
    assert only(of(Machine(sdei=False).ao(1), Posted)).delivery == "gsiv"
    assert only(of(Machine("default", sdei=False).ao(1), Posted)).delivery == "polled"


def test_sei_is_pending_while_masked_and_taken_on_unmask() -> None:
    m = Machine(guest="generic", policy=way("sei"))
    m.guest.vcpus[0].mask_serror()

    effects = m.ao(3)

    assert only(of(effects, InjectSerror)).vsesr == 0x0811
    assert m.did() == []
    assert m.guest.vcpus[0].isr == 1 << 8
    assert m.state(3) == POSTED
    assert m.guest.vcpus[0].unmask_serror()
    assert m.guest.vcpus[0].esr == 0xBE000811
    m.os.run(0, m.now)
    m.wait(1.0)
    assert m.did() == [(3, "offlined")]
    assert m.state(3) == ACKED


def test_linux_is_never_told_by_sei() -> None:
    m = Machine(guest="linux", policy=way("sei"))

    effects = m.ao(1)

    assert "no source that the guest binds" in only(of(effects, Undelivered)).reason
    assert m.state(1) == UNREPORTED


def test_sdei_dispatch_and_completion_restore_the_vcpu() -> None:
    m = Machine(policy=way("sdei"))
    vcpu = m.guest.vcpus[0]
    vcpu.x[:18] = range(18)
    pc, pstate, elr = vcpu.pc, vcpu.pstate, vcpu.elr

    effects = m.ao(1)

    first = of(effects, SetRegisters)[0]
    assert first.x[:4] == (0x324, 1, pc, pstate)
    assert vcpu.x[:18] == list(range(18))
    assert (vcpu.pc, vcpu.pstate) == (pc, pstate)
    assert vcpu.elr == pc, "as after an interrupt (COMPLETE_AND_RESUME)"
    assert elr != pc
    assert m.did() == [(1, "offlined")]


def test_pages_wait_until_sdei_is_registered() -> None:
    m = Machine(policy=way("sdei"), sdei=False)
    assert "not registered" in only(of(m.ao(1), Undelivered)).reason
    m.ao(2)

    m.guest.start_sdei(m.core, m.now)
    m.wait(1.0)

    assert m.state(1) == m.state(2) == ACKED
    assert m.os.offlined.count == 2


def test_unregistering_while_an_event_is_pending_takes_the_block_back() -> None:
    m = Machine("all")
    for n, _ in enumerate(m.guest.vcpus):
        m.core.sdei.call(n, 0xC400002B, (), m.guest.vcpus[0].state()._replace(pstate=5))  # PE_MASK
    m.ao(1)
    assert m.state(1) == POSTED

    m.guest.start_sdei(m.core, m.now, registered=False)
    m.wait(2.0)

    assert m.state(1) == ACKED, "by the next way"
    assert m.did()[-1] == (4, "offlined")


def test_a_known_page_is_not_told_twice_by_ao() -> None:
    m = Machine()
    m.ao(1)

    effects = m.ao(1)

    assert only(of(effects, Decided)).what == "known"
    assert of(effects, Posted) == []


def test_a_large_page_is_told_page_by_page() -> None:
    m = Machine()

    effects = m.ao(512, lsb=21) + m.wait(512 * 0.005)

    assert [len(p.pages) for p in of(effects, Posted)] == [16] * 32
    assert m.core.poison.counts[ACKED] == 512
    assert m.os.offlined.count == 512


def test_of_a_large_page_that_was_used_the_rest_is_found() -> None:
    m = Machine()

    effects = m.ar(512 + 7, lsb=21) + m.wait(512 * 0.005)

    sea, *rest = of(effects, Posted)
    assert sea.delivery == "sea"
    assert sea.pages[0] == (GPA + (519 << 12), 4096), "the page that was accessed comes first"
    assert len(sea.pages) == 16
    assert {p.delivery for p in rest} == {"sdei"}
    assert m.core.poison.counts[ACKED] == 512


def test_between_records_of_several_pages_the_guest_gets_time() -> None:
    """Linux acknowledges before it has handled them, keeps 16 for each CPU, and forgets more."""
    m = Machine()
    m.os.ack_delay[None] = 0.1
    effects = m.ao(512, lsb=17)  # 32 pages
    assert [len(p.pages) for p in of(effects, Posted)] == [16]
    (acked,) = of(m.wait(0.15), Acked)
    assert len(acked.pages) == 16
    took = m.now  # a guest that is slow to acknowledge gets twice that, if it is more than 5 ms for each page
    effects = m.wait(0.15)
    assert of(effects, Posted) == []
    effects = m.wait(0.15)
    assert [len(p.pages) for p in of(effects, Posted)] == [16], took
    rules = 'version = 1\n[[rule]]\nname = "all"\ndeliver = ["sdei"]\nentries = 20\npause_ms = 0\n'
    m = Machine(policy=rules)
    assert [len(p.pages) for p in of(m.ao(512, lsb=17), Posted)] == [20, 12], "unless a rule says otherwise"


def test_one_entry_per_block_where_the_table_says_so() -> None:
    m = Machine("qemu-11.1", sdei=False)

    effects = m.ao(16, lsb=16) + m.wait(1.0)

    assert [len(p.pages) for p in of(effects, Posted)] == [1] * 16
    assert m.os.offlined.count == 16


def test_addresses_of_no_slot_are_the_vmms_own() -> None:
    m = Machine()

    effects = m.receive(HostSignal(Code.AR, 0x1000, 12, 100))

    assert only(effects) == OwnMemory(effects[0].id, Code.AR, 0x1000, 12, 100)
    assert m.did() == []


def test_a_range_is_clipped_to_its_slot() -> None:
    core = Machine().core

    core.receive(HostSignal(Code.AO, HVA + (1 << 30) - 4096, 34, 1), 1.0)

    assert sum(core.poison.counts[1:]) == 1 << 18


def test_memory_faults_by_guest_address() -> None:
    m = Machine()

    m.receive(MemoryFault(GPA + 0x10000, 0x3000))

    assert [m.state(p) for p in range(15, 20)] == [HEALTHY, ACKED, ACKED, ACKED, HEALTHY]
    assert "no guest memory" in only(of(m.receive(MemoryFault(0, 4096)), Undelivered)).reason


# -- what fails --------------------------------------------------------------------------------


def test_a_poisoned_block_page_makes_the_source_unusable_and_another_way_tells() -> None:
    m = Machine()
    m.guest.memory.poison(m.core.sources[1].placed.block, 1)

    effects = m.ao(1) + m.wait(1.0)

    assert of(effects, TakenBack)
    assert "poisoned" in m.core.sources[1].state.broken
    assert m.state(1) == ACKED
    assert [p.delivery for p in of(effects, Posted)] == ["sdei", "gsiv"]


def test_a_poisoned_ack_register_is_met_before_the_block_is_touched() -> None:
    m = Machine("default")
    for source in m.core.sources.values():
        m.guest.memory.poison(source.placed.ack, 8)

    effects = m.ao(1)

    assert m.state(1) == UNREPORTED
    assert of(effects, Undelivered)
    assert all(s.state.broken for s in m.core.sources.values() if s.way != "sea")


def test_a_failed_injection_takes_the_record_back_and_falls_back() -> None:
    m = Machine()
    stop = m.core.receive(HostSignal(Code.AR, HVA + 0x1000, 12, 100), 1.0)
    effects = m.core.receive(Stopped(0, m.guest.vcpus[0].state()), 1.0)
    before = [e for e in effects if e.id < only(of(effects, InjectSea)).id]
    m.guest.perform(before, 1.0)

    after = m.core.receive(Failed(only(of(effects, InjectSea)).id, "vCPU is gone"), 1.0)

    assert stop
    assert only(of(after, TakenBack)).reason == "vCPU is gone"
    m.guest.drive(m.core, after, 1.0)
    assert m.guest.memory.read(m.core.sources[0].placed.block, 4) == bytes(4), "no stale record"
    assert m.state(1) == ACKED
    assert m.did() == [(1, "offlined")]


def test_a_vcpu_that_cannot_be_stopped_is_told_by_other_ways() -> None:
    m = Machine()
    stop = only(m.core.receive(HostSignal(Code.AR, HVA + 0x1000, 12, 100), 1.0))

    m.drive(m.core.receive(Failed(stop.id, "the thread is gone"), 1.0))  # type: ignore[attr-defined]

    assert m.core.aborts == {}
    assert m.state(1) == ACKED


def test_an_abort_of_a_vcpu_that_is_held_is_not_forgotten() -> None:
    m = Machine()
    m.os.ack_delay[0] = float("inf")
    m.ar(1, vcpu=0)
    m.ar(2, vcpu=1)

    m.receive(GuestAbort(1, 0x92000410, None, GPA + 0x3000))

    assert m.state(3) == ACKED, "as found"


def test_aborts_outside_guest_memory_are_told_without_a_record() -> None:
    m = Machine()

    m.receive(GuestAbort(1, 0x92000410, None, 1 << 60))

    assert m.did() == [(None, "objerr")]
    assert m.core.poison.counts[1:] == [0, 0, 0]


def test_an_sei_for_a_held_vcpu_waits_for_it() -> None:
    policy = 'version=1\n[[rule]]\nname="ar"\nwhen={code="AR"}\ndeliver=["sea"]\n[[rule]]\nname="ao"\ndeliver=["sei"]\n'
    m = Machine(guest="generic", policy=policy)
    m.os.ack_delay[0] = 1.0
    m.ar(1, vcpu=1)
    m.ar(2, vcpu=0)

    effects = m.ao(3)

    assert of(effects, Release) == of(effects, InjectSerror) == [], "a held vCPU is not let go"
    m.wait(5.0)
    assert [m.state(p) for p in (1, 2, 3)] == [ACKED] * 3


def test_a_held_vcpu_takes_one_serror_however_often_it_was_to_be_told() -> None:
    policy = (
        'version=1\n[[rule]]\nname="ar"\nwhen={code="AR"}\ndeliver=["sea"]\n'
        '[[rule]]\nname="ao"\ndeliver=["sei"]\nunacked={after_ms=400, tries=5}\n'
    )
    m = Machine(guest="generic", policy=policy)
    m.os.ack_delay[0] = 1.9
    m.ar(1, vcpu=1)
    m.ar(2, vcpu=0)
    m.ao(3)
    m.wait(1.8)
    assert m.core.wanted == {0: [3]}, "told again four times, and once is enough"

    effects = m.wait(0.2)

    told = [type(e) for e in effects if isinstance(e, (InjectSerror, Acked)) and e.source_id == 3]
    assert told == [InjectSerror, Acked] * 2, "one for page 3, and one for page 2, which nobody consumes now"
    m.wait(5.0)
    assert [m.state(p) for p in (1, 2, 3)] == [ACKED] * 3


def test_an_serror_for_a_held_vcpu_is_not_injected_for_the_record_of_another_one() -> None:
    m = Machine(guest="generic", policy=way("sea"))
    m.os.ack_delay[0] = 1.0
    m.ar(1, vcpu=1)
    m.ar(2, vcpu=0)
    block = ErrorStatusHeader(uncorrectable=True, severity=Severity.INFORMATIONAL).encode()
    m.receive(TellRecord(block, 3, 0))
    placed = m.core.sources[3].placed
    m.guest.memory.write(placed.block, bytes(4))  # the guest looks at every source, and finds it without the SError
    m.guest.memory.write(placed.ack, placed.ack_write.to_bytes(8, "little"))
    m.wait(0.5)
    m.os.ack_delay[3] = 2.0

    told = m.receive(TellRecord(block, 3, 2))
    later = m.wait(5.0)

    assert {e.vcpu for e in of(told + later, InjectSerror)} == {2}


def test_a_look_that_failed_is_not_the_last_one() -> None:
    """The gate could not be read, or the look was skipped with another effect of its source: the core looks again."""
    m = Machine(policy=way("gsiv"))
    m.os.ack_delay[None] = 0.5
    m.ao(3)
    m.now = m.core.next_deadline()
    look = only(of(m.core.expire(m.now), PollAck))

    m.drive(m.core.receive(Failed(look.id, "the gate cannot be read"), m.now))

    assert m.state(3) == POSTED
    m.wait(2.0)
    assert m.state(3) == ACKED


def test_stale_answers_change_nothing() -> None:
    m = Machine()
    first = m.ar(1)
    m.os.ack_delay[None] = float("inf")
    m.ar(2)

    assert m.core.receive(AckRead(only(of(first, PollAck)).id, 0, 1), m.now) == []
    assert m.core.receive(Failed(1, "?"), m.now) == m.core.receive(Failed(0, "?"), m.now) == []
    assert not any(s.state.broken for s in m.core.sources.values())
    assert m.core.receive(Done(10**9), m.now) == []
    assert m.core.receive(AckRead(10**9, 77, 1), m.now) == []
    assert m.state(2) == POSTED


# -- GHES version 1 ------------------------------------------------------------------------------


def test_without_an_ack_register_the_block_status_is_the_gate() -> None:
    from acpi.hest import NotificationType
    from acpi.image import SourceDescription, place
    from vmm_ras.guests.model import ModelGuest
    from vmm_ras.memory import MemoryMap, MemorySlot
    from vmm_ras.notifier import Notifier
    from vmm_ras.profiles import PROFILES

    image = place([SourceDescription(0, NotificationType.SEA, version=1)], 0x3FF00000)
    guest = ModelGuest(image, PROFILES["linux"])
    guest.memory.add_region(GPA, 1 << 20)
    core = Notifier(image.sources, MemoryMap([MemorySlot(HVA, GPA, 1 << 20)]), threads={1: 0})

    effects: list = []
    guest.drive(core, core.receive(HostSignal(Code.AR, HVA, 12, 1), 0.0), 0.0, effects.extend)

    assert of(effects, ArmAck) == []
    assert only(of(effects, Acked))
    assert [a.outcome for a in guest.os.drain()] == ["offlined"]


# -- the record --------------------------------------------------------------------------------


def test_the_record_says_what_is_lost() -> None:
    block = StatusBlock.decode(memory_block([(0x40005000, 4096), (0x40006000, 4096)], number=42, time=1_700_000_000.5))

    assert block.header.entry_count == 2
    assert block.header.multiple_uncorrectable
    first = block.entries[0]
    assert first.header.fru_text == "vmm memory #0000002a"
    assert str(first.header.timestamp) == "2023-11-14 22:13:20"
    section = first.section()
    assert isinstance(section, PlatformMemory)
    assert section.physical_address == 0x40005000
    assert section.physical_address_mask == 0xFFFF_FFFF_FFFF_F000


def test_a_failure_is_laid_to_the_source_whose_effect_it_was() -> None:
    """Between the first and the last effect of one posting lie those of another; found by a random walk."""
    m = Machine(policy='version = 1\n[[rule]]\nname = "all"\ndeliver = ["sdei", "gsiv"]\n')
    event, line = (m.core.ways[way][0].placed.source_id for way in ("sdei", "gsiv"))
    stop = of(m.core.receive(HostSignal(Code.AO, HVA, 12, 1), 1.0), Stop)[0]
    m.core.busy[event].state.refused[0] = 9.0  # so that the next page goes by the line
    m.core.receive(HostSignal(Code.AO, HVA + 0x1000, 12, 1), 1.0)
    armed = m.core.sources[line].state.first
    m.core.receive(Stopped(stop.vcpu, m.guest.vcpus[stop.vcpu].state()), 1.0)
    assert m.core.sources[event].state.first < armed < m.core.sources[event].state.last

    effects = m.core.receive(Failed(armed, "no"), 1.0)

    assert only(of(effects, TakenBack)).source_id == line
