"""A shared SDEI event and its PEs, through the core: who is stopped, who cannot be, and where it is told after all."""

from __future__ import annotations

import pytest

from acpi.presets import PRESETS
from tests.machine import CONSUMED, GPA, HVA, SDEI, SIZE, TABLES, Gated, Machine, of, stops
from vmm_ras import sdei_table as t
from vmm_ras.effects import Effect, Escalate, Hold, Posted, Release, Reply, SetRegisters, TakenBack
from vmm_ras.errors import InputError
from vmm_ras.events import Code, Failed, GuestCall, HostSignal, Stopped, VcpuState
from vmm_ras.guests.model import ModelGuest
from vmm_ras.memory import ACKED, POSTED, MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import load_policy

THEN_GSIV = SDEI.replace('["sdei"]', '["sdei", "gsiv"]')


def test_an_idle_pe_is_chosen() -> None:
    m = Gated()
    m.mask(0, 2)

    effects = m.ao(1)

    assert stops(effects) == [1]
    assert [p.vcpu for p in of(effects, Posted)] == [1]
    assert m.entered == [(1, 1)]
    assert m.state(1) == ACKED


def test_a_pe_that_masks_itself_before_it_is_stopped_hands_the_event_on() -> None:
    m = Gated()
    m.deaf = {0}
    assert stops(m.ao(1)) == [0]

    assert stops(m.call(0, t.PE_MASK)) == [1]

    assert m.entered == [(1, 1)]
    assert m.state(1) == ACKED
    assert [type(e) for e in m.answer(0)] == [Release]


def test_it_goes_from_pe_to_pe_as_they_mask_themselves() -> None:
    m = Gated()
    m.deaf = {0, 1, 2, 3}
    assert stops(m.ao(1)) == [0]
    assert [stops(m.call(vcpu, t.PE_MASK)) for vcpu in range(4)] == [[1], [2], [3], []]
    for vcpu in range(4):
        m.answer(vcpu)
    assert m.entered == []
    assert m.state(1) == POSTED

    m.deaf = set()
    effects = m.call(2, t.PE_UNMASK)

    assert stops(effects) == [], "it is out already"
    assert m.entered == [(2, 1)]
    assert m.state(1) == ACKED


def test_all_masked_it_waits_and_the_first_that_unmasks_takes_it() -> None:
    m = Gated()
    m.mask(0, 1, 2, 3)
    effects = m.ao(1)
    assert stops(effects) == []
    assert m.state(1) == POSTED

    m.call(3, t.PE_UNMASK)

    assert m.entered == [(3, 1)]
    assert m.state(1) == ACKED


def test_a_pe_that_cannot_be_stopped_hands_the_event_on() -> None:
    m = Gated(THEN_GSIV + CONSUMED)
    m.deaf = {0, 1}
    m.ao(1)

    assert stops(m.fail(0)) == [1]
    effects = m.fail(1)

    assert stops(effects) == [2]
    assert of(effects, TakenBack) == []
    assert m.entered == [(2, 1)]
    assert m.state(1) == ACKED


def test_where_no_pe_can_be_stopped_another_way_is_taken_and_they_are_tried_again_later() -> None:
    m = Gated(THEN_GSIV + CONSUMED)
    m.deaf = {0, 1, 2, 3}
    m.ao(1)
    effects = [e for vcpu in range(4) for e in m.fail(vcpu)]
    assert [p.delivery for p in of(effects, Posted)] == ["gsiv"]
    assert len(of(effects, TakenBack)) == 1
    m.deaf = set()
    m.wait(60.0)
    assert m.did() == [(4, "offlined")]
    assert m.state(1) == ACKED

    m.ao(2)

    assert m.entered == [(0, 1)]
    assert m.state(2) == ACKED


def test_the_stop_of_a_redirected_event_fails_too() -> None:
    m = Gated(THEN_GSIV + CONSUMED)
    m.mask(2, 3)
    m.deaf = {0, 1}
    m.ao(1)
    assert stops(m.call(0, t.PE_MASK)) == [1]

    effects = m.fail(1)

    assert [p.delivery for p in of(effects, Posted)] == ["gsiv"]
    m.wait(1.0)
    assert m.state(1) == ACKED


def test_a_pe_that_never_answers_is_passed_over_when_the_guest_is_told_again() -> None:
    m = Gated()
    m.deaf = {0}
    assert stops(m.ao(1)) == [0]

    effects = m.wait(2.5)

    assert 1 in stops(effects)
    assert m.entered == [(1, 1)]
    assert m.state(1) == ACKED
    assert of(effects, Escalate) == []
    m.deaf = set()
    m.answer(0)
    assert stops(m.ao(2)) == [0], "it came, and is asked again"


def test_a_held_pe_hands_the_event_on() -> None:
    m = Gated()
    m.os.ack_delay = {0: float("inf")}
    m.ar(1, vcpu=3)
    m.mask(1, 2)
    m.deaf = {0}
    m.core.receive(HostSignal(Code.AR, HVA + 0x5000, 12, 100), m.now)  # vCPU 0 consumed poison, and is being stopped
    effects = m.ao(6)
    assert [p.vcpu for p in of(effects, Posted)] == [0]

    held = m.receive(Stopped(0, m.guest.vcpus[0].state()))

    assert [e.vcpu for e in of(held, Hold)] == [0]
    assert stops(held) == [3]
    assert m.entered == [(3, 1)]
    assert m.state(6) == ACKED


