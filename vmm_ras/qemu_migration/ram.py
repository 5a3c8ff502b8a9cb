"""Guest RAM in a stream (QEMU ``migration/ram.c``): the list of its blocks, and pages, some more than once."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection
from typing import NamedTuple

from cper.words import counted
from vmm_ras.errors import GuestError, InputError
from vmm_ras.qemu_migration.cursor import Buffer, Cursor

ZERO, MEM_SIZE, PAGE, EOS, CONTINUE, XBZRLE, HOOK, COMPRESS, MULTIFD_FLUSH = (1 << n for n in range(1, 10))
"""RAM_SAVE_FLAG_*: in the bits of an address that a page has no use for."""
PLAIN, PLAIN_ZERO = CONTINUE | PAGE, CONTINUE | ZERO
"""What nearly all pages are."""
MAX_BLOCKS = 4096
MAX_WALKS = 64
"""Searches through all of RAM: nothing that a guest or a file says makes them more."""
AHEAD = 64
"""Pages."""
MAX_READ = 1 << 20
"""Bytes of one read: its pages are remembered."""


class Block(NamedTuple):
    """One RAMBlock."""

    name: str
    size: int
    """Bytes in use."""


class Page(NamedTuple):
    """Where a page's content stands in the file."""

    block: str
    offset: int
    """Of the page in its block."""
    kind: int
    """ZERO, PAGE, XBZRLE or COMPRESS."""
    at: int
    size: int


Found = dict[tuple[str, int], Page | None]
"""Block and offset to the page's content in the file."""
_WORD = struct.Struct(">Q").unpack_from


class RamReader:
    """Reads the RAM sections.  Raises InputError for what it cannot read."""

    def __init__(self, page_size: int, features: frozenset[str] = frozenset()) -> None:
        """``features``: migration capabilities that the stream names."""
        self.page_size, self.features = page_size, features
        self.blocks: dict[str, Block] = {}
        self._block, self._size = "", 0
        """Of the last page."""

    def chunk(self, cursor: Cursor, wanted: Collection[tuple[str, int]] = (), found: Found | None = None) -> int:
        """Pass over a section's data; how many pages it has.  Those of ``wanted`` are put into ``found``, the last one
        over an earlier one."""
        data, low, page_size = cursor.data, self.page_size - 1, self.page_size
        at, count, name, block_size = cursor.at, 0, self._block, self._size
        while True:
            try:
                (word,) = _WORD(data, at)  # type: ignore[arg-type]  # bytes and mmap are; a Protocol cannot say so
            except struct.error:
                cursor.at = min(at, cursor.size)
                raise cursor.wrong("RAM page: 8 bytes expected, the file has fewer") from None
            flags = word & low
            offset = word ^ flags
            if flags == PLAIN:
                size = page_size
            elif flags == PLAIN_ZERO:
                size = 1
            else:
                cursor.at = at + 8
                kind = flags & ~CONTINUE
                if kind == EOS:
                    self._block, self._size = name, block_size
                    return count
                if kind == MEM_SIZE:
                    self._list(cursor, offset)
                elif kind != MULTIFD_FLUSH:
                    name, block_size, size = self._odd(cursor, kind, flags, name, block_size)
                    self._page(cursor, name, offset, block_size)
                    if (name, offset) in wanted and found is not None:
                        found[name, offset] = Page(name, offset, kind, cursor.at, size)
                    cursor.skip(size, "RAM page's content")
                    count += 1
                at = cursor.at
                continue
            at += 8
            if offset >= block_size:
                cursor.at = at
                self._page(cursor, name, offset, block_size)
            if wanted and (name, offset) in wanted and found is not None:
                found[name, offset] = Page(name, offset, flags ^ CONTINUE, at, size)
            at += size
            count += 1

    def _odd(self, cursor: Cursor, kind: int, flags: int, name: str, block_size: int) -> tuple[str, int, int]:
        """A page that names its block, or has a size of its own: block, its size, the page's."""
        if kind not in (ZERO, PAGE, XBZRLE, COMPRESS):
            cursor.at -= 8
            raise cursor.wrong(f"RAM page with flags {flags:#x}: not known")
        if not flags & CONTINUE:
            name = cursor.string("RAM block's name")
            block = self.blocks.get(name)
            block_size = block.size if block else 0
        if kind == ZERO:
            return name, block_size, 1
        if kind == PAGE:
            return name, block_size, self.page_size
        if kind == XBZRLE:
            cursor.skip(1, "XBZRLE page")
        return name, block_size, cursor.number(2 if kind == XBZRLE else 4, "RAM page's size")

    @staticmethod
    def _page(cursor: Cursor, name: str, offset: int, block_size: int) -> None:
        if offset >= block_size:
            raise cursor.wrong(f"RAM page {offset:#x} of block {name!r}: there is none")

    def _list(self, cursor: Cursor, total: int) -> None:
        """The blocks, and their sizes: that is what the section begins with."""
        if "mapped-ram" in self.features:
            raise cursor.wrong("RAM that lies in the file at fixed places (mapped-ram) is not read")
        while total > 0:
            name = cursor.string("RAM block's name")
            size = cursor.number(8, f"size of RAM block {name}")
            if "x-ignore-shared" in self.features:
                cursor.skip(8, f"address of RAM block {name}")
            if not 0 < size <= total:
                raise cursor.wrong(f"RAM block {name!r} of {size} bytes: {total} are left")
            self.blocks[name] = Block(name, size)
            if len(self.blocks) > MAX_BLOCKS:
                raise cursor.wrong(f"more than {MAX_BLOCKS} RAM blocks")
            total -= size


