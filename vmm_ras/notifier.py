"""The core of one VM: events in, effects out.  No I/O, no clock, no thread; an adapter holds a lock around it.

What a lost page goes through:

    HostSignal --memory map--> pages --poison map--> unreported
      AO: a rule decides at once             AR: the vCPU is stopped first, because EL and PSTATE decide with it
      unreported --the source of the rule's first open way is free--> posted --the guest acknowledges--> acked

Nothing about memory is ever dropped: what cannot be told now stays in the poison map, and a vCPU that consumed poison
stays out of the guest until its error can be told, or until the rule's ``hold_ms`` is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any, Final, Literal

from acpi.image import PlacedSource
from vmm_ras import answers, consumed, found, inbox, seen
from vmm_ras.arm64 import PSTATE_A, U64
from vmm_ras.consumed import Abort
from vmm_ras.deciding import Decider, Hook, Lost, View, never
from vmm_ras.delivery import Ruling, bind, check_syndrome
from vmm_ras.effects import (
    Effect,
    HookFailed,
    Release,
    Reply,
    SetRegisters,
    Stop,
)
from vmm_ras.errata import Pool
from vmm_ras.errors import InputError
from vmm_ras.events import (
    AckRead,
    Code,
    Done,
    Event,
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
    VcpuState,
    new,
)
from vmm_ras.history import History
from vmm_ras.memory import UNREPORTED, MemoryMap, MemorySlot, PoisonMap
from vmm_ras.policy import Policy, default_policy
from vmm_ras.profiles import PROFILES, GuestProfile
from vmm_ras.record import NATIVE, RecordStyle
from vmm_ras.sdei import SdeiDispatcher
from vmm_ras.sdei_state import EventDescription
from vmm_ras.source import NEVER, ErrorSource

HOOK_EVENTS = 1000
"""Times of errors that are kept for a hook's ``view.span``."""
_AR: Final = Code.AR
# Classes as constants: the compiled copy looks any other name up each time.
_Abort: Final = Abort
_Release: Final = Release
_Reply: Final = Reply
_SetRegisters: Final = SetRegisters
_Stop: Final = Stop
_NO_WAYS: frozenset[str] = frozenset()


