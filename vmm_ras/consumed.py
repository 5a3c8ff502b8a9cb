"""Telling a vCPU what it consumed: by an SEA that finds a record, and by what else if that cannot be.

Stop --Stopped--> tell: a rule decides, with the exception level
  the SEA source is free  --> record, SEA, Release
  it is not acknowledged  --> Hold, until it is (resume) or the rule's hold_ms is over (bare)
  another way comes first --> the pages are queued, the access is repeated
  none is open            --> bare: SEA without a record, the page is told as a found one
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from vmm_ras import found
from vmm_ras.delivery import sea_syndrome
from vmm_ras.effects import Decided, Effect, Escalate, Hold, InjectSea, Posted, Release, Report
from vmm_ras.events import Code, VcpuState, new
from vmm_ras.memory import HELD, POSTED, TOUCH, UNREPORTED, aligned
from vmm_ras.policy import Rule
from vmm_ras.source import NEVER, ErrorSource

_AR: Final = Code.AR
# Classes as constants: the compiled copy looks any other name up each time.
_Decided: Final = Decided
_InjectSea: Final = InjectSea
_Posted: Final = Posted
_Release: Final = Release
if TYPE_CHECKING:
    from vmm_ras.notifier import Notifier


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
    queue: int = -1
    """The rule that decided, once it is stopped."""
    asked: bool = False
    """Whether it is held for the orchestrator's word, and not for a source."""


def tell(core: Notifier, vcpu: int, state: VcpuState, abort: Abort, now: float, out: list[Effect]) -> bool:
    """The vCPU is stopped: decide and tell.  Returns whether it was released."""
    first, start, pages, lsb, _, _, _, _, _, _ = abort
    queue = core.decide(_AR, first, lsb, out, vcpu, state)
    ruling, shift = core.rulings[queue], core.page_shift
    if ruling.plain and first >= 0:
        core.last_id = id = core.last_id + 1
        out.append(new(_Decided, (id, _AR, start << shift, pages << shift, ruling.name, "tell")))
        source = ruling.sea
        if source is None or not source.takes(queue, now):
            return tell_record(core, vcpu, state, abort, queue, now, out)
        _post_sea(core, source, vcpu, state, abort, queue, now, out)
        return True
    rule = ruling.rule
    what = rule.action
    if what not in {"tell", "bare", "ignore"}:
        out.append(Escalate(core.next_id(), None, what, f"rule {rule.name}: vCPU {vcpu} consumed poison"))
        _hold(core, vcpu, state, abort, queue, now, out, f"rule {rule.name} asks for {what}")
    gpa, size = abort.start << shift if abort.start >= 0 else -1, abort.pages << shift
    core.last_id = id = core.last_id + 1
    out.append(new(_Decided, (id, Code.AR, gpa, size, rule.name, "ignored" if what == "ignore" else what)))
    if rule.report != "never":
        waits = rule.report == "first" and what == "tell"
        until = now + rule.report_ms / 1000 if waits else None
        out.append(Report(core.next_id(), Code.AR, gpa, size, rule.name, until))
        if until is not None:
            reason = f"rule {rule.name} asks the host first"
            _keep(core, vcpu, state, abort._replace(queue=queue, asked=True), until, out, reason)
            return False
    if what == "bare" or (what == "tell" and abort.first < 0):
        return bare(core, vcpu, state, abort, rule, out)
    return what == "tell" and tell_record(core, vcpu, state, abort, queue, now, out)


def tell_record(
    core: Notifier, vcpu: int, state: VcpuState, abort: Abort, queue: int, now: float, out: list[Effect]
) -> bool:
    """Post a record by the first way that is open, or hold the vCPU.  Returns whether it was released."""
    rule, waits = core.rules[queue], ""
    if abort.first < 0:
        return bare(core, vcpu, state, abort, rule, out)
    for way in rule.deliver:
        for source in _sea_sources(core, vcpu) if way == "sea" else core.ways[way]:
            if source.refuses(queue, now):
                continue
            if way != "sea":
                if way == "sdei" and not core.sdei.accepts(source.placed.vector):
                    continue
                if waits and not source.free:
                    continue
                _queue(core, abort, queue, out)
                return False
            if source.free:
                _post_sea(core, source, vcpu, state, abort, queue, now, out)
                return True
            waits = waits or f"source {source.placed.source_id} is not acknowledged"
        if waits and rule.busy == "wait":
            break
    if waits:
        _hold(core, vcpu, state, abort, queue, now, out, waits)
        return False
    _queue(core, abort, queue, out)
    return bare(core, vcpu, state, abort, rule, out)


def _sea_sources(core: Notifier, vcpu: int) -> list[ErrorSource]:
    """The sources by which this vCPU can be told now; one that is not acknowledged is to be waited for."""
    sources = core.ways["sea"]
    if len(sources) > 1:
        if not core.guest.walks_all_sea_sources:
            return [sources[vcpu % len(sources)]]  # the guest looks at its own only
        return [s for s in sources if s.source_id in core.busy] or sources  # else one vCPU's SEA eats another's record
    return sources


def _queue(core: Notifier, abort: Abort, queue: int, out: list[Effect]) -> None:
    core.poison.set(abort.first, UNREPORTED, queue)
    _rest(core, abort, core.rules[queue], out)


