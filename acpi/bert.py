"""Boot Error Record Table and its boot error region (ACPI 6.5, 18.3.1): errors of the boot before.

The region holds Generic Error Status Blocks back to back.  It is read as Linux reads it (``bert_print_all``): up to the
first block whose status is 0, that is malformed, or that runs past the region.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from acpi.frame import FixedTable, TableHead
from acpi.ghes import ErrorStatusHeader, StatusBlock
from cper.wire import U32, U64, EncodeError, WireError

SMALLEST_REGION = ErrorStatusHeader.SIZE
"""Bytes; Linux takes the table for invalid where the region is smaller (``bert_check_table``)."""
LARGEST_REGION = 1 << 20
"""Bytes; more of a region is never read."""


class BertHeader(TableHead, size=48):
    """The whole table (18.3.1)."""

    boot_error_region_length: U32
    """Bytes of the region."""
    boot_error_region: U64
    """Guest physical address of the region."""


class Bert(FixedTable[BertHeader]):
    """Boot Error Record Table (18.3.1): where the boot error region lies."""

    SIGNATURE = "BERT"
    REVISION = 1
    HEAD = BertHeader


class BootErrorRegion(NamedTuple):
    """The blocks of a boot error region, and what lies behind the last one that can be read."""

    blocks: tuple[StatusBlock, ...]
    rest: bytes = b""
    """The bytes from the first block on that is empty, malformed or cut off, to the region's end."""
    error: WireError | None = None
    """Why the first of ``rest`` is no block; None where it is empty, or nothing is left."""

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the blocks from the start of ``data``, which is the whole region.  Never raises; see ``error``."""
        data, at, blocks = bytes(data[:LARGEST_REGION]), 0, list[StatusBlock]()
        view = memoryview(data)
        while at + ErrorStatusHeader.SIZE <= len(data) and data[at : at + 4] != bytes(4):
            try:
                block = StatusBlock.decode(view[at:])
            except WireError as error:
                return cls(tuple(blocks), data[at:], error.within("BootErrorRegion", f"blocks[{len(blocks)}]", at))
            blocks.append(block)
            at += block.size
        return cls(tuple(blocks), data[at:])

    @classmethod
    def build(cls, blocks: Iterable[StatusBlock], length: int) -> bytes:
        """A region of ``length`` bytes that holds these blocks; the rest is zero.  Raises EncodeError."""
        raw = b"".join(block.encode() for block in blocks)
        if len(raw) > length:
            raise EncodeError(f"the blocks have {len(raw)} bytes, the region {length}", structure="BootErrorRegion")
        return raw.ljust(length, b"\0")

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the region; bytes that are all zero are not shown."""
        out: dict[str, Any] = {"blocks": [block.plain() for block in self.blocks]}
        if self.error is not None:
            out["error"] = str(self.error)
        if self.rest.strip(b"\0"):
            out["rest"] = self.rest.hex()
        return out


__all__ = ["LARGEST_REGION", "SMALLEST_REGION", "Bert", "BertHeader", "BootErrorRegion"]
