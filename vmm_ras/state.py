"""All that the core of one VM remembers, as one plain value: taken out at any moment and put back, nothing changes.

The value is JSON-able.  It names what it belongs to (sources, rules, vCPUs) by number and by the policy's digest; what
comes back is not trusted: SnapshotError names the field, and then nothing was put back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import fields
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cper.words import counted
from vmm_ras.consumed import Abort
from vmm_ras.deciding import digest
from vmm_ras.errors import SnapshotError, path_text
from vmm_ras.events import VcpuState
from vmm_ras.history import MAX_PAGES, History
from vmm_ras.inbox_state import InboxState, RecordState, plain_inbox, plain_record
from vmm_ras.memory import ACKED, HELD, POSTED, TOUCH, UNREPORTED, PoisonMap
from vmm_ras.notifier import Notifier
from vmm_ras.sdei import SdeiDispatcher
from vmm_ras.source import NEVER, SourceState

_U64 = Annotated[int, Field(ge=0, lt=1 << 64)]
_Id = Annotated[int, Field(ge=0)]
_When = Annotated[float, Field(allow_inf_nan=False)] | None
"""Seconds on the core's clock; None: never."""
_Pages = list[tuple[_U64, Annotated[int, Field(gt=0, le=1 << 64)]]]


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class _Source(_Plain):
    id: int
    pages: _Pages
    record: RecordState | None = None
    queue: int
    first: _Id
    last: Annotated[int, Field(ge=-1)]
    vcpu: int | None
    tries: Annotated[int, Field(ge=0, le=100)]
    overdue: _When
    poll: _When
    peek: _Id
    withdrawn: _Id = 0
    wait: Annotated[float, Field(gt=0, le=1e6)]
    broken: Annotated[str, Field(max_length=1000)]
    refused: list[tuple[int, float]]


class _Vcpu(_Plain):
    pc: _U64
    pstate: _U64
    x: Annotated[list[_U64], Field(max_length=31)]
    serror: _U64 | None
    vbar: _U64
    sctlr: _U64
    far_known: bool = False


class _Abort(_Plain):
    vcpu: int
    first: Annotated[int, Field(ge=-1)]
    start: Annotated[int, Field(ge=-1)]
    pages: Annotated[int, Field(ge=1)]
    lsb: Annotated[int, Field(ge=0, le=63)]
    gva: _U64 | None
    esr: _U64 | None
    until: _When
    state: _Vcpu | None
    queue: Annotated[int, Field(ge=-1)]
    asked: bool


class CoreState(_Plain):
    """The whole state, but for ``poison``: runs of (first page, count, state, queue), which are many (``_runs``)."""

    format: Literal[1] = 1
    policy: str
    """Digest of the policy whose rules the queues mean."""
    sources: list[_Source]
    aborts: list[_Abort]
    records: _Id
    done: _Id
    last_id: _Id
    time: float | None
    wanted: list[tuple[int, list[int]]]
    stopping: list[tuple[int, _Id]]
    entering: list[tuple[int, _Id]]
    stuck: list[int]
    ready: list[tuple[int, float, bool]]
    busy: list[int]
    threads: list[tuple[int, int]]
    times: list[float] | None
    """Times of the last errors; None where the policy asks for no history."""
    seen: list[tuple[int, int]]
    sdei: dict[str, Any]
    inbox: InboxState = InboxState()


_SOURCE = tuple(field.name for field in fields(SourceState))
_LISTS, _FOUR = (list, tuple), [int] * 4
_STATES = (UNREPORTED, POSTED, ACKED)


def _out(time: float) -> float | None:
    return None if time == NEVER else time


