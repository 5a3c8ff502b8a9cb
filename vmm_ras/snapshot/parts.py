"""What the parts of a snapshot hold, component by component, as JSON, and whether that can be true.

``take`` splits what the core remembers (``vmm_ras.state``) into parts and adds what the core was made of: memory,
sources, record style, policy and guest profile.  ``read`` looks at the shape of each part; that the numbers mean
something is checked by ``build`` and ``vmm_ras.state.put`` before anything is used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from acpi.hest import NotificationType
from acpi.image import PlacedSource
from vmm_ras import state
from vmm_ras.arm64 import AET
from vmm_ras.deciding import Hook, digest
from vmm_ras.errors import InputError, SnapshotError
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import Policy
from vmm_ras.profiles import PROFILES, GuestProfile
from vmm_ras.record import RecordStyle
from vmm_ras.sdei_state import EventDescription
from vmm_ras.snapshot.container import Part

MAX_VCPUS: Final = 512
MAX_RAM: Final = 1 << 40
"""Bytes of guest memory that a snapshot alone may ask for: the poison map has up to a byte for each page."""
_U16 = Annotated[int, Field(ge=0, lt=1 << 16)]
_U32 = Annotated[int, Field(ge=0, lt=1 << 32)]
_U64 = Annotated[int, Field(ge=0, lt=1 << 64)]
_Time = Annotated[float, Field(allow_inf_nan=False)]
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=40)]


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SourcePart(_Plain):
    """A placed source."""

    source_id: _U16
    notification: Annotated[int, Field(ge=0, le=255)]
    vector: _U32
    poll_interval_ms: _U32
    register_: Annotated[_U64, Field(alias="register")]
    block: _U64
    block_length: Annotated[int, Field(ge=20, le=65536)]
    max_sections: _U32
    ack: _U64 | None
    ack_preserve: _U64
    ack_write: _U64

    def placed(self) -> PlacedSource:
        """As the core takes it."""
        return PlacedSource(**self.model_dump(by_alias=True) | {"notification": NotificationType(self.notification)})


class _Style(_Plain):
    count: bool
    mask: bool
    fru_text: bool
    timestamp: bool
    error_type: Annotated[int, Field(ge=0, le=255)] | None


class Machine(_Plain):
    """Part ``machine``: what the guest is made of, as far as telling it errors depends on it."""

    page_shift: Literal[12, 14, 16]
    vcpus: Annotated[int, Field(ge=1, le=MAX_VCPUS)]
    memory: list[tuple[_U64, _U64, Annotated[int, Field(gt=0, lt=1 << 64)]]]
    """(hva, gpa, size) of each slot; the hva is the source host's."""
    sources: list[SourcePart]
    style: _Style
    sdei_events: list[tuple[_U32, bool, bool, bool]] = []
    """(number, shared, critical, slot) of what SDEI offers besides event 0 and the events of the sources."""


class PolicyPart(_Plain):
    """Part ``policy``: its digest, that of its hook, and all that it says."""

    digest: Annotated[str, Field(max_length=64)]
    hook: Annotated[str, Field(max_length=64)] | None
    text: dict[str, Any]


class Clock(_Plain):
    """Part ``clock``: seconds on the core's clock when the snapshot was taken."""

    now: _Time


class Lines(_Plain):
    """Part ``lines``: what an adapter holds asserted for the guest's error device."""

    gsiv: list[_U32] = []
    gpio: list[_U32] = []
    ged: _U32 = 0
    """Bits of the Generic Event Device's selector that the guest has not read."""


class IdRegisters(_Plain):
    """Part ``id-registers``: (ONE_REG id, value) of each vCPU; one list where all are alike."""

    vcpus: Annotated[list[list[tuple[_U64, _U64]]], Field(max_length=MAX_VCPUS)]


class Vcpus(_Plain):
    """Part ``vcpus``: the registers of each, by name, as its ``take`` gave them."""

    vcpus: Annotated[list[dict[_Name, _U64 | list[_U64] | None]], Field(max_length=MAX_VCPUS)]


