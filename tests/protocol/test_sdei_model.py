"""The SDEI dispatcher beside a second, tiny one, and beside itself taken apart and put together at any moment."""

import gc
import json
import random
import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.protocol import sdei_model
from tests.protocol.sdei_guest import (
    CRITICAL,
    EL0,
    ENTRY,
    EVENTS,
    HANDLER,
    KEPT,
    MPIDRS,
    NUMBERS,
    PPI,
    PRIVATE,
    PRIVATE_CRITICAL,
    RESUME,
    SHARED,
    SLOT,
    SPI,
    SPI_2,
    N,
    at,
)  # fmt: skip
from vmm_ras import sdei_table as t
from vmm_ras.sdei import EventDescription, SdeiDispatcher

PES = 3
FUNCTIONS = range(t.FUNCTION_BASE, t.FUNCTION_BASE + 19)
U64 = st.integers(0, (1 << 64) - 1)
pes = st.integers(0, PES - 1)
numbers = st.sampled_from(NUMBERS)
words = st.sampled_from(
    [0, 1, 2, 3, 4, 15, 16, 17, 18, 31, 32, SPI, SPI_2, PPI, KEPT, 1 << 30, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63,
     (1 << 64) - 1, ENTRY, RESUME, ENTRY + 2, *NUMBERS, *MPIDRS]
) | U64  # fmt: skip


def restored(sdei):
    """The dispatcher, by way of JSON."""
    snapshot = json.loads(json.dumps(sdei.snapshot()))
    again = SdeiDispatcher.restore(snapshot, EVENTS, MPIDRS[:PES], kept=[KEPT])
    assert again.snapshot() == snapshot
    return again


