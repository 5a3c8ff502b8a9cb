"""Bodies of no fixed size: a head, and behind it lists and bytes whose lengths the head tells.

A frame is a frozen dataclass of structures, tuples of structures (or of frames) and bytes, in wire order.  How it is
cut out of a body is a construct declaration, ``FRAME``, of the parts of ``cper.parts`` and ``cper.areas``; a body that
its head contradicts is one error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, Self, TypeVar
from uuid import UUID

import construct as c

from cper.areas import Beginning, Gap, Remainder, Upto
from cper.parts import Frames, Head, Kinds, Many, One, Part, Reader
from cper.plain import hex_in, members, object_in, objects_in
from cper.wire import Struct, WireError
from cper.wire._codegen import run


@dataclass(frozen=True)
class Framed:
    """Parts one behind the other.  A tuple is a list; bytes that are empty are left out of JSON."""

    KINDS: ClassVar[Mapping[str, Reader]] = {}
    """What each part, or each entry of a list, is read from JSON by; a part that is not named here is bytes."""
    _named: ClassVar[tuple[tuple[str, bool], ...]]

    def encode(self) -> bytes:
        """The bytes, counts and lengths as they are."""
        return b"".join(part if isinstance(part, bytes) else part.encode() for _, _, part in self.parts())

    def parts(self) -> Iterator[tuple[str, int, Struct | bytes]]:
        """(path, offset, structure or bytes) of every part, those of inner frames included, in wire order."""
        at = 0
        for field in fields(self):
            value = getattr(self, field.name)
            named = enumerate(value) if isinstance(value, tuple) else [(None, value)]
            for index, part in named:
                name = field.name if index is None else f"{field.name}[{index}]"
                inner = [(f"{name}.{p}", o, v) for p, o, v in part.parts()] if isinstance(part, Framed) else None
                for path, offset, piece in [(name, 0, part)] if inner is None else inner:
                    yield path, at + offset, piece
                at += len(part) if isinstance(part, bytes) else len(part.encode())

    def plain(self) -> dict[str, Any]:
        """What JSON holds."""
        out: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                out[field.name] = [entry.plain() for entry in value]
            elif not isinstance(value, bytes):
                out[field.name] = value.plain()
            elif value:
                out[field.name] = value.hex()
        return out

    @classmethod
    def kinds(cls, plain: Mapping[str, Any]) -> Mapping[str, Reader]:
        """``KINDS``, where JSON does not ask for others."""
        return cls.KINDS

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The frame that :meth:`plain` described.  Raises ValueError (pydantic.ValidationError for a wrong field)."""
        names = cls._names()
        unknown = members(plain).keys() - {name for name, _ in names}
        if unknown:
            raise ValueError(f"{cls.__name__} has no {', '.join(sorted(map(repr, unknown)))}")
        values: dict[str, Any] = {}
        kinds = cls.kinds(plain)
        for name, is_list in names:
            kind = kinds.get(name)
            if kind is None:
                values[name] = hex_in(plain, name)
            elif is_list:
                values[name] = tuple(kind.of_plain(entry) for entry in objects_in(plain, name))
            else:
                values[name] = kind.of_plain(object_in(plain, name))
        return cls(**values)

    @classmethod
    def _names(cls) -> tuple[tuple[str, bool], ...]:
        """Each part, and whether it is a list."""
        if "_named" not in vars(cls):
            cls._named = tuple((field.name, isinstance(field.default, tuple)) for field in fields(cls))
        return cls._named

    @classmethod
    def _pack_plain(cls, plain: Mapping[str, Any]) -> bytes | None:
        """``of_plain(plain).encode()`` where nothing is out of the common, else None; it may raise ValueError too."""
        pieces, kinds = [], cls.kinds(plain)
        for name, is_list in cls._names():
            kind, value = kinds.get(name), plain.get(name)
            if kind is None:
                pieces.append(hex_in(plain, name) if name in plain else b"")
                continue
            pack = getattr(kind, "_pack_plain", None)
            for one in value if is_list and isinstance(value, list) else [value]:
                if not isinstance(one, dict):
                    return None
                pieces.append(kind.of_plain(one).encode() if pack is None else pack(one))
        return None if None in pieces else b"".join(pieces)


H = TypeVar("H", bound=Struct)


