"""Telling what was found: pages wait in the poison map until a way of their rule is open and its source is free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

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
    Report,
    Undelivered,
)
from vmm_ras.events import Code, VcpuState, new
from vmm_ras.memory import POSTED, TOUCH
from vmm_ras.policy import Rule
from vmm_ras.source import ErrorSource

MAX_BLOCK_ENTRIES = 0x3FF
"""What a block status can count (ACPI 6.5, 18.3.2.7.1)."""

if TYPE_CHECKING:
    from vmm_ras.notifier import Notifier


def found(
    core: Notifier, code: Code, at: int, start: int, count: int, lsb: int, now: float, out: list[Effect],
    thread: Literal["vcpu", "other"] = "other",
) -> None:  # fmt: skip
    """Pages were lost and nobody waits for them: queue them by the rule for AO."""
    queue = core.decide(Code.AO, at, lsb, out, thread=thread)
    if core.rules[queue].action == "consumed":  # but no vCPU can be told that it consumed them
        queue = core.decide(Code.AO, at, lsb, out)
    rule = core.rules[queue]
    what = "ignored"
    if rule.action == "tell":
        if count > 1 and rule.large == "touch":
            what = "on-touch" if core.poison.add(start, count, TOUCH) else "known"
        else:
            idle = not core.poison.waiting[queue]
            what = "tell" if core.poison.add(start, count, queue) else "known"
            if idle and what == "tell":
                if rule.report == "first":
                    core.ready[queue] = now + rule.report_ms / 1000, False
                elif rule.batch_ms:
                    core.ready[queue] = now + rule.batch_ms / 1000, True
    elif rule.action != "ignore":
        out.append(Escalate(core.next_id(), None, rule.action, f"rule {rule.name}: {at << core.page_shift:#x} is lost"))
        what = rule.action
    gpa, size = start << core.page_shift, count << core.page_shift
    core.last_id = id = core.last_id + 1
    out.append(new(Decided, (id, code, gpa, size, rule.name, what)))
    if rule.report != "never":
        until = core.ready[queue][0] if rule.report == "first" and queue in core.ready else None
        out.append(Report(core.next_id(), code, gpa, size, rule.name, until))


def kick(core: Notifier, now: float, out: list[Effect]) -> None:
    """Post whatever waits and has an open way with a free source: memory first."""
    waiting = core.poison.waiting
    for queue, rule in enumerate(core.rules):
        if waiting[queue]:
            if queue in core.ready and not _ripe(core, queue, rule, now):
                continue
            while waiting[queue] and _post_next(core, queue, rule, now, out):
                pass
    if core.inbox.records:
        core.kick_records(now, out)


def _ripe(core: Notifier, queue: int, rule: Rule, now: float) -> bool:
    """Whether pages that gather, or wait for the orchestrator, may be told."""
    until, full = core.ready[queue]
    if now < until:
        room = (s.capacity for way in rule.deliver if way != "sea" for s in core.ways[way] if not s.state.broken)
        if not full or core.poison.waiting[queue] < next(room, MAX_BLOCK_ENTRIES):
            return False
    del core.ready[queue]
    return True


def _post_next(core: Notifier, queue: int, rule: Rule, now: float, out: list[Effect]) -> bool:
    reasons, waits = [], False
    for way in rule.deliver:
        if way == "sea":
            continue  # an SEA needs a vCPU that consumed the page
        for source in core.ways[way]:
            if source.refuses(queue, now):
                reasons.append(f"{way}: {source.state.broken or 'refused'}")
            elif way == "sdei" and not core.sdei.accepts(source.placed.vector):
                reasons.append("sdei: not registered and enabled")
            elif not source.free:
                if rule.busy == "wait":
                    return False  # its turn comes with the acknowledgement
                waits = True
            else:
                _post(core, source, way, queue, now, out)
                core.stuck.discard(queue)
                return True
        if not core.ways[way]:
            reasons.append(f"{way}: no source that the guest binds")
    if waits:
        return False
    if queue not in core.stuck:
        core.stuck.add(queue)
        out.append(Undelivered(core.next_id(), rule.name, "; ".join(reasons)))
    return False


def _post(core: Notifier, source: ErrorSource, way: str, queue: int, now: float, out: list[Effect]) -> None:
    rule, shift, size = core.rules[queue], core.page_shift, 1 << core.page_shift
    if rule.large == "mask":
        blocks = core.poison.take_blocks(queue, source.capacity)
        for first, count in blocks:
            core.poison.mark(first, count, POSTED)
        pages = tuple((first << shift, count << shift) for first, count in blocks)
    else:
        found = core.poison.take(queue, source.capacity)
        for page in found:
            core.poison.set(page, POSTED)
        pages = tuple((page << shift, size) for page in found)
    _publish(core, source, way, pages, queue, now, out)


def tell_elsewhere(core: Notifier, silent: ErrorSource, now: float, out: list[Effect]) -> bool:
    """Tell the pages of a source that the guest does not acknowledge through another one; whether it takes them all."""
    queue, pages = silent.state.queue, silent.state.pages
    for way in core.rules[queue].deliver if pages else ():
        for source in core.ways[way]:
            if way == "sea" or not source.free or source.refuses(queue, now):
                continue
            if way == "sdei" and not core.sdei.accepts(source.placed.vector):
                continue
            _publish(core, source, way, pages[: source.capacity], queue, now, out)
            return len(pages) <= source.capacity
    return False


def _publish(
    core: Notifier, source: ErrorSource, way: str, pages: tuple[tuple[int, int], ...], queue: int, now: float,
    out: list[Effect],
) -> None:  # fmt: skip
    rule = core.rules[queue]
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
        if state.vcpu is not None and state.tries and core.awaits(state.vcpu):
            core.sdei.set_absent(state.vcpu)  # it does not come: another one is told
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
        if source_id not in core.busy:
            continue
        if source.way == "sei":
            vsesr = sei_syndrome(core.rules[s.queue])
            s.last = core.next_id()
            out.append(InjectSerror(s.last, source_id, vcpu, vsesr))
        elif state.el == 0 or core.guest.claims_sea_at_el1:
            esr = sea_syndrome(core.rules[s.queue].sea, state.el, False, None, core.guest.ras)
            s.last = core.next_id()
            out.append(InjectSea(s.last, source_id, vcpu, esr, None))
        looks.append(source)
    if looks:
        out.append(Release(core.next_id(), vcpu))
        out += [source.look(core.next_id()) for source in looks]
    return bool(looks)
