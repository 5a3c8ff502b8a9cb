"""Bytes that travel as text: hexadecimal, dumps of it with offsets and characters, Base64 (RFC 4648, 4 and 5)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

Form: TypeAlias = Literal["raw", "hex", "dump", "base64"]

_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]*\Z")
_OFFSET = re.compile(rb"[ \t]*(?:0x)?([0-9A-Fa-f]{4,16})(?::[ \t]+|[ \t][ \t]+)")
"""What begins a line of a dump (``xxd``, ``hexdump -C``, the dump of ``cper show``)."""
_PAIRS = re.compile(rb"((?:[0-9A-Fa-f]{2})+)([ \t]*)")
_HEX = re.compile(rb"[0-9A-Fa-fxX\s,:]*\Z")
_BASE64 = re.compile(rb"[A-Za-z0-9+/=\s]*\Z|[A-Za-z0-9_=-]+(?:\s*\n[A-Za-z0-9_=-]+)*\s*\Z")
"""Base64; or base64url, in which words side by side are prose."""
_ALPHABETS = {"base64": b"+/", "base64url": b"-_"}
"""The digits that only one of them has."""
_STANDARD = bytes.maketrans(b"-_", b"+/")
_LEFT_OUT = 16 << 20
"""Bytes at most that all `*` of a dump stand for."""
_LINE = 1 << 16
"""Characters of one line of text at most; longer ones are read in pieces."""


def form_of(start: bytes) -> Form:
    """In which form a file or stream comes whose first bytes these are."""
    if not _TEXT.match(start) or not start.strip():
        return "raw"
    line = start.lstrip(b"\r\n").split(b"\n", 1)[0]
    offset = _OFFSET.match(line)
    if offset and not int(offset[1], 16) and _PAIRS.match(line, offset.end()):
        return "dump"
    if _HEX.match(start):
        return "hex"
    return "base64" if _BASE64.match(start) and len(line.strip()) >= 8 else "raw"


def decoded(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a stream in whichever form it comes, as a stream.  Raises ValueError where text is neither."""
    rest = iter(chunks)
    first = next(rest, b"")
    form = form_of(first[:_LINE])
    if form == "raw":
        yield first
        yield from rest
    else:
        read = {"hex": _hex, "dump": _dump, "base64": _base64}[form]
        yield from read(_lines(_chained(first, rest)))


def of_text(data: bytes) -> bytes:
    """The bytes of a whole file in whichever form it comes.  Raises ValueError."""
    return b"".join(decoded([data]))


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _lines(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """(number, line); a line that is longer than any dump's is cut where its digits still come in pairs and fours."""
    left, number = b"", 1
    for chunk in chunks:
        *whole, left = (left + chunk).split(b"\n")
        for line in whole:
            yield number, line
            number += 1
        while len(left) > _LINE + 1:
            cut = _LINE if left[_LINE] not in b"xX" else _LINE - 1  # no prefix is cut in two
            yield number, left[:cut]
            left = left[cut:]
    if left.strip():
        yield number, left


def _dump(lines: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    at, room, row, repeated = 0, _LEFT_OUT, b"", False
    for number, line in lines:
        offset = _OFFSET.match(line)
        if repeated and (end := offset[1] if offset else line.strip()):
            yield (left := _left_out(number, end, at, row, room))
            at, room, repeated = at + len(left), room - len(left), False
        if offset is None:
            if line.strip() == b"*" and row:
                repeated = True
                continue
            if line.strip() and not re.fullmatch(rb"\s*[0-9A-Fa-f]+\s*", line):  # hexdump ends with the length
                raise ValueError(f"line {number}: no line of a hexadecimal dump")
            continue
        digits, place = b"", offset.end()
        while len(digits) < 32 and (found := _PAIRS.match(line, place)):
            digits += found[1]
            place = found.end()
            gap = len(found[2])
            if gap > 2 or (gap == 2 and len(digits) != 16):  # what follows is the bytes as characters
                break
        row = bytes.fromhex(digits[:32].decode())
        at += len(row)
        yield row
    if repeated:
        raise ValueError("the dump ends with a *; how many lines that are, it does not say")


def _left_out(number: int, end: bytes, at: int, row: bytes, most: int) -> bytes:
    """What `*` stands for: the line before it, again and again up to this offset."""
    try:
        size = int(end, 16) - at
    except ValueError:
        raise ValueError(f"line {number}: no line of a hexadecimal dump") from None
    if not 0 <= size <= most:
        raise ValueError(f"line {number}: {size} bytes left out before it, not 0 to {most}; make the dump with -v")
    return (row * (size // len(row) + 1))[:size]


def _hex(lines: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    left = b""
    for number, line in lines:
        left += re.sub(rb"0[xX](?=[0-9A-Fa-f])|[\s,:]", b"", line)
        even = len(left) & ~1
        try:
            yield bytes.fromhex(left[:even].decode())
        except ValueError:
            raise ValueError(f"line {number}: no hexadecimal text") from None
        left = left[even:]
    if left:
        raise ValueError("an odd number of hexadecimal digits")


def _base64(lines: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    left, alphabet = b"", set[str]()
    for number, line in lines:
        text = b"".join(line.split())
        alphabet |= {name for name, digits in _ALPHABETS.items() if text.translate(None, digits) != text}
        if len(alphabet) > 1:
            raise ValueError(f"line {number}: no Base64: digits of {' and of '.join(sorted(alphabet))}")
        left += text.translate(_STANDARD)
        closed = left.endswith(b"=")
        whole = len(left) if closed else len(left) & ~3
        try:
            for part in re.findall(rb"[^=]+=*", left[:whole]):
                yield base64.b64decode(part, validate=True)
        except binascii.Error as error:
            raise ValueError(f"line {number}: no Base64: {error}") from None
        left = left[whole:]
    if alphabet == {"base64url"} and len(left) > 1:
        yield base64.b64decode(left + b"=" * (-len(left) % 4), validate=True)  # it often goes without padding
    elif left:
        raise ValueError("Base64 text ends in the middle")


__all__ = ["Form", "decoded", "form_of", "of_text"]
