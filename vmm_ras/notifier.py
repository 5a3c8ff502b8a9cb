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
from typing import Any, NamedTuple

from acpi.image import PlacedSource
from cper.common import Severity
from vmm_ras.arm64 import serror_esr
from vmm_ras.delivery import bind, check_syndrome, sea_syndrome, sei_syndrome
from vmm_ras.effects import (
    Acked,
    Decided,
    Effect,
    Escalate,
    Hold,
    InjectSea,
    InjectSerror,
    OwnMemory,
    Posted,
    RaiseLine,
    Release,
    Reply,
    SetRegisters,
    Stop,
    TakenBack,
    Undelivered,
)
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
    Stopped,
    VcpuState,
)
from vmm_ras.memory import MAX_QUEUES, POSTED, UNREPORTED, MemoryMap, MemorySlot, PoisonMap
from vmm_ras.policy import Policy, Rule, default_policy
from vmm_ras.profiles import PROFILES, GuestProfile
from vmm_ras.record import NATIVE, RecordStyle, memory_block
from vmm_ras.sdei import SdeiDispatcher
from vmm_ras.sdei_state import EventDescription
from vmm_ras.source import NEVER, ErrorSource

HELD = MAX_QUEUES - 1
"""Queue of pages whose vCPU is held: no asynchronous way tells them."""
_SEVERITY = {"recoverable": Severity.RECOVERABLE, "fatal": Severity.FATAL, "corrected": Severity.CORRECTED}


class Abort(NamedTuple):
    """Poison that a vCPU consumed and was not told of yet."""

    first: int
    """Page that was accessed; -1: unknown."""
    start: int
    """First page lost."""
    pages: int
    """How many pages are lost."""
    lsb: int
    gva: int | None = None
    esr: int | None = None
    """Syndrome that the host relayed."""
    until: float = NEVER
    """When holding the vCPU ends."""
    state: VcpuState | None = None
    """The vCPU, once it is stopped and held."""