class Walk(RuleBasedStateMachine):
    """Any calls, signals and dispatches, by an adapter that stops vCPUs only where it is told to."""

    @initialize(warm=st.integers(0, 3))
    def start(self, warm):
        self.sdei = SdeiDispatcher(EVENTS, MPIDRS[:PES], kept=[KEPT])
        self.twin = SdeiDispatcher(EVENTS, MPIDRS[:PES], kept=[KEPT])
        self.model = sdei_model.Model(EVENTS, MPIDRS[:PES], [KEPT])
        self.stops = set()
        """vCPUs that the adapter was asked for and has not visited yet."""
        self.nested = self.dispatched = 0
        for vcpu in range(PES if warm else 0):
            self.set_up(vcpu, warm)

    def set_up(self, vcpu, how):
        """A client that has set everything up: what follows is about delivery."""
        for intid in (SPI, PPI)[: how - 1]:
            self.call(vcpu, t.INTERRUPT_BIND, intid)
        for event in NUMBERS:
            mode = event == CRITICAL and how > 1
            self.call(vcpu, t.EVENT_REGISTER, event, ENTRY + 4 * vcpu, event, mode, MPIDRS[1] * mode)
            self.call(vcpu, t.EVENT_ENABLE, event)
        self.call(vcpu, t.PE_UNMASK)

    def both(self, act):
        result = act(self.sdei)
        assert act(self.twin) == result
        return result

    def want(self, wanted):
        """The dispatcher asks for vCPUs: each could run something at once."""
        assert list(wanted) == sorted(set(wanted))
        assert all(self.model.able(vcpu) for vcpu in wanted)
        self.stops |= set(wanted)

    def call(self, vcpu, function, *args, active=()):
        state = at(0x4000, HANDLER)
        padded = [*args, 0, 0, 0, 0, 0]
        expected, discarded = self.model.call(vcpu, function, padded, active)
        result = self.both(lambda sdei: sdei.call(vcpu, function, args, state, active))
        assert sorted(result.discarded) == discarded
        if isinstance(expected, int):
            assert (result.x0, result.registers, result.completed) == (expected, None, None)
        else:
            event, interrupted = expected
            registers = result.registers
            assert (result.x0, result.completed, registers.x) == (None, event, interrupted.x)
            where = registers.pc, registers.pstate, registers.elr, registers.spsr
            if function & 0xFFFF_FFFF == t.EVENT_COMPLETE:
                assert where == (interrupted.pc, interrupted.pstate, None, None)
                assert result.failed == (padded[0] != 0)
            else:
                assert where[0] == args[0]
                assert where[1] & 0x3DF == 0x3C5
                assert where[2:] == (interrupted.pc, interrupted.pstate)
                assert not result.failed
        self.want(result.wanted)

    @rule(vcpu=pes, function=st.sampled_from(FUNCTIONS) | U64, args=st.lists(words, max_size=7))
    def any_call(self, vcpu, function, args):
        self.call(vcpu, function, *args)

    @rule(
        vcpu=pes,
        event=numbers,
        function=st.sampled_from(
            [t.EVENT_ENABLE, t.EVENT_DISABLE, t.EVENT_COMPLETE, t.EVENT_UNREGISTER, t.EVENT_STATUS]
        ),
    )
    def event_call(self, vcpu, event, function):
        self.call(vcpu, function, event)

    @rule(vcpu=pes, event=numbers, flags=st.integers(0, 2), pe=pes, enable=st.booleans())
    def register(self, vcpu, event, flags, pe, enable):
        self.call(vcpu, t.EVENT_REGISTER, event, ENTRY, 7, flags, MPIDRS[pe])
        if enable:
            self.call(vcpu, t.EVENT_ENABLE, event)

    @rule(vcpu=pes, event=numbers, mode=st.integers(0, 1), pe=pes)
    def route(self, vcpu, event, mode, pe):
        self.call(vcpu, t.EVENT_ROUTING_SET, event, mode, MPIDRS[pe])
        self.call(vcpu, t.EVENT_GET_INFO, event, 4)

    @rule(vcpu=pes, on=st.booleans())
    def mask(self, vcpu, on):
        self.call(vcpu, t.PE_MASK if on else t.PE_UNMASK)

    @rule(vcpu=pes, to=pes)
    def client_signals(self, vcpu, to):
        self.call(vcpu, t.EVENT_SIGNAL, 0, MPIDRS[to])

    @rule(vcpu=pes, intid=st.sampled_from([SPI, SPI_2, PPI, KEPT, 99]), active=st.booleans())
    def bind(self, vcpu, intid, active):
        self.call(vcpu, t.INTERRUPT_BIND, intid)
        event = self.model.do_bind(vcpu, (), intid) if intid in self.model.bound.values() else None
        if event:
            place = event if self.model.shared[event] else None
            state = self.model.state.get((event, None if place else vcpu), 0)
            assert self.sdei.event_of_interrupt(intid, vcpu) == (event if state & 1 else None)
            self.call(vcpu, t.EVENT_REGISTER, event, ENTRY, 7, 0, 0, active={intid} if active else ())
            self.call(vcpu, t.INTERRUPT_RELEASE, event, active={intid} if active else ())

    @rule(vcpu=pes, shared=st.booleans(), active=st.booleans())
    def reset(self, vcpu, shared, active):
        self.call(vcpu, t.SHARED_RESET if shared else t.PRIVATE_RESET, active={SPI, PPI} if active else ())

    @rule(event=st.sampled_from(NUMBERS[1:]), vcpu=st.none() | pes)
    def signal(self, event, vcpu):
        self.raised(event, vcpu)

    def raised(self, event, vcpu):
        target = self.both(lambda sdei: sdei.signal(event, vcpu))
        if self.model.shared[event]:
            instance = event, None
        elif vcpu is not None:
            instance = event, vcpu
        else:  # a signal without a PE is for one PE, and moves there
            places = [pe for pe in range(PES) if event in self.sdei.state.pending.get(pe, ())]
            assert len(places) == 1
            instance = event, places[0]
            self.model.pending = [other for other in self.model.pending if other[0] != event]
        self.model.signal(instance)
        can = [pe for pe in range(PES) if self.model.can_run(instance, pe)]
        if instance[1] is None:
            assert [pe for pe in range(PES) if self.sdei.can_run(event, pe)] == can
        else:
            assert self.sdei.can_run(event, instance[1]) == bool(can)
        if vcpu in can:
            assert target == vcpu
        assert (target in can) if can else target is None
        if target is not None:
            idle = [pe for pe in can if not self.model.stack[pe]]
            assert target == vcpu or not idle or target in idle
            self.want([target])

    @rule(
        events=st.lists(st.sampled_from([SHARED, CRITICAL, PRIVATE, PRIVATE_CRITICAL, SLOT]), min_size=1, max_size=3),
        vcpu=pes,
        again=st.booleans(),
    )
    def signal_and_visit(self, events, vcpu, again):
        for event in events:
            self.raised(event, vcpu)
        self.visited(vcpu, EL0, vcpu)
        if again:
            self.visited(vcpu, HANDLER, vcpu + 1)

    @rule(vcpu=pes, resume=st.booleans(), failed=st.booleans())
    def complete(self, vcpu, resume, failed):
        self.call(vcpu, t.EVENT_CONTEXT, 17)
        self.call(vcpu, *((t.EVENT_COMPLETE_AND_RESUME, RESUME) if resume else (t.EVENT_COMPLETE, failed)))

    @rule(event=st.sampled_from(NUMBERS[1:]))
    def withdraw(self, event):
        assert self.both(lambda sdei: sdei.withdraw(event)) == any(event == i[0] for i in self.model.pending)
        self.model.pending = [instance for instance in self.model.pending if instance[0] != event]

    @rule(vcpu=pes, el=st.sampled_from([EL0, HANDLER]), seed=st.integers(0, 1 << 64))
    def visit(self, vcpu, el, seed):
        self.visited(vcpu, el, seed)

    def visited(self, vcpu, el, seed):
        """The vCPU is stopped: what the dispatcher wants runs on it."""
        state = at(0x8000 + len(self.model.stack[vcpu]), N | el, tuple(seed >> n & (1 << 64) - 1 for n in range(18)))
        result = self.both(lambda sdei: sdei.dispatch(vcpu, state))
        before = dict(self.model.state)
        expected = self.model.dispatch(vcpu, state)
        self.stops.discard(vcpu)
        assert (result and result.event) == (expected and expected[0])
        if expected is not None:
            assert before[expected] == 3
            assert vcpu not in self.model.masked
            entry, argument, _, _ = self.model.entry[expected]
            assert result.x == (expected[0], argument, state.pc, state.pstate)
            assert result.pc == entry
            assert result.pstate & 0x3DF == 0x3C5
            self.dispatched += 1
            self.nested += len(self.model.stack[vcpu]) == 2
            self.want(self.both(lambda sdei: sdei.wanted()))

    @rule(vcpu=pes)
    def abandon(self, vcpu):
        self.model.finish(vcpu, "COMPLETE")
        self.want(self.both(lambda sdei: sdei.abandon(vcpu)))

    @rule(vcpu=pes, absent=st.booleans())
    def leave(self, vcpu, absent):
        wanted = self.both(lambda sdei: sdei.set_absent(vcpu, absent))
        (self.model.absent.add if absent else self.model.absent.discard)(vcpu)
        self.want(wanted)

    @rule(vcpu=pes, wakes=st.booleans())
    def switch_on(self, vcpu, wakes):
        if wakes:
            self.both(lambda sdei: sdei.wake_pe(vcpu))
            self.model.masked.add(vcpu)
        else:
            assert sorted(self.both(lambda sdei: sdei.reset_pe(vcpu))) == self.model.switch_on(vcpu)
        self.want(self.both(lambda sdei: sdei.wanted()))

    @rule()
    def take_apart_and_put_together(self):
        self.twin = restored(self.twin)

    @invariant()
    def same_as_the_model(self):
        if not hasattr(self, "sdei"):
            return
        assert self.sdei.snapshot() == self.twin.snapshot()
        assert self.sdei.idle == (not self.model.pending)
        for vcpu in range(PES):
            running = self.sdei.running(vcpu)
            assert running == tuple(event for event, _ in self.model.stack[vcpu])
            assert len(running) <= 2
            assert self.sdei.masked(vcpu) == (vcpu in self.model.masked)
            for event in NUMBERS:
                status = self.sdei.call(vcpu, t.EVENT_STATUS, (event,), at()).x0
                assert status == self.model.state.get(self.model.instance(event, vcpu), 0)
        for event in NUMBERS:
            assert self.sdei.pending(event) == any(event == number for number, _ in self.model.pending)
            accepted = [state & 3 == 3 for (number, _), state in self.model.state.items() if number == event]
            assert self.sdei.accepts(event) == any(accepted)
        assert set(self.sdei.wanted()) <= {vcpu for vcpu in range(PES) if self.model.able(vcpu)}

    @invariant()
    def nothing_waits_unseen(self):
        """An event that could run somewhere can run on a vCPU that the adapter was asked for."""
        if hasattr(self, "sdei"):
            for instance in self.model.pending:
                can = {pe for pe in range(PES) if self.model.can_run(instance, pe)}
                assert not can or can & self.stops, instance

    @invariant()
    def everything_is_bounded(self):
        if hasattr(self, "sdei"):
            s, events = self.sdei.state, len(NUMBERS)
            assert sum(map(len, s.pending.values())) <= events * (PES + 1)
            assert all(s.pending.values())
            assert sum(map(len, s.states)) <= events * (PES + 1)
            assert [set(own) for own in s.registrations] == [
                {number for number, state in states.items() if state & t.REGISTERED} for states in s.states
            ]
            assert len(s.bound) <= 3
            assert max(s.unmasked, s.absent, self.sdei.busy, self.sdei.critical) < 1 << PES


