"""All that a guest is owed, in one container that a file or a stream carries to another process, host or version.

    data = snapshot_of(core, vcpus, now=now)            # at any moment, whatever is pending
    there = read_snapshot(data)                         # undamaged, and every part known
    arrival = restore(core, there, now=clock())         # a core with the same sources, policy, memory and vCPUs
    core = rebuild(there)                               # or a core of what the snapshot says

Contents of lost pages never travel, the list of them does: ``Arrival.holes`` is what the adapter must make unusable
again before a vCPU runs, so that a touch is an error there too.  A snapshot that is refused changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from acpi.image import PlacedSource
from cper.words import counted
from vmm_ras import state
from vmm_ras.deciding import Hook
from vmm_ras.effects import Effect
from vmm_ras.errors import SnapshotError
from vmm_ras.notifier import Notifier
from vmm_ras.profiles import GuestProfile
from vmm_ras.snapshot import made_of
from vmm_ras.snapshot import parts as _parts
from vmm_ras.snapshot.container import Part, decode, encode
from vmm_ras.snapshot.effects import effects_of, plain
from vmm_ras.snapshot.pending import pending

__all__ = ["Arrival", "Part", "Snapshot", "holes", "pending", "read_snapshot", "rebuild", "restore", "snapshot_of"]


class Arrival(NamedTuple):
    """What the adapter at the destination has to do before a vCPU enters the guest."""

    holes: tuple[tuple[int, int], ...]
    """(gpa, size) of guest memory that is lost: to be made a hole again.  Ascending, and apart."""
    held: tuple[int, ...]
    """vCPUs that stay out of the guest until the core releases them: they consumed what is not told yet."""
    effects: tuple[Effect, ...]
    """To be carried out, in order: the source's adapter had not, or had no answer to them."""
    vcpus: tuple[Mapping[str, Any], ...]
    """The registers of each vCPU, as its ``take`` gave them; empty if the snapshot has none."""
    lines: Mapping[str, Any] | None
    """What is asserted: ``gsiv`` and ``gpio`` numbers, ``ged`` bits; None if the snapshot does not know."""
    id_registers: tuple[Mapping[int, int], ...]
    """ID registers by ONE_REG id, of each vCPU, or of all."""
    now: float
    """The source's clock when the snapshot was taken, in seconds."""


class Snapshot(NamedTuple):
    """A container that was read: every part is undamaged, has its shape, and none was missing."""

    parts: Mapping[str, Any]
    """What each part holds; of parts that this module does not read, their bytes."""
    raw: Mapping[str, Part]
    """The parts as they were found."""

    @property
    def now(self) -> float:
        """The source's clock, in seconds."""
        return self.parts["clock"].now  # type: ignore[no-any-return]


def snapshot_of(
    core: Notifier,
    vcpus: Sequence[Any] = (),
    *,
    now: float,
    sources: Iterable[PlacedSource] | None = None,
    effects: Sequence[Effect] = (),
    lines: Mapping[str, Any] | None = None,
    id_registers: Sequence[Mapping[int, int]] = (),
    more: Iterable[Part] = (),
) -> bytes:
    """The container of one VM.  Nothing that is pending ever keeps it from being taken.

    ``vcpus``: the registers of each vCPU, as a mapping or with a ``take``.  ``now``: seconds on the core's clock.
    ``sources``: every source of the guest's tables; None: those that the guest binds.  ``effects``: what the core asked
    for and was not carried out or answered yet, in order.  ``lines``: as :attr:`Arrival.lines`.  ``id_registers``: an
    optional part.  ``more``: parts of others.  Raises SnapshotError for what no container can hold.
    """
    placed = [s.placed for s in core.sources.values()] if sources is None else sources
    found = _parts.take(core, placed, now)
    if vcpus:
        found.append(_parts.of_vcpus(vcpus))
    if lines is not None:
        found.append(_parts.plain_part("lines", dict(lines)))
    if id_registers:
        found.append(_parts.of_id_registers(id_registers))
    if effects:
        found.append(_parts.plain_part("effects", plain(effects)))
    return encode([*found, *more])


def read_snapshot(data: bytes, also: Collection[str] = ()) -> Snapshot:
    """Read a container; ``also``: names of parts that the caller reads.

    Raises SnapshotError, in one line, for a damaged one, a missing part, or a mandatory one that nobody here knows.
    """
    values, raw = {}, {}
    for part in decode(data, _parts.KNOWN | set(also)):
        raw[part.name] = part
        values[part.name] = part.body if part.name in also else _parts.read(part)
    for name in _parts.NEEDED:
        if name not in values:
            raise SnapshotError(f"snapshot: part {name!r} is missing")
    return Snapshot(values, raw)


