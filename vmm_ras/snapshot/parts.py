"""What the parts of a snapshot hold, component by component, as JSON, and whether that can be true.

``take`` splits what the core remembers (``vmm_ras.state``) into parts and adds what the core is made of (``made_of``).
``read`` looks at the shape of each part; that the numbers mean something is checked by ``made_of`` and by
``vmm_ras.state.put`` before anything is used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import orjson
from pydantic import Field, ValidationError

from acpi.image import PlacedSource
from vmm_ras import state
from vmm_ras.deciding import digest
from vmm_ras.errata import Pool
from vmm_ras.errors import SnapshotError
from vmm_ras.notifier import Notifier
from vmm_ras.snapshot.container import Part
from vmm_ras.snapshot.made_of import (
    MAX_VCPUS,
    U32,
    U64,
    Machine,
    Plain,
    PolicyPart,
    first_error,
    machine_of,
    of_guest,
    of_policy,
    policy_of,
)

_Time = Annotated[float, Field(allow_inf_nan=False)]
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=40)]


class Clock(Plain):
    """Part ``clock``: seconds on the core's clock when the snapshot was taken."""

    now: _Time


class Lines(Plain):
    """Part ``lines``: what an adapter holds asserted for the guest's error device."""

    gsiv: list[U32] = []
    gpio: list[U32] = []
    ged: U32 = 0
    """Bits of the Generic Event Device's selector that the guest has not read."""


class IdRegisters(Plain):
    """Part ``id-registers``: (ONE_REG id, value) of each vCPU; one list where all are alike."""

    vcpus: Annotated[list[list[tuple[U64, U64]]], Field(max_length=MAX_VCPUS)]


class Vcpus(Plain):
    """Part ``vcpus``: the registers of each, by name, as its ``take`` gave them."""

    vcpus: Annotated[list[dict[_Name, U64 | list[U64] | None]], Field(max_length=MAX_VCPUS)]


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
_MODELS: Final[dict[str, type[Plain]]] = {
    "machine": Machine, "policy": PolicyPart, "clock": Clock, "lines": Lines,
    "id-registers": IdRegisters, "vcpus": Vcpus,
}  # fmt: skip
KNOWN: Final = frozenset((*NEEDED, "history", "records", "lines", "id-registers", "vcpus", "effects", "pool"))
"""Parts that are read here."""


def plain_part(name: str, value: object, mandatory: bool = True) -> Part:
    """A part that holds JSON.  Raises SnapshotError for what JSON, or a 64-bit reader, cannot hold."""
    try:
        return Part(name, orjson.dumps(value), mandatory)
    except TypeError as error:
        raise SnapshotError(f"part {name!r}: {error}") from None


def take(core: Notifier, placed: Iterable[PlacedSource], now: float) -> list[Part]:
    """The parts of a core; ``placed``: every source of the guest's tables, those too that it does not bind."""
    plain = state.take(core)
    parts = [
        plain_part("machine", machine_of(core, placed)),
        plain_part("policy", of_policy(core)),
        plain_part("guest", of_guest(core.guest)),
        plain_part("clock", {"now": now}),
        plain_part("core", {key: value for key, value in plain.items() if key not in _ELSEWHERE}),
    ]
    for name, keys in _SPLIT.items():
        if all(key in plain for key in keys) and (name != "history" or plain["times"] is not None):
            parts.append(plain_part(name, {key: plain[key] for key in keys}))
    if core.pool is not None:
        parts.append(plain_part("pool", core.pool.plain(), mandatory=False))
    return parts


def read(part: Part) -> Any:
    """What a part holds; ``core`` and its like as plain values, the others as their models.  Raises SnapshotError."""
    model = _MODELS.get(part.name)
    if model is not None:
        try:
            return model.model_validate_json(part.body)
        except ValidationError as error:
            raise SnapshotError(f"snapshot: part {part.name!r}: {first_error(error)}") from None
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
    if part.name == "pool":
        pool_of(value)
        return value
    own = _SPLIT.get(part.name)
    wrong = [key for key in value if key in _ELSEWHERE] if own is None else [key for key in value if key not in own]
    if wrong:
        raise SnapshotError(f"snapshot: part {part.name!r}: {wrong[0][:40]!r} has no place there")
    return value


def pool_of(value: object) -> Pool:
    """The CPUs that the guest was told of.  Raises SnapshotError."""
    try:
        return Pool.from_plain(value)
    except SnapshotError as error:
        raise SnapshotError(f"snapshot: part 'pool': {error}") from None


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
