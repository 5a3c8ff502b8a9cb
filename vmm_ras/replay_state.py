"""A replay that is saved between two events of its trace, and goes on in another process with the same later rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import count
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from vmm_ras.deciding import Hook
from vmm_ras.effects import InjectSea
from vmm_ras.errors import InputError, SnapshotError, path_text
from vmm_ras.events import GuestAbort, HostSignal, MemoryFault
from vmm_ras.guests import state
from vmm_ras.ledger import WINDOW, Ledger, Posting, crc32c
from vmm_ras.replay import Replay
from vmm_ras.rows import Row
from vmm_ras.snapshot import Snapshot, read_snapshot
from vmm_ras.snapshot.parts import plain_part
from vmm_ras.summary import Summary

PARTS: Final = (*state.PARTS, "replay")
"""Names of the parts that are read here."""
_EVENTS: Final = frozenset({HostSignal, GuestAbort, MemoryFault})
_STRICT = ConfigDict(extra="forbid", strict=True, val_json_bytes="hex", defer_build=True)
_Id = Annotated[int, Field(ge=0)]
_Time = Annotated[float, Field(allow_inf_nan=False)]
Entry = tuple[int, float | None, Any]

_ROW: Final = tuple(field.name for field in fields(Row))
_SUMMARY = TypeAdapter(Summary)


class _Row(BaseModel):
    model_config = _STRICT

    seq: int
    line: int
    at: float
    code: str
    hva: int | None
    gpa: int | None
    lsb: int
    vcpu: int | None = None
    rule: str | None = None
    delivery: str | None = None
    source_id: int | None = None
    esr: int | None = None
    pages: int = 0
    block: bytes | None = None
    crc32c: int | None = None
    outcome: str = "waiting"
    acked: bool = False
    posted_at: float | None = None
    acked_at: float | None = None
    closed: bool = False


class _Replay(BaseModel):
    model_config = _STRICT

    entries: _Id
    """How many entries of the trace were taken."""
    digest: _Id
    """CRC-32C of these."""
    now: _Time
    seq: _Id
    mapped: bool
    origin: _Time | None
    next_gpa: _Id
    next_vcpu: _Id
    firmware: tuple[_Id, _Id]
    rows: Annotated[list[_Row], Field(max_length=WINDOW + 1)]
    by_source: list[tuple[int, list[_Id]]]
    """Source to the rows, by their place in ``rows``, that its block is about."""
    published: list[tuple[int, bytes]]
    bare: tuple[_Id, int | None, _Id, _Id, _Id | None] | None
    hook_reasons: list[str]
    notices: list[str]
    summary: dict[str, Any]


class Position(NamedTuple):
    """How far a trace was read."""

    entries: int = 0
    digest: int = 0
    """CRC-32C of what was read."""

    def after(self, entry: Entry) -> Position:
        """One entry further."""
        return Position(self.entries + 1, crc32c(repr(tuple(entry)).encode(), self.digest))


class _ReachedError(Exception):
    """So many events were handled."""


class Saved(NamedTuple):
    """What a replay was saved as."""

    data: bytes
    events: int
    """Events that were handled."""
    rows: list[Row]
    """Those that came out by then."""


def save(replay: Replay, entries: Iterable[Entry], after: int) -> Saved:
    """Replay ``after`` events of a trace, fewer if it has no more, and take the machine's snapshot there."""
    position = Position()

    def some() -> Iterator[Entry]:
        nonlocal position
        for entry in entries:
            position = position.after(entry)
            yield entry
            if replay.seq >= after:
                break
        raise _ReachedError

    rows: list[Row] = []
    try:
        if after:
            rows.extend(replay.run(some()))
    except _ReachedError:
        pass
    return Saved(snapshot_of(replay, position), replay.seq, rows)


def snapshot_of(replay: Replay, position: Position) -> bytes:
    """The snapshot of a replay that stands between two entries of its trace."""
    return state.save(
        replay.notifier, replay.guest, replay.now, sources=replay.guest.os.sources,
        more=[plain_part("replay", _take(replay, position), mandatory=False)],
    )  # fmt: skip


