"""The vocabulary of a declaration: cells, slices and validation bits."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, get_args
from uuid import UUID

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, WithJsonSchema
from pydantic_core import core_schema as cs

from cper.wire._names import OpenEnum, OpenFlags, number

_UNSIGNED: Final = {"B", "H", "I", "Q"}


@dataclass(frozen=True)
class Cell:
    """Room for one value: ``fmt`` is a ``struct`` format, ``load`` and ``dump`` convert to and from the Python value.

    ``exact`` says that ``dump(load(word)) == word`` for every word; where it is False the difference is residue.
    ``plain`` turns the loaded value into what JSON holds.
    """

    fmt: str
    load: Callable[[Any], Any] | None = None
    dump: Callable[[Any], Any] | None = None
    exact: bool = True
    plain: Callable[[Any], Any] | None = None

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return struct.calcsize("<" + self.fmt)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> cs.CoreSchema:
        dump, size = self.dump, self.size
        if dump is None and not self.fmt.endswith("s"):
            kind, optional = _optional(source)
            if kind is int and self.fmt in _UNSIGNED:
                return _integer(8 * size, optional)
            if isinstance(kind, type) and issubclass(kind, OpenEnum | OpenFlags):

                def in_range(value: Any) -> Any:
                    if value is not None and not 0 <= value < 1 << 8 * size:
                        raise ValueError(f"{int(value)} does not fit {8 * size} bits")
                    return value

                return cs.no_info_after_validator_function(in_range, handler(source))
            return handler(source)

        def fits(value: Any) -> Any:
            if value is not None:
                try:
                    raw = dump(value) if dump else value
                except struct.error as error:
                    raise ValueError(str(error)) from None
                if isinstance(raw, bytes) and len(raw) != size and not (dump and len(raw) < size):
                    raise ValueError(f"{len(raw)} bytes given, the field has {size}")
            return value

        return cs.no_info_after_validator_function(fits, handler(source))


@dataclass(frozen=True)
class Word(Cell):
    """Room on the wire that is no field itself but may be sliced by :class:`Bits`."""


class Reserved(Word):
    """``size`` bytes that are no field; whatever they hold is kept as residue."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size}s")


class ValidationBits(Word):
    """The word that says which fields are valid; derived from which fields are None."""


@dataclass(frozen=True)
class Valid:
    """The field is None exactly when validation bit ``bit`` is clear."""

    bit: int


@dataclass(frozen=True)
class Bits:
    """The field is bits ``lo`` up to, not including, ``hi`` of ``word``, which is declared above it.

    ``in_place``: its value is not shifted down, as an address whose low bits mean something else.
    """

    word: str
    lo: int
    hi: int
    in_place: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> cs.CoreSchema:
        limit = 1 << (self.hi - self.lo)
        kind, optional = _optional(source)
        if kind is int and self.in_place:

            def aligned(value: int | None) -> int | None:
                if value is not None and value % (1 << self.lo):
                    raise ValueError(f"{value!r} is not a multiple of {1 << self.lo}")
                return value

            return cs.no_info_after_validator_function(aligned, _integer(self.hi, optional))
        if kind is int:
            return _integer(self.hi - self.lo, optional)
        if kind is bool:
            return cs.nullable_schema(cs.bool_schema(strict=True)) if optional else cs.bool_schema(strict=True)

        def fits(value: Any) -> Any:
            if value is not None and not 0 <= value < limit:
                raise ValueError(f"{value!r} does not fit {self.hi - self.lo} bit{'s' * (self.hi - self.lo > 1)}")
            return value

        return cs.no_info_after_validator_function(fits, handler(source))


def _optional(source: Any) -> tuple[Any, bool]:
    """(T, True) for ``T | None``, otherwise the type itself and False."""
    kinds = get_args(source)
    if len(kinds) == 2 and type(None) in kinds:
        return next(k for k in kinds if k is not type(None)), True
    return source, False


def _integer(bits: int, optional: bool) -> cs.CoreSchema:
    """An integer of ``bits`` bits; no bool, no float."""
    unsigned = cs.int_schema(ge=0, le=(1 << bits) - 1, strict=True)
    schema = cs.no_info_before_validator_function(number, unsigned)
    return cs.nullable_schema(schema) if optional else schema


def _text_dump(size: int) -> Callable[[str], bytes]:
    def dump(value: str) -> bytes:
        raw = value.encode("latin-1")
        if len(raw) > size:
            raise ValueError(f"{len(raw)} bytes given, the field has {size}")  # struct would cut it off in silence
        return raw.ljust(size, b"\0")

    return dump


def _blob_dump(size: int) -> Callable[[bytes], bytes]:
    def dump(value: bytes) -> bytes:
        if len(value) != size:
            raise ValueError(f"{len(value)} bytes given, the field has {size}")
        return value

    return dump


u8, u16, u32, u64 = Cell("B"), Cell("H"), Cell("I"), Cell("Q")


@lru_cache(maxsize=256)
def _guid_load(raw: bytes) -> UUID:
    return UUID(bytes_le=raw)


@lru_cache(maxsize=256)
def _guid_dump(value: UUID) -> bytes:
    return value.bytes_le


_guid_text = lru_cache(maxsize=256)(str)


guid = Cell("16s", load=_guid_load, dump=_guid_dump, plain=_guid_text)
bcd = Cell(
    "B",
    load=lambda raw: (raw >> 4) * 10 + (raw & 15),
    dump=lambda value: (tens := min(value // 10, 15)) << 4 | value - tens * 10,
    exact=False,
)
"""Binary coded decimal.  Digits above 9 read as the kernel's ``bcd2bin`` reads them; the odd byte becomes residue."""


def _u24_dump(value: int) -> bytes:
    if not 0 <= value < 1 << 24:
        raise ValueError(f"{value} does not fit 24 bits")
    return value.to_bytes(3, "little")


u24 = Cell("3s", load=lambda raw: int.from_bytes(raw, "little"), dump=_u24_dump)
"""Three bytes, as one number."""


def text(size: int) -> Cell:
    """``size`` bytes of text, filled up with NUL; bytes are read as Latin-1, so that none is lost."""
    return Cell(f"{size}s", load=lambda raw: raw.rstrip(b"\0").decode("latin-1"), dump=_text_dump(size))


def blob(size: int) -> Cell:
    """``size`` bytes as they are; hexadecimal in JSON."""
    return Cell(f"{size}s", dump=_blob_dump(size), plain=lambda raw: raw.hex())


def array(fmt: str, count: int) -> Cell:
    """``count`` integers of ``struct`` format ``fmt``, as a tuple."""
    packer = struct.Struct(f"<{count}{fmt}")
    return Cell(f"{packer.size}s", load=packer.unpack, dump=lambda values: packer.pack(*values), plain=list)


U8 = Annotated[int, u8]
U16 = Annotated[int, u16]
U24 = Annotated[
    int,
    u24,
    Field(ge=0, lt=1 << 24, strict=True),
    BeforeValidator(number),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": (1 << 24) - 1}),
]
U32 = Annotated[int, u32]
U64 = Annotated[int, u64]
Bcd = Annotated[
    int,
    bcd,
    Field(ge=0, le=165, strict=True),
    BeforeValidator(number),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 165}),
]
Guid = Annotated[UUID, guid]
