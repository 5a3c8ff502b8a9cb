"""A VM whose host loses pages and whose guest is slow, deaf, half gone or hostile; and what must hold all the same.

``World`` has one method per action.  hypothesis drives it in ``tests/protocol/test_anything.py`` and shrinks what it
finds; ``python -m tests.prove`` walks it at random, a million steps and more.
"""

from __future__ import annotations

import contextlib
from typing import Any

from acpi.ghes import ErrorStatusHeader
from cper.common import Severity
from tests.machine import GPA, HVA, SIZE, Machine
from vmm_ras.arm64 import PSTATE_A
from vmm_ras.effects import (
    ArmAck,
    Hold,
    InjectSea,
    InjectSerror,
    PollAck,
    RaiseLine,
    Release,
    Reply,
    SetRegisters,
    Stop,
    WriteGuest,
)
from vmm_ras.errors import GuestError, InputError
from vmm_ras.events import (
    AckRead,
    Code,
    Done,
    Failed,
    GuestAbort,
    GuestCall,
    HostSignal,
    MemoryFault,
    Proceed,
    Replaced,
    Stopped,
    TellRecord,
    TellSdei,
    TellSea,
    TellSerror,
)
from vmm_ras.found import _open as open_source
from vmm_ras.inbox import MAX_RECORDS
from vmm_ras.memory import ACKED, POSTED, TOUCH, UNREPORTED
from vmm_ras.sdei_table import EVENT_DISABLE, EVENT_ENABLE, PE_MASK, PE_UNMASK
from vmm_ras.source import ErrorSource

BASE = GPA >> 12
SDEI_CALLS = (PE_MASK, PE_UNMASK, PE_UNMASK, EVENT_DISABLE, EVENT_ENABLE, EVENT_ENABLE)
BREAKABLE = (ArmAck, WriteGuest, InjectSea, InjectSerror, SetRegisters, RaiseLine, PollAck)
LONGEST_HOLD = 2.4001
"""Seconds: of the policies below, hold_ms and report_ms."""
_ASYNC = 'deliver = ["sdei", "gsiv", "gpio", "polled", "sei"]\n'
_CONSUMED = (
    '[[rule]]\nname = "in-kernel"\nwhen = { code = "AR", el = 1, guest = ["linux"] }\naction = "bare"\n'
    '[[rule]]\nname = "consumed"\nwhen = { code = "AR" }\n'
    'deliver = ["sea", "sdei", "gsiv", "gpio", "polled", "sei"]\n'
)
_FOUND = '[[rule]]\nname = "found"\n' + _ASYNC
POLICIES: dict[str, str | None] = {
    "default": None,
    "batch": f"version = 1\n{_CONSUMED}{_FOUND}batch_ms = 700\n",
    "busy-next": f'version = 1\n{_CONSUMED}busy = "next"\n{_FOUND}busy = "next"\nunacked = {{ then = "next" }}\n',
    "host-first": f'version = 1\n{_CONSUMED}report = "first"\nreport_ms = 400\n{_FOUND}report = "first"\n',
    "mask": f'version = 1\n{_CONSUMED}large = "mask"\n{_FOUND}large = "mask"\n',
    "touch": f'version = 1\n{_CONSUMED}large = "touch"\n{_FOUND}large = "touch"\n',
    "ask": (
        'version = 1\n[[rule]]\nname = "worn-out"\nwhen = { code = "AO", lost_min = 6 }\naction = "migrate"\n'
        f"{_CONSUMED}{_FOUND}"
    ),
    "serror": f'version = 1\n{_CONSUMED}[[rule]]\nname = "found"\ndeliver = ["sei", "polled", "gpio"]\n',
    "sea-only": "version = 1\n" + _CONSUMED.replace(', "sdei", "gsiv", "gpio", "polled", "sei"', "") + _FOUND,
    "history": (
        'version = 1\n[[rule]]\nname = "storm"\nwhen = { code = "AO", rate = { events = 5, seconds = 1 } }\n'
        'deliver = ["polled", "gsiv", "gpio"]\n'
        '[[rule]]\nname = "synchronous"\nwhen = { code = "AO", thread = "vcpu" }\n'
        f'action = "consumed"\n{_CONSUMED}{_FOUND}'
    ),
}
"""Policies under which nothing is ignored: every page must be told in the end."""