_SPLIT: Final[dict[str, tuple[str, ...]]] = {
    "sources": ("sources", "busy"),
    "held": ("aborts", "wanted", "stopping", "entering"),
    "poison": ("poison",),
    "sdei": ("sdei",),
    "history": ("times", "seen"),
    "records": ("inbox",),
}
"""Part to the members of the core's state that it holds; ``core`` has all others."""
_ELSEWHERE = frozenset({"policy", *(key for keys in _SPLIT.values() for key in keys)})
NEEDED: Final = ("machine", "policy", "guest", "clock", "core", "sources", "held", "poison", "sdei")
"""Parts that every snapshot has."""
_MODELS: Final[dict[str, type[_Plain]]] = {
    "machine": Machine, "policy": PolicyPart, "clock": Clock, "lines": Lines,
    "id-registers": IdRegisters, "vcpus": Vcpus,
}  # fmt: skip
KNOWN: Final = frozenset((*NEEDED, "history", "records", "lines", "id-registers", "vcpus", "effects"))
"""Parts that are read here."""


def plain_part(name: str, value: object, mandatory: bool = True) -> Part:
    """A part that holds JSON.  Raises SnapshotError for what JSON, or a 64-bit reader, cannot hold."""
    try:
        return Part(name, orjson.dumps(value), mandatory)
    except TypeError as error:
        raise SnapshotError(f"part {name!r}: {error}") from None


_PROFILE: Final = TypeAdapter(GuestProfile)
_NOT_CARRIED: Final = {"doc", "evidence"}


def of_guest(guest: GuestProfile) -> dict[str, Any]:
    """Part ``guest``: what the guest does, whole, because a later version may know better of the same guest."""
    plain = _PROFILE.dump_python(guest, mode="json", exclude=_NOT_CARRIED)
    return {key: sorted(value, key=str) if isinstance(value, list) else value for key, value in plain.items()}


def profile_of(value: Any) -> GuestProfile:
    """The profile of a part ``guest``: what an older version did not know of it is as in ours of that name.

    Raises SnapshotError.
    """
    name = value.get("name")
    if not isinstance(name, str) or not re.fullmatch("[a-z0-9][a-z0-9._-]{0,39}", name):
        raise SnapshotError("snapshot: part 'guest': name: expected up to 40 of a-z, 0-9, '.', '_' and '-'")
    known = PROFILES.get(name, PROFILES["linux"])
    try:
        made = _PROFILE.validate_python(of_guest(known) | value | {"doc": "", "evidence": {}})
    except ValidationError as error:
        raise SnapshotError(f"snapshot: part 'guest': {_first(error)}") from None
    if not made.serror_survived <= AET.keys():
        raise SnapshotError(f"snapshot: part 'guest': serror_survived: expected of {', '.join(AET)}")
    if any(isinstance(number, int | float) and number < 0 for number in vars(made).values()):
        raise SnapshotError("snapshot: part 'guest': a number is negative")
    found = replace(made, doc=known.doc if known.name == name else "")
    return known if found == known else found


def take(core: Notifier, placed: Iterable[PlacedSource], now: float) -> list[Part]:
    """The parts of a core; ``placed``: every source of the guest's tables, those too that it does not bind."""
    plain = state.take(core)
    own = {0, *(s.placed.vector for s in core.ways["sdei"])}
    sources = [s._asdict() | {"notification": int(s.notification)} for s in placed]
    machine = {
        "page_shift": core.page_shift,
        "vcpus": core.vcpus,
        "memory": [list(slot) for slot in core.memory.slots],
        "sources": sources,
        "style": asdict(core.style),
        "sdei_events": [list(event) for event in core.sdei.state.events if event.number not in own],
    }
    hook = core.decider.hook
    policy = {
        "digest": plain["policy"],
        "hook": None if hook is None else hook.digest,
        "text": core.policy.model_dump(mode="json", exclude_defaults=True),
    }
    parts = [
        plain_part("machine", machine),
        plain_part("policy", policy),
        plain_part("guest", of_guest(core.guest)),
        plain_part("clock", {"now": now}),
        plain_part("core", {key: value for key, value in plain.items() if key not in _ELSEWHERE}),
    ]
    for name, keys in _SPLIT.items():
        if all(key in plain for key in keys) and (name != "history" or plain["times"] is not None):
            parts.append(plain_part(name, {key: plain[key] for key in keys}))
    return parts