def _rest(core: Notifier, abort: Abort, rule: Rule, out: list[Effect]) -> None:
    """The rest of a large host page was found, not used: it is told as AO, or when it is touched."""
    if abort.pages > 1:
        queue = core.decide(Code.AO, abort.first, abort.lsb, out)
        state, queue = (UNREPORTED, TOUCH) if rule.large == "touch" else found.kept(core, queue)
        if state == UNREPORTED:
            core.poison.add(abort.start, abort.pages, queue)


def _hold(
    core: Notifier, vcpu: int, state: VcpuState, abort: Abort, queue: int, now: float, out: list[Effect], reason: str
) -> None:
    until = now + core.rules[queue].hold_ms / 1000
    _keep(core, vcpu, state, abort._replace(queue=queue, asked=False), until, out, reason)


def _keep(
    core: Notifier, vcpu: int, state: VcpuState, abort: Abort, until: float, out: list[Effect], reason: str
) -> None:
    if abort.first >= 0:
        core.poison.set(abort.first, UNREPORTED, HELD)
        _rest(core, abort, core.rules[abort.queue], out)
    core.aborts[vcpu] = abort._replace(until=until, state=state)
    out.append(Hold(core.next_id(), vcpu, reason, until))
    for other in core.sdei.set_absent(vcpu):  # SDEI events that waited for it to stop
        core.stop(other, out)


def bare(core: Notifier, vcpu: int, state: VcpuState, abort: Abort, rule: Rule, out: list[Effect]) -> bool:
    """An SEA without a record; the page is told by the way of found ones.  Returns that the vCPU was released."""
    if abort.first >= 0:
        queue = core.decide(Code.AO, abort.first, abort.lsb, out)
        core.poison.set(abort.first, *found.kept(core, queue))
        _rest(core, abort, rule, out)
    known = state.far_known or abort.gva is not None
    esr = sea_syndrome(rule.sea, state.el, known, abort.esr, core.guest.ras)
    out.append(InjectSea(core.next_id(), None, vcpu, esr, abort.gva))
    out.append(Release(core.next_id(), vcpu))
    return True


def _post_sea(
    core: Notifier,
    source: ErrorSource,
    vcpu: int,
    state: VcpuState,
    abort: Abort,
    queue: int,
    now: float,
    out: list[Effect],
) -> None:
    first, _, count, _, gva, relayed, _, _, _, _ = abort
    ruling, shift = core.rulings[queue], core.page_shift
    pages: tuple[tuple[int, int], ...] = ((first << shift, 1 << shift),)
    if not core.poison.post(first):
        core.poison.set(first, POSTED)
    if count > 1:
        rule = ruling.rule
        _rest(core, abort, rule, out)
        if rule.large == "mask":  # the address stays that of the access: what the guest looks at first
            start, count = next(b for b in aligned(abort.start, count) if b[0] <= first < sum(b))
            core.poison.mark(start, count, POSTED)
            pages = ((first << shift, count << shift),)
        elif rule.large == "pages":
            pages += _neighbours(core, abort, min(source.capacity, rule.entries) - 1, out)
    block = core.build_block(pages, ruling, False)
    id = source.post(core.last_id, block, pages, queue, now, ruling.after, out)
    _, pstate, _, _, _, _, far_known = state
    el, known = pstate >> 2 & 3, far_known or gva is not None
    key = (queue << 2 | el) << 1 | known
    esr = core.esrs.get(key) if relayed is None else None
    if esr is None:
        esr = sea_syndrome(ruling.rule.sea, el, known, relayed, core.guest.ras)
        if relayed is None:  # else there are too many to remember
            core.esrs[key] = esr
    source_id, s = source.source_id, source.state
    s.last, s.vcpu = id + 1, vcpu
    core.busy[source_id] = source
    out.append(new(_InjectSea, (id + 1, source_id, vcpu, esr, gva)))
    out.append(new(_Posted, (id + 2, source_id, "sea", vcpu, esr, pages, block, ruling.name)))
    out.append(new(_Release, (id + 3, vcpu)))
    out.append(source.look(id + 4))
    core.last_id = id + 4


def _neighbours(core: Notifier, abort: Abort, limit: int, out: list[Effect]) -> tuple[tuple[int, int], ...]:
    """Further lost pages of the same host page that still wait to be told."""
    queue, shift = core.decide(Code.AO, abort.first, abort.lsb, out), core.page_shift
    pages = core.poison.take(queue, limit, abort.start, abort.start + abort.pages)
    for page in pages:
        core.poison.set(page, POSTED)
    return tuple((page << shift, 1 << shift) for page in pages)


def resume(core: Notifier, now: float, out: list[Effect]) -> None:
    """An SEA source is free: of the vCPUs that wait for it, the one that has waited longest is told."""
    for vcpu, abort in list(core.aborts.items()):
        if abort.state is None or abort.asked or core.rules[abort.queue].action != "tell":
            continue  # not here yet; or the orchestrator was asked, and has until the hold ends
        if all(s.source_id in core.busy for s in _sea_sources(core, vcpu)):
            continue
        del core.aborts[vcpu]
        gone = tell_record(core, vcpu, abort.state, abort, abort.queue, now, out)
        core.leave(vcpu, abort.state, gone, out)
