"""Bodies of no fixed size: a head, and behind it lists and bytes whose lengths the head tells.

A frame is a frozen dataclass of structures, tuples of structures (or of frames) and bytes, in wire order.  How it is
cut out of a body is a construct declaration, ``FRAME``: each count is held against the bytes that are left before one
entry is read.  What is read is written again byte for byte; a body that its head contradicts is one error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar
from uuid import UUID

import construct as c

from cper.plain import hex_in, members, object_in, objects_in
from cper.wire import Struct, TruncatedError, WireError
from cper.wire._construct import Wire


class Reader(Protocol):
    """What makes a part of a frame from JSON: a structure, a frame, or what chooses between several."""

    @classmethod
    def of_plain(cls, value: Mapping[str, Any], /) -> Any:
        """The part that JSON described."""


@dataclass(frozen=True)
class Framed:
    """Parts one behind the other.  A tuple is a list; bytes that are empty are left out of JSON."""

    KINDS: ClassVar[Mapping[str, type[Reader]]] = {}
    """What each part, or each entry of a list, is read from JSON by; a part that is not named here is bytes."""

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
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The frame that :meth:`plain` described.  Raises ValueError (pydantic.ValidationError for a wrong field)."""
        names = {field.name: isinstance(field.default, tuple) for field in fields(cls)}
        unknown = members(plain).keys() - names.keys()
        if unknown:
            raise ValueError(f"{cls.__name__} has no {', '.join(sorted(map(str, unknown)))}")
        values: dict[str, Any] = {}
        for name, is_list in names.items():
            kind = cls.KINDS.get(name)
            if kind is None:
                values[name] = hex_in(plain, name)
            elif is_list:
                values[name] = tuple(kind.of_plain(entry) for entry in objects_in(plain, name))
            else:
                values[name] = kind.of_plain(object_in(plain, name))
        return cls(**values)


H = TypeVar("H", bound=Struct)


@dataclass(frozen=True)
class FramedSection(Framed, Generic[H]):
    """Base of a section with variable parts.  Subclass it with ``guid=``, ``HEAD`` and ``FRAME``."""

    GUID: ClassVar[UUID]
    """Section Type."""
    HEAD: ClassVar[type[Struct]]
    """The smallest head."""
    SIZE: ClassVar[int]
    """Bytes of the smallest body."""
    FRAME: ClassVar[c.Construct]
    """The body as a construct declaration, to be embedded in declarations of one's own."""

    head: H
    """The fixed part."""

    def __init_subclass__(cls, *, guid: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if guid is not None:
            cls.GUID, cls.SIZE = UUID(guid), cls.HEAD.SIZE

    @classmethod
    def of_body(cls, body: bytes) -> Self:
        """Read a whole body.  Raises TruncatedError, DecodeError."""
        found = cls.FRAME.parse(body)
        return cls(**{field.name: found[field.name] for field in fields(cls)})

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The section that :meth:`plain` described.

        Raises ValueError (pydantic.ValidationError for a wrong field), also where a count does not count its list.
        """
        given = super().of_plain(plain)
        if cls.of_body(given.encode()) != given:
            raise ValueError(f"{cls.__name__}: the counts and lengths of its head are not those of its parts")
        return given


class Head(Wire):
    """The head of a frame; its errors say so."""

    def __init__(self, kind: type[Struct], structure: str) -> None:
        super().__init__(kind)
        self.structure = structure

    def _parse(self, stream: Any, context: Any, path: str) -> Struct:
        try:
            return super()._parse(stream, context, path)
        except WireError as error:
            raise error.within(self.structure, "head") from None


class Many(c.Construct):  # type: ignore[misc]
    """A list of structures of one kind, as many as ``count`` says of the head; ``field`` is where the head says it."""

    def __init__(
        self, kind: type[Struct], structure: str, name: str, head: type[Struct], field: str, count: Callable[[Any], int]
    ) -> None:
        super().__init__()
        self.wire, self.structure, self.field, self.count = Wire(kind), structure, field, count
        self.list, self.at = name, head.at(field).offset

    def _parse(self, stream: Any, context: Any, path: str) -> tuple[Struct, ...]:
        count, left = self.count(context.head), c.stream_size(stream) - stream.tell()
        size = count * self.wire.kind.SIZE
        if size > left:
            reason = f"{count} {self.list} need {size} bytes, {left} given"
            raise TruncatedError(reason, structure=self.structure, path=f"head.{self.field}", offset=self.at)
        return tuple(self._one(stream, context, path, index) for index in range(count))

    def _one(self, stream: Any, context: Any, path: str, index: int) -> Struct:
        try:
            return self.wire._parse(stream, context, path)
        except WireError as error:
            raise error.within(self.structure, f"{self.list}[{index}]") from None

    def _build(self, obj: Any, stream: Any, context: Any, path: str) -> Any:
        for entry in obj:
            stream.write(entry.encode())
        return obj


__all__ = ["Framed", "FramedSection", "Head", "Many", "Reader"]
