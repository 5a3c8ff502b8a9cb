"""Telling what was found: pages wait in the poison map until a way of their rule is open and its source is free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from vmm_ras.arm64 import serror_esr
from vmm_ras.delivery import Ruling, sea_syndrome, sei_syndrome
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
from vmm_ras.memory import HEALTHY, POSTED, TOUCH, UNREPORTED
from vmm_ras.policy import Rule
from vmm_ras.source import NEVER, ErrorSource

MAX_BLOCK_ENTRIES: Final = 0x3FF
"""What a block status can count (ACPI 6.5, 18.3.2.7.1)."""

_AO: Final = Code.AO
# Classes as constants: the compiled copy looks any other name up each time.
_Decided: Final = Decided
_Posted: Final = Posted
SLOWER: Final = 2
"""Handling the pages of a record takes no longer than so many times its acknowledgement, which comes first."""

if TYPE_CHECKING:
    from vmm_ras.notifier import Notifier


def found(
    core: Notifier, code: Code, at: int, start: int, count: int, lsb: int, now: float, out: list[Effect],
    thread: Literal["vcpu", "other"] = "other",
) -> None:  # fmt: skip
    """Pages were lost and nobody waits for them: queue them by the rule for AO."""
    queue = core.decide(_AO, at, lsb, out, None, None, thread)
    ruling, poison, shift = core.rulings[queue], core.poison, core.page_shift
    waits = poison.counts[UNREPORTED] or core.inbox.records or queue in core.ready
    if ruling.at_once and count == 1 and not waits:
        source = _open(core, ruling, queue, now)
        if isinstance(source, ErrorSource) and poison.post(start):
            core.stuck.discard(queue)
            core.last_id = id = core.last_id + 1
            out.append(new(_Decided, (id, code, start << shift, 1 << shift, ruling.name, "tell")))
            _publish(core, source, ((start << shift, 1 << shift),), queue, now, out)
            return
    rule = ruling.rule
    if rule.action == "consumed":  # but no vCPU can be told that it consumed them
        queue = core.decide(_AO, at, lsb, out)
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
        core.poison.add(start, count, TOUCH)  # the guest is not told, but it may touch them, or move with them
        out.append(Escalate(core.next_id(), None, rule.action, f"rule {rule.name}: {at << core.page_shift:#x} is lost"))
        what = rule.action
    gpa, size = start << core.page_shift, count << core.page_shift
    core.last_id = id = core.last_id + 1
    out.append(new(_Decided, (id, code, gpa, size, rule.name, what)))
    if rule.report != "never":
        until = core.ready[queue][0] if rule.report == "first" and queue in core.ready else None
        out.append(Report(core.next_id(), code, gpa, size, rule.name, until))


def kept(core: Notifier, queue: int) -> tuple[int, int]:
    """State and queue of a page found by this rule: one that the orchestrator is asked about waits for a touch."""
    action = core.rules[queue].action
    return (HEALTHY, 0) if action == "ignore" else (UNREPORTED, queue if action == "tell" else TOUCH)


def pause(core: Notifier, source: ErrorSource, pages: int, due: float, now: float) -> None:
    """The guest has acknowledged several pages at once: it gets time for them before it is told more.

    ``due``: when the acknowledgement had been due.  A guest that took long for it takes long for the pages too.
    """
    took = 0.0
    if source.way != "polled":
        took = (source.state.tries + 1) * core.rulings[source.state.queue].after + (now - due if due < NEVER else 0.0)
    for queue, rule in enumerate(core.rules):
        if rule.pause_ms and core.poison.waiting[queue] and queue not in core.ready:
            core.ready[queue] = now + max(pages * rule.pause_ms / 1000, SLOWER * took), False


def kick(core: Notifier, now: float, out: list[Effect]) -> None:
    """Post whatever waits and has an open way with a free source: memory first."""
    waiting = core.poison.waiting
    if core.poison.counts[UNREPORTED]:
        for queue, rule in enumerate(core.rules):
            if waiting[queue]:
                if queue in core.ready and not _ripe(core, queue, rule, now):
                    continue
                while waiting[queue] and _post_next(core, queue, now, out):
                    pass
    if core.inbox.records:
        core.kick_records(now, out)


def _ripe(core: Notifier, queue: int, rule: Rule, now: float) -> bool:
    """Whether pages that gather, or wait for the orchestrator, may be told."""
    until, full = core.ready[queue]
    if now < until:
        room = (s.capacity for way in rule.deliver if way != "sea" for s in core.ways[way] if not s.state.broken)
        if not full or core.poison.waiting[queue] < min(rule.entries, next(room, MAX_BLOCK_ENTRIES)):
            return False
    del core.ready[queue]
    return True


def _open(core: Notifier, ruling: Ruling, queue: int, now: float) -> ErrorSource | str | None:
    """The source by which pages of the queue can be told now; None: one is to be waited for; or why there is none."""
    reasons, waits = [], False
    for way, sources in ruling.ways:
        for source in sources:
            s = source.state
            if source.refuses(queue, now):
                reasons.append(f"{way}: {s.broken or 'refused'}")
            elif way == "sdei" and not core.sdei.accepts(source.vector):
                reasons.append("sdei: not registered and enabled")
            elif not s.pages and s.record is None:
                return source
            elif ruling.waits:
                return None  # its turn comes with the acknowledgement
            else:
                waits = True
        if not sources:
            reasons.append(f"{way}: no source that the guest binds")
    return None if waits else "; ".join(reasons)


def _post_next(core: Notifier, queue: int, now: float, out: list[Effect]) -> bool:
    ruling = core.rulings[queue]
    source = _open(core, ruling, queue, now)
    if isinstance(source, ErrorSource):
        _post(core, source, queue, now, out)
        core.stuck.discard(queue)
        return True
    if source is not None and queue not in core.stuck:
        core.stuck.add(queue)
        out.append(Undelivered(core.next_id(), ruling.name, source))
    return False


def _post(core: Notifier, source: ErrorSource, queue: int, now: float, out: list[Effect]) -> None:
    rule, shift, size = core.rules[queue], core.page_shift, 1 << core.page_shift
    room = min(source.capacity, rule.entries)
    if rule.large == "mask":
        blocks = core.poison.take_blocks(queue, room)
        for first, count in blocks:
            core.poison.mark(first, count, POSTED)
        pages = tuple((first << shift, count << shift) for first, count in blocks)
    else:
        found = core.poison.take(queue, room)
        for page in found:
            core.poison.set(page, POSTED)
        pages = tuple((page << shift, size) for page in found)
    _publish(core, source, pages, queue, now, out)


def span(core: Notifier, gpa: int, size: int) -> range:
    """The pages of one entry; a large one may be named by an address inside it."""
    first = (gpa & -size) >> core.page_shift
    return range(first, first + (size >> core.page_shift))


def tell_elsewhere(core: Notifier, silent: ErrorSource, now: float, out: list[Effect]) -> bool:
    """Tell the pages of a source that the guest does not acknowledge through another one; whether it takes them all."""
    queue = silent.state.queue
    pages = tuple(  # but for those that were replaced since
        entry for entry in silent.state.pages if any(core.poison.state(page) == POSTED for page in span(core, *entry))
    )
    for way in core.rules[queue].deliver if pages else ():
        for source in core.ways[way]:
            if way == "sea" or not source.free or source.refuses(queue, now):
                continue
            if way == "sdei" and not core.sdei.accepts(source.placed.vector):
                continue
            _publish(core, source, pages[: source.capacity], queue, now, out)
            return len(pages) <= source.capacity
    return False


def _publish(
    core: Notifier, source: ErrorSource, pages: tuple[tuple[int, int], ...], queue: int, now: float, out: list[Effect]
) -> None:
    ruling, source_id, way = core.rulings[queue], source.source_id, source.way
    block = core.build_block(pages, ruling, True)
    core.last_id = source.post(core.last_id, block, pages, queue, now, ruling.after, out)
    core.busy[source_id] = source
    esr = serror_esr(sei_syndrome(ruling.rule)) if way == "sei" else None
    notify(core, source, out)
    core.last_id = id = core.last_id + 1
    out.append(new(_Posted, (id, source_id, way, source.state.vcpu, esr, pages, block, ruling.name)))


def notify(core: Notifier, source: ErrorSource, out: list[Effect]) -> None:
    """Tell the guest of the block that the source holds."""
    way, state = source.way, source.state
    if way == "sdei":
        if state.vcpu is not None and state.tries and core.awaits(state.vcpu):
            core.sdei.set_absent(state.vcpu)  # it does not come: another one is told
        vcpu = core.sdei.signal(source.vector)
        if vcpu is None and core.sdei.state.absent:
            vcpu = _ask_again(core, source, out)
        if vcpu is not None:
            state.vcpu = vcpu
            core.stop(vcpu, out)
    elif way in {"gsiv", "gpio"}:
        state.last = core.next_id()
        out.append(RaiseLine(state.last, source.source_id, way, source.vector))
    elif way in {"sei", "sea"}:
        vcpu = state.vcpu if state.vcpu is not None else 0
        state.vcpu = vcpu
        waiting = core.wanted.setdefault(vcpu, [])
        if source.source_id not in waiting:  # told again before it could be told at all
            waiting.append(source.source_id)
        if vcpu not in core.aborts:  # else it is out or coming, and takes it when it goes
            core.stop(vcpu, out)


def _ask_again(core: Notifier, source: ErrorSource, out: list[Effect]) -> int | None:
    """Nobody else can take the event: those that could not be stopped are asked again.  The one that is to take it."""
    sdei = core.sdei
    for vcpu in range(core.vcpus):
        if vcpu not in core.aborts:  # who is held stays out
            sdei.set_absent(vcpu, False)
    for vcpu in sdei.wanted():  # other events wait too
        core.stop(vcpu, out)
    return sdei.signal(source.vector)


def visit(core: Notifier, vcpu: int, state: VcpuState, out: list[Effect]) -> bool:
    """The vCPU is stopped: inject what waited for that.  Returns whether it was released."""
    looks = []
    for source_id in core.wanted.pop(vcpu):
        source = core.sources[source_id]
        s = source.state
        if source_id not in core.busy or s.vcpu != vcpu:  # taken back since, and perhaps posted for another vCPU
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
