"""What became of a posted block: acknowledged, not carried out, overdue; and what follows from that.

posted --ack--> acked        the source is free: whoever waited for it is told
       --failed--> taken back   its pages wait again, for another way or until the rule's time is over
       --overdue--> looked at, notified again, told elsewhere, and in the end the orchestrator's
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmm_ras import consumed, found, inbox
from vmm_ras.effects import Acked, Effect, Escalate, TakenBack
from vmm_ras.events import AckRead, Code, Failed, new
from vmm_ras.memory import POSTED, UNREPORTED
from vmm_ras.source import NEVER, ErrorSource

# Classes as constants: the compiled copy looks any other name up each time.
_Acked: Final = Acked

if TYPE_CHECKING:
    from vmm_ras.notifier import Notifier


def ack(core: Notifier, event: AckRead, now: float) -> list[Effect]:
    """The gate, or the block status, was read: go on if the guest has acknowledged, look again later if not."""
    effect, source_id, value = event
    source = core.busy.get(source_id)
    if source is None:
        return []
    s = source.state
    if effect < s.first:
        return []  # read before the present block was posted: it says nothing about it
    if effect == s.peek:
        s.peek = 0
        if value:  # unread: whoever was told did not look
            again: list[Effect] = []
            found.notify(core, source, again)
            return again
        return []
    if not source.acknowledged(value):
        source.unread(now)
        return []
    due = s.overdue
    pages = source.clear()
    del core.busy[source_id]
    poison = core.poison
    poison.acknowledge(pages, core.page_shift)
    core.last_id = id = core.last_id + 1
    out: list[Effect] = [new(_Acked, (id, source_id, pages))]
    if core.aborts and source.way == "sea":
        consumed.resume(core, now, out)
    if poison.counts[UNREPORTED] or core.inbox.records:
        if len(pages) > 1:
            found.pause(core, source, len(pages), due, now)
        found.kick(core, now, out)
    return out


def failed(core: Notifier, event: Failed, now: float) -> list[Effect]:
    """An effect was not carried out: what depended on it is told by other ways."""
    id, reason = event
    out: list[Effect] = []
    if id in core.inbox.injected:
        core.inbox.drop(core, "injection", reason, out)
        return out
    for vcpu, stop in core.stopping.items():
        if stop == id:
            unreachable(core, vcpu, reason, now, out)
            return out
    for vcpu, entering in core.entering.items():
        if entering == id:
            for other in core.sdei.abandon(vcpu):
                core.stop(other, out)
    for source in core.sources.values():
        s, busy = source.state, source.source_id in core.busy
        writing = busy and s.first <= id <= s.first + (2 if source.ack is not None else 1)
        if writing or id == s.withdrawn != 0:
            s.broken = reason
        elif busy and id == s.last:
            s.refused[s.queue] = now + core.rules[s.queue].unacked.after_ms / 1000
        else:
            continue
        if busy:
            take_back(core, source, reason, now, out)
        found.kick(core, now, out)
        return out
    for source in core.busy.values():  # it may have been a look at a gate, or a look was skipped because of it
        if source.state.poll == NEVER:
            source.unread(now)
    return out


def unreachable(core: Notifier, vcpu: int, reason: str, now: float, out: list[Effect]) -> None:
    """The vCPU could not be stopped: what waited for that is told on another one, or by other ways."""
    del core.stopping[vcpu]
    abort = core.aborts.get(vcpu)
    if abort is not None and abort.state is None:
        del core.aborts[vcpu]
        if abort.first >= 0:
            found.found(core, Code.AR, abort.first, abort.start, abort.pages, abort.lsb, now, out)
    waiting, sdei = core.wanted.pop(vcpu, ()), core.sdei
    inbox.forget(core, vcpu, reason, out)
    asked = [
        s for s in core.busy.values()
        if (s.state.vcpu == vcpu and (s.way == "sdei" or s.source_id in waiting))
        or (s.way == "sdei" and sdei.can_run(s.vector, vcpu))
    ]  # fmt: skip
    for other in sdei.set_absent(vcpu):  # events that no source holds, too
        core.stop(other, out)
    for source in asked:
        s = source.state
        s.vcpu = sdei.signal(source.vector) if source.way == "sdei" else None
        if s.vcpu is not None:
            core.stop(s.vcpu, out)
            continue
        s.refused[s.queue] = now + core.rules[s.queue].unacked.after_ms / 1000
        take_back(core, source, reason, now, out)
    found.kick(core, now, out)


def take_back(core: Notifier, source: ErrorSource, reason: str, now: float, out: list[Effect]) -> None:
    """Withdraw an unread block; what it tells waits again, and the source is there for whoever waited for it."""
    queue, record, pages = source.state.queue, source.state.record, source.clear()
    del core.busy[source.source_id]
    if source.way == "sdei":
        core.sdei.withdraw(source.vector)
    out.append(TakenBack(core.next_id(), source.source_id, pages, reason))
    out.append(source.take_back(core.next_id()))
    if record is not None:
        core.inbox.records.appendleft(record)
    else:
        _wait_again(core, pages, queue, out)
    if core.aborts and source.way == "sea":
        consumed.resume(core, now, out)


def _wait_again(core: Notifier, entries: tuple[tuple[int, int], ...], queue: int, out: list[Effect]) -> None:
    """The pages of a block that was taken back are told by their rule, but for those that another block tells."""
    if all(way == "sea" for way in core.rules[queue].deliver):  # no other way of the rule is left for a page
        queue = core.decide(Code.AO, entries[0][0] >> core.page_shift, core.page_shift, out)
    state, queue = found.kept(core, queue)  # the access is repeated, and told again
    elsewhere = [found.span(core, *entry) for other in core.busy.values() for entry in other.state.pages]
    for entry in entries:
        for page in found.span(core, *entry):
            if core.poison.state(page) == POSTED and not any(page in span for span in elsewhere):
                core.poison.set(page, state, queue)


def overdue(core: Notifier, source: ErrorSource, now: float, out: list[Effect]) -> None:
    """The acknowledgement did not come in time: the next step of the rule's ``unacked``."""
    s = source.state
    rule = core.rules[s.queue]
    if s.tries < rule.unacked.tries:
        s.tries += 1
        s.overdue = now + rule.unacked.after_ms / 1000
        out.append(source.look_at_status(core.next_id()))
        return
    s.overdue = NEVER
    if rule.unacked.then == "next" and found.tell_elsewhere(core, source, now, out):
        return
    then = "report" if rule.unacked.then == "next" else rule.unacked.then
    reason = f"source {source.placed.source_id}: no acknowledgement in {(s.tries + 1) * rule.unacked.after_ms} ms"
    out.append(Escalate(core.next_id(), source.placed.source_id, then, reason))