class Notifier:
    """Firmware-first error reporting for one VM.

    ``sources``: where the guest's error sources lie.  ``memory``: the guest's memory slots.  ``vcpus``: how many, all
    with consecutive MPIDR Aff0.  ``page_shift``: log2 of the guest's page size in bytes.  ``threads``: vCPU of each
    host thread.  Times are seconds on a clock of the caller's that never runs backwards.

    Raises InputError for a policy that asks for what the architecture cannot encode.
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
    ) -> None:
        self.policy = policy or default_policy()
        for rule in self.policy.rule:
            check_syndrome(rule)
        self.rules = self.policy.rule
        self.memory, self.guest, self.style, self.page_shift = memory, guest, style, page_shift
        self.threads = dict(threads or {})
        self.poison = PoisonMap()
        self.ways = bind(sources, guest)
        self.sources = {s.placed.source_id: s for way in self.ways.values() for s in way}
        events = [EventDescription(s.placed.vector, shared=True) for s in self.ways["sdei"]]
        self.sdei = SdeiDispatcher(events, range(vcpus))
        self._by_event = {s.placed.vector: s for s in self.ways["sdei"]}
        self.vcpus = vcpus
        self.aborts: dict[int, Abort] = {}
        """vCPU to what it consumed, from Stop or Hold to the telling."""
        self.records = 0
        """Blocks built so far: the FRU text counts them."""
        self.done = 0
        """Last effect that the adapter reported as carried out."""
        self._id = 0
        self._time: float | None = None
        self._wanted: dict[int, list[int]] = {}
        """vCPU to the sources whose SEI or repeated SEA waits for it to stop."""
        self._stopping: dict[int, int] = {}
        """vCPU to the Stop that was not answered yet."""
        self._out: int | None = None
        """vCPU whose call is being answered."""
        self._stuck: set[int] = set()
        """Rules whose pages no way takes at present."""
        self._flat = not any(r.when.gpa_from is not None or r.when.gpa_to is not None for r in self.rules)
        self._plain_esr: dict[tuple[int, int], int] = {}
        self._cache: dict[tuple[Code, int | None, int], int] = {}
        self._busy: dict[int, ErrorSource] = {}
        """Sources with a posted block."""
        self.handlers: dict[type, Callable[[Any, float], list[Effect]]] = {
            HostSignal: self._signal,
            GuestAbort: self._guest_abort,
            MemoryFault: self._memory_fault,
            Stopped: self._stopped,
            Done: self._done,
            Failed: self._failed,
            AckRead: self._ack,
            GuestCall: self._call,
        }

    # -- the contract ----------------------------------------------------------------

    def receive(self, event: Event, now: float) -> list[Effect]:
        """Take an event; the effects to carry out, in order.  (``handlers``: the same by type, for tight loops.)"""
        return self.handlers[event.__class__](event, now)

    def next_deadline(self) -> float | None:
        """When :meth:`expire` is to be called next, or None."""
        if not self._busy and not self.aborts and not self._stuck:
            return None
        soonest = min((a.until for a in self.aborts.values()), default=NEVER)
        if self._stuck:
            retries = (t for s in self.sources.values() for q, t in s.state.refused.items() if self.poison.waiting[q])
            soonest = min(soonest, min(retries, default=NEVER))
        for source in self._busy.values():
            soonest = min(soonest, source.state.poll, source.state.overdue)
        return None if soonest == NEVER else soonest

    def expire(self, now: float) -> list[Effect]:
        """Do what is due at ``now``: look at acks, repeat notifications, end holds, escalate."""
        out: list[Effect] = []
        for source in list(self._busy.values()):
            if source.state.poll <= now:
                out.append(source.look(self._next()))
            if source.state.overdue <= now:
                self._overdue(source, now, out)
        if self._stuck:
            self._kick(now, out)
        for vcpu, abort in list(self.aborts.items()):
            if abort.until <= now and abort.state is not None:
                del self.aborts[vcpu]
                gone = self._bare(vcpu, abort.state, abort, self._rule(Code.AR, abort.state.el, abort), out)
                self._leave(vcpu, abort.state, gone, out)
                self._kick(now, out)
        return out

    def add_slot(self, slot: MemorySlot) -> None:
        """Guest memory grew.  Raises InputError."""
        self.memory = self.memory.with_slot(slot)

    # -- what the host saw -----------------------------------------------------------

    def _signal(self, event: HostSignal, now: float) -> list[Effect]:
        code, hva, lsb, tid, time = event
        slot = self.memory.slot_of(hva)
        if slot is None:
            return [OwnMemory(self._next(), code, hva, lsb, tid)]
        if time is not None:
            self._time = time
        shift = self.page_shift
        at = slot.gpa + hva - slot.hva >> shift
        start, count = at, 1
        if lsb > shift:
            low = max(hva & -(1 << lsb), slot.hva) - slot.hva + slot.gpa
            high = min((hva & -(1 << lsb)) + (1 << lsb), slot.hva + slot.size) - slot.hva + slot.gpa
            start = low >> shift
            count = (high - 1 >> shift) - start + 1
        if code == Code.AR:
            vcpu = self.threads.get(tid)
            if vcpu is not None and vcpu not in self.aborts:
                self.aborts[vcpu] = Abort(at, start, count, lsb)
                out: list[Effect] = []
                self._stop(vcpu, out)
                return out
            # a thread that is no vCPU consumed it, or the vCPU is out already: the guest itself used nothing
        out = []
        self._found(code, at, start, count, lsb, out)
        self._kick(now, out)
        return out

    def _guest_abort(self, event: GuestAbort, now: float) -> list[Effect]:
        vcpu, esr, gva, gpa, time = event
        if time is not None:
            self._time = time
        inside = gpa is not None and any(s.gpa <= gpa < s.gpa + s.size for s in self.memory.slots)
        page = gpa >> self.page_shift if gpa is not None and inside else -1
        out: list[Effect] = []
        if vcpu not in self.aborts and 0 <= vcpu < self.vcpus:
            self.aborts[vcpu] = Abort(page, page, 1, self.page_shift, gva, esr)
            self._stop(vcpu, out)
        elif page >= 0:  # the vCPU is out already, or there is none: the page is lost all the same
            self._found(Code.AR, page, page, 1, self.page_shift, out)
            self._kick(now, out)
        return out

    def _memory_fault(self, event: MemoryFault, now: float) -> list[Effect]:
        gpa, size, time = event
        if time is not None:
            self._time = time
        out: list[Effect] = []
        for slot in self.memory.slots:
            low, high = max(gpa, slot.gpa), min(gpa + size, slot.gpa + slot.size)
            if low < high:
                start = low >> self.page_shift
                count = (high - 1 >> self.page_shift) - start + 1
                self._found(Code.AO, start, start, count, (count << self.page_shift).bit_length() - 1, out)
        if not out:
            out.append(Undelivered(self._next(), "", f"{gpa:#x} is no guest memory"))
        self._kick(now, out)
        return out

    # -- deciding --------------------------------------------------------------------

    def _decide(self, code: Code, el: int | None, page: int, lsb: int) -> int:
        if not self._flat:
            return self.policy.decide(code, el, max(page, 0) << self.page_shift, lsb, self.guest.name)
        key = (code, el, lsb)
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = self.policy.decide(code, el, 0, lsb, self.guest.name)
        return found

    def _rule(self, code: Code, el: int | None, abort: Abort) -> Rule:
        return self.rules[self._decide(code, el, abort.first, abort.lsb)]

    def _found(self, code: Code, at: int, start: int, count: int, lsb: int, out: list[Effect]) -> None:
        """Pages were lost and nobody waits for them: queue them by the rule for AO."""
        queue = self._decide(Code.AO, None, at, lsb)
        rule = self.rules[queue]
        what = "ignored"
        if rule.action == "tell":
            what = "tell" if self.poison.add(start, count, queue) else "known"
        elif rule.action != "ignore":
            out.append(
                Escalate(self._next(), None, rule.action, f"rule {rule.name}: {at << self.page_shift:#x} is lost")
            )
            what = rule.action
        gpa, size = start << self.page_shift, count << self.page_shift
        out.append(Decided(self._next(), code, gpa, size, rule.name, what))

    def _stopped(self, event: Stopped, now: float) -> list[Effect]:
        vcpu, state = event
        self._stopping.pop(vcpu, None)
        out: list[Effect] = []
        gone = False
        abort = self.aborts.get(vcpu)
        if abort is not None and abort.state is None:
            del self.aborts[vcpu]
            gone = self._tell(vcpu, state, abort, now, out)
        if vcpu not in self.aborts and not (gone and self.sdei.idle and not self._wanted):
            self._leave(vcpu, state, gone, out)
        if self.poison.counts[UNREPORTED]:
            self._kick(now, out)
        return out

    def _leave(self, vcpu: int, state: VcpuState, gone: bool, out: list[Effect]) -> None:
        """Let the vCPU go: with what waited for it to stop, or into the handler of an SDEI event that waits for it."""
        if not gone and vcpu in self._wanted:
            gone = self._visit(vcpu, state, out)
        if gone:  # what it holds has changed: for anything else look again
            if vcpu in self._wanted or (not self.sdei.idle and vcpu in self.sdei.wanted(vcpu)):
                self._stop(vcpu, out)
            return
        dispatch = self.sdei.dispatch(vcpu, state)
        if dispatch is None:
            out.append(Release(self._next(), vcpu))
            return
        source, source_id = self._by_event.get(dispatch.event), None
        id, r = self._next(), dispatch.registers
        if source is not None:
            source_id = source.placed.source_id
            source.state.last, source.state.vcpu = id, vcpu
        out.append(SetRegisters(id, source_id, vcpu, r.x, r.pc, r.pstate, r.elr, r.spsr))
        out.append(Release(self._next(), vcpu))

    # -- telling a vCPU what it consumed -----------------------------------------------

    def _tell(self, vcpu: int, state: VcpuState, abort: Abort, now: float, out: list[Effect]) -> bool:
        """Returns whether the vCPU was released."""
        queue = self._decide(Code.AR, state.el, abort.first, abort.lsb)
        rule = self.rules[queue]
        shift = self.page_shift
        what = rule.action
        if what not in {"tell", "bare", "ignore"}:
            out.append(Escalate(self._next(), None, what, f"rule {rule.name}: vCPU {vcpu} consumed poison"))
            self._hold(vcpu, state, abort, rule, now, out, f"rule {rule.name} asks for {what}")
        gpa, size = max(abort.start, 0) << shift, abort.pages << shift
        out.append(Decided(self._next(), Code.AR, gpa, size, rule.name, "ignored" if what == "ignore" else what))
        if what == "bare" or (what == "tell" and abort.first < 0):
            return self._bare(vcpu, state, abort, rule, out)
        return what == "tell" and self._tell_record(vcpu, state, abort, queue, now, out)

    def _tell_record(
        self, vcpu: int, state: VcpuState, abort: Abort, queue: int, now: float, out: list[Effect]
    ) -> bool:
        rule, waits = self.rules[queue], ""
        for way in rule.deliver:
            for source in self.ways[way]:
                if source.refuses(queue, now):
                    continue
                if way != "sea":
                    if way == "sdei" and not self.sdei.accepts(source.placed.vector):
                        continue
                    self._queue(abort, queue)
                    return False
                if source.free:
                    self._post_sea(source, vcpu, state, abort, queue, now, out)
                    return True
                waits = waits or f"source {source.placed.source_id} is not acknowledged"
            if waits:
                self._hold(vcpu, state, abort, rule, now, out, waits)
                return False
        self._queue(abort, queue)
        return self._bare(vcpu, state, abort, rule, out)

    def _queue(self, abort: Abort, queue: int) -> None:
        if abort.first < 0:
            return
        self.poison.set(abort.first, UNREPORTED, queue)
        self._rest(abort)

    def _rest(self, abort: Abort) -> None:
        """The rest of a large host page was found, not used: it is told as AO."""
        if abort.pages > 1:
            queue = self._decide(Code.AO, None, abort.first, abort.lsb)
            if self.rules[queue].action == "tell":
                self.poison.add(abort.start, abort.pages, queue)

    def _hold(
        self, vcpu: int, state: VcpuState, abort: Abort, rule: Rule, now: float, out: list[Effect], reason: str
    ) -> None:
        until = now + rule.hold_ms / 1000
        if abort.first >= 0:
            self.poison.set(abort.first, UNREPORTED, HELD)
            self._rest(abort)
        self.aborts[vcpu] = abort._replace(until=until, state=state)
        out.append(Hold(self._next(), vcpu, reason, until))

    def _bare(self, vcpu: int, state: VcpuState, abort: Abort, rule: Rule, out: list[Effect]) -> bool:
        """An SEA without a record; the page is told by the way of found ones.  Returns that the vCPU was released."""
        if abort.first >= 0:
            queue = self._decide(Code.AO, None, abort.first, abort.lsb)
            if self.rules[queue].action == "tell":
                self.poison.set(abort.first, UNREPORTED, queue)
            self._rest(abort)
        esr = sea_syndrome(rule.sea, state.el, abort.gva is not None, abort.esr)
        out.append(InjectSea(self._next(), None, vcpu, esr, abort.gva))
        out.append(Release(self._next(), vcpu))
        return True

    def _post_sea(
        self, source: ErrorSource, vcpu: int, state: VcpuState, abort: Abort, queue: int, now: float, out: list[Effect]
    ) -> None:
        rule, shift, size = self.rules[queue], self.page_shift, 1 << self.page_shift
        pages: tuple[tuple[int, int], ...] = ((abort.first << shift, size),)
        self.poison.set(abort.first, POSTED)
        if abort.pages > 1:
            self._rest(abort)
            pages += self._neighbours(abort, source.capacity - 1)
        block = self._block(pages, rule, False)
        id = source.post(self._id, block, pages, queue, now, rule, out)
        esr = self._esr(queue, state.el, abort)
        source_id, s = source.placed.source_id, source.state
        s.last, s.vcpu = id + 1, vcpu
        self._busy[source_id] = source
        out.append(InjectSea(id + 1, source_id, vcpu, esr, abort.gva))
        out.append(Posted(id + 2, source_id, "sea", vcpu, esr, pages, block, rule.name))
        out.append(Release(id + 3, vcpu))
        out.append(source.look(id + 4))
        self._id = id + 4

    def _esr(self, queue: int, el: int, abort: Abort) -> int:
        if abort.esr is not None or abort.gva is not None:
            return sea_syndrome(self.rules[queue].sea, el, abort.gva is not None, abort.esr)
        found = self._plain_esr.get((queue, el))
        if found is None:
            found = self._plain_esr[queue, el] = sea_syndrome(self.rules[queue].sea, el, False, None)
        return found

    def _neighbours(self, abort: Abort, limit: int) -> tuple[tuple[int, int], ...]:
        """Further lost pages of the same host page that still wait to be told."""
        queue, shift = self._decide(Code.AO, None, abort.first, abort.lsb), self.page_shift
        found = self.poison.take(queue, limit, abort.start, abort.start + abort.pages)
        for page in found:
            self.poison.set(page, POSTED)
        return tuple((page << shift, 1 << shift) for page in found)

    # -- telling what was found ----------------------------------------------------------

    def _kick(self, now: float, out: list[Effect]) -> None:
        """Post whatever waits and has an open way with a free source."""
        waiting = self.poison.waiting
        for queue, rule in enumerate(self.rules):
            while waiting[queue] and self._post_next(queue, rule, now, out):
                pass

    def _post_next(self, queue: int, rule: Rule, now: float, out: list[Effect]) -> bool:
        reasons = []
        for way in rule.deliver:
            if way == "sea":
                continue  # an SEA needs a vCPU that consumed the page
            for source in self.ways[way]:
                if source.refuses(queue, now):
                    reasons.append(f"{way}: {source.state.broken or 'refused'}")
                elif way == "sdei" and not self.sdei.accepts(source.placed.vector):
                    reasons.append("sdei: not registered and enabled")
                elif not source.free:
                    return False  # its turn comes with the acknowledgement
                else:
                    self._post(source, way, queue, now, out)
                    self._stuck.discard(queue)
                    return True
            if not self.ways[way]:
                reasons.append(f"{way}: no source that the guest binds")
        if queue not in self._stuck:
            self._stuck.add(queue)
            out.append(Undelivered(self._next(), rule.name, "; ".join(reasons)))
        return False

    def _post(self, source: ErrorSource, way: str, queue: int, now: float, out: list[Effect]) -> None:
        rule, shift, size = self.rules[queue], self.page_shift, 1 << self.page_shift
        found = self.poison.take(queue, source.capacity)
        for page in found:
            self.poison.set(page, POSTED)
        pages = tuple((page << shift, size) for page in found)
        block = self._block(pages, rule, True)
        self._id = source.post(self._id, block, pages, queue, now, rule, out)
        self._busy[source.placed.source_id] = source
        esr = None
        if way == "sei":
            esr = serror_esr(sei_syndrome(rule))
        self._notify(source, out)
        out.append(Posted(self._next(), source.placed.source_id, way, source.state.vcpu, esr, pages, block, rule.name))

    def _notify(self, source: ErrorSource, out: list[Effect]) -> None:
        """Tell the guest of the block that the source holds."""
        placed, state = source.placed, source.state
        if source.way in {"gsiv", "gpio"}:
            state.last = self._next()
            out.append(RaiseLine(state.last, placed.source_id, source.way, placed.vector))
        elif source.way == "sdei":
            vcpu = self.sdei.signal(placed.vector)
            if vcpu is not None:
                state.vcpu = vcpu
                self._stop(vcpu, out)
        elif source.way in {"sei", "sea"}:
            vcpu = state.vcpu if state.vcpu is not None else 0
            state.vcpu = vcpu
            self._wanted.setdefault(vcpu, []).append(placed.source_id)
            self._stop(vcpu, out)

    def _visit(self, vcpu: int, state: VcpuState, out: list[Effect]) -> bool:
        """The vCPU is stopped: inject what waited for that.  Returns whether it was released."""
        looks = []
        for source_id in self._wanted.pop(vcpu):
            source = self.sources[source_id]
            s = source.state
            if not s.pages:
                continue
            if source.way == "sei":
                vsesr = sei_syndrome(self.rules[s.queue])
                s.last = self._next()
                out.append(InjectSerror(s.last, source_id, vcpu, vsesr))
            elif state.el == 0 or self.guest.claims_sea_at_el1:
                esr = sea_syndrome(self.rules[s.queue].sea, state.el, False, None)
                s.last = self._next()
                out.append(InjectSea(s.last, source_id, vcpu, esr, None))
            looks.append(source)
        if looks:
            out.append(Release(self._next(), vcpu))
            out += [source.look(self._next()) for source in looks]
        return bool(looks)

    def _block(self, pages: tuple[tuple[int, int], ...], rule: Rule, latent: bool) -> bytes:
        self.records += 1
        return memory_block(
            pages, severity=_SEVERITY[rule.severity], error_type=rule.error_type, latent=latent, number=self.records,
            time=self._time, style=self.style,
        )  # fmt: skip

    # -- how it went -----------------------------------------------------------------

    def _done(self, event: Done, now: float) -> list[Effect]:
        self.done = event.effect
        return []

    def _ack(self, event: AckRead, now: float) -> list[Effect]:
        effect, source_id, value = event
        source = self._busy.get(source_id)
        if source is None or effect < source.state.first:
            return []  # read before the present block was posted: it says nothing about it
        if effect == source.state.peek:
            source.state.peek = 0
            if value:  # unread: whoever was told did not look
                again: list[Effect] = []
                self._notify(source, again)
                return again
            return []
        if not source.acknowledged(value):
            source.unread(now)
            return []
        pages = source.clear()
        del self._busy[source_id]
        poison = self.poison
        poison.acknowledge(pages, self.page_shift)
        out: list[Effect] = [Acked(self._next(), source_id, pages)]
        if self.aborts and source.way == "sea":
            self._resume_held(now, out)
        if poison.counts[UNREPORTED]:
            self._kick(now, out)
        return out

    def _resume_held(self, now: float, out: list[Effect]) -> None:
        """The SEA source is free: the vCPU that waited longest is told."""
        for vcpu, abort in list(self.aborts.items()):
            if abort.state is not None:
                del self.aborts[vcpu]
                queue = self._decide(Code.AR, abort.state.el, abort.first, abort.lsb)
                gone = self._tell_record(vcpu, abort.state, abort, queue, now, out)
                if vcpu in self.aborts:  # the source is taken again
                    return
                self._leave(vcpu, abort.state, gone, out)

    def _failed(self, event: Failed, now: float) -> list[Effect]:
        id, reason = event
        out: list[Effect] = []
        for vcpu, stop in self._stopping.items():
            if stop == id:
                self._unreachable(vcpu, reason, now, out)
                return out
        for source in list(self._busy.values()):
            s = source.state
            if s.first <= id <= max(s.first + 2, s.last):
                writing = id <= s.first + (2 if source.placed.ack is not None else 1)
                if writing:
                    s.broken = reason
                else:
                    s.refused[s.queue] = now + self.rules[s.queue].unacked.after_ms / 1000
                self._take_back(source, reason, out)
                self._kick(now, out)
                break
        return out

    def _unreachable(self, vcpu: int, reason: str, now: float, out: list[Effect]) -> None:
        """The vCPU could not be stopped: what waited for that is told by other ways."""
        del self._stopping[vcpu]
        abort = self.aborts.get(vcpu)
        if abort is not None and abort.state is None:
            del self.aborts[vcpu]
            if abort.first >= 0:
                self._found(Code.AR, abort.first, abort.start, abort.pages, abort.lsb, out)
        waiting = self._wanted.pop(vcpu, [])
        for source in list(self._busy.values()):
            s = source.state
            if source.placed.source_id in waiting or (source.way == "sdei" and s.vcpu == vcpu):
                s.refused[s.queue] = now + self.rules[s.queue].unacked.after_ms / 1000
                self._take_back(source, reason, out)
        self._kick(now, out)

    def _take_back(self, source: ErrorSource, reason: str, out: list[Effect]) -> None:
        """Withdraw an unread block; its pages wait again."""
        queue, pages = source.state.queue, source.clear()
        self._busy.pop(source.placed.source_id, None)
        if source.way == "sdei":
            self.sdei.withdraw(source.placed.vector)
        out.append(TakenBack(self._next(), source.placed.source_id, pages, reason))
        out.append(source.take_back(self._next()))
        for gpa, _ in pages:
            self.poison.set(gpa >> self.page_shift, UNREPORTED, queue)

    def _overdue(self, source: ErrorSource, now: float, out: list[Effect]) -> None:
        s = source.state
        rule = self.rules[s.queue]
        if s.tries < rule.unacked.tries:
            s.tries += 1
            s.overdue = now + rule.unacked.after_ms / 1000
            out.append(source.look_at_status(self._next()))
            return
        s.overdue = NEVER
        reason = f"source {source.placed.source_id}: no acknowledgement in {(s.tries + 1) * rule.unacked.after_ms} ms"
        out.append(Escalate(self._next(), source.placed.source_id, rule.unacked.then, reason))

    # -- SDEI calls ------------------------------------------------------------------

    def _call(self, event: GuestCall, now: float) -> list[Effect]:
        vcpu, function, args, state = event
        out: list[Effect] = []
        result = self.sdei.call(vcpu, function, args, state)
        r = result.registers
        if r is not None:
            out.append(SetRegisters(self._next(), None, vcpu, r.x, r.pc, r.pstate, r.elr, r.spsr))
        else:
            assert result.x0 is not None
            out.append(Reply(self._next(), vcpu, result.x0))
        for event_number in result.discarded:
            source = self._by_event.get(event_number)
            if source is not None and source.state.pages:
                self._take_back(source, "the guest unregistered the event", out)
        if self._stuck:
            self._stuck.clear()
        self._out = vcpu
        if self.poison.counts[UNREPORTED]:
            self._kick(now, out)
        for other in result.wanted:
            self._stop(other, out)
        self._out = None
        self._leave(vcpu, result.after(state), False, out)
        source = None if result.completed is None else self._by_event.get(result.completed)
        if source is not None and source.state.pages:
            out.append(source.look(self._next()))
        return out

    def _stop(self, vcpu: int, out: list[Effect]) -> None:
        """Ask for the vCPU, unless it was asked for and has not come yet, or is out, its call being answered."""
        if vcpu not in self._stopping and vcpu != self._out:
            self._stopping[vcpu] = id = self._next()
            out.append(Stop(id, vcpu))

    def _next(self) -> int:
        self._id += 1
        return self._id
