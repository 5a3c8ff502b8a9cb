"""Bytes of a file or a pipe, plain or gzip (RFC 1952), as numbered lines, in memory that does not grow with them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol, cast

from vmm_ras.errors import InputError

LONGEST = 1 << 20
"""Bytes of the longest line that is looked at."""
CHUNK = 1 << 16
GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"


class _Chunks(Protocol):
    def read1(self, size: int, /) -> bytes: ...


class _Pushback:
    """A stream whose first bytes were looked at and are read again."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def read1(self, size: int) -> bytes:
        head, self._head = self._head[:size], self._head[size:]
        return head or read_some(self._stream, size)

    read = read1  # GzipFile asks for no more than it can get in one piece


def read_some(stream: BinaryIO, size: int) -> bytes:
    """At least one byte of what is there now, without waiting for ``size`` of them; b"" at the end."""
    # A pipe that somebody still writes to must not be held back until a block is full.
    data = stream.read1(size) if hasattr(stream, "read1") else stream.read(size)
    return cast(bytes, data) or b""


class Lines:
    """The lines of one stream, read once.

    Iterating yields batches ``(number, lines)``: ``number`` is that of the first line, counted from 1, and each line is
    without its line feed, or None where it is longer than LONGEST bytes.  A batch is what one read brought, so nothing
    is read ahead.  Raises InputError where the stream cannot be read on: it names the last whole line.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._name = name
        self._number = 1
        try:
            head = b""
            while len(head) < len(BOM) and (more := read_some(stream, CHUNK)):
                head += more
        except OSError as error:
            raise InputError(f"{name}: {error.strerror or error}, expected a readable file") from None
        self.head = head
        """The first bytes, as they are in the stream."""
        self.compressed = head.startswith(GZIP_MAGIC)
        source = _Pushback(head.removeprefix(BOM), stream)
        self._chunks: _Chunks = gzip.GzipFile(fileobj=cast(BinaryIO, source)) if self.compressed else source

    def __iter__(self) -> Iterator[tuple[int, list[bytes | None]]]:
        parts: list[bytes] = []  # of a line whose end has not come yet
        held = 0
        while chunk := self._read():
            first, *lines = chunk.split(b"\n")
            held += len(first)
            if held <= LONGEST:
                parts.append(first)
            if not lines:
                continue
            tail = lines.pop()
            batch: list[bytes | None] = [b"".join(parts) if held <= LONGEST else None, *lines]
            parts, held = [tail], len(tail)
            yield self._number, batch
            self._number += len(batch)
        if held:
            yield self._number, [b"".join(parts) if held <= LONGEST else None]
            self._number += 1

    def _read(self) -> bytes:
        try:
            return self._chunks.read1(CHUNK)
        except EOFError:
            raise InputError(
                f"{self._name}: gzip data ends after line {self._number - 1}, expected its trailer"
            ) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            what = f"gzip data is damaged after line {self._number - 1} ({error})"
            raise InputError(f"{self._name}: {what}, expected whole gzip members") from None
        except OSError as error:
            what = f"cannot read on after line {self._number - 1}: {error.strerror or error}"
            raise InputError(f"{self._name}: {what}, expected a readable file") from None


class UntilDamage:
    """Batches up to where the stream cannot be read on: a reader that holds something back hands that out first."""

    def __init__(self, batches: Iterable[tuple[int, list[bytes | None]]]) -> None:
        self._batches = batches
        self._error: InputError | None = None

    def __iter__(self) -> Iterator[tuple[int, list[bytes | None]]]:
        try:
            yield from self._batches
        except InputError as error:
            self._error = error

    def end(self) -> None:
        """Raise InputError if the stream was damaged."""
        if self._error is not None:
            raise self._error
