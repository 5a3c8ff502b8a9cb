"""Error records kept in slots of a medium (ACPI 6.5, 18.5): they survive a reset, and a host that dies while it writes.

A record is never overwritten: it goes into a free slot and is flushed; then the slot of its predecessor is blanked.  A
slot counts when its CRC-32C is right, and of two with one record identifier the later counts.  So whatever a torn
write leaves behind, every record that was acknowledged is there, whole.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol, Self

import construct as c
import crcmod.predefined

from acpi.erst import INVALID_ID, UNSPECIFIED_ID, ErstStatus
from cper.wire import DecodeError
from cper.words import counted

crc32c: Callable[[bytes], int] = crcmod.predefined.mkPredefinedCrcFun("crc-32c")

MAGIC = b"VRASERST"
_SLOT_MAGIC = b"RECORD\0\1"
SUPERBLOCK_SIZE = 4096
"""Bytes before the first slot."""
SLOT_OVERHEAD = 32
"""Bytes of a slot that are not the record's."""
MOST_SLOTS = 1 << 16
LARGEST_SLOT = 1 << 25
"""Bytes."""


class Medium(Protocol):
    """Where slots are kept: a file, or bytes in memory."""

    def read(self, offset: int, size: int) -> bytes:
        """Read ``size`` bytes; fewer at the end.  Raises OSError."""

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data``.  Raises OSError."""

    def flush(self) -> None:
        """Return when everything written before is durable.  Raises OSError."""


def _checked(body: c.Construct) -> c.Construct:
    return c.Struct("body" / c.RawCopy(body), "crc" / c.Checksum(c.Int32ul, crc32c, c.this.body.data))


SUPERBLOCK = _checked(
    c.Struct(
        "magic" / c.Const(MAGIC),
        "version" / c.Const(1, c.Int32ul),
        "record_size" / c.Int32ul,
        "slot_size" / c.Int32ul,
        "slots" / c.Int32ul,
    )
)
"""The start of the medium."""

_SLOT_HEAD = c.Struct(
    "magic" / c.Const(_SLOT_MAGIC), "length" / c.Int32ul, "sequence" / c.Int64ul, "record_id" / c.Int64ul
)
SLOT = _checked(c.Struct("head" / _SLOT_HEAD, "data" / c.Bytes(c.this.head.length)))
"""A slot that holds a record: which record, which version of it, its bytes, CRC-32C of all that."""


class _Version(NamedTuple):
    """One slot's content: a record, and which version of it."""

    sequence: int
    slot: int
    record_id: int
    data: bytes = b""