class GuestRam:
    """Guest memory as the stream leaves it: of a page that was sent more than once the last content counts.

    Only the pages that are asked for are remembered, so a read walks the RAM sections once for all that it wants.
    """

    def __init__(self, data: Buffer, reader: RamReader, chunks: list[int], gpa: int, block: str) -> None:
        """``chunks``: where RAM sections' data begin; ``gpa``: where ``block`` lies in the guest."""
        self.data, self.page_size, self.chunks, self.gpa, self.block = data, reader.page_size, chunks, gpa, block
        self.blocks, self.features = reader.blocks, reader.features
        self._known: Found = {}
        self._walks = 0

    def read(self, gpa: int, size: int) -> bytes:
        """Bytes at a guest physical address.  Raises GuestError outside RAM, or for a page that cannot be told."""
        if not self.block:
            raise GuestError("the file does not say where the guest's RAM lies")
        return self.read_block(self.block, gpa - self.gpa, size, gpa)

    def read_block(self, name: str, offset: int, size: int, gpa: int | None = None) -> bytes:
        """Bytes of a block.  Raises GuestError."""
        block = self.blocks.get(name)
        where = f"{size} bytes at {gpa:#x}" if gpa is not None else f"{size} bytes at {offset:#x} of {name}"
        if block is None or offset < 0 or offset + size > block.size:
            raise GuestError(f"{where}: outside the guest's RAM")
        if size > MAX_READ:
            raise GuestError(f"{where}: more than {MAX_READ} at once")
        first = offset // self.page_size
        pages = [(name, n * self.page_size) for n in range(first, (offset + size - 1) // self.page_size + 1)]
        self._find([key for key in pages if key not in self._known])
        content = b"".join(self._content(key) for key in pages)
        start = offset - first * self.page_size
        return content[start : start + size]

    def _find(self, wanted: list[tuple[str, int]]) -> None:
        """Look for pages, and those behind them: what belongs together lies together."""
        if not wanted:
            return
        if self._walks == MAX_WALKS:
            raise GuestError(f"page {wanted[0][1]:#x} of {wanted[0][0]}: more than {MAX_WALKS} searches through RAM")
        self._walks += 1
        name, last = wanted[-1]
        ahead = [(name, last + n * self.page_size) for n in range(1, AHEAD)]
        wanted = wanted + [key for key in ahead if key not in self._known]
        self._known.update(dict.fromkeys(wanted))
        asked = set(wanted)
        reader = RamReader(self.page_size, self.features)
        reader.blocks = self.blocks
        for at in self.chunks:
            reader.chunk(Cursor(self.data, at), asked, self._known)

    def _content(self, key: tuple[str, int]) -> bytes:
        page = self._known[key]
        if page is None:  # QEMU sends every page, zeros too
            raise GuestError(f"page {key[1]:#x} of {key[0]} is not in the file")
        raw = self.data[page.at : page.at + page.size]
        if page.kind == ZERO:
            return raw * self.page_size
        if page.kind == PAGE:
            return raw
        if page.kind == XBZRLE:
            raise GuestError(f"page {key[1]:#x} of {key[0]} was sent as a difference (xbzrle)")
        try:
            content = zlib.decompressobj().decompress(raw, self.page_size)
        except zlib.error as error:
            raise GuestError(f"page {key[1]:#x} of {key[0]}: {error}") from None
        if len(content) != self.page_size:
            raise GuestError(f"page {key[1]:#x} of {key[0]}: {counted(len(content), 'byte')} compressed")
        return content


def main_block(blocks: dict[str, Block]) -> str:
    """The block that is the machine's RAM: the largest that is neither flash nor a file of fw_cfg."""
    ram = [b for b in blocks.values() if not b.name.startswith(("/rom@", "virt.flash", "virt.secure"))]
    return max(ram, key=lambda b: b.size).name if ram else ""


def check_page_size(value: object, at: int) -> int:
    """A page size that a target can have.  Raises InputError."""
    if type(value) is not int or not 1024 <= value <= 65536 or value & value - 1:
        raise InputError(f"byte {at}: 'page_size' is {repr(value)[:40]}: a power of two from 1024 to 65536 expected")
    return value
