"""How a member of libcper's JSON and a field of a structure become each other."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cper.plain import members
from cper.wire import Struct
from cper.words import counted

RESERVED = "Unknown (Reserved)"


class Rule(NamedTuple):
    """A member of an object: the field that it stands for, and both ways."""

    key: str
    field: str
    out: Callable[[Any], Any]
    back: Callable[[Any], Any] | None
    """None: the member only says again what another says."""


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"a number expected, not {value!r}")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"true or false expected, not {value!r}")
    return value


def number(key: str, field: str) -> Rule:
    """A number."""
    return Rule(key, field, int, _number)


def numbers(*names: str) -> list[Rule]:
    """Numbers whose members are called as the fields are, in camelCase."""
    return [number(camel(name), name) for name in names]


def flag(key: str, field: str) -> Rule:
    """True or false."""
    return Rule(key, field, bool, _truth)


def words(key: str, field: str) -> Rule:
    """Text."""
    return Rule(key, field, str, str)


def pair(key: str, field: str, names: Mapping[int, str], unknown: str = RESERVED) -> Rule:
    """A number with the name that it has."""
    return Rule(
        key, field, lambda v: {"value": int(v), "name": names.get(int(v), unknown)}, lambda p: number_of(p, "value")
    )


def bits(key: str, field: str, names: Sequence[str]) -> Rule:
    """A number as an object of its bits, the lowest first."""

    def out(value: int) -> dict[str, bool]:
        return {name: bool(value >> bit & 1) for bit, name in enumerate(names)}

    def back(plain: Any) -> int:
        given = members(plain)
        return sum(_truth(given.get(name, False)) << bit for bit, name in enumerate(names))

    return Rule(key, field, out, back)


def hexadecimal(key: str, field: str, digits: int) -> Rule:
    """A number once more, as text."""
    return Rule(key, field, lambda value: f"0x{value:0{digits}X}", None)


def base64_bytes(key: str, field: str) -> Rule:
    """Bytes in Base64."""
    return Rule(key, field, to_base64, lambda text: of_base64(text).hex())


def base64_words(key: str, field: str, count: int) -> Rule:
    """``count`` 64-bit words in Base64."""
    form = struct.Struct(f"<{count}Q")

    def back(text: Any) -> list[int]:
        raw = of_base64(text)
        if len(raw) != form.size:
            raise ValueError(f"{key!r}: {counted(len(raw), 'byte')} given, it has {form.size}")
        return list(form.unpack(raw))

    return Rule(key, field, lambda values: to_base64(form.pack(*values)), back)


def sub(key: str, field: str, shape: Shape) -> Rule:
    """A structure inside."""
    return Rule(key, field, shape.write, shape.read)


class Shape:
    """An object that stands for a structure."""

    def __init__(self, kind: type[Struct], *rules: Rule | list[Rule]) -> None:
        self.kind = kind
        self.rules = [rule for part in rules for rule in (part if isinstance(part, list) else [part])]

    def write(self, value: Any) -> dict[str, Any]:
        """The object; fields that are not valid are left out."""
        out = {}
        for key, field, convert, _ in self.rules:
            found = getattr(value, field)
            if found is not None:
                out[key] = convert(found)
        return out

    def read(self, plain: Any) -> dict[str, Any]:
        """The fields, as ``Struct.of_plain`` takes them.  Raises ValueError."""
        given = members(plain)
        out = {}
        for key, field, _, back in self.rules:
            if back is not None and key in given:
                try:
                    out[field] = back(given[key])
                except ValueError as error:
                    raise ValueError(f"{key!r}: {error}") from None
        return out

    def make(self, plain: Any, **more: Any) -> Struct:
        """The structure.  Raises ValueError."""
        return self.kind.of_plain(self.read(plain) | more)


def camel(name: str) -> str:
    """``target_address`` as ``targetAddress``, ``requestor_id`` as ``requestorID``."""
    first, *rest = name.split("_")
    return first + "".join(part.upper() if part in {"id", "ip"} else part.capitalize() for part in rest)


def number_of(plain: Any, key: str, default: int | None = None, size: int = 8) -> int:
    """The number under ``key``, which fits into ``size`` bytes.  Raises ValueError."""
    value = members(plain).get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 8 * size:
        raise ValueError(f"{key!r}: a number of {size} bytes expected")
    return value


def to_base64(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode()


def of_base64(text: Any) -> bytes:
    """Text as bytes.  Raises ValueError."""
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, binascii.Error):
        raise ValueError("Base64 text expected") from None
