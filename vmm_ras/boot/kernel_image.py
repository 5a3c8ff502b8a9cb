"""The header of an arm64 kernel ``Image`` (Linux ``Documentation/arch/arm64/booting.rst``)."""

from __future__ import annotations

from typing import Annotated, ClassVar, NamedTuple

from cper.wire import U32, U64, Bits, Reserved, Struct, WireError, Word
from vmm_ras.errors import InputError

MAGIC = 0x644D_5241
"""``ARM\\x64``."""
ALIGNMENT = 2 << 20
"""Bytes: where an Image may begin is a multiple of this, plus its ``text_offset``."""
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\x02\x21\x4c\x18": "lz4",
}
_EFI_ZBOOT = b"zimg"
PAGE_SHIFTS = {1: 12, 2: 14, 3: 16}
"""Page size field of the flags to log2 of the kernel's page size."""


class ImageHeader(Struct, size=64):
    """The first 64 bytes."""

    code0: U32
    code1: U32
    text_offset: U64
    """Where the image begins behind a 2 MiB boundary."""
    image_size: U64
    """Bytes of memory that the kernel takes, its zeroed data with it; 0 before Linux 3.17."""
    flags: ClassVar[Word] = Word("Q")
    big_endian: Annotated[int, Bits("flags", 0, 1)] = 0
    page_size: Annotated[int, Bits("flags", 1, 3)] = 0
    anywhere: Annotated[int, Bits("flags", 3, 4)] = 0
    """It need not lie near the beginning of RAM."""
    res2: ClassVar = Reserved(8)
    res3: ClassVar = Reserved(8)
    res4: ClassVar = Reserved(8)
    magic: U32
    pe_offset: U32 = 0


class Kernel(NamedTuple):
    """What placing an Image needs to know."""

    text_offset: int
    size: int
    """Bytes of memory from there on."""
    page_shift: int
    """log2 of the kernel's page size; 12 where the header does not say."""


def read_header(data: bytes, what: str) -> Kernel:
    """The header of the Image that begins with ``data``; ``what`` names it.

    Raises InputError for anything else, and for a kernel that the header says to be big-endian.
    """
    for magic, name in _COMPRESSED.items():
        if data.startswith(magic):
            raise InputError(f"{what}: {name}-compressed; an uncompressed arm64 Image is expected")
    if data[4:8] == _EFI_ZBOOT:
        raise InputError(f"{what}: an EFI zboot image, which only UEFI can unpack; an arm64 Image is expected")
    try:
        header = ImageHeader.decode(data)
    except WireError as error:
        raise InputError(f"{what}: no arm64 Image: {error}") from None
    if header.magic != MAGIC:
        raise InputError(f"{what}: no arm64 Image: the magic number at byte 56 is {header.magic:#x}, not {MAGIC:#x}")
    if header.big_endian:
        raise InputError(f"{what}: a big-endian kernel; only little-endian guests are supported")
    if not header.image_size or header.image_size > 1 << 32 or header.text_offset >= ALIGNMENT:
        raise InputError(
            f"{what}: text_offset {header.text_offset:#x} and image_size {header.image_size:#x} are not to be believed"
        )
    return Kernel(header.text_offset, header.image_size, PAGE_SHIFTS.get(header.page_size, 12))