def read(part: Part) -> Any:
    """What a part holds; ``core`` and its like as plain values, the others as their models.  Raises SnapshotError."""
    model = _MODELS.get(part.name)
    if model is not None:
        try:
            return model.model_validate_json(part.body)
        except ValidationError as error:
            raise SnapshotError(f"snapshot: part {part.name!r}: {_first(error)}") from None
    try:
        value = orjson.loads(part.body)
    except ValueError as error:
        raise SnapshotError(f"snapshot: part {part.name!r}: {error}") from None
    if part.name == "effects":
        return value
    if not isinstance(value, dict):
        raise SnapshotError(f"snapshot: part {part.name!r}: expected an object")
    if part.name == "guest":
        return value
    own = _SPLIT.get(part.name)
    wrong = [key for key in value if key in _ELSEWHERE] if own is None else [key for key in value if key not in own]
    if wrong:
        raise SnapshotError(f"snapshot: part {part.name!r}: {wrong[0][:40]!r} has no place there")
    return value


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False)[0]
    where = ".".join(str(step)[:40] for step in found["loc"])
    return f"{where}: {found['msg']}" if where else found["msg"].partition("\n")[0]


def policy_of(parts: Mapping[str, Any]) -> Policy:
    """The policy that the snapshot holds.  Raises SnapshotError."""
    try:
        return Policy.model_validate_json(orjson.dumps(parts["policy"].text))
    except ValidationError as error:
        raise SnapshotError(f"snapshot: part 'policy': text: {_first(error)}") from None


def build(parts: Mapping[str, Any], hook: Hook | None = None) -> Notifier:
    """A core made of what the snapshot says, and of nothing else, that remembers nothing yet.  Raises SnapshotError."""
    machine: Machine = parts["machine"]
    if sum(size for _, _, size in machine.memory) > MAX_RAM:
        raise SnapshotError(f"snapshot: part 'machine': memory: more than {MAX_RAM >> 40} TiB")
    if len({s.source_id for s in machine.sources}) != len(machine.sources):
        raise SnapshotError("snapshot: part 'machine': sources: two have one source id")
    pes = parts["sdei"].get("sdei")
    mpidrs = pes.get("mpidrs") if isinstance(pes, dict) else None
    if not isinstance(mpidrs, list) or len(mpidrs) != machine.vcpus:
        raise SnapshotError(f"snapshot: part 'sdei': mpidrs: there are {machine.vcpus} vCPUs")
    try:
        return Notifier(
            [s.placed() for s in machine.sources],
            MemoryMap(MemorySlot(*slot) for slot in machine.memory),
            policy=policy_of(parts),
            guest=profile_of(parts["guest"]),
            vcpus=machine.vcpus,
            page_shift=machine.page_shift,
            style=RecordStyle(**machine.style.model_dump()),
            hook=hook,
            sdei_events=[EventDescription(*event) for event in machine.sdei_events],
        )
    except InputError as error:
        raise SnapshotError(f"snapshot: {error}") from None


def state_of(parts: Mapping[str, Any], core: Notifier, shift: float) -> dict[str, Any]:
    """What the core is to remember, for ``state.put``; ``shift`` is added to every time on its clock."""
    hook, own = parts["policy"].hook, core.decider.hook
    if hook != (None if own is None else own.digest):
        raise SnapshotError(
            f"snapshot: part 'policy': its hook has SHA-256 {hook}: it is code, and must be given"
            if hook is not None
            else "snapshot: part 'policy': it was decided without a hook"
        )
    if policy_of(parts) != core.policy:
        raise SnapshotError("snapshot: part 'policy': another policy's: its rules are not these")
    value: dict[str, Any] = {"times": None, "seen": []}
    for name in ("core", *_SPLIT):
        value |= parts.get(name, {})
    # the same rules, whatever a later version makes of their text
    value["policy"] = digest(core.policy, own)
    return _shifted(value, shift) if shift else value


