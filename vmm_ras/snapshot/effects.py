"""Effects on their way: those that an adapter had not carried out, or had no answer to, when the snapshot was taken.

They travel, and the adapter at the destination carries them out, in order, before it hands the core another event.
What comes back is not trusted: an effect of somebody's file must be one that the core could have asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, get_args

import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError

from cper.words import counted
from vmm_ras.arm64 import EL_MODES, ESR_ISS, PSTATE_M, U64
from vmm_ras.effects import (
    ArmAck,
    Effect,
    Hold,
    InjectSea,
    InjectSerror,
    PollAck,
    RaiseLine,
    Reply,
    Report,
    SetRegisters,
    WriteGuest,
)
from vmm_ras.errors import SnapshotError
from vmm_ras.notifier import Notifier
from vmm_ras.sdei_table import SAVED_REGISTERS

_KINDS: Final[dict[str, Any]] = {kind.__name__: kind for kind in (*get_args(Effect), *get_args(get_args(Effect)[-1]))}
_CONFIG = ConfigDict(strict=True, val_json_bytes="hex")
_ABORTS: Final = frozenset({0x20, 0x21, 0x24, 0x25})
"""EC of instruction and data aborts."""


def plain(effects: Sequence[Effect]) -> list[dict[str, Any]]:
    """Effects as JSON-able values."""
    return [{"effect": type(e).__name__} | {k: _value(v) for k, v in e._asdict().items()} for e in effects]


def _value(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def effects_of(value: object, core: Notifier, last_id: object) -> list[Effect]:
    """The effects of a snapshot that ``core`` could have asked for, up to ``last_id``.  Raises SnapshotError."""
    if not isinstance(value, list):
        raise SnapshotError("snapshot: part 'effects': expected a list")
    out: list[Effect] = []
    for n, entry in enumerate(value):
        kind = _KINDS.get(str(entry.get("effect"))) if isinstance(entry, dict) else None
        if kind is None:
            raise SnapshotError(f"snapshot: part 'effects': {n}: no effect")
        try:
            fields = orjson.dumps({k: v for k, v in entry.items() if k != "effect"})
            effect = _adapter(kind).validate_json(fields)
        except (ValidationError, TypeError) as error:
            text = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise SnapshotError(f"snapshot: part 'effects': {n}: {kind.__name__}: {text}") from None
        wrong = _wrong(effect, core)
        if wrong:
            raise SnapshotError(f"snapshot: part 'effects': {n}: {kind.__name__}: {wrong}")
        if not (out[-1].id if out else 0) < effect.id <= (last_id if isinstance(last_id, int) else 0):
            raise SnapshotError(f"snapshot: part 'effects': {n}: ids ascend, up to the last one")
        out.append(effect)
    return out


_adapters: Final[dict[type, TypeAdapter[Any]]] = {}


def _adapter(kind: type) -> TypeAdapter[Any]:
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind, config=_CONFIG)
    return _adapters[kind]


def _wrong(e: Any, core: Notifier) -> str:
    """Why the core cannot have asked for it, or ``""``."""
    vcpu, source_id = getattr(e, "vcpu", None), getattr(e, "source_id", None)
    if vcpu is not None and not 0 <= vcpu < core.vcpus:
        return f"the machine has {counted(core.vcpus, 'vCPU')}"
    source = None if source_id is None else core.sources.get(source_id)
    if source_id is not None and source is None:
        return f"no source {source_id}"
    fine = True
    match e:
        case WriteGuest() | ArmAck() | PollAck() | RaiseLine():
            if source is None:
                return "no source"
            placed = source.placed
            match e:
                case WriteGuest():
                    fine = e.gpa == placed.block and len(e.data) <= placed.block_length
                case ArmAck():
                    fine = (e.gpa, e.mask) == (placed.ack, placed.ack_write)
                case PollAck():
                    fine = (e.gpa, e.size) in {(placed.ack, 8), (placed.block, 4)}
                case RaiseLine():
                    fine = (e.kind, e.number) == (source.way, placed.vector)
        case InjectSea():
            fine = 0 <= e.esr < 1 << 32 and e.esr >> 26 in _ABORTS and (e.far is None or 0 <= e.far <= U64)
        case InjectSerror():
            fine = not e.vsesr & ~ESR_ISS
        case SetRegisters():
            words = [*e.x, e.pc, e.pstate, e.elr or 0, e.spsr or 0]
            fine = len(e.x) <= SAVED_REGISTERS and all(0 <= word <= U64 for word in words)
            fine = fine and e.pstate & PSTATE_M in EL_MODES
        case Reply():
            fine = -(1 << 63) <= e.x0 <= U64
        case Hold() | Report():
            fine = e.until is None or abs(e.until) < float("inf")
    return "" if fine else "the core does not ask for that"
