"""Flattened device tree blob (Devicetree Specification 0.4, chapter 5): one structure block, its strings, no more."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from vmm_ras.errors import InputError

Value = bytes | str | int | tuple[int, ...]
"""A property: bytes as they are, a string, a 32-bit cell, or several cells."""
_MAGIC, _VERSION, _COMPATIBLE = 0xD00D_FEED, 17, 16
_HEADER, _BEGIN_NODE, _END_NODE, _PROPERTY, _END = 40, 1, 2, 3, 9
MAX_SIZE = 2 << 20
"""Bytes that Linux maps of a blob (``Documentation/arch/arm64/booting.rst``)."""


def cells(value: int, count: int = 2) -> tuple[int, ...]:
    """A number as 32-bit cells, most significant first: two of them make an address."""
    return tuple(value >> 32 * (count - 1 - index) & 0xFFFF_FFFF for index in range(count))


def blob(root: Mapping[str, Value], nodes: Mapping[str, Mapping[str, Value]]) -> bytes:
    """A tree of a root node with these properties and, directly below it, these nodes.

    Raises InputError for what no blob can hold: a NUL in a name or string, a number of more than 32 bits, 2 MiB.
    """
    strings = bytearray()
    body = [_node("", root, strings)]
    for name, properties in nodes.items():
        body += [_node(name, properties, strings), _u32(_END_NODE)]
    structure = b"".join([*body, _u32(_END_NODE), _u32(_END)])
    reserved = bytes(16)  # the empty list of reserved memory: the EFI memory map has it
    at = _HEADER + len(reserved)
    total = at + len(structure) + len(strings)
    if total > MAX_SIZE:
        raise InputError(f"device tree: {total} bytes, more than {MAX_SIZE}")
    header = struct.pack(
        ">10I", _MAGIC, total, at, at + len(structure), _HEADER, _VERSION, _COMPATIBLE, 0, len(strings), len(structure)
    )
    return header + reserved + structure + bytes(strings)


def _u32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _text(value: str, what: str) -> bytes:
    if "\0" in value:
        raise InputError(f"device tree: {what} has a NUL in it")
    return value.encode() + b"\0"


def _node(name: str, properties: Mapping[str, Value], strings: bytearray) -> bytes:
    out = [_u32(_BEGIN_NODE), _padded(_text(name, "a node's name"))]
    for key, value in properties.items():
        data = _bytes(key, value)
        out += [_u32(_PROPERTY, len(data), _name(key, strings)), _padded(data)]
    return b"".join(out)


def _bytes(key: str, value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return _text(value, key)
    numbers: Sequence[int] = (value,) if isinstance(value, int) else value
    if any(number >> 32 for number in numbers):
        raise InputError(f"device tree: {key}: {numbers} are no 32-bit cells")
    return _u32(*numbers)


def _name(key: str, strings: bytearray) -> int:
    """Where the property's name is in the strings block; one may be the end of another."""
    wanted = _text(key, "a property's name")
    at = strings.find(wanted)
    if at < 0:
        at = len(strings)
        strings += wanted
    return at
