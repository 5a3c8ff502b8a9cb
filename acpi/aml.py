"""ACPI Machine Language, encoded (ACPI 6.5, 20.2): as much of it as a DSDT of an Arm virtual machine needs.

Every function returns the bytes of one term; a term takes terms as bytes.  Numbers take their shortest form and
packages their shortest length, so that a compiler which reads the disassembly writes the same bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable

ZERO, ONE, ONES = b"\x00", b"\x01", b"\xff"
_PATH = re.compile(r"(\\|\^*)((?:[A-Z_][A-Z0-9_]{0,3})(?:\.[A-Z_][A-Z0-9_]{0,3})*)?")
MAX_PACKAGE = (1 << 28) - 1
"""Bytes that a package length of four bytes can say."""


def name(path: str) -> bytes:
    r"""A NameString: ``_HID``, ``\_SB.GED``, ``^^DEV0`` (20.2.2).  Raises ValueError."""
    found = _PATH.fullmatch(path)
    if not path or found is None:
        raise ValueError(f"{path!r} is no AML name: segments of up to four of A-Z, 0-9, _ after \\ or ^")
    prefix, segments = found.group(1), (found.group(2) or "").split(".") if found.group(2) else []
    packed = b"".join(s.ljust(4, "_").encode() for s in segments)
    count = len(segments)
    if count > 255:
        raise ValueError(f"{path!r} has {count} segments: at most 255")
    head = b"\x00" if not count else b"" if count == 1 else b"\x2e" if count == 2 else b"\x2f" + bytes([count])
    return prefix.encode() + head + packed


def integer(value: int) -> bytes:
    """An integer in its shortest form (20.2.3).  Raises ValueError outside 64 bits."""
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{value:#x} is no 64-bit number")
    if value <= 1:
        return bytes([value])
    if value < 1 << 8:
        return struct.pack("<BB", 0x0A, value)
    if value < 1 << 16:
        return struct.pack("<BH", 0x0B, value)
    if value < 1 << 32:
        return struct.pack("<BI", 0x0C, value)
    return struct.pack("<BQ", 0x0E, value)


def string(value: str) -> bytes:
    """A string of ASCII characters 0x01 to 0x7F (20.2.3).  Raises ValueError."""
    raw = value.encode("ascii", "replace")
    if not value.isascii() or b"\0" in raw:
        raise ValueError(f"{value!r} has characters that are no ASCII, or NUL")
    return b"\x0d" + raw + b"\0"


def package(payload: bytes) -> bytes:
    """PkgLength and ``payload``; the length counts its own bytes (20.2.4).  Raises ValueError."""
    for extra in range(4):
        length = len(payload) + 1 + extra
        if length < 1 << (6 if not extra else 4 + 8 * extra):
            break
    else:
        raise ValueError(f"{len(payload)} bytes are more than a package of {MAX_PACKAGE} holds")
    if not extra:
        return bytes([length]) + payload
    return bytes([extra << 6 | length & 0xF]) + (length >> 4).to_bytes(extra, "little") + payload


def named(path: str, value: bytes) -> bytes:
    """Name (path, value)."""
    return b"\x08" + name(path) + value


def scope(path: str, *terms: bytes) -> bytes:
    """Scope (path) { terms }."""
    return b"\x10" + package(name(path) + b"".join(terms))


def device(path: str, *terms: bytes) -> bytes:
    """Device (path) { terms }."""
    return b"\x5b\x82" + package(name(path) + b"".join(terms))


def method(path: str, arguments: int, *terms: bytes, serialized: bool = True) -> bytes:
    """Method (path, arguments, Serialized) { terms }."""
    if not 0 <= arguments <= 7:
        raise ValueError(f"{path}: a method has 0 to 7 arguments, not {arguments}")
    return b"\x14" + package(name(path) + bytes([arguments | serialized << 3]) + b"".join(terms))


def operation_region(path: str, space: int, address: int, length: int) -> bytes:
    """OperationRegion (path, space, address, length); space 0 is system memory."""
    return b"\x5b\x80" + name(path) + bytes([space]) + integer(address) + integer(length)


def field(region: str, flags: int, units: Iterable[tuple[str, int]]) -> bytes:
    """Field (region, flags) { units }: (name, bits) each.  Flags: access 3:0 (3: DWord), update rule 6:5 (2: zeros)."""
    listed = b"".join(name(unit) + _field_length(bits) for unit, bits in units)
    return b"\x5b\x81" + package(name(region) + bytes([flags]) + listed)


def _field_length(bits: int) -> bytes:
    """A length in bits, in the encoding of package lengths but not counting itself."""
    if bits < 1 << 6:
        return bytes([bits])
    return struct.pack("<BB", 0x40 | bits & 0xF, bits >> 4)


def local(number: int) -> bytes:
    """Local0 to Local7."""
    return bytes([0x60 + number])


def argument(number: int) -> bytes:
    """Arg0 to Arg6."""
    return bytes([0x68 + number])


def store(value: bytes, target: bytes) -> bytes:
    """Store (value, target)."""
    return b"\x70" + value + target


def and_(left: bytes, right: bytes, target: bytes = ZERO) -> bytes:
    """And (left, right, target); without a target its result is not stored."""
    return b"\x7b" + left + right + target


def or_(left: bytes, right: bytes, target: bytes = ZERO) -> bytes:
    """Or (left, right, target)."""
    return b"\x7d" + left + right + target


def not_(operand: bytes) -> bytes:
    """LNot (operand)."""
    return b"\x92" + operand


def return_(value: bytes) -> bytes:
    """Return (value)."""
    return b"\xa4" + value


def create_dword_field(source: bytes, index: int, path: str) -> bytes:
    """CreateDWordField (source, index, path): a name for four bytes of a buffer."""
    return b"\x8a" + source + integer(index) + name(path)


def buffer(content: bytes) -> bytes:
    """Buffer () { content }."""
    return b"\x11" + package(integer(len(content)) + content)


def equal(left: bytes, right: bytes) -> bytes:
    """LEqual (left, right)."""
    return b"\x93" + left + right


def if_(predicate: bytes, *terms: bytes) -> bytes:
    """If (predicate) { terms }."""
    return b"\xa0" + package(predicate + b"".join(terms))


def notify(target: str, value: int) -> bytes:
    """Notify (target, value)."""
    return b"\x86" + name(target) + integer(value)


def resources(*descriptors: bytes) -> bytes:
    """ResourceTemplate () { descriptors }: a buffer that an end tag closes (6.4)."""
    return buffer(b"".join(descriptors) + b"\x79\x00")  # checksum 0: taken for right


def memory32_fixed(address: int, length: int) -> bytes:
    """Memory32Fixed (ReadWrite, address, length) (6.4.3.4).  Raises ValueError above 4 GiB."""
    if not 0 <= address <= address + length <= 1 << 32:
        raise ValueError(f"{length:#x} bytes at {address:#x} are not below 4 GiB")
    return struct.pack("<BHBII", 0x86, 9, 1, address, length)


def qword_memory(address: int, length: int) -> bytes:
    """QWordMemory of fixed place, as the consumer of it (6.4.3.5.1): for registers above 4 GiB."""
    # general flags: consumer, positive decode, both ends fixed; type-specific flags: non-cacheable, read-write
    return struct.pack("<BHBBBQQQQQ", 0x8A, 43, 0, 0x0D, 1, 0, address, address + length - 1, 0, length)


def interrupt(gsiv: int, *, edge: bool) -> bytes:
    """Interrupt (ResourceConsumer, Edge or Level, ActiveHigh, Exclusive) { gsiv } (6.4.3.6)."""
    return struct.pack("<BHBBI", 0x89, 6, 1 | edge << 1, 1, gsiv)
