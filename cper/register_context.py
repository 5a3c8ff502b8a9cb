"""Register contexts of the processor sections (UEFI 2.10, N.2.4.2 and N.2.4.4): head, array, padding to 16 bytes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from cper.framed import Framed, Part, Reader
from cper.plain import object_in
from cper.wire import Struct, WireError
from cper.wire._plain_of import remembering
from cper.words import counted

H = TypeVar("H", bound=Struct)

STEP = 16
"""What a context is padded to a multiple of."""


@dataclass(frozen=True)
class RegisterContext(Framed, Generic[H]):
    """One register context: registers decoded where the array's type and length are known, else as bytes."""

    HEAD: ClassVar[type[Struct]]
    """The head; it has ``register_context_type`` and ``register_array_size``."""
    REGISTERS: ClassVar[Mapping[int, type[Struct]]]
    """What a register array of that type is made of."""
    LISTS: ClassVar[frozenset[int]] = frozenset()
    """Types whose array holds any number of these."""

    head: H
    """What the array holds, and how long it is."""
    registers: tuple[Struct, ...] = ()
    """The array, where its type and its length are known."""
    data: bytes = b""
    """The array, where they are not."""
    padding: bytes = b""
    """Bytes up to the next multiple of 16."""

    @classmethod
    def kinds(cls, plain: Mapping[str, Any]) -> Mapping[str, Reader]:
        """What its head's type asks for."""
        number = cls.HEAD.decode(cls.HEAD.raw_of_plain(object_in(plain, "head"))).register_context_type  # type: ignore[attr-defined]
        if plain.get("registers") and number not in cls.REGISTERS:
            raise ValueError(f"{cls.__name__}: no registers of type {number.plain} are known: give them as 'data'")
        return {"head": cls.HEAD, "registers": cls.REGISTERS.get(number, cls.HEAD)}


class Contexts(Part):
    """Register contexts, as many as ``counter`` of the head says; ``within`` is the field that says where they end.

    UEFI pads each with zeroes to a multiple of 16 bytes; bytes there that are not zero are the next context's.
    """

    def __init__(self, kind: type[RegisterContext[Any]], counter: str, within: str = "") -> None:
        super().__init__()
        self.kind, self.counter, self.within, self.reader = kind, counter, within, kind
        self.head = kind.HEAD
        places = [kind.HEAD.at(name) for name in ("register_context_type", "register_array_size")]
        self.size_at = places[1].offset
        codes = {2: "H", 4: "I"}
        gap = places[1].offset - places[0].offset - places[0].size
        self.start = places[0].offset
        self.type_and_size = struct.Struct(f"<{codes[places[0].size]}{gap}x{codes[places[1].size]}").unpack_from

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any]) -> tuple[Any, int]:
        end, found = head[self.within] if self.within else len(body), []
        if end != len(body):
            body = body[:end]
        for index in range(head[self.counter]):  # the first that is not there ends it
            one, at = self._one(body, at, index)
            found.append(one)
        return tuple(found), at

    def _one(self, body: bytes, at: int, index: int) -> tuple[RegisterContext[Any], int]:
        kind = self.kind
        try:
            first = self.head.decode(body, at)
        except WireError as error:
            raise error.within(self.structure, f"{self.field}[{index}].head") from None
        number, size = self.type_and_size(body, at + self.start)
        begin = at + self.head.SIZE
        stop, left = begin + size, len(body) - begin
        if size > left:
            path = f"{self.field}[{index}].head.register_array_size"
            raise self.truncated(f"{counted(size, 'byte')} needed, {left} given", path, at + self.size_at)
        padding = body[stop : stop + (at - stop) % STEP]
        if padding.strip(b"\0"):
            padding = b""
        end = stop + len(padding)
        made = kind.REGISTERS.get(number)
        if made is None or (size % made.SIZE if number in kind.LISTS else size != made.SIZE):
            return kind(first, (), body[begin:stop], padding), end
        places = range(begin, stop, made.SIZE)
        return kind(first, tuple(made.decode(body, place) for place in places), b"", padding), end

    def _lines(self, names: dict[str, Any]) -> list[str]:
        field, size, kind = self.field, self.head.SIZE, self.kind
        made = {(number, cls.SIZE): cls.plain_of for number, cls in kind.REGISTERS.items() if number not in kind.LISTS}
        head, sizes, registers, other = (f"{what}_{field}" for what in ("head", "sizes", "registers", "other"))
        names |= {
            head: remembering(self.head) or self.head.plain_of, sizes: self.type_and_size, registers: made.get,
            other: self._plain_one,
        }  # fmt: skip
        return [
            f"found, end = [], {self.end(self.within)}",
            f"for _ in range(head[{self.counter!r}]):",
            f"    begin = at + {size}",
            "    if begin > end: return None",
            f"    key = {sizes}(body, at + {self.start})",
            "    stop = begin + key[1]",
            "    if stop > end: return None",
            f"    plain = {registers}(key)",
            f"    if plain is None: one = {other}(body, at, key)",
            f"    else: one = {{'head': {head}(body[at:begin]).copy(), 'registers': [plain(body, begin)]}}",
            f"    padding = body[stop:min(stop + (at - stop) % {STEP}, end)]",
            "    at = stop",
            "    if padding and not padding.strip(b'\\0'):",
            "        one['padding'] = padding.hex()",
            "        at += len(padding)",
            "    found.append(one)",
            f"out[{field!r}] = found",
        ]

    def _plain_one(self, body: bytes, at: int, key: tuple[int, int]) -> dict[str, Any]:
        """What JSON holds of a context that is a list of registers, or bytes."""
        (number, size), begin = key, at + self.head.SIZE
        made = self.kind.REGISTERS.get(number)
        out: dict[str, Any] = {"head": self.head.plain_of(body, at), "registers": []}
        if made is not None and number in self.kind.LISTS and not size % made.SIZE:
            out["registers"] = [made.plain_of(body, place) for place in range(begin, begin + size, made.SIZE)]
        elif size:
            out["data"] = body[begin : begin + size].hex()
        return out
