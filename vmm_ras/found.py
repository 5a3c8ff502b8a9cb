"""Telling what was found: pages wait in the poison map until a way of their rule is open and its source is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm_ras.arm64 import serror_esr
from vmm_ras.delivery import sea_syndrome, sei_syndrome
from vmm_ras.effects import (
    Decided,
    Effect,
    Escalate,
    InjectSea,
    InjectSerror,
    Posted,
    RaiseLine,
    Release,
    Undelivered,
)
from vmm_ras.events import Code, VcpuState
from vmm_ras.memory import POSTED
from vmm_ras.policy import Rule
from vmm_ras.source import ErrorSource

if TYPE_CHECKING:
    from vmm_ras.notifier import Notifier


def found(core: Notifier, code: Code, at: int, start: int, count: int, lsb: int, out: list[Effect]) -> None:
    """Pages were lost and nobody waits for them: queue them by the rule for AO."""
    queue = core.decide(Code.AO, None, at, lsb)
    rule = core.rules[queue]
    what = "ignored"
    if rule.action == "tell":
        what = "tell" if core.poison.add(start, count, queue) else "known"
    elif rule.action != "ignore":
        out.append(Escalate(core.next_id(), None, rule.action, f"rule {rule.name}: {at << core.page_shift:#x} is lost"))
        what = rule.action
    gpa, size = start << core.page_shift, count << core.page_shift
    out.append(Decided(core.next_id(), code, gpa, size, rule.name, what))


def kick(core: Notifier, now: float, out: list[Effect]) -> None:
    """Post whatever waits and has an open way with a free source."""
    waiting = core.poison.waiting
    for queue, rule in enumerate(core.rules):
        while waiting[queue] and _post_next(core, queue, rule, now, out):
            pass


def _post_next(core: Notifier, queue: int, rule: Rule, now: float, out: list[Effect]) -> bool:
    reasons = []
    for way in rule.deliver:
        if way == "sea":
            continue  # an SEA needs a vCPU that consumed the page
        for source in core.ways[way]:
            if source.refuses(queue, now):
                reasons.append(f"{way}: {source.state.broken or 'refused'}")
            elif way == "sdei" and not core.sdei.accepts(source.placed.vector):
                reasons.append("sdei: not registered and enabled")
            elif not source.free:
                return False  # its turn comes with the acknowledgement
            else:
                _post(core, source, way, queue, now, out)
                core.stuck.discard(queue)
                return True
        if not core.ways[way]:
            reasons.append(f"{way}: no source that the guest binds")
    if queue not in core.stuck:
        core.stuck.add(queue)
        out.append(Undelivered(core.next_id(), rule.name, "; ".join(reasons)))
    return False


def _post(core: Notifier, source: ErrorSource, way: str, queue: int, now: float, out: list[Effect]) -> None:
    rule, shift, size = core.rules[queue], core.page_shift, 1 << core.page_shift
    found = core.poison.take(queue, source.capacity)
    for page in found:
        core.poison.set(page, POSTED)
    pages = tuple((page << shift, size) for page in found)
    block = core.build_block(pages, rule, True)
    core.last_id = source.post(core.last_id, block, pages, queue, now, rule, out)
    core.busy[source.placed.source_id] = source
    esr = None
    if way == "sei":
        esr = serror_esr(sei_syndrome(rule))
    notify(core, source, out)
    out.append(Posted(core.next_id(), source.placed.source_id, way, source.state.vcpu, esr, pages, block, rule.name))


def notify(core: Notifier, source: ErrorSource, out: list[Effect]) -> None:
    """Tell the guest of the block that the source holds."""
    placed, state = source.placed, source.state
    if source.way in {"gsiv", "gpio"}:
        state.last = core.next_id()
        out.append(RaiseLine(state.last, placed.source_id, source.way, placed.vector))
    elif source.way == "sdei":
        vcpu = core.sdei.signal(placed.vector)
        if vcpu is not None:
            state.vcpu = vcpu
            core.stop(vcpu, out)
    elif source.way in {"sei", "sea"}:
        vcpu = state.vcpu if state.vcpu is not None else 0
        state.vcpu = vcpu
        core.wanted.setdefault(vcpu, []).append(placed.source_id)
        core.stop(vcpu, out)


def visit(core: Notifier, vcpu: int, state: VcpuState, out: list[Effect]) -> bool:
    """The vCPU is stopped: inject what waited for that.  Returns whether it was released."""
    looks = []
    for source_id in core.wanted.pop(vcpu):
        source = core.sources[source_id]
        s = source.state
        if not s.pages:
            continue
        if source.way == "sei":
            vsesr = sei_syndrome(core.rules[s.queue])
            s.last = core.next_id()
            out.append(InjectSerror(s.last, source_id, vcpu, vsesr))
        elif state.el == 0 or core.guest.claims_sea_at_el1:
            esr = sea_syndrome(core.rules[s.queue].sea, state.el, False, None)
            s.last = core.next_id()
            out.append(InjectSea(s.last, source_id, vcpu, esr, None))
        looks.append(source)
    if looks:
        out.append(Release(core.next_id(), vcpu))
        out += [source.look(core.next_id()) for source in looks]
    return bool(looks)