Walk.TestCase.settings = settings(
    stateful_step_count=50, max_examples=settings.default.max_examples * 2 // 3, deadline=None
)
TestWalk = Walk.TestCase


@pytest.mark.parametrize("seed", range(2))
def test_a_long_walk(seed):
    """The same by chance, with the weight on delivery: hypothesis tries every rule, and hardly ever nests handlers."""
    chance = random.Random(seed)
    walk = Walk()
    walk.start(seed)
    delivery = [SHARED, CRITICAL, PRIVATE, PRIVATE_CRITICAL, SLOT]

    def pe():
        return chance.randrange(PES)

    def coin():
        return chance.random() < 0.5

    actions = {
        lambda: walk.signal_and_visit(chance.choices(delivery, k=2), pe(), coin()): 30,
        lambda: walk.complete(pe(), coin(), coin()): 25,
        lambda: walk.visit(chance.choice(sorted(walk.stops) or [0]), HANDLER, chance.getrandbits(64)): 10,
        lambda: walk.signal(chance.choice(delivery), chance.choice([None, 0, 1, 2])): 8,
        lambda: walk.mask(pe(), chance.random() < 0.2): 8,
        lambda: walk.event_call(pe(), chance.choice(NUMBERS), chance.choice(FUNCTIONS)): 4,
        lambda: walk.set_up(pe(), chance.randrange(1, 4)): 12,
        lambda: walk.leave(pe(), chance.random() < 0.2): 4,
        lambda: walk.client_signals(pe(), pe()): 4,
        lambda: walk.register(pe(), chance.choice(NUMBERS), chance.randrange(3), pe(), coin()): 3,
        lambda: walk.route(pe(), chance.choice(delivery), chance.randrange(2), pe()): 2,
        lambda: walk.bind(pe(), chance.choice([SPI, SPI_2, PPI, KEPT, 99]), coin()): 2,
        lambda: walk.any_call(pe(), chance.choice(FUNCTIONS), chance.choices(NUMBERS + MPIDRS, k=5)): 3,
        lambda: walk.withdraw(chance.choice(delivery)): 1,
        lambda: walk.abandon(pe()): 1,
        lambda: walk.reset(pe(), coin(), coin()): 1,
        lambda: walk.switch_on(pe(), coin()): 1,
        walk.take_apart_and_put_together: 5,
    }  # fmt: skip
    for action in chance.choices(list(actions), list(actions.values()), k=2000):
        action()
        walk.same_as_the_model()
        walk.nothing_waits_unseen()
        walk.everything_is_bounded()
    assert walk.dispatched > 150
    assert walk.nested > 25


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_registers_of_any_call_raise_or_hang(function):
    """Each call with random and odd registers, among dispatches; what is left can be taken out and put back."""
    chance = random.Random(function)
    odd = [0, 1, 2, 4, 17, 18, 1 << 31, 1 << 32, (1 << 64) - 1, ENTRY, SPI, PPI, *NUMBERS, *MPIDRS]
    sdei = SdeiDispatcher(EVENTS, MPIDRS[:PES], kept=[KEPT])
    answers = set()
    for turn in range(1000):
        vcpu = turn % PES
        asked = function if turn % 2 else chance.choice(FUNCTIONS)
        args = [chance.choice(odd) if chance.random() < 0.7 else chance.getrandbits(64) for _ in range(turn % 9)]
        state = at(chance.getrandbits(64), chance.choice([4, 5, 0x3C5, 0xFFFF_FFFF_0000_0005]), (turn,) * 18)
        result = sdei.call(vcpu, asked, args, state)
        assert (result.x0 is None) == (result.registers is not None)
        assert result.x0 is None or -(1 << 63) <= result.x0 < 1 << 63
        if asked == function:
            answers.add(result.x0)
        if turn % 5 == 0:
            sdei.signal(chance.choice(NUMBERS[1:]), chance.choice([None, 0, 1, 2]))
            sdei.dispatch(vcpu, state._replace(pstate=0x3C5))
        assert all(len(sdei.running(pe)) <= 2 for pe in range(PES))
    restored(sdei)
    assert answers


