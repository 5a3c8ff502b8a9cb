"""What a person or a test tells the guest: records as they are, aborts, SErrors and SDEI events.

A record waits until one of its sources is free, behind the memory that waits for it.  The queue is bounded, and what
does not fit is counted: of memory nothing is ever dropped, so none of it is here.  An abort or SError waits for its
vCPU to stop; whoever asks for one chooses the syndrome, so no rule is asked.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from acpi.ghes import ErrorStatusHeader
from cper.words import counted
from vmm_ras import arm64, found
from vmm_ras.effects import Dropped, Effect, InjectSea, InjectSerror, Posted, Queued, Release
from vmm_ras.errors import InputError
from vmm_ras.events import Code, TellRecord, TellSdei, TellSea, TellSerror, VcpuState
from vmm_ras.source import ErrorSource

if TYPE_CHECKING:
    from vmm_ras.notifier import Notifier

MAX_RECORDS = 256
"""Records that may wait.  None is larger than its source's block, so they are 1 MiB with the default sources."""
MAX_ORDERS = 16
"""Aborts and SErrors that may wait for one vCPU."""
_EC_SAME = 1 << arm64.ESR_EC_SHIFT
"""The bit of an abort's EC that says that the exception level stays the same."""


class Inbox:
    """What waits, and what became of the rest."""

    def __init__(self) -> None:
        self.records: deque[TellRecord] = deque()
        self.orders: dict[int, list[TellSea | TellSerror]] = {}
        """vCPU to what it is to take, in order; no entry without one."""
        self.injected: deque[int] = deque(maxlen=64)
        """Ids of the last effects by which a vCPU was to take something: one may yet fail."""
        self.told = 0
        """Records that were published."""
        self.dropped = 0
        """Records, aborts and SErrors that will not be told."""

    def drop(self, core: Notifier, what: str, reason: str, out: list[Effect]) -> None:
        """Count it, and say so."""
        self.dropped += 1
        out.append(Dropped(core.next_id(), what, reason))


def record(core: Notifier, event: TellRecord, now: float) -> list[Effect]:
    """Publish a record, or let it wait.  Raises InputError for one that no source can take."""
    out: list[Effect] = []
    _vcpu(core, event.vcpu)
    if len(event.block) < ErrorStatusHeader.SIZE:
        raise InputError(
            f"a record of {counted(len(event.block), 'byte')}: a status block has at least {ErrorStatusHeader.SIZE}"
        )
    if event.block[:4] == bytes(4):
        raise InputError("block status 0: a guest takes the block for empty, and never acknowledges it")
    if event.source_id is not None and event.source_id not in core.sources:
        raise InputError(f"source {event.source_id}: the guest has {_list(core.sources)}")
    sources = _sources(core, event, _queue(core, out))
    room = max((s.placed.block_length for s in sources), default=0)
    if not sources:
        raise InputError("the policy's ways for found memory have no source that the guest binds: name a source")
    if len(event.block) > room:
        raise InputError(f"a record of {counted(len(event.block), 'byte')}: the source's block holds {room}")
    core.inbox.records.append(event)
    kick(core, now, out)
    waiting = core.inbox.records
    if waiting and waiting[-1] is event:
        if len(waiting) > MAX_RECORDS:
            waiting.pop()
            core.inbox.drop(core, "record", f"{MAX_RECORDS} wait already", out)
        else:
            out.append(Queued(core.next_id(), len(waiting)))
    return out


def kick(core: Notifier, now: float, out: list[Effect]) -> None:
    """Publish the records whose source is free; those that were given the same one keep their order."""
    if len(core.busy) == len(core.sources):
        return
    inbox, queue = core.inbox, _queue(core, out)
    left: deque[TellRecord] = deque()
    waits: set[int | None] = set()
    for event in inbox.records:
        if event.source_id in waits:
            left.append(event)
            continue
        sources = _sources(core, event, queue)
        source = next((s for s in sources if _takes(core, s, event, queue, now)), None)
        if source is not None:
            _post(core, source, event, queue, now, out)
        elif all(s.state.broken for s in sources):
            inbox.drop(core, "record", "; ".join(s.state.broken for s in sources) or "no source", out)
        else:
            left.append(event)
            waits.add(event.source_id)
    inbox.records = left


def _queue(core: Notifier, out: list[Effect]) -> int:
    """The rule that says by which ways: the one for memory that was found, nobody knows where."""
    return core.decide(Code.AO, -1, core.page_shift, out)


def _sources(core: Notifier, event: TellRecord, queue: int) -> list[ErrorSource]:
    if event.source_id is not None:
        return [core.sources[event.source_id]]
    ways = [way for way in core.rules[queue].deliver if way != "sea"]  # an SEA needs a vCPU, so it must be asked for
    found = [s for way in ways for s in core.ways[way]]
    return [s for s in found if len(event.block) <= s.placed.block_length] or found