class Notifier:
    """Firmware-first error reporting for one VM.

    ``sources``: where the guest's error sources lie.  ``memory``: the guest's memory slots.  ``vcpus``: how many.
    ``mpidrs``: MPIDR_EL1 of each; 0 and so on where they are not given.  ``page_shift``: log2 of the guest's page size
    in bytes.  ``threads``: vCPU of each host thread.  ``hook``: a decision in Python, asked before the rules.
    ``sdei_events``: what SDEI offers besides the events of its sources.  Times are seconds on a clock of the caller's
    that never runs backwards.

    Raises InputError for a policy that asks for what the architecture cannot encode, and for MPIDRs that are not
    those of all vCPUs.
    """

    def __init__(
        self,
        sources: Sequence[PlacedSource],
        memory: MemoryMap,
        *,
        policy: Policy | None = None,
        guest: GuestProfile = PROFILES["linux"],
        vcpus: int = 1,
        page_shift: int = 12,
        threads: Mapping[int, int] | None = None,
        style: RecordStyle = NATIVE,
        hook: Hook | None = None,
        sdei_events: Sequence[EventDescription] = (),
        mpidrs: Sequence[int] | None = None,
    ) -> None:
        if mpidrs is not None and len(mpidrs) != vcpus:
            raise InputError(f"{len(mpidrs)} MPIDRs of {vcpus} vCPUs")
        self.policy = policy or default_policy()
        for rule in self.policy.rule:
            check_syndrome(rule)
        self.rules = self.policy.rule
        self.memory, self.guest, self.style, self.page_shift = memory, guest, style, page_shift
        self.threads = dict(threads or {})
        self.poison = PoisonMap()
        self.ways = bind(sources, guest)
        self.rulings = [Ruling(rule, self.ways, style) for rule in self.rules]
        self.sources = {s.placed.source_id: s for way in self.ways.values() for s in way}
        events = [EventDescription(s.placed.vector, shared=True) for s in self.ways["sdei"]]
        self.sdei = SdeiDispatcher([*events, *sdei_events], range(vcpus) if mpidrs is None else mpidrs)
        self._by_event = {s.placed.vector: s for s in self.ways["sdei"]}
        self.vcpus = vcpus
        self.aborts: dict[int, Abort] = {}
        """vCPU to what it consumed, from Stop or Hold to the telling."""
        self.records = 0
        """Blocks built so far: the FRU text counts them."""
        self.done = 0
        """Last effect that the adapter reported as carried out."""
        self.last_id = 0
        self.time: float | None = None
        self.wanted: dict[int, list[int]] = {}
        """vCPU to the sources whose SEI or repeated SEA waits for it to stop."""
        self.stopping: dict[int, int] = {}
        """vCPU to the Stop that was not answered yet."""
        self.entering: dict[int, int] = {}
        """vCPU to the last SetRegisters that enters an SDEI handler there."""
        self._out = -1
        """vCPU whose call is being answered; -1: none."""
        self.stuck: set[int] = set()
        """Rules whose pages no way takes at present."""
        self.ready: dict[int, tuple[float, bool]] = {}
        """Rule to when its waiting pages may be told, and whether a full block need not wait for that."""
        self.decider = Decider(self.policy, hook)
        self.decided: Callable[[Lost, View, int], None] | None = None
        """Who is to hear why each decision falls, for explanations."""
        inputs = self.decider.inputs
        self.history: History | None = None
        if hook is not None or inputs & {"rate", "seen_min", "seen_max"}:
            rates = [r.when.rate.events for r in self.rules if r.when.rate is not None]
            self.history = History(max(rates, default=0) if hook is None else HOOK_EVENTS)
        self._asks_open = hook is not None or bool(inputs & {"open", "closed"})
        self.promotes = hook is not None or any(r.action == "consumed" for r in self.rules)
        self.pool: Pool | None = None
        """CPUs that the guest may run on: what its calls DISCOVER_IMPL_VER and DISCOVER_IMPL_CPUS are answered by."""
        self.esrs: dict[int, int] = {}
        """ESR of an SEA for which nothing was relayed, by rule, exception level and whether FAR is known."""
        self._cache: dict[int, int] = {}
        """Rule by size, exception level (4: nobody's) and code."""
        self.inbox = inbox.Inbox()
        self.kick_records = MethodType(inbox.kick, self)
        self.busy: dict[int, ErrorSource] = {}
        """Sources with a posted block."""
        self.handlers: dict[type, Callable[[Any, float], list[Effect]]] = {
            HostSignal: MethodType(seen.signal, self),
            GuestAbort: MethodType(seen.guest_abort, self),
            MemoryFault: MethodType(seen.memory_fault, self),
            Stopped: self._stopped,
            Done: self._done,
            Failed: MethodType(answers.failed, self),
            AckRead: MethodType(answers.ack, self),
            GuestCall: self._call,
            Proceed: self._proceed,
            Replaced: MethodType(seen.replaced, self),
            TellRecord: MethodType(inbox.record, self),
            TellSea: MethodType(inbox.order, self),
            TellSerror: MethodType(inbox.order, self),
            TellSdei: MethodType(inbox.signal, self),
        }

    # -- the contract ----------------------------------------------------------------

    def receive(self, event: Event, now: float) -> list[Effect]:
        """Take an event; the effects to carry out, in order.  (``handlers``: the same by type, for tight loops.)"""
        return self.handlers[event.__class__](event, now)

    def next_deadline(self) -> float | None:
        """When :meth:`expire` is to be called next, or None."""
        records = bool(self.inbox.records)
        if not self.busy and not self.aborts and not self.stuck and not self.ready and not records:
            return None
        soonest = min((a.until for a in self.aborts.values()), default=NEVER)
        if self.poison.counts[UNREPORTED] or records:  # behind a busy source, too, one that refused may be free
            waiting = self.poison.waiting
            for source in self.sources.values():
                for queue, until in source.state.refused.items():
                    if until < soonest and (records or waiting[queue]):
                        soonest = until
        for source in self.busy.values():
            soonest = min(soonest, source.state.poll, source.state.overdue)
        for until, _ in self.ready.values():
            soonest = min(soonest, until)
        return None if soonest == NEVER else soonest

    def expire(self, now: float) -> list[Effect]:
        """Do what is due at ``now``: look at acks, repeat notifications, end holds, escalate."""
        out: list[Effect] = []
        for source in list(self.busy.values()):
            if source.state.poll <= now:
                out.append(source.look(self.next_id()))
            if source.state.overdue <= now:
                answers.overdue(self, source, now, out)
        for queue in [q for q, (until, _) in self.ready.items() if until <= now]:
            del self.ready[queue]
        if self.poison.counts[UNREPORTED] or self.inbox.records:
            for source in self.sources.values():
                source.forget_refusals(now)
            found.kick(self, now, out)
        for vcpu, abort in list(self.aborts.items()):
            if abort.until <= now and abort.state is not None:
                del self.aborts[vcpu]
                if abort.asked:  # the orchestrator had its time
                    gone = consumed.tell_record(self, vcpu, abort.state, abort, abort.queue, now, out)
                else:
                    gone = consumed.bare(self, vcpu, abort.state, abort, self.rules[abort.queue], out)
                if vcpu not in self.aborts:
                    self.leave(vcpu, abort.state, gone, out)
                found.kick(self, now, out)
        return out

    def add_slot(self, slot: MemorySlot) -> None:
        """Guest memory grew.  Raises InputError."""
        self.memory = self.memory.with_slot(slot)

    # -- deciding --------------------------------------------------------------------

    def decide(
        self, code: Code, page: int, lsb: int, out: list[Effect], vcpu: int | None = None,
        state: VcpuState | None = None, thread: Literal["vcpu", "other"] = "other",
    ) -> int:  # fmt: skip
        """The index of the rule that decides; also the queue of what it tells."""
        if self.decider.plain and self.decided is None:
            el = 4 if state is None else state.pstate >> 2 & 3
            key = (lsb << 3 | el) << 1 | (code is _AR)
            known = self._cache.get(key)
            if known is None:
                view = View(self.guest.name, el=None if state is None else el)
                known = self._cache[key] = self.decider.decide(Lost(code, 0, lsb), view)
            return known
        lost = new(Lost, (code, page << self.page_shift if page >= 0 else -1, lsb, thread))
        view, index = self._view(page, vcpu, state), None
        if self.decider.hook is not None:
            index, wrong = self.decider.asked(lost, view)
            if wrong:
                out.append(HookFailed(self.next_id(), wrong))
        if index is None:
            index = self.decider.decide(lost, view)
        if self.decided is not None:
            self.decided(lost, view, index)
        return index

    def _view(self, page: int, vcpu: int | None, state: VcpuState | None) -> View:
        el = masked = serror = None
        if state is not None:
            _, pstate, _, pending, _, _, _ = state
            el, masked, serror = pstate >> 2 & 3, pstate & PSTATE_A != 0, pending is not None
        history, (_, unreported, posted, acked) = self.history, self.poison.counts
        seen, span = (0, never) if history is None else (history.seen(page), history.span)
        ways = self.open_ways() if self._asks_open else _NO_WAYS
        return new(View, (self.guest.name, ways, seen, unreported + posted + acked, span, vcpu, el, masked, serror))

    def open_ways(self) -> frozenset[str]:
        """Ways by which the guest could be told now: those with a source that it binds, SDEI only once enabled."""
        ways = []
        for way, sources in self.ways.items():
            for s in sources:
                if not s.state.broken and (way != "sdei" or self.sdei.accepts(s.vector)):
                    ways.append(way)
                    break
        return frozenset(ways)

    def _stopped(self, event: Stopped, now: float) -> list[Effect]:
        vcpu, state = event
        self.stopping.pop(vcpu, None)
        out: list[Effect] = []
        gone = False
        abort = self.aborts.get(vcpu)
        if abort is not None and abort.state is None:
            del self.aborts[vcpu]
            gone = consumed.tell(self, vcpu, state, abort, now, out)
        sdei = self.sdei.state
        if (not gone or sdei.pending or self.wanted or self.inbox.orders or sdei.absent) and vcpu not in self.aborts:
            self.leave(vcpu, state, gone, out)
        if self.poison.counts[UNREPORTED]:
            found.kick(self, now, out)
        return out

    def leave(self, vcpu: int, state: VcpuState, gone: bool, out: list[Effect]) -> None:
        """Let the vCPU go: with what waited for it to stop, or into the handler of an SDEI event that waits for it."""
        sdei = self.sdei
        if sdei.state.absent:  # whoever was held, or could not be stopped, is back
            sdei.set_absent(vcpu, False)
        if not gone and vcpu in self.wanted:
            gone = found.visit(self, vcpu, state, out)
        if not gone and vcpu in self.inbox.orders:
            gone = inbox.visit(self, vcpu, state, out)
        if gone:  # what it holds has changed: for anything else look again
            if vcpu in self.wanted or vcpu in self.inbox.orders or (not sdei.idle and vcpu in sdei.wanted(vcpu)):
                self.stop(vcpu, out)
            return
        pending = sdei.state.pending
        dispatch = sdei.dispatch(vcpu, state) if pending else None
        id = self.last_id + 1
        if dispatch is None:
            self.last_id = id
            out.append(new(_Release, (id, vcpu)))
            return
        event, x, pc, pstate = dispatch
        source, source_id = self._by_event.get(event), None
        if source is not None:
            source_id, s = source.source_id, source.state
            s.last, s.vcpu = id, vcpu
        self.entering[vcpu] = id
        self.last_id = id + 1
        out.append(new(_SetRegisters, (id, source_id, vcpu, x, pc, pstate, None, None)))
        out.append(new(_Release, (id + 1, vcpu)))
        if pending:  # what else waited for this vCPU runs elsewhere
            for other in sdei.wanted():
                self.stop(other, out)

    def build_block(self, pages: tuple[tuple[int, int], ...], ruling: Ruling, latent: bool) -> bytes:
        """The status block for these (gpa, size); ``latent``: nobody consumed them."""
        self.records = number = self.records + 1
        return ruling.blocks.build(pages, latent, number, self.time)

    # -- how it went -----------------------------------------------------------------

    def _proceed(self, event: Proceed, now: float) -> list[Effect]:
        out: list[Effect] = []
        queue = next((i for i, rule in enumerate(self.rules) if rule.name == event.rule), -1)
        self.ready.pop(queue, None)
        for vcpu, abort in list(self.aborts.items()):
            if abort.asked and abort.queue == queue and abort.state is not None:
                del self.aborts[vcpu]
                gone = consumed.tell_record(self, vcpu, abort.state, abort, abort.queue, now, out)
                if vcpu not in self.aborts:
                    self.leave(vcpu, abort.state, gone, out)
        found.kick(self, now, out)
        return out

    def _done(self, event: Done, now: float) -> list[Effect]:
        self.done = event.effect
        return []

    # -- calls of the guest ------------------------------------------------------------------

    def _call(self, event: GuestCall, now: float) -> list[Effect]:
        vcpu, function, args, state = event
        out: list[Effect] = []
        if self.pool is not None and (known := self.pool.answer(function, args)) is not None:
            x = tuple(value & U64 for value in known)
            out.append(SetRegisters(self.next_id(), None, vcpu, x, state.pc, state.pstate))
            self.leave(vcpu, state._replace(x=x + state.x[len(x) :]), False, out)
            return out
        sdei = self.sdei
        result = sdei.call(vcpu, function, args, state)
        x0, registers, wanted, discarded, completed, _ = result
        self.last_id = id = self.last_id + 1
        if registers is not None:
            x, pc, pstate, elr, spsr = registers
            out.append(new(_SetRegisters, (id, None, vcpu, x, pc, pstate, elr, spsr)))
        else:
            assert x0 is not None
            out.append(new(_Reply, (id, vcpu, x0)))
        for event_number in discarded:
            source = self._by_event.get(event_number)
            if source is not None and source.source_id in self.busy:
                answers.take_back(self, source, "the guest unregistered the event", now, out)
        if self.stuck:
            self.stuck.clear()
        if wanted or self.poison.counts[UNREPORTED] or self.inbox.records:
            self._out = vcpu
            found.kick(self, now, out)
            for other in wanted:
                self.stop(other, out)
            self._out = -1
        if sdei.state.pending or sdei.state.absent or self.wanted or self.inbox.orders:
            self.leave(vcpu, result.after(state), False, out)
        else:
            self.last_id = id = self.last_id + 1
            out.append(new(_Release, (id, vcpu)))
        source = self._by_event.get(completed) if completed is not None else None
        if source is not None and source.source_id in self.busy:
            self.last_id = id = self.last_id + 1
            out.append(source.look(id))
        return out

    def stop(self, vcpu: int, out: list[Effect]) -> None:
        """Ask for the vCPU, unless it was asked for and has not come yet, or is out, its call being answered."""
        if vcpu not in self.stopping and vcpu != self._out:
            self.stopping[vcpu] = self.last_id = id = self.last_id + 1
            out.append(new(_Stop, (id, vcpu)))

    def awaits(self, vcpu: int | None) -> bool:
        """Whether the vCPU was asked for and has not come yet."""
        return vcpu in self.stopping

    def next_id(self) -> int:
        """The id of the next effect."""
        self.last_id += 1
        return self.last_id