def take(core: Notifier) -> dict[str, Any]:
    """All that ``core`` remembers, sharing nothing with it."""
    sources = []
    for source in core.sources.values():
        s = source.state
        known = {name: getattr(s, name) for name in _SOURCE}
        known |= {"overdue": _out(s.overdue), "poll": _out(s.poll), "refused": list(s.refused.items())}
        known["record"] = None if s.record is None else plain_record(s.record)
        sources.append({"id": source.placed.source_id, **known})
    aborts = [
        {"vcpu": vcpu, **a._asdict(), "until": _out(a.until), "state": None if a.state is None else _registers(a.state)}
        for vcpu, a in core.aborts.items()
    ]
    history = core.history
    plain: dict[str, Any] = {
        "format": 1,
        "policy": digest(core.policy, core.decider.hook),
        "sources": sources,
        "aborts": aborts,
        "poison": list(core.poison.runs()),
        "records": core.records,
        "done": core.done,
        "last_id": core.last_id,
        "time": core.time,
        "wanted": list(core.wanted.items()),
        "stopping": list(core.stopping.items()),
        "entering": list(core.entering.items()),
        "stuck": sorted(core.stuck),
        "ready": [(queue, until, full) for queue, (until, full) in core.ready.items()],
        "busy": list(core.busy),
        "threads": list(core.threads.items()),
        "times": None if history is None else list(history.times),
        "seen": [] if history is None else list(history.pages.items()),
        "sdei": core.sdei.snapshot(),
        "inbox": plain_inbox(core.inbox),
    }
    return orjson.loads(orjson.dumps(plain))  # type: ignore[no-any-return]


def _registers(state: VcpuState) -> dict[str, Any]:
    return {**state._asdict(), "x": list(state.x)}