def _takes(core: Notifier, source: ErrorSource, event: TellRecord, queue: int, now: float) -> bool:
    return (
        source.free
        and not source.refuses(queue, now)
        and len(event.block) <= source.placed.block_length
        and (source.way != "sdei" or core.sdei.accepts(source.placed.vector))
    )


def _post(core: Notifier, source: ErrorSource, event: TellRecord, queue: int, now: float, out: list[Effect]) -> None:
    rule = core.rules[queue]
    core.last_id = source.post(core.last_id, event.block, (), queue, now, rule.unacked.after_ms / 1000, out)
    source.state.record = event
    if source.way in {"sea", "sei"}:
        source.state.vcpu = event.vcpu
    core.busy[source.placed.source_id] = source
    core.inbox.told += 1
    found.notify(core, source, out)
    if source.way in {"gsiv", "gpio"}:
        out.append(source.look(core.next_id()))
    vcpu = source.state.vcpu
    out.append(Posted(core.next_id(), source.placed.source_id, source.way, vcpu, None, (), event.block, rule.name))


# -- what a vCPU is to take ----------------------------------------------------------


def order(core: Notifier, event: TellSea | TellSerror, now: float) -> list[Effect]:
    """Stop the vCPU for what it is to take.  Raises InputError for a syndrome that is none."""
    out: list[Effect] = []
    vcpu, inbox = event.vcpu, core.inbox
    _vcpu(core, vcpu)
    if isinstance(event, TellSerror):
        what = "serror"
        if event.vsesr & ~arm64.ESR_ISS:
            raise InputError(f"SError syndrome {event.vsesr:#x}: only bits 24:0 exist")
    else:
        what = "sea"
        if event.esr >> arm64.ESR_EC_SHIFT not in _ABORTS:
            raise InputError(f"ESR {event.esr:#x}: its EC is no data or instruction abort's")
        if event.far is not None and not 0 <= event.far <= arm64.U64:
            raise InputError(f"FAR {event.far:#x} is no 64-bit address")
    if len(inbox.orders.get(vcpu, ())) >= MAX_ORDERS:
        inbox.drop(core, what, f"{MAX_ORDERS} wait for vCPU {vcpu} already", out)
        return out
    inbox.orders.setdefault(vcpu, []).append(event)
    if vcpu not in core.aborts:  # else it is out, and takes it when it goes
        core.stop(vcpu, out)
    return out


_ABORTS = frozenset({arm64.EC_IABT_LOWER, arm64.EC_IABT_SAME, arm64.EC_DABT_LOWER, arm64.EC_DABT_SAME})


def visit(core: Notifier, vcpu: int, state: VcpuState, out: list[Effect]) -> bool:
    """The vCPU is stopped: it takes the first of what waits for it.  Returns that it was released."""
    waiting = core.inbox.orders[vcpu]
    event = waiting.pop(0)
    if not waiting:
        del core.inbox.orders[vcpu]
    id = core.next_id()
    if isinstance(event, TellSerror):
        out.append(InjectSerror(id, None, vcpu, event.vsesr))
    else:
        esr = event.esr | _EC_SAME if state.el else event.esr & ~_EC_SAME
        out.append(InjectSea(id, None, vcpu, esr, event.far))
    core.inbox.injected.append(id)
    out.append(Release(core.next_id(), vcpu))
    return True


def forget(core: Notifier, vcpu: int, reason: str, out: list[Effect]) -> None:
    """The vCPU cannot be stopped: what waited for that is dropped."""
    for event in core.inbox.orders.pop(vcpu, ()):
        core.inbox.drop(core, "serror" if isinstance(event, TellSerror) else "sea", reason, out)


def signal(core: Notifier, event: TellSdei, now: float) -> list[Effect]:
    """Make an SDEI event pending, and stop the vCPU that can take it.  Raises InputError for one that is none."""
    out: list[Effect] = []
    number, vcpu = event
    if vcpu is not None:
        _vcpu(core, vcpu)
    if number not in core.sdei.events:
        raise InputError(f"SDEI event {number:#x}: the platform offers {_list(core.sdei.events, '#x')}")
    if number == 0:
        if vcpu is None:
            raise InputError("SDEI event 0: expected a vCPU, its instances are private")
        core.sdei.mark(vcpu, 0)
        target = core.sdei.target(vcpu, 0, None)
    else:
        target = core.sdei.signal(number, vcpu)
    if target is not None:
        core.stop(target, out)
    return out


def _vcpu(core: Notifier, vcpu: int) -> None:
    if not 0 <= vcpu < core.vcpus:
        raise InputError(f"vCPU {vcpu}: the guest has 0 to {core.vcpus - 1}")


def _list(numbers: object, form: str = "d") -> str:
    shown = [format(n, form) for n in sorted(numbers)]  # type: ignore[call-overload]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "") or "none"