class World:
    """One VM.  ``lost``: the pages that it has lost, counted from its first one."""

    def __init__(self, preset: str = "all", guest: str = "linux", policy: str = "default") -> None:
        self.m = Machine(preset, guest, policy=POLICIES[policy])
        self.lost: set[int] = set()
        self.hostile = False
        """Whether the guest has done what may cost it what it was told."""
        self.break_next: list[type] = []
        """Kinds of effects to fail, one after the other."""
        self.gone: set[int] = set()
        """vCPUs that cannot be stopped."""
        self.slow: set[int] = set()
        """vCPUs that come to a stop when they are waited for no longer."""
        self.unanswered: dict[int, Stop] = {}
        self.watch(policy)

    def watch(self, policy: str) -> None:
        """Look at every effect that the machine carries out."""
        self.policy = policy
        self.effects: list[Any] | None = None
        """Where they are kept, if anybody wants them."""
        placed = [s.placed for s in self.m.core.sources.values()]
        self._blocks = {p.block: p.block_length for p in placed}
        self._acks = {p.ack for p in placed if p.ack is not None}
        self._out: set[int] = set()
        """vCPUs that are out of the guest."""
        self._coming: set[int] = set()
        """vCPUs whose Stopped is on its way to the core."""
        self._held: dict[int, float] = {}
        """vCPU to since when it is held."""
        self._perform = self.m.guest.perform
        self.m.guest.perform = self._watched  # type: ignore[method-assign]
        for kind in (Stopped, GuestCall):
            self.m.core.handlers[kind] = self._came(self.m.core.handlers[kind])

    # -- every effect is looked at

    def _watched(self, effects: list[Any], now: float) -> list[Any]:
        if self.effects is not None:
            self.effects += effects
        for e in effects:
            self._inside(e)
            if isinstance(e, WriteGuest) and len(e.data) > 4 and not self.hostile:
                self._gated(e, effects)
            if isinstance(e, SetRegisters) and e.source_id is not None:
                assert not self.m.core.sdei.masked(e.vcpu), "a masked PE is entered"
                assert len(self.m.core.sdei.running(e.vcpu)) <= 2, "a third SDEI level"
        out: list[Any] = []
        todo: list[Any] = []
        left = list(effects)
        while left:
            e = left.pop(0)
            failed = ""
            if isinstance(e, Stop) and e.vcpu in self.gone:
                failed = "the vCPU is gone"
            elif self.break_next and isinstance(e, self.break_next[0]) and self._can_fail(e):
                del self.break_next[0]
                failed = "made to fail"
            if failed:
                out += [*self._perform(todo, now), Failed(e.id, failed)]
                todo = []
                source = getattr(e, "source_id", None)
                if source is not None:
                    left = [r for r in left if getattr(r, "source_id", None) != source]
            elif isinstance(e, Stop) and e.vcpu in self.slow and e.vcpu not in self._out:
                self.unanswered[e.vcpu] = e
            else:
                self._of_vcpu(e)
                todo.append(e)
        return out + self._perform(todo, now)

    @staticmethod
    def _can_fail(e: Any) -> bool:
        return isinstance(e, Stop) or getattr(e, "source_id", None) is not None

    def _of_vcpu(self, e: Any) -> None:
        """A vCPU is touched while it is out of the guest only, and goes before the core believes that it came."""
        if isinstance(e, Stop):
            if e.vcpu not in self.m.guest.programs:
                self._out.add(e.vcpu)
                self._coming.add(e.vcpu)
        elif isinstance(e, (Hold, InjectSea, InjectSerror, SetRegisters, Reply, Release)):
            assert e.vcpu in self._out, f"vCPU {e.vcpu} is in the guest: {e}"
            if isinstance(e, Hold):
                self._held.setdefault(e.vcpu, self.m.now)
            elif isinstance(e, Release):
                assert e.vcpu not in self._coming, f"vCPU {e.vcpu} is let go, and the core takes it for stopped"
                self._out.discard(e.vcpu)
                self._held.pop(e.vcpu, None)

    def _came(self, handler: Any) -> Any:
        def took(event: Any, now: float) -> Any:
            self._coming.discard(event.vcpu)
            self._out.add(event.vcpu)
            return handler(event, now)

        return took

    def _inside(self, e: Any) -> None:
        """Whatever the guest has scribbled: the core touches blocks and gates where it placed them, nothing else."""
        if isinstance(e, WriteGuest):
            assert e.gpa in self._blocks, hex(e.gpa)
            assert len(e.data) <= self._blocks[e.gpa]
        elif isinstance(e, ArmAck):
            assert e.gpa in self._acks, hex(e.gpa)
        elif isinstance(e, PollAck):
            assert e.gpa in self._acks or (e.gpa in self._blocks and e.size == 4), hex(e.gpa)

    def _gated(self, e: WriteGuest, effects: list[Any]) -> None:
        placed, memory = self.m.core.sources[e.source_id].placed, self.m.guest.memory
        if placed.ack is not None:
            gate = int.from_bytes(memory.read(placed.ack, 8), "little")
            armed = any(isinstance(a, ArmAck) and a.source_id == e.source_id and a.id < e.id for a in effects)
            assert armed or not gate & placed.ack_write
        taken_back = any(
            isinstance(w, WriteGuest) and w.gpa == e.gpa and w.data == bytes(4) and w.id < e.id for w in effects
        )
        assert taken_back or memory.read(placed.block, 4) == bytes(4), "a posted block is never overwritten"

    def _note(self, page: int, lsb: int) -> None:
        size = 1 << max(lsb - 12, 0)
        first = page & -size
        self.lost |= set(range(first, first + size))

    # -- the host

    def consumed(self, page: int, vcpu: int, lsb: int) -> None:
        self.m.ar(page, vcpu, lsb)
        self._note(page, lsb)

    def found(self, page: int, lsb: int, thread: int = 1) -> None:
        self.m.receive(HostSignal(Code.AO, HVA + (page << 12), lsb, thread))
        self._note(page, lsb)

    def faulted(self, page: int) -> None:
        self.m.receive(MemoryFault(GPA + (page << 12), 4096))
        self.lost.add(page)

    def aborted(self, vcpu: int, page: int | None, esr: int, gva: int | None) -> None:
        self.m.receive(GuestAbort(vcpu, esr, gva, None if page is None else GPA + (page << 12)))
        if page is not None:
            self.lost.add(page)

    def elsewhere(self, hva: int, lsb: int) -> None:
        if not HVA <= hva < HVA + SIZE:
            self.m.receive(HostSignal(Code.AO, hva, lsb, 0))

    def replaced(self, page: int, count: int) -> None:
        self.m.receive(Replaced(GPA + (page << 12), count << 12))
        self.lost -= set(range(page, page + count))

    def proceed(self, rule: str) -> None:
        self.m.receive(Proceed(rule))

    def told_record(self, number: int, source: int | None, vcpu: int) -> None:
        """A record about no memory; sources that the guest has not are refused."""
        block = ErrorStatusHeader(uncorrectable=True, severity=Severity.INFORMATIONAL).encode() + bytes([number])
        with contextlib.suppress(InputError):
            self.m.receive(TellRecord(block, source, vcpu))

    def told_abort(self, vcpu: int, serror: bool) -> None:
        self.m.receive(TellSerror(vcpu, 0x811) if serror else TellSea(vcpu, 0x92000410))

    def told_event(self, vcpu: int | None) -> None:
        for event in self.m.core.ways["sdei"]:
            self.m.receive(TellSdei(event.placed.vector, vcpu))

    def fail_next(self, *kinds: type) -> None:
        self.break_next = list(kinds)

    def cannot_stop(self, vcpu: int) -> None:
        """Whoever asks for the vCPU is told that it cannot be stopped."""
        self.gone.add(vcpu)
        if vcpu in self.unanswered:
            self.m.receive(Failed(self.unanswered.pop(vcpu).id, "the vCPU is gone"))

    def stops_late(self, vcpu: int) -> None:
        self.slow.add(vcpu)

    def stops_again(self, vcpu: int) -> None:
        self.gone.discard(vcpu)
        self.slow.discard(vcpu)
        if self.unanswered.pop(vcpu, None) is not None:
            self._out.add(vcpu)
            self._coming.add(vcpu)
            self.m.receive(Stopped(vcpu, self.m.guest.vcpus[vcpu].state()))

    def nonsense(self, effect: int, source: int) -> None:
        self.m.core.receive(AckRead(0, source, effect), self.m.now)
        self.m.core.receive(Done(effect), self.m.now)

    # -- the guest

    def acknowledge_late(self, seconds: float, source: int | None) -> None:
        self.m.os.ack_delay = {source: seconds} if seconds else {}

    def run_at(self, vcpu: int, el: int) -> None:
        if vcpu not in self.m.core.aborts and self.m.guest.vcpus[vcpu].run_at(el):
            self.m.os.run(vcpu, self.m.now)

    def mask(self, vcpu: int) -> None:
        self.m.guest.vcpus[vcpu].mask_serror()

    def sdei(self, registered: bool) -> None:
        if not self.m.core.aborts and all(v.el == 0 for v in self.m.guest.vcpus):
            self.m.guest.start_sdei(self.m.core, self.m.now, registered)

    def sdei_call(self, vcpu: int, function: int) -> None:
        """The client masks or unmasks the PE (a CPU goes offline), or disables or enables its events."""
        v, events = self.m.guest.vcpus[vcpu], [s.vector for s in self.m.core.ways["sdei"]]
        if vcpu in self.m.core.aborts:
            return
        pc, pstate = v.pc, v.pstate
        v.run_at(1, pc, PSTATE_A)
        for event in events if function in {EVENT_DISABLE, EVENT_ENABLE} else events[:1]:
            self.m.receive(GuestCall(vcpu, function, (event,), v.state()))
            self.m.guest.answered.discard(vcpu)
        v.pc, v.pstate = pc, pstate
        if v.poll_serror():
            self.m.os.run(vcpu, self.m.now)

    def polls(self, stopped: bool) -> None:
        self.m.os.polls_stopped = stopped

    def wait(self, seconds: float) -> None:
        self.m.wait(seconds)

    def wild_call(self, vcpu: int, function: int, args: tuple[int, ...], el: int = 1) -> None:
        """A hypercall with any arguments: a guest that ruins its own SDEI state may never see what SDEI told."""
        if vcpu in self.m.core.aborts:  # it is not in the guest
            return
        self.hostile = True
        state = self.m.guest.vcpus[vcpu].state()._replace(pstate=5 if el else 0)
        self.m.receive(GuestCall(vcpu, function, args, state))

    def scribble(self, offset: int, data: bytes) -> None:
        """The guest writes over its tables, blocks, gates or address registers."""
        self.hostile = True
        low = min(gpa for _, gpa, _ in self.m.image.regions)
        high = max(gpa + len(d) for _, gpa, d in self.m.image.regions)
        self.m.guest.memory.write(low + offset % (high - low - len(data)), data)

    # -- what must hold

    def check(self) -> None:
        """After every action."""
        core = self.m.core
        counts = core.poison.counts
        unknown = {page for page in self.lost if not core.poison.state(BASE + page)}
        coming = [a for vcpu, a in core.aborts.items() if vcpu in self.unanswered and a.state is None]
        nobody = unknown.difference(*(range(a.start - BASE, a.start - BASE + a.pages) for a in coming))
        assert not nobody, f"pages that nobody knows of: {nobody}"
        assert sum(counts[1:]) == len(self.lost) - len(unknown)
        assert all(n >= 0 for n in [*counts[1:], *core.poison.waiting])
        assert sum(core.poison.waiting) == counts[UNREPORTED]
        held = {vcpu for vcpu, abort in core.aborts.items() if abort.state is not None}
        assert self._out == held, "whoever is out is held"
        assert set(core.aborts) <= held | set(self.unanswered)
        assert set(core.stopping) == set(self.unanswered)
        for vcpu in held:
            assert core.aborts[vcpu].until <= self._held[vcpu] + LONGEST_HOLD, "a held vCPU has an end"
        asked = set(core.stopping) | set(core.aborts)
        assert set(core.wanted) <= asked, "whoever is to take an SEA or SError is asked for, or held"
        assert set(core.inbox.orders) <= asked
        for event in {number for numbers in core.sdei.state.pending.values() for number in numbers}:
            able = {vcpu for vcpu in range(core.vcpus) if core.sdei.can_run(event, vcpu)}
            assert not able or able & asked, f"SDEI event {event:#x} could run on {able}, and nobody asked for them"
        for queue, ruling in enumerate(core.rulings):
            if core.poison.waiting[queue] and queue not in core.ready:
                source = open_source(core, ruling, queue, self.m.now)
                assert not isinstance(source, ErrorSource), f"pages wait, and source {source.source_id} would take them"
        assert len(core.aborts) <= core.vcpus
        assert len(core.busy) <= len(core.sources)
        assert len(core.inbox.records) <= MAX_RECORDS + len(core.sources)

    def finish(self) -> None:
        """The guest comes to its senses: everything is told in the end, unless a source broke or the guest is gone."""
        m = self.m
        if m.os.panicked or self.hostile:
            m.wait(200.0)
            self.check()
            return
        self.break_next = []
        for vcpu in range(4):
            self.stops_again(vcpu)
            self.sdei_call(vcpu, PE_UNMASK)
            self.sdei_call(vcpu, EVENT_ENABLE)
        m.os.ack_delay = {}
        m.os.polls_stopped = False
        m.wait(10.0)
        for source in m.core.sources.values():  # acknowledgements that never came, and never would
            if not source.free and source.placed.ack is not None:
                try:
                    if m.guest.memory.read(source.placed.block, 4) == bytes(4):
                        m.guest.memory.write(source.placed.ack, source.placed.ack_write.to_bytes(8, "little"))
                except GuestError:
                    pass
        for vcpu in range(4):
            if vcpu not in m.core.aborts and m.guest.vcpus[vcpu].run_at(0):
                m.os.run(vcpu, m.now)
        m.wait(200.0)
        self.check()
        assert not m.core.aborts
        assert not m.core.inbox.orders
        touch = m.core.poison.waiting[TOUCH]
        states = {p: m.core.poison.state(BASE + p) for p in self.lost}
        left = [p for p, s in states.items() if s != ACKED]
        if left and any(s.state.broken for s in m.core.sources.values()):
            self._nobody_takes(left)
            return
        assert len(left) == touch, (left, {s.placed.source_id: s.state for s in m.core.sources.values()})
        if m.os.profile.name == "generic" and self.policy not in {"ask", "mask", "touch"}:
            assert all(BASE + p in m.os.offlined for p in self.lost)

    def _nobody_takes(self, left: list[int]) -> None:
        """What was not told waits for ways of which none is left."""
        core = self.m.core
        assert not core.poison.counts[POSTED]
        for queue, rule in enumerate(core.rules):
            for way in rule.deliver if core.poison.waiting[queue] else ():
                for source in core.ways[way] if way != "sea" else ():
                    assert source.state.broken or (way == "sdei" and not core.sdei.accepts(source.vector)), source.state