def _take(replay: Replay, position: Position) -> dict[str, Any]:
    ledger, place = replay.ledger, count()
    where = {id(row): next(place) for row in ledger.rows}
    summary = {f.name: getattr(ledger.summary, f.name) for f in fields(Summary)}
    summary = {"events": ledger.summary.events, **summary}
    return {
        **position._asdict(),
        "now": replay.now,
        "seq": replay.seq,
        "mapped": replay.mapped,
        "origin": replay._origin,
        "next_gpa": replay._next_gpa,
        "next_vcpu": replay._next_vcpu,
        "firmware": replay._firmware,
        "rows": [_row(row) for row in ledger.rows],
        "by_source": [
            (source_id, [where[id(row)] for row in posting.rows if id(row) in where])
            for source_id, posting in ledger._postings.items()
            if posting.rows
        ],
        "published": [(source_id, posting.block.hex()) for source_id, posting in ledger._postings.items()],
        "bare": None if ledger._bare is None else tuple(ledger._bare),
        "hook_reasons": sorted(ledger._hook_reasons),
        "notices": ledger.notices,
        "summary": summary | {"kinds": [(*kind, n) for kind, n in ledger.summary.kinds.items()]},
    }


def _row(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _ROW} | {"block": None if row.block is None else row.block.hex()}


def resume(data: bytes | Snapshot, hook: Hook | None = None) -> tuple[Replay, Position]:
    """The replay that a snapshot holds, and how far its trace was read.  Raises SnapshotError.

    It has no ``image``: the guest's tables are in its memory, as they were, and nobody builds them here.
    """
    snapshot = read_snapshot(data, PARTS) if isinstance(data, bytes) else data
    if "replay" not in snapshot.parts:
        raise SnapshotError("snapshot: part 'replay' is missing: it was not taken from a replay")
    try:
        r = _Replay.model_validate_json(snapshot.parts["replay"])
        kinds = {tuple(kind[:-1]): kind[-1] for kind in r.summary.get("kinds", ())}
        summary = _SUMMARY.validate_python(r.summary | {"kinds": kinds})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = path_text(first["loc"])
        raise SnapshotError(f"snapshot: part 'replay': {where}: {first['msg']}".partition("\n")[0]) from None
    except (TypeError, AttributeError):
        raise SnapshotError("snapshot: part 'replay': summary.kinds: expected lists") from None
    if any(place >= len(r.rows) for _, places in r.by_source for place in places):
        raise SnapshotError(f"snapshot: part 'replay': by_source: there are {len(r.rows)} rows")
    if r.summary.get("events", summary.events) != summary.events:
        raise SnapshotError(f"snapshot: part 'replay': summary.events: expected {summary.events}, the sum of its kinds")
    core, guest, _ = state.resume(snapshot, hook)
    replay = Replay(None, machine=(core, guest))
    replay.now, replay.seq, replay.mapped = r.now, r.seq, r.mapped
    replay._origin, replay._next_gpa, replay._next_vcpu = r.origin, r.next_gpa, r.next_vcpu
    replay._firmware = r.firmware
    replay.ledger = _ledger(replay, r, summary)
    replay.summary, replay.notices = replay.ledger.summary, replay.ledger.notices
    return replay, Position(r.entries, r.digest)


def _ledger(replay: Replay, r: _Replay, summary: Summary) -> Ledger:
    ledger = Ledger(replay.guest, replay.page_shift, summary)
    ledger.notices = r.notices
    for plain in r.rows:
        row = Row(plain.seq, plain.line, plain.at, plain.code, plain.hva, plain.gpa, plain.lsb)
        for name in _ROW:
            setattr(row, name, getattr(plain, name))
        if row.closed:
            ledger.rows.append(row)
        else:
            ledger.begin(row)
    ledger.handling = None
    told = {source_id: [ledger.rows[place] for place in places] for source_id, places in r.by_source}
    ledger._postings = {source_id: Posting(block, told.get(source_id, [])) for source_id, block in r.published}
    ledger._bare = None if r.bare is None else InjectSea(*r.bare)
    ledger._hook_reasons = set(r.hook_reasons)
    return ledger


def rest(entries: Iterable[Entry], position: Position) -> Iterator[Entry]:
    """What comes behind the position.  Raises InputError if that is not the trace that was read before."""
    found, rest = Position(), iter(entries)
    while found.entries < position.entries:
        entry = next(rest, None)
        if entry is None:
            break
        found = found.after(entry)
    if found != position:
        raise InputError(
            f"the snapshot was taken behind {position.entries} entries of another trace "
            f"(their CRC-32C is {position.digest:08x}, here {found.digest:08x})"
        )
    return rest