def put(core: Notifier, value: object) -> None:
    """Make ``core`` remember what ``value`` says, and nothing else.

    ``core`` has the same sources, policy, memory and vCPUs as the one that it was taken from.  Raises SnapshotError,
    and leaves ``core`` alone, for anything that such a core could not have been asked to remember.
    """
    runs: object = None
    if isinstance(value, dict):
        runs, value = value.get("poison"), {name: part for name, part in value.items() if name != "poison"}
    try:
        state = CoreState.model_validate_json(orjson.dumps(value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SnapshotError(f"{path_text(first['loc']) or 'state'}: {first['msg']}") from None
    except TypeError as error:
        raise SnapshotError(f"state: {error}") from None
    _check(core, state)
    lost = _runs(core, runs)
    events, mpidrs = core.sdei.state.events[1:], core.sdei.state.mpidrs
    sdei = SdeiDispatcher.restore(state.sdei, events, mpidrs, version=core.sdei.state.version)
    core.sdei, core.poison = sdei, PoisonMap.of_runs(lost)
    for s in state.sources:
        source = core.sources[s.id]
        values = {name: getattr(s, name) for name in _SOURCE}
        values |= {"pages": tuple(s.pages), "refused": dict(s.refused)}
        values |= {"overdue": _in(s.overdue), "poll": _in(s.poll), "record": s.record and s.record.record()}
        source.state = SourceState(**values)
    core.aborts = {a.vcpu: _abort(a) for a in state.aborts}
    core.inbox = state.inbox.inbox()
    core.records, core.done, core.last_id, core.time = state.records, state.done, state.last_id, state.time
    core.wanted = {vcpu: list(dict.fromkeys(ids)) for vcpu, ids in state.wanted}
    core.stopping, core.entering = dict(state.stopping), dict(state.entering)
    core.stuck = set(state.stuck)
    core.ready = {queue: (until, full) for queue, until, full in state.ready}
    core.busy = {id: core.sources[id] for id in state.busy}
    core.threads = dict(state.threads)
    if core.history is not None and state.times is not None:
        history = History(core.history.times.maxlen or 0)
        history.times, history.pages = deque(state.times, history.times.maxlen), dict(state.seen)
        core.history = history


def _in(time: float | None) -> float:
    return NEVER if time is None else time


def _abort(a: _Abort) -> Abort:
    values = {name: getattr(a, name) for name in Abort._fields}
    state = None if a.state is None else VcpuState(**{**a.state.model_dump(), "x": tuple(a.state.x)})
    return Abort(**{**values, "until": _in(a.until), "state": state})


def _check(core: Notifier, s: CoreState) -> None:
    """What the models cannot know: that numbers mean something here."""

    def refuse(where: str, what: str) -> None:
        raise SnapshotError(f"{where}: {what}")

    if s.policy != digest(core.policy, core.decider.hook):
        refuse("policy", "another policy's: its rules are not these")
    if sorted(source.id for source in s.sources) != sorted(core.sources):
        refuse("sources", f"expected ids {sorted(core.sources)}")
    rules = len(core.rules)
    for n, source in enumerate(s.sources):
        if not 0 <= source.queue < rules or any(not 0 <= q < rules for q, _ in source.refused):
            refuse(f"sources.{n}", f"the policy has {counted(rules, 'rule')}")
        if source.vcpu is not None and not 0 <= source.vcpu < core.vcpus:
            refuse(f"sources.{n}.vcpu", f"the machine has {counted(core.vcpus, 'vCPU')}")
        if (bool(source.pages) + (source.record is not None)) != (source.id in s.busy):
            refuse(f"sources.{n}.pages", "a source is busy exactly while it has posted pages, or a record")
        for gpa, size in source.pages:
            if size & size - 1 or not _inside(core, gpa & -size, size):
                refuse(f"sources.{n}.pages", f"{gpa:#x}, {size} bytes: no guest memory")
    if len(set(s.busy)) != len(s.busy) or not set(s.busy) <= set(core.sources):
        refuse("busy", "unknown or repeated sources")
    if len({a.vcpu for a in s.aborts}) != len(s.aborts):
        refuse("aborts", "a vCPU twice")
    for n, abort in enumerate(s.aborts):
        if not 0 <= abort.vcpu < core.vcpus or abort.queue >= rules:
            refuse(f"aborts.{n}", f"the machine has {counted(core.vcpus, 'vCPU')}, the policy {counted(rules, 'rule')}")
        if abort.state is not None and (abort.queue < 0 or abort.until is None):
            refuse(f"aborts.{n}", "a held vCPU has a rule and an end")
        if abort.state is None and (abort.until is not None or abort.vcpu not in {vcpu for vcpu, _ in s.stopping}):
            refuse(f"aborts.{n}", "a vCPU that is not held has no end, and is being stopped")
        first, start = abort.first << core.page_shift, abort.start << core.page_shift
        if abort.first >= 0 and not (_inside(core, first, 1) and _inside(core, start, abort.pages << core.page_shift)):
            refuse(f"aborts.{n}.first", "no guest memory")
    for name in ("wanted", "stopping", "entering"):
        if any(not 0 <= item[0] < core.vcpus for item in getattr(s, name)):
            refuse(name, f"the machine has {counted(core.vcpus, 'vCPU')}")
    if any(not set(ids) <= set(core.sources) for _, ids in s.wanted):
        refuse("wanted", "unknown sources")
    if any(not 0 <= queue < rules for queue in [*s.stuck, *(q for q, _, _ in s.ready)]):
        refuse("stuck", f"the policy has {counted(rules, 'rule')}")
    if any(not 0 <= vcpu < core.vcpus for _, vcpu in s.threads):
        refuse("threads", f"the machine has {counted(core.vcpus, 'vCPU')}")
    s.inbox.check([source.record for source in s.sources if source.record], core.sources, core.vcpus)
    if (s.times is None) != (core.history is None) or len(s.seen) > MAX_PAGES:
        refuse("times", "there where the policy asks for history, and only there")


def _runs(core: Notifier, value: object) -> list[list[int]]:
    """The runs of lost pages.  Raises SnapshotError."""
    if not isinstance(value, list):
        raise SnapshotError("poison: expected a list")
    end, shift, rules = 0, core.page_shift, len(core.rules)
    low = high = 0  # of the slot that held the run before
    queues = {*range(rules), HELD, TOUCH}
    for n, run in enumerate(value):
        if type(run) not in _LISTS or list(map(type, run)) != _FOUR or run[0] < 0 or run[1] <= 0:
            raise SnapshotError(f"poison.{n}: expected first page, count, state and queue")
        page, count, kind, queue = run
        first, last = page << shift, page + count << shift
        if not low <= first < last <= high:
            low, high = next(
                ((slot.gpa, slot.gpa + slot.size) for slot in core.memory.slots
                 if slot.gpa <= first < last <= slot.gpa + slot.size), (0, 0),
            )  # fmt: skip
        if page < end or not high:
            raise SnapshotError(f"poison.{n}: runs ascend, and lie in guest memory")
        if kind not in _STATES or queue not in queues:
            raise SnapshotError(
                f"poison.{n}: the policy has {counted(rules, 'rule')}, and lost pages have {len(_STATES)} states"
            )
        end = page + count
    return value


def _inside(core: Notifier, gpa: int, size: int) -> bool:
    return any(slot.gpa <= gpa and gpa + size <= slot.gpa + slot.size for slot in core.memory.slots)
