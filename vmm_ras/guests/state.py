"""All that a model guest remembers, as parts of a snapshot: taken out at any moment and put back, nothing changes.

The registers of its vCPUs are the snapshot's part ``vcpus``; what it wrote to its memory is ``model-memory``, and all
else ``model``.  None of it is trusted: SnapshotError names the part, and then nothing was put back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from copy import copy
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from acpi.image import PlacedSource
from vmm_ras.effects import Escalate
from vmm_ras.errors import SnapshotError, path_text
from vmm_ras.guests.model import ModelGuest
from vmm_ras.guests.os import Action, GuestOs
from vmm_ras.notifier import Notifier
from vmm_ras.snapshot import Arrival, Part, Snapshot, rebuild, snapshot_of
from vmm_ras.snapshot.made_of import MAX_RAM, SourcePart
from vmm_ras.snapshot.parts import plain_part

PARTS: Final = ("model", "model-memory")
"""Names of the parts that are read here."""
NEVER: Final = float("inf")
_U64 = Annotated[int, Field(ge=0, lt=1 << 64)]
_Id = Annotated[int, Field(ge=0)]
_Text = Annotated[str, Field(max_length=1000)]
_Time = Annotated[float, Field(allow_inf_nan=False)]
_Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$", max_length=1 << 18)]
_Ranges = list[tuple[_U64, Annotated[int, Field(gt=0, lt=1 << 64)]]]


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class _Os(_Plain):
    uses_sdei: bool
    sources: list[SourcePart]
    """What it found in its tables at boot."""
    actions: list[tuple[int | None, _Text, _Hex]]
    offlined: list[tuple[_U64, Annotated[int, Field(gt=0)]]]
    """Runs of (first page, count)."""
    memory_failures: _Id
    signalled: _Id
    panicked: _Text
    ack_delay: list[tuple[int | None, Annotated[float, Field(ge=0, le=1e12)] | None]]
    """Seconds by source; None: never."""
    polls_stopped: bool
    printed: list[tuple[_Hex, _Time]]
    counts: Annotated[list[tuple[_Time | None, _Id]], Field(max_length=2)]
    late: list[tuple[_Time, int]]
    unpolled: list[int]


class _Model(_Plain):
    regions: _Ranges
    """(gpa, size) of guest RAM."""
    holes: _Ranges
    os: _Os
    programs: list[tuple[int, list[tuple[int, list[int]]]]]
    answered: list[int]
    stops: list[int]
    escalated: list[tuple[_Id, int | None, _Text, _Text]]


def take(guest: ModelGuest) -> list[Part]:
    """The parts of a guest."""
    os = guest.os
    printed, counts = os.printed.take() if os.printed is not None else ([], [])
    plain_os = {
        "uses_sdei": os.uses_sdei,
        "sources": [s._asdict() | {"notification": int(s.notification)} for s in os.sources],
        "actions": [(source_id, did, raw.hex()) for source_id, did, raw in os.actions],
        "offlined": list(os.offlined.runs()),
        "memory_failures": os.memory_failures,
        "signalled": os.signalled,
        "panicked": os.panicked,
        "ack_delay": [(source_id, None if s == NEVER else s) for source_id, s in os.ack_delay.items()],
        "polls_stopped": os.polls_stopped,
        "printed": [(raw.hex(), at) for raw, at in printed],
        "counts": [(None if since == -NEVER else since, count) for since, count in counts],
        "late": [(at, source.source_id) for at, source in os.late],
        "unpolled": list(os.unpolled),
    }
    plain = {
        "regions": [(low, high - low) for low, high in guest.memory.regions],
        "holes": [(low, high - low) for low, high in guest.memory.holes],
        "os": plain_os,
        "programs": [(vcpu, list(copy(program))) for vcpu, program in guest.programs.items()],
        "answered": sorted(guest.answered),
        "stops": sorted(guest.stops),
        "escalated": [tuple(e) for e in guest.escalated],
    }
    return [plain_part("model", plain), Part("model-memory", guest.memory.take())]


def save(core: Notifier, guest: ModelGuest, now: float, *, more: Iterable[Part] = (), **options: Any) -> bytes:
    """The snapshot of a core and its model guest; ``options`` as of :func:`snapshot_of`."""
    sources = options.pop("sources", guest.os.sources)
    return snapshot_of(core, guest.vcpus, now=now, sources=sources, more=[*take(guest), *more], **options)


def resume(snapshot: Snapshot, hook: Any = None) -> tuple[Notifier, ModelGuest, Arrival]:
    """A core and a model guest made of what the snapshot says, and of nothing else.

    The guest's memory has the holes again.  Raises SnapshotError.
    """
    for name in PARTS:
        if name not in snapshot.parts:
            raise SnapshotError(f"snapshot: part {name!r} is missing: it is no model guest's")
    core, arrival = rebuild(snapshot, hook)
    if len(arrival.vcpus) != core.vcpus:
        raise SnapshotError(f"snapshot: part 'vcpus': expected {core.vcpus}")
    guest = ModelGuest(None, core.guest, vcpus=core.vcpus, page_shift=core.page_shift)
    put(guest, snapshot.parts, arrival)
    return core, guest, arrival


def put(guest: ModelGuest, parts: Mapping[str, Any], arrival: Arrival) -> None:
    """Make a guest with nothing in its memory remember what the parts say.  Raises SnapshotError."""
    try:
        model = _Model.model_validate_json(parts["model"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = path_text(first["loc"])
        raise SnapshotError(f"snapshot: part 'model': {where}: {first['msg']}".partition("\n")[0]) from None
    _check(model, guest)
    memory = guest.memory
    for gpa, size in model.regions:
        memory.add_region(gpa, size)
    for gpa, size in (*model.holes, *arrival.holes):
        memory.poison(gpa, size)
    memory.put(parts["model-memory"])
    for vcpu, registers in zip(guest.vcpus, arrival.vcpus, strict=True):
        vcpu.put(registers)
    _put_os(guest.os, model.os)
    guest.programs = {vcpu: iter([(f, tuple(args)) for f, args in calls]) for vcpu, calls in model.programs}
    guest.answered, guest.stops = set(model.answered), set(model.stops)
    guest.escalated.clear()
    guest.escalated.extend(Escalate(*e) for e in model.escalated)


def _put_os(os: GuestOs, o: _Os) -> None:
    os.uses_sdei = o.uses_sdei
    os.bind(tuple(s.placed() for s in o.sources))
    by_id: dict[int, PlacedSource] = {s.source_id: s for s in os.sources}
    os.actions = [Action(source_id, did, bytes.fromhex(raw)) for source_id, did, raw in o.actions]
    for first, count in o.offlined:
        os.offlined.add_range(first, count)
    os.memory_failures, os.signalled, os.panicked = o.memory_failures, o.signalled, o.panicked
    os.ack_delay = {source_id: NEVER if s is None else s for source_id, s in o.ack_delay}
    os.polls_stopped = o.polls_stopped
    if os.printed is not None:
        counts = [(-NEVER if since is None else since, count) for since, count in o.counts]
        os.printed.put([(bytes.fromhex(raw), at) for raw, at in o.printed], counts)
    os.late = [(at, by_id[source_id]) for at, source_id in o.late]
    os.unpolled = {source_id: by_id[source_id] for source_id in o.unpolled}


def _check(m: _Model, guest: ModelGuest) -> None:
    """What the models cannot know."""

    def refuse(where: str, what: str) -> None:
        raise SnapshotError(f"snapshot: part 'model': {where}: {what}")

    vcpus, shift = len(guest.vcpus), guest.page_shift
    ram = [(gpa, gpa + size) for gpa, size in m.regions]
    if sum(size for _, size in m.regions) > MAX_RAM:
        refuse("regions", f"more than {MAX_RAM >> 40} TiB")
    for name, ranges in (
        ("regions", m.regions),
        ("holes", m.holes),
        ("os.offlined", [(first << shift, count << shift) for first, count in m.os.offlined]),
    ):
        end = 0
        for gpa, size in ranges:
            if gpa < end or not any(low <= gpa and gpa + size <= high for low, high in ram):
                refuse(name, "expected ranges that ascend, in guest memory")
            end = gpa + size
    known = {s.source_id for s in m.os.sources}
    used = [*m.os.unpolled, *(source_id for _, source_id in m.os.late)]
    if len(known) != len(m.os.sources) or not set(used) <= known or len(set(m.os.unpolled)) != len(m.os.unpolled):
        refuse("os.sources", "a source is unknown, or there twice")
    polled = {s.source_id for s in m.os.sources if s.poll_interval_ms}
    if not set(m.os.unpolled) <= polled:
        refuse("os.unpolled", "not polled")
    if guest.os.printed is not None and (len(m.os.counts) != 2 or len(m.os.printed) > guest.profile.cache_slots):
        refuse("os.printed", "more than the guest keeps")
    numbers = [*(vcpu for vcpu, _ in m.programs), *m.answered, *m.stops]
    if any(not 0 <= vcpu < vcpus for vcpu in numbers) or any(n > 1 for n in Counter(v for v, _ in m.programs).values()):
        refuse("programs", f"there are {vcpus} vCPUs")
    if any(not 0 <= word < 1 << 64 for _, calls in m.programs for f, args in calls for word in (f, *args)):
        refuse("programs", "a register has 64 bits")


__all__ = ["PARTS", "put", "resume", "save", "take"]
