"""A lost page becomes a CPER section in a data entry in a status block (UEFI 2.10, N.2.5; ACPI 6.5, 18.3.2.7.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from acpi.ghes import DataEntry300, ErrorStatusHeader
from cper.common import SectionFlags, Severity, Timestamp
from cper.memory import PlatformMemory

HEADER_SIZE: Final = ErrorStatusHeader.SIZE
ENTRY_SIZE: Final = DataEntry300.SIZE + PlatformMemory.SIZE
"""Bytes of one memory entry, its section included: 152."""
ALL_ONES = (1 << 64) - 1
MAX_FRAMES = 256
"""Kinds of blocks that are remembered for a rule."""

_TEXT: Final = b"vmm memory #%08x"
_NO_TEXT: Final = bytes(20)
_HEX: Final = [b"%02x" % byte for byte in range(256)]
_NO_TIME: Final = -(1 << 61)
"""A second of no calendar."""
_header, _entry, _memory = ErrorStatusHeader.pack, DataEntry300.pack, PlatformMemory.pack


@dataclass(frozen=True)
class RecordStyle:
    """Which optional things a record says."""

    count: bool = True
    """Entry count, and the multiple-errors bits, in the block status."""
    mask: bool = True
    """Physical Address Mask: how much is lost."""
    fru_text: bool = True
    """A running number as FRU text, so that no two blocks are alike: Linux ignores a block that it saw within 10 s."""
    timestamp: bool = True
    """When the host saw the error, where that is known."""
    error_type: int | None = None
    """Memory Error Type for rules that give none."""


NATIVE = RecordStyle()
QEMU = RecordStyle(count=False, mask=False, fru_text=False, timestamp=False, error_type=0)
"""What QEMU writes for a poisoned page (hw/acpi/ghes.c): address and type 0, nothing else."""
STYLES = {"native": NATIVE, "qemu": QEMU}


def capacity(block_length: int, max_sections: int) -> int:
    """How many memory entries fit a block of ``block_length`` bytes whose source allows ``max_sections``."""
    return max(0, min((block_length - HEADER_SIZE) // ENTRY_SIZE, max_sections, 0x3FF))


_FRU_TEXT, _ADDRESS = DataEntry300.at("fru_text"), PlatformMemory.at("physical_address")
_BEFORE, _AFTER = _FRU_TEXT.offset, _FRU_TEXT.offset + _FRU_TEXT.size
_DIGITS: Final = 8
"""Of the record's number, at the end of the FRU text."""
_HERE, _REST = _ADDRESS.offset, _ADDRESS.offset + _ADDRESS.size


@lru_cache(maxsize=1024)
def _frame(
    count: int, severity: Severity, latent: bool, second: int | None, counted: bool, text: bool
) -> tuple[bytes, bytes, bytes]:
    """What blocks have in common: block header, and entry header before and behind the FRU text."""
    several, corrected = count > 1 and counted, severity == Severity.CORRECTED
    header = _header(
        correctable=corrected, uncorrectable=not corrected,
        multiple_correctable=corrected and several, multiple_uncorrectable=several and not corrected,
        entry_count=count if counted else 0, data_length=count * ENTRY_SIZE, severity=severity,
    )  # fmt: skip
    stamp = None
    if second is not None:
        try:
            stamp = Timestamp.of(second)
        except ValueError:
            stamp = None  # a time that no calendar has is no time
    entry = _entry(
        section_type=PlatformMemory.GUID, severity=severity, flags=SectionFlags.LATENT_ERROR if latent else 0,
        error_data_length=PlatformMemory.SIZE, fru_text="" if text else None, timestamp=stamp,
    )  # fmt: skip
    return header, entry[:_BEFORE], entry[_AFTER:]


@lru_cache(maxsize=1024)
def _section(size: int, error_type: int | None, mask: bool) -> tuple[bytes, bytes]:
    """What memory sections have in common: the bytes before and behind the physical address."""
    section = _memory(
        physical_address=0, physical_address_mask=-size & ALL_ONES if mask else None, error_type=error_type
    )
    return section[:_HERE], section[_REST:]


def memory_block(
    pages: Sequence[tuple[int, int]],
    *,
    severity: Severity = Severity.RECOVERABLE,
    error_type: int | None = None,
    latent: bool = False,
    number: int = 0,
    time: float | None = None,
    style: RecordStyle = NATIVE,
) -> bytes:
    """A status block with one memory entry per page, its block status set.

    ``pages``: (guest physical address, bytes), sizes powers of two.  ``latent``: found, not yet consumed (section flag
    Latent Error).  ``number``: the record's, for the FRU text.  ``time``: seconds since the epoch.
    """
    second = int(time) if time is not None and style.timestamp else None
    text = _TEXT % (number & 0xFFFFFFFF) if style.fru_text else _NO_TEXT
    if error_type is None:
        error_type = style.error_type
    header, before, after = _frame(len(pages), severity, latent, second, style.count, style.fru_text)
    parts = [header]
    for gpa, size in pages:
        start, end = _section(size, error_type, style.mask)
        parts += (before, text, after, start, gpa.to_bytes(8, "little"), end)
    return b"".join(parts)


class Blocks:
    """The blocks of one rule: what those with one entry have in common is made once."""

    __slots__ = ("_error_type", "_frames", "_last", "_parts", "_severity", "_style", "_text", "_timed")

    def __init__(self, severity: Severity, error_type: int | None, style: RecordStyle) -> None:
        self._severity, self._error_type, self._style = severity, error_type, style
        self._text, self._timed = style.fru_text, style.timestamp
        self._frames: dict[tuple[int, bool, int], tuple[bytes, bytes, bytes]] = {}
        """By size, latency and second: the bytes before, between and behind the number and the address."""
        self._last: tuple[int, bool, int] = 0, False, 0
        self._parts: tuple[bytes, bytes, bytes] = b"", b"", b""
        """The frame that was asked for last: it is asked for again."""

    def build(self, pages: tuple[tuple[int, int], ...], latent: bool, number: int, time: float | None) -> bytes:
        """The block for these pages, as ``memory_block`` makes it."""
        if len(pages) != 1:
            return memory_block(
                pages, severity=self._severity, error_type=self._error_type, latent=latent, number=number, time=time,
                style=self._style,
            )  # fmt: skip
        gpa, size = pages[0]
        key = size, latent, int(time) if time is not None and self._timed else _NO_TIME
        if key != self._last:
            self._last, self._parts = key, self._frames.get(key) or self._frame(key)
        head, middle, tail = self._parts
        address = gpa.to_bytes(8, "little")
        if not self._text:
            return head + middle + address + tail
        n, digits = number, _HEX  # a third of what formatting the number costs, compiled
        return b"%b%b%b%b%b%b%b%b" % (
            head, digits[n >> 24 & 255], digits[n >> 16 & 255], digits[n >> 8 & 255], digits[n & 255],
            middle, address, tail,
        )  # fmt: skip

    def _frame(self, key: tuple[int, bool, int]) -> tuple[bytes, bytes, bytes]:
        size, latent, second = key
        block = memory_block(
            [(0, size)], severity=self._severity, error_type=self._error_type, latent=latent,
            time=None if second == _NO_TIME else second, style=self._style,
        )  # fmt: skip
        text, address = HEADER_SIZE + _AFTER, HEADER_SIZE + DataEntry300.SIZE + _HERE
        number = text - _DIGITS if self._text else text
        if len(self._frames) >= MAX_FRAMES:
            self._frames.clear()
        found = self._frames[key] = block[:number], block[text:address], block[address + 8 :]
        return found
