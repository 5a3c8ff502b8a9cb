"""What the host saw: which of the guest's pages are lost or good again, and whether a vCPU waits for the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmm_ras import found
from vmm_ras.consumed import Abort
from vmm_ras.effects import Effect, OwnMemory, Undelivered
from vmm_ras.events import Code, GuestAbort, HostSignal, MemoryFault, Replaced, new
from vmm_ras.memory import HEALTHY, UNREPORTED
from vmm_ras.source import NEVER

if TYPE_CHECKING:
    from vmm_ras.notifier import Notifier

_AR: Final = Code.AR
_Abort: Final = Abort  # a constant: the compiled copy looks any other name up each time


def signal(core: Notifier, event: HostSignal, now: float) -> list[Effect]:
    """A SIGBUS: stop the vCPU whose thread consumed poison; queue what was found by the rule for it."""
    code, hva, lsb, tid, time = event
    slot = core.memory.slot_of(hva)
    if slot is None:
        return [OwnMemory(core.next_id(), code, hva, lsb, tid)]
    if time is not None:
        core.time = time
    shift = core.page_shift
    slot_hva, slot_gpa, slot_size = slot
    at = slot_gpa + hva - slot_hva >> shift
    start, count = at, 1
    if lsb > shift:
        low = max(hva & -(1 << lsb), slot_hva) - slot_hva + slot_gpa
        high = min((hva & -(1 << lsb)) + (1 << lsb), slot_hva + slot_size) - slot_hva + slot_gpa
        start = low >> shift
        count = (high - 1 >> shift) - start + 1
    if core.history is not None:
        core.history.note(at, now)
    vcpu = core.threads.get(tid)
    out: list[Effect] = []
    if (
        vcpu is not None
        and (code is _AR or core.promotes)
        and vcpu not in core.aborts
        and (code is _AR or _synchronous(core, at, lsb, out))
    ):
        core.aborts[vcpu] = new(_Abort, (at, start, count, lsb, None, None, NEVER, None, -1, False))
        core.stop(vcpu, out)
        return out
    # else a thread that is no vCPU consumed it, or the vCPU is out already: the guest itself used nothing
    found.found(core, code, at, start, count, lsb, now, out, "other" if vcpu is None else "vcpu")
    if core.poison.counts[UNREPORTED] or core.inbox.records:
        found.kick(core, now, out)
    return out


def guest_abort(core: Notifier, event: GuestAbort, now: float) -> list[Effect]:
    """An abort that the host relays: the vCPU consumed poison, and perhaps nobody knows which page."""
    vcpu, esr, gva, gpa, time = event
    if time is not None:
        core.time = time
    inside = gpa is not None and any(s.gpa <= gpa < s.gpa + s.size for s in core.memory.slots)
    page = gpa >> core.page_shift if gpa is not None and inside else -1
    if core.history is not None:
        core.history.note(page, now)
    out: list[Effect] = []
    if vcpu not in core.aborts and 0 <= vcpu < core.vcpus:
        core.aborts[vcpu] = Abort(page, page, 1, core.page_shift, gva, esr)
        core.stop(vcpu, out)
    elif page >= 0:  # the vCPU is out already, or there is none: the page is lost all the same
        found.found(core, Code.AR, page, page, 1, core.page_shift, now, out)
        found.kick(core, now, out)
    return out


def memory_fault(core: Notifier, event: MemoryFault, now: float) -> list[Effect]:
    """A range of guest memory is lost: what of it lies in slots is found memory."""
    gpa, size, time = event
    if time is not None:
        core.time = time
    out: list[Effect] = []
    for slot in core.memory.slots:
        low, high = max(gpa, slot.gpa), min(gpa + size, slot.gpa + slot.size)
        if low < high:
            start = low >> core.page_shift
            count = (high - 1 >> core.page_shift) - start + 1
            if core.history is not None:
                core.history.note(start, now)
            found.found(core, Code.AO, start, start, count, (count << core.page_shift).bit_length() - 1, now, out)
    if not out:
        out.append(Undelivered(core.next_id(), "", f"{gpa:#x} is no guest memory"))
    found.kick(core, now, out)
    return out


def _synchronous(core: Notifier, page: int, lsb: int, out: list[Effect]) -> bool:
    """Whether the policy takes this AO, which came in a vCPU's thread, for a consumed error."""
    return core.rules[core.decide(Code.AO, page, lsb, out, thread="vcpu")].action == "consumed"


def replaced(core: Notifier, event: Replaced, now: float) -> list[Effect]:
    """Whole pages are good again: they are owed no telling, and what waits for them goes on."""
    gpa, size = event
    out: list[Effect] = []
    for slot in core.memory.slots:
        low, high = max(gpa, slot.gpa), min(gpa + size, slot.gpa + slot.size)
        first, end = -(-low >> core.page_shift), high >> core.page_shift  # whole pages only
        if first >= end:
            continue
        core.poison.mark(first, end - first, HEALTHY)
        for vcpu, abort in list(core.aborts.items()):
            start, stop = abort.start, abort.start + abort.pages
            if first <= abort.first < end:  # its access succeeds when it is repeated
                del core.aborts[vcpu]
                if abort.state is not None:
                    core.leave(vcpu, abort.state, False, out)
            for low, high in ((start, min(first, stop)), (max(end, start), stop)):  # what is left of a large page
                if low <= abort.first < high:
                    core.aborts[vcpu] = abort._replace(start=low, pages=high - low)
                elif low < high and abort.state is None:  # nobody knows of it yet
                    found.found(core, Code.AO, low, low, high - low, abort.lsb, now, out)
    if core.poison.counts[UNREPORTED]:
        found.kick(core, now, out)
    return out