def _shifted(value: dict[str, Any], by: float) -> dict[str, Any]:
    """The state on a clock that shows ``by`` seconds more.  Raises SnapshotError."""

    def at(time: Any) -> Any:
        return None if time is None else time + by

    try:
        return value | {
            "sources": [
                s
                | {"overdue": at(s["overdue"]), "poll": at(s["poll"]), "refused": [[q, at(t)] for q, t in s["refused"]]}
                for s in value["sources"]
            ],
            "aborts": [a | {"until": at(a["until"])} for a in value["aborts"]],
            "ready": [[queue, at(until), full] for queue, until, full in value["ready"]],
            "times": None if value["times"] is None else [at(time) for time in value["times"]],
        }
    except (KeyError, TypeError, ValueError):
        raise SnapshotError("snapshot: a time is missing, or is none") from None


def fits(parts: Mapping[str, Any], core: Notifier) -> GuestProfile:
    """Whether ``core`` is made of what the snapshot says; the guest's profile.  Raises SnapshotError.

    Host addresses may differ: they are the host's.
    """
    machine: Machine = parts["machine"]
    here = {(slot.gpa, slot.size) for slot in core.memory.slots}
    there = {(gpa, size) for _, gpa, size in machine.memory}
    if here != there:
        gpa, size = min(here ^ there)
        side = "only there" if (gpa, size) in there else "only here"
        raise SnapshotError(f"snapshot: part 'machine': memory: {size:#x} bytes at {gpa:#x} are {side}")
    for what, mine, theirs in (
        ("vcpus", core.vcpus, machine.vcpus), ("page_shift", core.page_shift, machine.page_shift),
    ):  # fmt: skip
        if mine != theirs:
            raise SnapshotError(f"snapshot: part 'machine': {what}: {theirs} there, {mine} here")
    placed = {s.source_id: s.placed() for s in machine.sources}
    for source_id, source in core.sources.items():
        if placed.get(source_id) != source.placed:
            raise SnapshotError(f"snapshot: part 'machine': sources: source {source_id} is not the same there")
    guest: GuestProfile = profile_of(parts["guest"])
    if guest.name != core.guest.name:
        raise SnapshotError(f"snapshot: part 'guest': {guest.name} there, {core.guest.name} here")
    bound = {s.source_id for s in placed.values() if s.notification in guest.notifications}
    if not core.sources.keys() <= bound:
        raise SnapshotError("snapshot: part 'guest': it binds other sources than the guest here")
    return guest


def of_vcpus(vcpus: Sequence[Any]) -> Part:
    """The vCPUs' part: each is the mapping of its registers, or has a ``take`` that gives one."""
    values = [vcpu if isinstance(vcpu, Mapping) else vcpu.take() for vcpu in vcpus]
    return plain_part("vcpus", {"vcpus": values})


def of_id_registers(vcpus: Sequence[Mapping[int, int]]) -> Part:
    """The ID registers' part: a reader that cannot set them may still take everything else."""
    plain = [sorted([reg, value] for reg, value in registers.items()) for registers in vcpus]
    return plain_part("id-registers", {"vcpus": plain}, mandatory=False)


def check_lines(lines: Lines, core: Notifier) -> None:
    """Refuse lines that are no source's.  Raises SnapshotError."""
    for way, numbers in (("gsiv", lines.gsiv), ("gpio", lines.gpio)):
        vectors: Collection[int] = {source.placed.vector for source in core.ways[way]}
        for number in numbers:
            if number not in vectors:
                raise SnapshotError(f"snapshot: part 'lines': {way} {number} is no source's")