def test_a_held_pe_is_not_chosen_and_is_again_when_it_is_let_go() -> None:
    m = Gated()
    m.os.ack_delay = {0: float("inf")}
    m.ar(1, vcpu=3)
    effects = m.ar(2, vcpu=0)
    assert [e.vcpu for e in of(effects, Hold)] == [0]

    assert stops(m.ao(3)) == [1]

    m.mask(1, 2, 3)
    m.ao(4)
    assert m.state(4) == POSTED
    m.wait(60.0)  # vCPU 0 is released with an SEA that finds no record
    assert m.state(4) == ACKED
    assert m.entered[:2] == [(1, 1), (0, 1)]


@pytest.mark.parametrize("first", range(4))
def test_what_a_busy_pe_cannot_take_another_does(first: int) -> None:
    """Two events for one PE: while it handles the first, the second is for another, if there is one."""
    m = Machine(sdei=False)
    one = next(placed for placed in m.image.sources if placed.vector == 0x324)
    two = one._replace(source_id=9, vector=0x400, block=one.block + 0x10_0000, ack=None)
    policy = load_policy(SDEI + 'busy = "next"\n' + CONSUMED)
    core = Notifier([one, two], m.core.memory, guest=m.core.guest, vcpus=4, policy=policy)
    kernel = VcpuState(0xFFFF_8000_0803_0000, 5)

    def call(vcpu: int, function: int, *args: int) -> list[Effect]:
        return core.receive(GuestCall(vcpu, function, args, kernel), 0.0)

    for event in (0x324, 0x400):
        call(0, t.EVENT_REGISTER, event, 0xFFFF_8000_0802_0000, 0, 0, 0)
        call(0, t.EVENT_ENABLE, event)
    for vcpu in range(first, 4):
        call(vcpu, t.PE_UNMASK)
    effects = [e for page in (1, 2) for e in core.receive(HostSignal(Code.AO, HVA + (page << 12), 12, 1), 0.0)]
    assert [(p.source_id, p.vcpu) for p in of(effects, Posted)] == [(1, first), (9, first)]
    assert stops(effects) == [first]

    effects = core.receive(Stopped(first, kernel), 0.0)

    assert [type(e) for e in effects[:2]] == [SetRegisters, Release]
    assert [(e.vcpu, e.source_id) for e in of(effects, SetRegisters)] == [(first, 1)]
    assert stops(effects) == ([first + 1] if first < 3 else [])
    if first < 3:
        after = core.receive(Stopped(first + 1, kernel), 0.0)
    else:
        after = call(3, t.EVENT_COMPLETE, 0)[1:]
    assert [(e.vcpu, e.source_id, e.x[0]) for e in of(after, SetRegisters)] == [(min(first + 1, 3), 9, 0x400)]
    assert core.sdei.idle


def test_a_handler_that_could_not_be_entered_is_told_elsewhere() -> None:
    m = Gated(THEN_GSIV + CONSUMED)
    m.deaf = {0}
    m.ao(1)
    effects = m.core.receive(Stopped(0, m.guest.vcpus[0].state()), m.now)
    entry = of(effects, SetRegisters)[0]

    after = m.receive(Failed(entry.id, "no such register"))

    assert [p.delivery for p in of(after, Posted)] == ["gsiv"]
    assert m.core.sdei.running(0) == ()
    m.wait(1.0)
    assert m.state(1) == ACKED


def test_512_vcpus() -> None:
    m = Machine(sdei=False)
    m.guest = ModelGuest(m.image, m.os.profile, vcpus=512)
    m.guest.memory.add_region(GPA, SIZE)
    m.core = Notifier(
        m.image.sources, m.core.memory, guest=m.os.profile, vcpus=512, policy=load_policy(SDEI + CONSUMED)
    )
    m.guest.start_sdei(m.core, 0.0)
    for vcpu in range(511):
        state = m.guest.vcpus[vcpu].state()._replace(pstate=5)
        m.receive(GuestCall(vcpu, t.PE_MASK, (), state))

    effects = m.ao(1)

    assert stops(effects) == [511]
    assert m.did() == [(1, "offlined")]
    assert m.state(1) == ACKED


def test_events_go_to_a_vcpu_by_its_mpidr() -> None:
    """As KVM's GICv3 numbers them: 16 to a cluster, so that vCPU 16 is 0.0.1.0."""
    image = PRESETS["all"].place(TABLES)
    mpidrs = [1 << 31 | index // 16 << 8 | index % 16 for index in range(20)]
    slots = MemoryMap([MemorySlot(HVA, GPA, SIZE)])
    core = Notifier(image.sources, slots, vcpus=20, mpidrs=mpidrs)
    event, state = core.ways["sdei"][0].placed.vector, VcpuState(0x1000, 5)

    def call(function: int, *args: int) -> int:
        (reply,) = of(core.receive(GuestCall(3, function, args, state), 0.0), Reply)
        return reply.x0

    assert call(t.EVENT_REGISTER, event, 0xFFFF_8000_0000_0000, 0, t.RM_PE, 16) == t.INVALID_PARAMETERS
    assert call(t.EVENT_REGISTER, event, 0xFFFF_8000_0000_0000, 0, t.RM_PE, 0x100) == 0
    assert call(t.EVENT_ROUTING_SET, event, t.RM_PE, 0x103) == 0
    with pytest.raises(InputError, match="20 MPIDRs of 19 vCPUs"):
        Notifier(image.sources, slots, vcpus=19, mpidrs=mpidrs)
