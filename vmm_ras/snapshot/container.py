"""The container of a snapshot: named parts behind a directory, each with its CRC-32C, and one over the directory.

    magic "VRASSNAP" · version · number of parts · for each part: name, flags, length, CRC-32C · CRC-32C of all that
    the bodies of the parts, in the order of the directory, and nothing behind them

A reader that does not know a part skips it, unless the part is mandatory: then it refuses the snapshot by that name.
What a container holds never takes more memory than the container: lengths are checked against what is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from typing import Final, NamedTuple

import construct as c
import crcmod.predefined

from cper.words import counted
from vmm_ras.errors import SnapshotError

crc32c: Callable[[bytes], int] = crcmod.predefined.mkPredefinedCrcFun("crc-32c")

MAGIC: Final = b"VRASSNAP"
VERSION: Final = 1
"""Of the framing.  What a part holds is known by the part's name: another content has another name."""
MANDATORY: Final = 1
"""Flag: a reader that does not know the part must not go on without it."""
MAX_PARTS: Final = 256
NAME_SIZE: Final = 16
"""Bytes of a name, padded with zeros."""

ENTRY = c.Struct("name" / c.Bytes(NAME_SIZE), "flags" / c.Int32ul, "length" / c.Int32ul, "crc32c" / c.Int32ul)
"""A part in the directory: 28 bytes."""
START = c.Struct("magic" / c.Const(MAGIC), "version" / c.Int16ul, "parts" / c.Int16ul)
DIRECTORY = c.Struct(
    "body" / c.RawCopy(c.Struct("start" / START, "entries" / c.Array(c.this.start.parts, ENTRY))),
    "crc32c" / c.Checksum(c.Int32ul, crc32c, c.this.body.data),
)
_NAME = re.compile(rb"([a-z][a-z0-9-]*)\0*")


class Part(NamedTuple):
    """One part."""

    name: str
    """Up to 16 of a to z, 0 to 9 and ``-``."""
    body: bytes
    mandatory: bool = True


def encode(parts: Iterable[Part]) -> bytes:
    """The container of these parts.  Raises SnapshotError for parts that no container can hold."""
    parts = list(parts)
    names = [part.name.encode("ascii", "replace") for part in parts]
    for name in names:
        if len(name) > NAME_SIZE or not _NAME.fullmatch(name):
            raise SnapshotError(f"part {name.decode('ascii', 'replace')!r}: expected up to 16 of a-z, 0-9 and -")
    if len(set(names)) != len(names) or len(parts) > MAX_PARTS:
        raise SnapshotError(f"{len(parts)} parts: expected at most {MAX_PARTS}, each with a name of its own")
    if any(len(part.body) >> 32 for part in parts):
        raise SnapshotError("a part of 4 GiB or more")
    entries = [
        {
            "name": name.ljust(NAME_SIZE, b"\0"),
            "flags": MANDATORY if part.mandatory else 0,
            "length": len(part.body),
            "crc32c": crc32c(part.body),
        }
        for name, part in zip(names, parts, strict=True)
    ]
    directory = {"start": {"version": VERSION, "parts": len(parts)}, "entries": entries}
    return b"".join((DIRECTORY.build({"body": {"value": directory}}), *(part.body for part in parts)))


def decode(data: bytes, known: Container[str] | None = None) -> list[Part]:
    """The parts of a container; with ``known`` only those of these names.

    Raises SnapshotError, in one line, for whatever is no undamaged container, and for a mandatory part not ``known``.
    """
    entries = _directory(data)
    at, parts, seen = START.sizeof() + len(entries) * ENTRY.sizeof() + 4, [], set()
    left = len(data) - at - sum(entry.length for entry in entries)
    if left:
        raise SnapshotError(
            f"snapshot: {counted(abs(left), 'byte')} {'too many' if left > 0 else 'missing'} at its end"
        )
    for number, entry in enumerate(entries):
        found = _NAME.fullmatch(entry.name)
        if found is None:
            raise SnapshotError(f"snapshot: part {number}: {entry.name[:8].hex()}... is no name")
        name = found.group(1).decode()
        if entry.flags & ~MANDATORY:
            raise SnapshotError(f"snapshot: part {name!r}: flags {entry.flags:#x}: expected 0 or {MANDATORY}")
        if name in seen:
            raise SnapshotError(f"snapshot: part {name!r} is there twice")
        seen.add(name)
        body = data[at : at + entry.length]
        at += entry.length
        if crc32c(body) != entry.crc32c:
            raise SnapshotError(f"snapshot: part {name!r}: its CRC-32C is {crc32c(body):08x}, not {entry.crc32c:08x}")
        if known is None or name in known:
            parts.append(Part(name, body, bool(entry.flags & MANDATORY)))
        elif entry.flags & MANDATORY:
            raise SnapshotError(f"snapshot: part {name!r} is mandatory, and not known here")
    return parts


def _directory(data: bytes) -> list[c.Container]:
    start = START.sizeof()
    if data[: len(MAGIC)] != MAGIC:
        raise SnapshotError(f"snapshot: begins with {data[:8].hex() or 'nothing'}, expected {MAGIC.hex()}")
    if len(data) < start:
        raise SnapshotError(f"snapshot: {counted(len(data), 'byte')}, too few for its start")
    head = START.parse(data)
    if head.version != VERSION:
        raise SnapshotError(f"snapshot: version {head.version}, expected {VERSION}")
    if head.parts > MAX_PARTS:
        raise SnapshotError(f"snapshot: {counted(head.parts, 'part')}, expected at most {MAX_PARTS}")
    try:
        return list(DIRECTORY.parse(data).body.value.entries)
    except c.ChecksumError:
        raise SnapshotError("snapshot: the CRC-32C of its directory is wrong") from None
    except c.ConstructError:
        raise SnapshotError(
            f"snapshot: {counted(len(data), 'byte')}, too few for {counted(head.parts, 'part')}"
        ) from None