def restore(
    core: Notifier, snapshot: Snapshot, *, now: float | None = None, threads: Mapping[int, int] | None = None
) -> Arrival:
    """Make ``core`` remember what the snapshot says.

    ``core`` has the same sources, policy and vCPUs, and as much memory at the same guest addresses.  ``now``: seconds
    on its clock; None: the source's clock goes on.  ``threads``: vCPU of each host thread here; None: as there.
    Raises SnapshotError, and leaves ``core`` alone, for anything that such a core could not have been asked to
    remember.
    """
    guest = made_of.fits(snapshot.parts, core)
    return _put(core, snapshot, now, threads, guest)


def rebuild(snapshot: Snapshot, hook: Hook | None = None) -> tuple[Notifier, Arrival]:
    """A core of what the snapshot says, and of nothing else.  Raises SnapshotError.

    ``hook``: the policy's, if it has one: code does not travel.
    """
    core = made_of.build(snapshot.parts, hook)
    return core, _put(core, snapshot, None, None, core.guest)


def _put(
    core: Notifier, snapshot: Snapshot, now: float | None, threads: Mapping[int, int] | None, guest: GuestProfile
) -> Arrival:
    parts = snapshot.parts
    value = _parts.state_of(parts, core, 0.0 if now is None else now - snapshot.now)
    if threads is not None:
        value["threads"] = [list(pair) for pair in threads.items()]
    vcpus = parts["vcpus"].vcpus if "vcpus" in parts else []
    registers = parts["id-registers"].vcpus if "id-registers" in parts else []
    lines = parts.get("lines")
    if vcpus and len(vcpus) != core.vcpus:
        raise SnapshotError(f"snapshot: part 'vcpus': {len(vcpus)} of {core.vcpus}")
    if len(registers) not in {0, 1, core.vcpus}:
        raise SnapshotError(
            f"snapshot: part 'id-registers': {counted(len(registers), 'list')} for {counted(core.vcpus, 'vCPU')}"
        )
    if lines is not None:
        _parts.check_lines(lines, core)
    effects = effects_of(parts.get("effects", []), core, value.get("last_id"))
    pool = _parts.pool_of(parts["pool"]) if "pool" in parts else core.pool
    if core.pool not in {None, pool}:
        raise SnapshotError("snapshot: part 'pool': the guest was told of other CPUs than here")
    state.put(core, value)
    core.guest, core.pool = guest, pool
    core.esrs.clear()
    return Arrival(
        _merged(((first, count) for first, count, _, _ in value["poison"]), core),
        tuple(sorted(vcpu for vcpu, abort in core.aborts.items() if abort.state is not None)),
        tuple(effects),
        tuple(vcpus),
        None if lines is None else lines.model_dump(),
        tuple(dict(pairs) for pairs in registers),
        snapshot.now,
    )


def holes(core: Notifier) -> tuple[tuple[int, int], ...]:
    """(gpa, size) of all guest memory that is lost: told or not, or consumed by a vCPU that is still to be stopped."""
    return _merged(((first, count) for first, count, _, _ in core.poison.runs()), core)


def _merged(runs: Iterable[tuple[int, int]], core: Notifier) -> tuple[tuple[int, int], ...]:
    """Runs of lost pages, which ascend and are apart, and what vCPUs consumed, as holes."""
    shift, out = core.page_shift, list[tuple[int, int]]()
    start = end = -1
    for first, count in runs:
        if first != end:
            if start >= 0:
                out.append((start << shift, end - start << shift))
            start = first
        end = first + count
    if start >= 0:
        out.append((start << shift, end - start << shift))
    for abort in core.aborts.values():
        if abort.first >= 0:
            low, high = abort.start << shift, abort.start + abort.pages << shift
            at = bisect_left(out, (low,))  # the holes from here on begin at it, or behind
            if at and sum(out[at - 1]) >= low:
                at -= 1
                low = out[at][0]
            behind = at
            while behind < len(out) and out[behind][0] <= high:
                high = max(high, sum(out[behind]))
                behind += 1
            out[at:behind] = [(low, high - low)]
    return tuple(out)
