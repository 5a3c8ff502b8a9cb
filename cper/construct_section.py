"""A section of one's own as a construct declaration (UEFI 2.10, N.2.3, non-standard section body).

    Fan = construct_section("Fan", "01234567-89ab-cdef-0123-456789abcdef", c.Struct("rpm" / c.Int16ul))
    register(Fan)

In JSON bytes are ``{"hex": "..."}``.  What the declaration reads but does not write again (padding, computed values,
bytes behind its end) is kept as ``residue`` and ``tail``, so that no byte is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Self
from uuid import UUID

import construct as c

from cper.plain import hex_in, members
from cper.wire import DecodeError, EncodeError
from cper.words import counted

_WRONG = (c.ConstructError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError)
"""What a declaration, and the functions in it, may raise about bytes or values."""


@dataclass(frozen=True)
class ConstructSection:
    """Base of what :func:`construct_section` makes."""

    GUID: ClassVar[UUID]
    """Section Type."""
    SIZE: ClassVar[int] = 0
    """Bytes of the smallest body, where the declaration knows."""
    FORMAT: ClassVar[c.Construct]
    """The declaration."""

    value: Mapping[str, Any]
    """What the declaration reads, as JSON holds it."""
    residue: bytes = b""
    """Bits that the declaration does not write as it read them, to be XORed in; empty when all are zero."""
    tail: bytes = b""
    """Bytes behind what the declaration reads."""

    @classmethod
    def of_body(cls, body: bytes) -> Self:
        """Read a body.  Raises DecodeError."""
        try:
            value = _plain(cls.FORMAT.parse(body))
            built = cls.FORMAT.build(_built(value))
        except _WRONG as error:
            raise DecodeError(_reason(error), structure=cls.__name__, path=_path(error), offset=0) from None
        if len(built) > len(body):
            reason = f"the declaration writes {counted(len(built), 'byte')} of {len(body)}"
            raise DecodeError(reason, structure=cls.__name__, offset=len(body))
        odd = bytes(a ^ b for a, b in zip(body, built, strict=False))
        return cls(value, odd if any(odd) else b"", body[len(built) :])

    def encode(self) -> bytes:
        """The body.  Raises EncodeError."""
        try:
            built = type(self).FORMAT.build(_built(self.value))
        except _WRONG as error:
            raise EncodeError(_reason(error), structure=type(self).__name__, path=_path(error)) from None
        if self.residue and len(self.residue) != len(built):
            reason = f"residue has {counted(len(self.residue), 'byte')}, not {len(built)}"
            raise EncodeError(reason, structure=type(self).__name__, path="residue")
        mended = bytes(a ^ b for a, b in zip(built, self.residue, strict=True)) if self.residue else built
        return bytes(mended + self.tail)

    def plain(self) -> dict[str, Any]:
        """What JSON holds."""
        odd = {"residue": self.residue.hex()} if self.residue else {}
        return {**self.value, **odd, **({"tail": self.tail.hex()} if self.tail else {})}

    @classmethod
    def plain_of_body(cls, body: bytes) -> dict[str, Any]:
        """``of_body(body).plain()``."""
        return cls.of_body(body).plain()

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The section that :meth:`plain` described.  Raises ValueError."""
        value = members(plain, without=("residue", "tail"))
        return cls(value, hex_in(plain, "residue"), hex_in(plain, "tail"))

    @classmethod
    def raw_of_plain(cls, plain: Mapping[str, Any]) -> bytes:
        """``of_plain(plain).encode()``."""
        return cls.of_plain(plain).encode()

    def fields(self) -> Iterator[tuple[int, int, str, Any]]:
        """(offset, bytes, name, value) of each member of the declaration, and of the tail."""
        built = self.encode()
        places = [(f"_at_{index}" / c.Tell, sub) for index, sub in enumerate(type(self).FORMAT.subcons)]
        found = c.Struct(*(part for pair in places for part in pair), "_at_end" / c.Tell).parse(built)
        starts = [found[f"_at_{index}"] for index in range(len(places))] + [found["_at_end"]]
        for index, (_, sub) in enumerate(places):
            if sub.name and starts[index + 1] > starts[index]:
                yield starts[index], starts[index + 1] - starts[index], sub.name, self.value.get(sub.name)
        if self.tail:
            yield starts[-1], len(self.tail), "tail", self.tail.hex()


def construct_section(name: str, guid: str, declaration: c.Struct) -> type[ConstructSection]:
    """The section type ``name`` of this GUID, whose bodies ``declaration`` reads and writes.

    Its counts must be bounded by the bytes that are left, as everywhere here.  Raises ValueError where it is no
    ``construct.Struct``, or where a member has a name that JSON needs itself.
    """
    if not isinstance(declaration, c.Struct):
        raise ValueError(f"{name}: a construct.Struct expected")
    taken = {"residue", "tail"} & {sub.name for sub in declaration.subcons}
    if taken:
        raise ValueError(f"{name}: a member cannot be called {', '.join(sorted(taken))}")
    size = 0
    with suppress(c.SizeofError):
        size = declaration.sizeof()
    return type(name, (ConstructSection,), {"GUID": UUID(guid), "FORMAT": declaration, "SIZE": size})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items() if not str(key).startswith("_")}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes | bytearray):
        return {"hex": bytes(value).hex()}
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value).__name__} is nothing that JSON can hold")


def _built(value: Any) -> Any:
    if isinstance(value, Mapping):
        return hex_in(value, "hex") if value.keys() == {"hex"} else {k: _built(v) for k, v in value.items()}
    return [_built(inner) for inner in value] if isinstance(value, list | tuple) else value


def _reason(error: Exception) -> str:
    text = str(error).splitlines()
    return (text[-1] if text else "") or type(error).__name__


def _path(error: Exception) -> str:
    steps = str(getattr(error, "path", "") or "").split(" -> ")[1:]
    return ".".join(steps)


__all__ = ["ConstructSection", "construct_section"]
