"""What a core is made of, as parts of a snapshot: machine, policy and guest profile; and a core made of them.

None of it is trusted: SnapshotError says what no core could be made of, or what another core is not made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from acpi.hest import NotificationType
from acpi.image import PlacedSource
from cper.words import counted
from vmm_ras.arm64 import AET
from vmm_ras.deciding import Hook, digest
from vmm_ras.errors import InputError, SnapshotError, path_text
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import Policy
from vmm_ras.profiles import PROFILES, GuestProfile
from vmm_ras.record import RecordStyle
from vmm_ras.sdei_calls import MPIDR_AFFINITY
from vmm_ras.sdei_state import EventDescription

MAX_VCPUS: Final = 512
MAX_RAM: Final = 1 << 40
"""Bytes of guest memory that a snapshot alone may ask for: the poison map has up to a byte for each page."""
U16 = Annotated[int, Field(ge=0, lt=1 << 16)]
U32 = Annotated[int, Field(ge=0, lt=1 << 32)]
U64 = Annotated[int, Field(ge=0, lt=1 << 64)]


class Plain(BaseModel):
    """A part, or a piece of one: no other members, and no other types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class SourcePart(Plain):
    """A placed source."""

    source_id: U16
    notification: Annotated[int, Field(ge=0, le=255)]
    vector: U32
    poll_interval_ms: U32
    register_: Annotated[U64, Field(alias="register")]
    block: U64
    block_length: Annotated[int, Field(ge=20, le=65536)]
    max_sections: U32
    ack: U64 | None
    ack_preserve: U64
    ack_write: U64

    def placed(self) -> PlacedSource:
        """As the core takes it."""
        return PlacedSource(**self.model_dump(by_alias=True) | {"notification": NotificationType(self.notification)})


class _Style(Plain):
    count: bool
    mask: bool
    fru_text: bool
    timestamp: bool
    error_type: Annotated[int, Field(ge=0, le=255)] | None


class Machine(Plain):
    """Part ``machine``: what the guest is made of, as far as telling it errors depends on it."""

    page_shift: Literal[12, 14, 16]
    vcpus: Annotated[int, Field(ge=1, le=MAX_VCPUS)]
    memory: list[tuple[U64, U64, Annotated[int, Field(gt=0, lt=1 << 64)]]]
    """(hva, gpa, size) of each slot; the hva is the source host's."""
    sources: list[SourcePart]
    style: _Style
    sdei_events: list[tuple[U32, bool, bool, bool]] = []
    """(number, shared, critical, slot) of what SDEI offers besides event 0 and the events of the sources."""


class PolicyPart(Plain):
    """Part ``policy``: its digest, that of its hook, and all that it says."""

    digest: Annotated[str, Field(max_length=64)]
    hook: Annotated[str, Field(max_length=64)] | None
    text: dict[str, Any]


def machine_of(core: Notifier, placed: Iterable[PlacedSource]) -> dict[str, Any]:
    """Part ``machine`` of a core; ``placed``: every source of the guest's tables."""
    own = {0, *(s.placed.vector for s in core.ways["sdei"])}
    return {
        "page_shift": core.page_shift,
        "vcpus": core.vcpus,
        "memory": [list(slot) for slot in core.memory.slots],
        "sources": [s._asdict() | {"notification": int(s.notification)} for s in placed],
        "style": asdict(core.style),
        "sdei_events": [list(event) for event in core.sdei.state.events if event.number not in own],
    }


def of_policy(core: Notifier) -> dict[str, Any]:
    """Part ``policy`` of a core."""
    hook = core.decider.hook
    return {
        "digest": digest(core.policy, hook),
        "hook": None if hook is None else hook.digest,
        "text": core.policy.model_dump(mode="json", exclude_defaults=True),
    }


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
        raise SnapshotError(f"snapshot: part 'guest': {first_error(error)}") from None
    if not made.serror_survived <= AET.keys():
        raise SnapshotError(f"snapshot: part 'guest': serror_survived: expected of {', '.join(AET)}")
    if any(isinstance(number, int | float) and number < 0 for number in vars(made).values()):
        raise SnapshotError("snapshot: part 'guest': a number is negative")
    found = replace(made, doc=known.doc if known.name == name else "")
    return known if found == known else found


def policy_of(parts: Mapping[str, Any]) -> Policy:
    """The policy that the snapshot holds.  Raises SnapshotError."""
    try:
        return Policy.model_validate_json(orjson.dumps(parts["policy"].text))
    except ValidationError as error:
        raise SnapshotError(f"snapshot: part 'policy': text: {first_error(error)}") from None


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
        raise SnapshotError(f"snapshot: part 'sdei': mpidrs: the machine has {counted(machine.vcpus, 'vCPU')}")
    if any(type(mpidr) is not int or mpidr & ~MPIDR_AFFINITY for mpidr in mpidrs):
        raise SnapshotError("snapshot: part 'sdei': mpidrs: expected affinities")
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
            mpidrs=mpidrs,
        )
    except InputError as error:
        raise SnapshotError(f"snapshot: {error}") from None


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


def first_error(error: ValidationError) -> str:
    """The first thing that is wrong, in a line."""
    found = error.errors(include_url=False)[0]
    where = path_text(found["loc"])
    return f"{where}: {found['msg']}" if where else found["msg"].partition("\n")[0]