class SlotStore:
    """Records by identifier.  A write or a clear that returns SUCCESS is durable."""

    def __init__(self, medium: Medium, slot_size: int, slots: int) -> None:
        self.medium, self.slot_size, self.slots = medium, slot_size, slots
        self._versions: dict[int, list[_Version]] = {}
        """Record identifier to its slots, newest last; more than one only where blanking one failed."""
        self._order: list[tuple[int, int]] = []
        """(sequence, record identifier) of each record's last version, ascending."""
        self._free: deque[int] = deque()
        self._suspects: list[int] = []
        """Slots that a failed write may have filled; blanked before anything else is acknowledged."""
        self._sequence = 0

    # -- opening -----------------------------------------------------------------

    @classmethod
    def format(cls, medium: Medium, records: int, record_size: int = 8192) -> Self:
        """Make an empty store of ``records`` records of at most ``record_size`` bytes.  Raises OSError, ValueError.

        It has a slot more than that: the one that a record's next version goes into.
        """
        if not 1 <= records < MOST_SLOTS or not 128 <= record_size <= LARGEST_SLOT // 2:
            raise ValueError(f"no room for {counted(records, 'record')} of {record_size} bytes")
        slot_size = -(-(record_size + SLOT_OVERHEAD) // 512) * 512
        for slot in range(records + 1):
            medium.write(SUPERBLOCK_SIZE + slot * slot_size, bytes(slot_size))
        medium.flush()
        words = {"record_size": record_size, "slot_size": slot_size, "slots": records + 1}
        medium.write(0, SUPERBLOCK.build({"body": {"value": words}}).ljust(SUPERBLOCK_SIZE, b"\0"))
        medium.flush()
        return cls.open(medium)

    @classmethod
    def open(cls, medium: Medium) -> Self:
        """Read what is there; of a record's versions all but the last are blanked.  Raises DecodeError, OSError."""
        try:
            body = SUPERBLOCK.parse(medium.read(0, SUPERBLOCK_SIZE)).body.value
        except c.ConstructError as error:
            reason = f"this is no record store: {type(error).__name__}"
            raise DecodeError(reason, structure="SlotStore", path="superblock", offset=0) from None
        room = body.slot_size - SLOT_OVERHEAD
        if not 2 <= body.slots <= MOST_SLOTS or not 128 <= body.record_size <= room <= LARGEST_SLOT:
            reason = f"{body.slots} slots of {body.slot_size} bytes for {body.record_size} is not what a store has"
            raise DecodeError(reason, structure="SlotStore", path="superblock.slots", offset=20)
        store = cls(medium, body.slot_size, body.slots)
        store.record_size = body.record_size
        for slot in range(body.slots):
            found = store._load(slot)
            if found is None:
                store._free.append(slot)
                continue
            store._sequence = max(store._sequence, found.sequence)
            store._versions.setdefault(found.record_id, []).append(found._replace(data=b""))
        for record_id, versions in store._versions.items():
            versions.sort()
            store._order.append((versions[-1].sequence, record_id))
            store._blank(versions, keep=1)
        store._order.sort()
        return store

    # -- records -----------------------------------------------------------------

    record_size: int = 0
    """Bytes of the largest record."""

    @property
    def capacity(self) -> int:
        """Records that there is room for."""
        return self.slots - 1

    def __contains__(self, record_id: int) -> bool:
        return record_id in self._versions

    def __len__(self) -> int:
        return len(self._versions)

    def ids(self) -> list[int]:
        """Record identifiers, the record that was written first before the others."""
        return [record_id for _, record_id in self._order]

    def next_id(self, after: int = 0) -> tuple[int, int]:
        """The record that follows: its identifier, its sequence number to go on from; (INVALID_ID, 0) at the end."""
        at = bisect_right(self._order, (after, INVALID_ID))
        if at == len(self._order):
            return INVALID_ID, 0
        sequence, record_id = self._order[at]
        return record_id, sequence

    def read(self, record_id: int) -> bytes | None:
        """The record, or None where there is none, or it has rotted on the medium.  Raises OSError."""
        versions = self._versions.get(record_id)
        found = self._load(versions[-1].slot) if versions else None
        return None if found is None or found.record_id != record_id else found.data

    def write(self, record_id: int, data: bytes) -> ErstStatus:
        """Keep a record; one of the same identifier is replaced.  Raises OSError: then either version may remain."""
        if record_id in {UNSPECIFIED_ID, INVALID_ID}:
            return ErstStatus.FAILED
        self._settle()
        versions = self._versions.get(record_id, [])
        if len(data) > self.record_size or not self._free or (not versions and len(self) >= self.capacity):
            return ErstStatus.NOT_ENOUGH_SPACE
        slot, sequence = self._free[0], self._sequence + 1
        head = {"length": len(data), "sequence": sequence, "record_id": record_id}
        self._suspects.append(self._free.popleft())
        self.medium.write(self._at(slot), SLOT.build({"body": {"value": {"head": head, "data": data}}}))
        self.medium.flush()
        self._suspects.remove(slot)
        self._sequence = sequence
        if versions:
            self._forget(versions[-1].sequence, record_id)
        self._order.append((sequence, record_id))
        versions.append(_Version(sequence, slot, record_id))
        self._versions[record_id] = versions
        self._blank(versions, keep=1)
        return ErstStatus.SUCCESS

    def clear(self, record_id: int) -> ErstStatus:
        """Forget a record.  Raises OSError: then it may be there or not."""
        if record_id in {UNSPECIFIED_ID, INVALID_ID}:
            return ErstStatus.FAILED
        versions = self._versions.get(record_id)
        if not versions:
            return ErstStatus.RECORD_NOT_FOUND
        self._settle()
        sequence = versions[-1].sequence
        self._blank(versions, keep=0)
        self._forget(sequence, record_id)
        del self._versions[record_id]
        return ErstStatus.SUCCESS

    # -- slots -------------------------------------------------------------------

    def _at(self, slot: int) -> int:
        return SUPERBLOCK_SIZE + slot * self.slot_size

    def _forget(self, sequence: int, record_id: int) -> None:
        """Take a record out of the order of records."""
        at = bisect_left(self._order, (sequence, record_id))
        del self._order[at : at + 1]

    def _blank(self, versions: list[_Version], keep: int) -> None:
        """Blank all but the last ``keep``, oldest first, each durably: an older one never outlives a newer."""
        while len(versions) > keep:
            self._wipe(versions[0].slot)
            self._free.append(versions.pop(0).slot)

    def _settle(self) -> None:
        """Blank what a failed write may have left: it was not acknowledged, and must not appear later."""
        while self._suspects:
            self._wipe(self._suspects[0])
            self._free.append(self._suspects.pop(0))

    def _wipe(self, slot: int) -> None:
        self.medium.write(self._at(slot), bytes(_SLOT_HEAD.sizeof()))
        self.medium.flush()

    def _load(self, slot: int) -> _Version | None:
        """What a slot holds, or None where its CRC or its form is wrong."""
        try:
            head = _SLOT_HEAD.parse(self.medium.read(self._at(slot), _SLOT_HEAD.sizeof()))
            if head.length > self.record_size:
                return None
            value = SLOT.parse(self.medium.read(self._at(slot), head.length + SLOT_OVERHEAD)).body.value
        except c.ConstructError:
            return None
        return _Version(value.head.sequence, slot, value.head.record_id, value.data)


class MemoryMedium:
    """A medium of bytes in memory; nothing of it survives the process."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)

    def read(self, offset: int, size: int) -> bytes:
        """Read ``size`` bytes; fewer at the end."""
        return bytes(self.data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data``; what is missing before it becomes zero."""
        self.data += bytes(max(0, offset + len(data) - len(self.data)))
        self.data[offset : offset + len(data)] = data

    def flush(self) -> None:
        """Nothing to do."""


__all__ = [
    "MOST_SLOTS", "SLOT", "SLOT_OVERHEAD", "SUPERBLOCK", "SUPERBLOCK_SIZE", "Medium", "MemoryMedium", "SlotStore",
    "crc32c",
]  # fmt: skip
