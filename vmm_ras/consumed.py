"""Telling a vCPU what it consumed: by an SEA that finds a record, and by what else if that cannot be.

Stop --Stopped--> tell: a rule decides, with the exception level
  the SEA source is free  --> record, SEA, Release
  it is not acknowledged  --> Hold, until it is (resume) or the rule's hold_ms is over (bare)
  another way comes first --> the pages are queued, the access is repeated
  none is open            --> bare: SEA without a record, the page is told as a found one
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vmm_ras.delivery import sea_syndrome
from vmm_ras.effects import Decided, Effect, Escalate, Hold, InjectSea, Posted, Release
from vmm_ras.events import Code, VcpuState
from vmm_ras.memory import HEALTHY, MAX_QUEUES, POSTED, UNREPORTED
from vmm_ras.policy import Rule
from vmm_ras.source import NEVER, ErrorSource

if TYPE_CHECKING:
    from vmm_ras.notifier import Notifier

HELD = MAX_QUEUES - 1
"""Queue of pages whose vCPU is held: no asynchronous way tells them."""


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


def tell(core: Notifier, vcpu: int, state: VcpuState, abort: Abort, now: float, out: list[Effect]) -> bool:
    """The vCPU is stopped: decide and tell.  Returns whether it was released."""
    queue = core.decide(Code.AR, state.el, abort.first, abort.lsb)
    rule = core.rules[queue]
    shift = core.page_shift
    what = rule.action
    if what not in {"tell", "bare", "ignore"}:
        out.append(Escalate(core.next_id(), None, what, f"rule {rule.name}: vCPU {vcpu} consumed poison"))
        _hold(core, vcpu, state, abort, rule, now, out, f"rule {rule.name} asks for {what}")
    gpa, size = max(abort.start, 0) << shift, abort.pages << shift
    out.append(Decided(core.next_id(), Code.AR, gpa, size, rule.name, "ignored" if what == "ignore" else what))
    if what == "bare" or (what == "tell" and abort.first < 0):
        return bare(core, vcpu, state, abort, rule, out)
    return what == "tell" and _tell_record(core, vcpu, state, abort, queue, now, out)


def _tell_record(
    core: Notifier, vcpu: int, state: VcpuState, abort: Abort, queue: int, now: float, out: list[Effect]
) -> bool:
    rule, waits = core.rules[queue], ""
    for way in rule.deliver:
        for source in core.ways[way]:
            if source.refuses(queue, now):
                continue
            if way != "sea":
                if way == "sdei" and not core.sdei.accepts(source.placed.vector):
                    continue
                _queue(core, abort, queue)
                return False
            if source.free:
                _post_sea(core, source, vcpu, state, abort, queue, now, out)
                return True
            waits = waits or f"source {source.placed.source_id} is not acknowledged"
        if waits:
            _hold(core, vcpu, state, abort, rule, now, out, waits)
            return False
    _queue(core, abort, queue)
    return bare(core, vcpu, state, abort, rule, out)


def _queue(core: Notifier, abort: Abort, queue: int) -> None:
    if abort.first < 0:
        return
    core.poison.set(abort.first, UNREPORTED, queue)
    _rest(core, abort)


def _rest(core: Notifier, abort: Abort) -> None:
    """The rest of a large host page was found, not used: it is told as AO."""
    if abort.pages > 1:
        queue = core.decide(Code.AO, None, abort.first, abort.lsb)
        if core.rules[queue].action == "tell":
            core.poison.add(abort.start, abort.pages, queue)


def _hold(
    core: Notifier, vcpu: int, state: VcpuState, abort: Abort, rule: Rule, now: float, out: list[Effect], reason: str
) -> None:
    until = now + rule.hold_ms / 1000
    if abort.first >= 0:
        core.poison.set(abort.first, UNREPORTED, HELD)
        _rest(core, abort)
    core.aborts[vcpu] = abort._replace(until=until, state=state)
    out.append(Hold(core.next_id(), vcpu, reason, until))


def bare(core: Notifier, vcpu: int, state: VcpuState, abort: Abort, rule: Rule, out: list[Effect]) -> bool:
    """An SEA without a record; the page is told by the way of found ones.  Returns that the vCPU was released."""
    if abort.first >= 0:
        queue = core.decide(Code.AO, None, abort.first, abort.lsb)
        told = core.rules[queue].action == "tell"
        core.poison.set(abort.first, UNREPORTED if told else HEALTHY, queue)
        _rest(core, abort)
    esr = sea_syndrome(rule.sea, state.el, abort.gva is not None, abort.esr)
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
    rule, shift, size = core.rules[queue], core.page_shift, 1 << core.page_shift
    pages: tuple[tuple[int, int], ...] = ((abort.first << shift, size),)
    core.poison.set(abort.first, POSTED)
    if abort.pages > 1:
        _rest(core, abort)
        pages += _neighbours(core, abort, source.capacity - 1)
    block = core.build_block(pages, rule, False)
    id = source.post(core.last_id, block, pages, queue, now, rule, out)
    esr = _esr(core, queue, state.el, abort)
    source_id, s = source.placed.source_id, source.state
    s.last, s.vcpu = id + 1, vcpu
    core.busy[source_id] = source
    out.append(InjectSea(id + 1, source_id, vcpu, esr, abort.gva))
    out.append(Posted(id + 2, source_id, "sea", vcpu, esr, pages, block, rule.name))
    out.append(Release(id + 3, vcpu))
    out.append(source.look(id + 4))
    core.last_id = id + 4


def _esr(core: Notifier, queue: int, el: int, abort: Abort) -> int:
    if abort.esr is not None or abort.gva is not None:
        return sea_syndrome(core.rules[queue].sea, el, abort.gva is not None, abort.esr)
    found = core.plain_esr.get((queue, el))
    if found is None:
        found = core.plain_esr[queue, el] = sea_syndrome(core.rules[queue].sea, el, False, None)
    return found


def _neighbours(core: Notifier, abort: Abort, limit: int) -> tuple[tuple[int, int], ...]:
    """Further lost pages of the same host page that still wait to be told."""
    queue, shift = core.decide(Code.AO, None, abort.first, abort.lsb), core.page_shift
    found = core.poison.take(queue, limit, abort.start, abort.start + abort.pages)
    for page in found:
        core.poison.set(page, POSTED)
    return tuple((page << shift, 1 << shift) for page in found)


def resume(core: Notifier, now: float, out: list[Effect]) -> None:
    """The SEA source is free: the vCPU that waited longest is told."""
    for vcpu, abort in list(core.aborts.items()):
        if abort.state is None:
            continue
        queue = core.decide(Code.AR, abort.state.el, abort.first, abort.lsb)
        if core.rules[queue].action == "tell":  # else the orchestrator was asked, and has until the hold ends
            del core.aborts[vcpu]
            gone = _tell_record(core, vcpu, abort.state, abort, queue, now, out)
            if vcpu in core.aborts:  # the source is taken again
                return
            core.leave(vcpu, abort.state, gone, out)