def opcodes(act):
    """How many bytecodes Python runs for it."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    old = sys.gettrace()
    gc.disable()  # what others do when garbage is collected is not counted
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(old)
        gc.enable()
    return count


def cost(pes):
    """Bytecodes of each step of the life of an event, with private events pending on every PE."""
    events = [EventDescription(SHARED, True), EventDescription(CRITICAL, True, True), EventDescription(PRIVATE)]
    sdei = SdeiDispatcher(events, range(pes))
    state = at()
    for vcpu in range(pes):
        for event in (0, PRIVATE):
            sdei.call(vcpu, t.EVENT_REGISTER, (event, ENTRY, 7, 0, 0), state)
            sdei.signal(PRIVATE, vcpu)
            sdei.call(0, t.EVENT_SIGNAL, (0, vcpu), state)
    for event in (SHARED, CRITICAL):
        sdei.call(0, t.EVENT_REGISTER, (event, ENTRY, 7, 0, 0), state)
        sdei.call(0, t.EVENT_ENABLE, (event,), state)
    for vcpu in range(pes - 2, pes):
        sdei.call(vcpu, t.PE_UNMASK, (), state)
    last = pes - 1
    return {
        "accepts": opcodes(lambda: sdei.accepts(SHARED)),
        "accepts private": opcodes(lambda: sdei.accepts(PRIVATE)),
        "signal": opcodes(lambda: sdei.signal(SHARED)),
        "signal private": opcodes(lambda: sdei.signal(PRIVATE, last)),
        "dispatch": opcodes(lambda: sdei.dispatch(last, state)),
        "signal critical": opcodes(lambda: sdei.signal(CRITICAL, last)),
        "nest": opcodes(lambda: sdei.dispatch(last, state)),
        "complete": opcodes(lambda: sdei.call(last, t.EVENT_COMPLETE, (0,), state)),
        "resume": opcodes(lambda: sdei.call(last, t.EVENT_COMPLETE_AND_RESUME, (RESUME,), state)),
        "mask": opcodes(lambda: sdei.call(last, t.PE_MASK, (), state)),
        "signal 0": opcodes(lambda: sdei.call(last, t.EVENT_SIGNAL, (0, 1), state)),
        "private reset": opcodes(lambda: sdei.call(last, t.PRIVATE_RESET, (), state)),
        "absent": opcodes(lambda: sdei.set_absent(last)),
    }


def test_512_pes_cost_no_more_than_two():
    few, many = cost(2), cost(512)
    assert few["dispatch"] > 50
    assert many == few


def test_512_pes():
    events = [EventDescription(SHARED, True), EventDescription(PRIVATE)]
    sdei = SdeiDispatcher(events, range(512))
    state = at()
    sdei.call(511, t.EVENT_REGISTER, (SHARED, ENTRY, 7, t.RM_ANY, 0), state)
    sdei.call(7, t.EVENT_ENABLE, (SHARED,), state)
    for vcpu in range(512):
        assert sdei.signal(SHARED) == (vcpu - 1 if vcpu else None)
        assert sdei.call(vcpu, t.PE_UNMASK, (), state).wanted == (vcpu,)
        if vcpu:
            assert sdei.call(vcpu - 1, t.PE_MASK, (), state).wanted == (vcpu,)
    assert sdei.dispatch(511, state).event == SHARED
    again = SdeiDispatcher.restore(json.loads(json.dumps(sdei.snapshot())), events, range(512))
    assert again.running(511) == (SHARED,)
