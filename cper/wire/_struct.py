"""Struct: a frozen pydantic model whose annotations are its byte layout."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Self

import orjson
from pydantic import ConfigDict, Field, ValidationInfo, model_validator

from cper.wire._codegen import generate, generate_reader
from cper.wire._documented import Documented
from cper.wire._errors import EncodeError, LayoutError, TruncatedError
from cper.wire._layout import FieldLayout, Layout, lay_out
from cper.wire._plain import generate_packer
from cper.wire._plain_of import generate_plain

_LENIENT = {"lenient": True}


class _Written:
    """A part of the codec, which is written when somebody first asks for one: of many classes few are met."""

    PARTS = ("decode", "encode", "pack", "_source", "_codec", "plain_of", "_plain_source", "_pack_plain")

    def __init__(self, cls: type[Struct], part: str) -> None:
        self.cls, self.part = cls, part

    def __get__(self, instance: Struct | None, owner: type[Struct]) -> Any:
        cls = self.cls
        if vars(cls)[self.part] is self:
            self._write(cls)
        part = vars(cls)[self.part]
        return part.__get__(instance, owner) if hasattr(part, "__get__") else part

    def _write(self, cls: type[Struct]) -> None:
        if self.part in {"plain_of", "_plain_source"}:
            cls._plain_source, plain_of = generate_plain(cls, cls.words)
            cls.plain_of = staticmethod(plain_of)  # type: ignore[method-assign]
        elif self.part == "_pack_plain":
            cls._pack_plain = staticmethod(generate_packer(cls, cls.words))  # type: ignore[method-assign]
        else:
            cls._source, cls._codec = generate(cls, cls.words)
            cls.decode = staticmethod(cls._codec["decode"])  # type: ignore[method-assign]
            cls.encode = cls._codec["encode"]  # type: ignore[method-assign]
            cls.pack = staticmethod(cls._codec["pack"])  # type: ignore[method-assign]


class Struct(Documented):
    """A wire structure of fixed size; subclass it with ``size=``.

    Decoding is lenient: whatever bytes no valid field claims are kept in ``residue``.  Constructors are strict.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="hex", val_json_bytes="hex")

    SIZE: ClassVar[int]
    """Bytes on the wire."""
    layout: ClassVar[tuple[FieldLayout, ...]]
    """Every field, nested ones included, with its place."""
    words: ClassVar[Layout]
    _source: ClassVar[str]
    _plain_source: ClassVar[str]
    _codec: ClassVar[dict[str, Any]]

    residue: Annotated[bytes | None, Field(default=None, repr=False)] = None
    """The bits that no valid field claims, as ``SIZE`` bytes to be XORed in; None when all are zero."""

    def __init_subclass__(cls, *, size: int | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)  # swallow `size` before pydantic sees it

    @classmethod
    def __pydantic_init_subclass__(cls, *, size: int | None = None, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if size is not None:
            cls.words = lay_out(cls, size)
            cls.SIZE, cls.layout = size, cls.words.rows
            for part in _Written.PARTS:
                setattr(cls, part, _Written(cls, part))

    # -- codec -------------------------------------------------------------------

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> Self:
        """Read one structure, ``SIZE`` bytes at ``offset``; an error's offset counts from the start of ``data``.

        Raises TruncatedError where bytes are missing, DecodeError where a constant is not what it must be.
        """
        raise NotImplementedError

    def encode(self) -> bytes:
        """The structure as ``SIZE`` bytes.  Raises EncodeError for a value that skipped validation and does not fit."""
        raise NotImplementedError

    @staticmethod
    def pack(**values: Any) -> bytes:
        """``cls(**values).encode()`` without the object and its checks, except that every value must fit its cell.

        Raises EncodeError.
        """
        raise NotImplementedError

    # -- JSON --------------------------------------------------------------------

    @classmethod
    def plain_of(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> dict[str, Any]:
        """What JSON holds of the structure at ``offset``: valid fields only, numbers as numbers.  No object is made."""
        raise NotImplementedError

    def plain(self) -> dict[str, Any]:
        """This structure as JSON holds it."""
        return type(self).plain_of(self.encode())

    @classmethod
    def of_plain(cls, value: Mapping[str, Any]) -> Self:
        """The structure from what :meth:`plain` gave; as lenient as decoding.

        Raises pydantic.ValidationError, and EncodeError for what JSON cannot hold.
        """
        try:
            text = orjson.dumps(value)
        except orjson.JSONEncodeError as error:
            raise EncodeError(f"no JSON: {error}", structure=cls.__name__) from None
        return cls.model_validate_json(text, context=_LENIENT)

    @classmethod
    def raw_of_plain(cls, value: Mapping[str, Any]) -> bytes:
        """``of_plain(value).encode()``, without the object where nothing is out of the common.  Raises as these do."""
        raw = cls._pack_plain(value)
        return cls.of_plain(value).encode() if raw is None else raw

    def check(self) -> None:
        """Rules between fields, which constructors keep and decoding does not: override it and raise ValueError."""

    @model_validator(mode="after")
    def _strict(self, info: ValidationInfo) -> Self:
        if self.residue is not None:
            if len(self.residue) != self.SIZE:
                raise ValueError(f"residue has {len(self.residue)} bytes, not {self.SIZE}")
            if type(self).decode(self.encode()) != self:
                raise ValueError("residue touches bits that a field owns")
        if not info.context:
            self.check()
        return self

    # -- what is derived -----------------------------------------------------------

    @classmethod
    def at(cls, path: str) -> FieldLayout:
        """Where a field lies: ``GHESv2.at("notification.vector").offset == 40``.  Raises LayoutError."""
        for row in cls.layout:
            if row.path == path:
                return row
        raise LayoutError("no such field", structure=cls.__name__, path=path)

    @classmethod
    def reader(cls, *names: str) -> Callable[..., tuple[Any, ...]]:
        """A function of (data, offset=0) that reads just these fields, as ``decode`` would, and makes no object.

        It raises what ``decode`` raises for them.  Raises LayoutError for a field that there is not.
        """
        for name in names:
            if name not in cls.model_fields or name == "residue":
                raise LayoutError("no such field", structure=cls.__name__, path=name)
        return generate_reader(cls, cls.words, cls._codec, names)  # type: ignore[no-any-return]

    @classmethod
    def source(cls) -> str:
        """The generated Python source of the codec."""
        return f"{cls._source}\n\n{cls._plain_source}"

    @classmethod
    def layout_table(cls) -> str:
        """The layout as a Markdown table."""
        head = ["| Offset | Bytes | Field | Valid bit | Meaning |", "|---|---|---|---|---|"]
        return "\n".join(
            head
            + [
                f"| {r.offset:#04x} | {r.size} | `{r.path}{f'[{r.bits[1]}:{r.bits[0]}]' if r.bits else ''}` "
                f"| {'' if r.valid is None else r.valid} | {'' if r.reserved else ' '.join(r.doc.split())} |"
                for r in cls.layout
            ]
        )

    # -- private -----------------------------------------------------------------

    @staticmethod
    def _pack_plain(value: Any) -> bytes | None:
        """The bytes that JSON describes; None where that takes a closer look."""
        raise NotImplementedError

    @staticmethod
    def _difference(a: bytes, b: bytes) -> bytes:
        return (int.from_bytes(a, "little") ^ int.from_bytes(b, "little")).to_bytes(len(a), "little")

    @classmethod
    def _truncated(cls, length: int, offset: int) -> TruncatedError:
        have = max(length - offset, 0) if offset >= 0 else 0
        row = next(r for r in cls.layout if r.offset + r.size > have and "." not in r.path)
        return TruncatedError(
            f"{cls.SIZE} bytes needed, {have} given", structure=cls.__name__, path=row.path, offset=offset + row.offset
        )

    @classmethod
    def _does_not_fit(cls, values: dict[str, Any]) -> EncodeError:
        for s in cls.words.slots:
            value, cell = values[s.name], cls.words.words[s.word][1]
            if value is None and s.flag:
                continue
            try:
                raw = value << s.lo if s.mask else s.dump(value) if s.dump else value
                if s.mask and value & ~s.mask:
                    raise ValueError
                struct.pack("<" + cell.fmt, raw)
            except (struct.error, TypeError, ValueError, AttributeError):
                return EncodeError(f"{value!r} does not fit", structure=cls.__name__, path=s.name, offset=s.offset)
        return EncodeError("does not fit", structure=cls.__name__)
