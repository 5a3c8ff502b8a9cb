"""A moving guest as a stream of bytes: its snapshot, then what its memory holds, each frame with a CRC-32C.

    magic "VRASMOVE" · version · then frames: kind, length, guest address, CRC-32C of the body · CRC-32C of these · body
    SNAPSHOT first and once · RAM as often as there is something · LOST where memory turns out to be lost, and nobody
    has heard of it yet: its size in 8 bytes · END with the CRC-32C of all CRCs before it

The reader takes the stream as hostile: it keeps no more than came, and a guest whose END did not come was not moved.
Nothing is read behind END.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import construct as c

from cper.words import counted
from vmm_ras.errors import SnapshotError
from vmm_ras.snapshot.container import crc32c

MAGIC: Final = b"VRASMOVE"
VERSION: Final = 1
SNAPSHOT, RAM, END, LOST = 1, 2, 3, 4
MAX_SNAPSHOT: Final = 256 << 20
"""Bytes of a snapshot in a stream."""
MAX_RAM: Final = 1 << 20
"""Bytes of memory in one frame."""
_PIECE: Final = 64 << 10
"""Bytes that are asked for at a time: what a frame only claims takes no memory."""

START = c.Struct("magic" / c.Const(MAGIC), "version" / c.Int32ul)
HEADER = c.Struct(
    "body" / c.RawCopy(c.Struct("kind" / c.Int32ul, "length" / c.Int32ul, "gpa" / c.Int64ul, "crc32c" / c.Int32ul)),
    "crc32c" / c.Checksum(c.Int32ul, crc32c, c.this.body.data),
)
"""Of a frame: 24 bytes."""
_HEADER_SIZE: Final = 24

Read = Callable[[int], bytes]
"""At most so many bytes, at least one; none: the stream has ended."""


class Memory(NamedTuple):
    """Bytes at a guest physical address; where none came memory is zero."""

    gpa: int
    data: bytes


class Lost(NamedTuple):
    """Memory that is lost, and that the snapshot does not know of."""

    gpa: int
    size: int


def send(write: Callable[[bytes], object], snapshot: bytes, memory: Iterable[Memory | Lost]) -> int:
    """Write the stream of one guest; how many bytes it is.  Raises SnapshotError for what no reader takes."""
    size, crcs = 0, bytearray()

    def put(data: bytes) -> None:
        nonlocal size
        size += len(data)
        write(data)

    def frame(kind: int, gpa: int, body: bytes, limit: int) -> None:
        if len(body) > limit:
            raise SnapshotError(f"stream: a frame of {len(body)} bytes: at most {limit}")
        crc = crc32c(body)
        crcs.extend(crc.to_bytes(4, "little"))
        value = {"kind": kind, "length": len(body), "gpa": gpa, "crc32c": crc}
        put(HEADER.build({"body": {"value": value}}) + body)

    put(START.build({"version": VERSION}))
    frame(SNAPSHOT, 0, snapshot, MAX_SNAPSHOT)
    for item in memory:
        if isinstance(item, Lost):
            frame(LOST, item.gpa, item.size.to_bytes(8, "little"), 8)
        else:
            frame(RAM, item.gpa, item.data, MAX_RAM)
    frame(END, 0, crc32c(bytes(crcs)).to_bytes(4, "little"), 4)
    return size


def receive(read: Read) -> tuple[bytes, Iterator[Memory | Lost]]:
    """The snapshot of the stream that comes, and what its guest's memory holds, as it comes.

    The guest has arrived when the iterator has ended.  Both raise SnapshotError, in one line, for whatever is no whole
    stream.
    """
    start = _exactly(read, START.sizeof(), "its start")
    if start[: len(MAGIC)] != MAGIC:
        raise SnapshotError(f"stream: begins with {start[:8].hex()}, expected {MAGIC.hex()}")
    version = START.parse(start).version
    if version != VERSION:
        raise SnapshotError(f"stream: version {version}, expected {VERSION}")
    crcs = bytearray()
    kind, gpa, snapshot = _frame(read, crcs, 0)
    if kind != SNAPSHOT or gpa:
        raise SnapshotError(f"stream: frame 0: kind {kind} at {gpa:#x}: expected the snapshot")
    return snapshot, _memory(read, crcs)


def _memory(read: Read, crcs: bytearray) -> Iterator[Memory | Lost]:
    number = 1
    while True:
        total = crc32c(bytes(crcs))
        kind, gpa, body = _frame(read, crcs, number)
        if kind == END:
            if gpa or body != total.to_bytes(4, "little"):
                raise SnapshotError(f"stream: frame {number}: not its end: frames are missing, or swapped")
            return
        if kind == RAM:
            yield Memory(gpa, body)
        elif kind == LOST and len(body) == 8:
            yield Lost(gpa, int.from_bytes(body, "little"))
        else:
            raise SnapshotError(f"stream: frame {number}: kind {kind}: expected memory, or the end")
        number += 1


def _frame(read: Read, crcs: bytearray, number: int) -> tuple[int, int, bytes]:
    try:
        found = HEADER.parse(_exactly(read, _HEADER_SIZE, f"frame {number}")).body.value
    except c.ChecksumError:
        raise SnapshotError(f"stream: frame {number}: the CRC-32C of its header is wrong") from None
    limit = {SNAPSHOT: MAX_SNAPSHOT, RAM: MAX_RAM, END: 4, LOST: 8}.get(found.kind, 0)
    if found.length > limit:
        raise SnapshotError(
            f"stream: frame {number}: {counted(found.length, 'byte')} of kind {found.kind}: at most {limit}"
        )
    body = _exactly(read, found.length, f"frame {number}")
    if crc32c(body) != found.crc32c:
        raise SnapshotError(f"stream: frame {number}: its CRC-32C is {crc32c(body):08x}, not {found.crc32c:08x}")
    crcs += found.crc32c.to_bytes(4, "little")
    return found.kind, found.gpa, body


def _exactly(read: Read, size: int, what: str) -> bytes:
    parts, left = [], size
    while left:
        part = read(min(left, _PIECE))
        if not part:
            raise SnapshotError(f"stream: ends in {what}: {counted(left, 'byte')} missing")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