@dataclass(frozen=True)
class Frame(Framed, Generic[H]):
    """Parts that a declaration cuts out of bytes, the first of them a head.  Subclass it with ``FRAME``."""

    HEAD: ClassVar[type[Struct]]
    """The smallest head."""
    SIZE: ClassVar[int]
    """Bytes of what is always there."""
    FRAME: ClassVar[c.Construct]
    """The construct declaration, to be embedded in declarations of one's own."""
    PARTS: ClassVar[tuple[tuple[str, Part], ...]]
    """Its parts by name."""
    _plain: ClassVar[Callable[[bytes], dict[str, Any] | None]]

    head: H
    """The fixed part."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "FRAME" in vars(cls):
            cls.PARTS = tuple((named.name, named.subcon) for named in cls.FRAME.subcons)
            for name, part in cls.PARTS:
                part.structure, part.field = cls.__name__, name
            cls.KINDS = {name: part.reader for name, part in cls.PARTS if part.reader is not None}
            cls.HEAD = cls.PARTS[0][1].kind
            cls.SIZE = sum(part.kind.SIZE for _, part in cls.PARTS if isinstance(part, Head | One))
            cls._plain = staticmethod(cls._first_plain)

    @classmethod
    def of_body(cls, body: bytes) -> Self:
        """Read a whole body.  Raises TruncatedError, DecodeError."""
        head, at = cls.PARTS[0][1]._cut(body, 0, {})
        out, values = {"head": head}, vars(head)
        for name, part in cls.PARTS[1:]:
            out[name], at = part._cut(body, at, values)
        return cls(**out)

    @classmethod
    def plain_of_body(cls, body: bytes) -> dict[str, Any]:
        """``of_body(body).plain()``, without the objects where nothing is wrong.  Raises as these do."""
        found = cls._plain(body)
        return cls.of_body(body).plain() if found is None else found

    @classmethod
    def source(cls) -> str:
        """The generated Python source of :meth:`plain_of_body`."""
        return cls._write({})

    @classmethod
    def _first_plain(cls, body: bytes) -> dict[str, Any] | None:
        names: dict[str, Any] = {"WireError": WireError}
        run(f"<JSON of {cls.__module__}.{cls.__qualname__}>", cls._write(names), names)
        cls._plain = staticmethod(names["plain_of"])
        plain: dict[str, Any] | None = cls._plain(body)
        return plain

    @classmethod
    def _write(cls, names: dict[str, Any]) -> str:
        lines = [f"        {line}" for _, part in cls.PARTS for line in part._lines(names)]
        head = ["def plain_of(body):", "    out, size = {}, len(body)", "    try:"]
        return "\n".join([*head, *lines, "    except WireError:", "        return None", "    return out"])


@dataclass(frozen=True)
class FramedSection(Frame[H]):
    """Base of a section with variable parts.  Subclass it with ``guid=`` and ``FRAME``."""

    GUID: ClassVar[UUID]
    """Section Type."""
    SHAPED_BY: ClassVar[Mapping[str, frozenset[str]] | None] = None
    """Of each part's fields those that tell where others lie and which there are, and those of few different values.

    None: nobody says, and no functions are written for shapes of it (``cper.shape``).
    """

    def __init_subclass__(cls, *, guid: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if guid is not None:
            cls.GUID = UUID(guid)

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The section that :meth:`plain` described.

        Raises ValueError (pydantic.ValidationError for a wrong field), also where a count does not count its list.
        """
        given = super().of_plain(plain)
        if cls.of_body(given.encode()) != given:
            raise ValueError(f"{cls.__name__}: the counts and lengths of its head are not those of its parts")
        return given

    @classmethod
    def raw_of_plain(cls, plain: Mapping[str, Any]) -> bytes:
        """``of_plain(plain).encode()``, without the objects where nothing is out of the common.  Raises as these do."""
        try:
            raw = cls._pack_plain(plain)
        except ValueError:
            raw = None
        if raw is not None and cls._plain(raw) == plain:  # so counts and lengths are those of the parts
            return raw
        return cls.of_plain(plain).encode()


__all__ = [
    "Beginning",
    "Frame",
    "Framed",
    "FramedSection",
    "Frames",
    "Gap",
    "Head",
    "Kinds",
    "Many",
    "One",
    "Part",
    "Reader",
    "Remainder",
    "Upto",
]
