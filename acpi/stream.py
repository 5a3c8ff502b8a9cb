"""Records and status blocks one behind the other, in a file or a stream (UEFI 2.10, N.2; ACPI 6.5, 18.3.2.7.1).

A record begins with its signature; a status block has none: it begins where another item ends and its lengths agree.
Zeroes between items are padding.  What is neither is told as a fault, and reading goes on at the next signature.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from acpi.damage import DamagedBlock
from acpi.ghes import ErrorStatusHeader, StatusBlock
from cper.wire import DecodeError, WireError

if TYPE_CHECKING:  # a stream without records does without their declarations, which take a while to make
    from cper.damage import DamagedRecord
    from cper.record import Record

MAX_SIZE = 16 << 20
"""Bytes of one item at most; one that says it has more is damaged."""

SIGNATURE = re.compile(rb"CPER..\xff\xff\xff\xff", re.DOTALL)
"""Both signatures of a record header (N.2.1)."""
_START = b"CPER"
_SIGNATURE_SIZE = 10
PIECE = 1 << 16
"""Bytes of what is nothing known that are told at once."""


class Kind(StrEnum):
    """What an item is."""

    RECORD = "record"
    STATUS_BLOCK = "status_block"
    PADDING = "padding"
    BYTES = "bytes"


Reading: TypeAlias = "Record | DamagedRecord | StatusBlock | DamagedBlock"


class Item(NamedTuple):
    """Bytes of a stream that belong together; ``offset`` counts from the start of the stream."""

    offset: int
    kind: Kind
    data: bytes
    fault: WireError | None = None
    """Why it is not read as a whole."""

    def read(self) -> Reading | None:
        """What it holds, as far as it can be read; None of padding and of bytes that are nothing known."""
        if self.kind is Kind.RECORD:
            from cper.damage import DamagedRecord
            from cper.record import Record

            return Record.decode(self.data) if self.fault is None else DamagedRecord.decode(self.data)
        if self.kind is Kind.STATUS_BLOCK:
            return StatusBlock.decode(self.data) if self.fault is None else DamagedBlock.decode(self.data)
        return None


def items(chunks: Iterable[bytes]) -> Iterator[Item]:
    """The items of a stream, in order; at most ``MAX_SIZE`` bytes and one chunk are kept.  Raises nothing.

    Bytes that are nothing known come in pieces, of which the first has the fault.
    """
    source = iter(chunks)
    buffer, at, offset, ended, lost = b"", 0, 0, False, False
    while True:
        needed, item = _next(buffer, at, offset, ended, lost)
        if item is not None:
            lost = item.kind is Kind.BYTES
            at += len(item.data)
            offset += len(item.data)
            yield item
            continue
        if ended:
            return
        parts, have = [buffer[at:]], len(buffer) - at
        while have < needed:
            chunk = next(source, None)
            if chunk is None:
                ended = True
                break
            parts.append(bytes(chunk))
            have += len(chunk)
        buffer, at = b"".join(parts), 0


def _next(buffer: bytes, at: int, offset: int, ended: bool, lost: bool) -> tuple[int, Item | None]:
    """The item at ``buffer[at:]``, or how many bytes are needed to tell; ``lost``: before it is nothing known."""
    have = len(buffer) - at
    if not have:
        return 1, None
    if lost and not SIGNATURE.match(buffer, at):
        return _bytes(buffer, at, offset, ended, None)
    if not buffer[at]:
        zeroes = _zeroes(buffer, at)
        if zeroes == have < PIECE and not ended:
            return have + 1, None
        if zeroes >= ErrorStatusHeader.SIZE or zeroes == have:
            return 0, Item(offset, Kind.PADDING, buffer[at : at + zeroes])
    view = memoryview(buffer)[at:]
    if view[:4] == _START[:have]:
        return _record(view, buffer, at, offset, ended)
    return _block(view, buffer, at, offset, ended)


def _zeroes(buffer: bytes, at: int) -> int:
    found = re.compile(rb"\0+").match(buffer, at)
    return found.end() - at if found else 0


def _bytes(buffer: bytes, at: int, offset: int, ended: bool, fault: WireError | None) -> tuple[int, Item | None]:
    """Bytes up to the next signature, or as many as cannot begin one."""
    found = SIGNATURE.search(buffer, at + 1)
    if found:
        return 0, Item(offset, Kind.BYTES, buffer[at : found.start()], fault)
    have = len(buffer) - at
    if not ended and have < PIECE:
        return PIECE, None
    return 0, Item(offset, Kind.BYTES, buffer[at:] if ended else buffer[at : len(buffer) - _SIGNATURE_SIZE], fault)


@cache
def _frame() -> tuple[Callable[[memoryview], object], int, int]:
    """What finds a record's bodies, bytes of its header, and where its length lies: declared when a record is met."""
    from cper.record import Record, RecordHeader

    return Record.places, RecordHeader.SIZE, RecordHeader.at("record_length").offset


def _record(view: memoryview, buffer: bytes, at: int, offset: int, ended: bool) -> tuple[int, Item | None]:
    places, head, at_length = _frame()
    if len(view) < head and not ended:
        return head, None
    length = int.from_bytes(view[at_length : at_length + 4], "little")
    if length <= MAX_SIZE and len(view) < length and not ended:
        return length, None
    fault: WireError
    if length > MAX_SIZE:
        fault = DecodeError(
            f"{length} bytes are more than {MAX_SIZE}",
            structure="Record",
            path="header.record_length",
            offset=at_length,
        )
    else:
        try:
            places(view)
        except WireError as error:
            fault = error
        else:
            return 0, Item(offset, Kind.RECORD, bytes(view[:length]))
    end = min(length if length > head else MAX_SIZE, MAX_SIZE)
    if len(view) < end and not ended:
        return end, None
    return 0, Item(offset, Kind.RECORD, _until_signature(buffer, at, end), fault)


def _until_signature(buffer: bytes, at: int, most: int) -> bytes:
    """What lies before the next record, which may begin inside a damaged one."""
    found = SIGNATURE.search(buffer, at + 4, at + most + _SIGNATURE_SIZE)
    return buffer[at : min(found.start(), at + most) if found else at + most]


def _block(view: memoryview, buffer: bytes, at: int, offset: int, ended: bool) -> tuple[int, Item | None]:
    size, fault = ErrorStatusHeader.SIZE, None
    if len(view) < size and not ended:
        return size, None
    try:
        header = ErrorStatusHeader.decode(view)
        size += header.data_length
        if header.raw_data_length:
            size = max(size, header.raw_data_offset + header.raw_data_length)
        if size <= MAX_SIZE and len(view) < size and not ended:
            return size, None
        StatusBlock.decode(view[:size], header)
    except WireError as error:
        fault = error
    if fault is None and size <= MAX_SIZE and (header.data_length or not offset):
        return 0, Item(offset, Kind.STATUS_BLOCK, bytes(view[:size]))
    if offset or fault is None:
        reason = "neither a record nor a status block begins here"
        return _bytes(buffer, at, offset, ended, DecodeError(reason, structure="Stream", offset=0))
    if len(view) < MAX_SIZE and not ended:
        return MAX_SIZE, None
    return 0, Item(
        offset, Kind.STATUS_BLOCK, _until_signature(buffer, at, MAX_SIZE), fault
    )  # what comes first is meant


__all__ = ["MAX_SIZE", "Item", "Kind", "Reading", "items"]
