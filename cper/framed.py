"""Bodies of no fixed size: a head, and behind it lists and bytes whose lengths the head tells.

A frame is a frozen dataclass of structures, tuples of structures (or of frames) and bytes, in wire order.  How it is
cut out of a body is a construct declaration, ``FRAME``, whose parts say it once for construct, which makes objects, and
for :meth:`FramedSection.plain_of_body`, which makes JSON without any.  Each count and each length is held against the
bytes that are left before anything is read; a body that its head contradicts is one error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar
from uuid import UUID

import construct as c

from cper.plain import hex_in, members, object_in, objects_in
from cper.wire import DecodeError, Struct, TruncatedError, WireError


class Reader(Protocol):
    """What makes a part of a frame from JSON: a structure, a frame, or what chooses between several."""

    def of_plain(self, value: Mapping[str, Any], /) -> Any:
        """The part that JSON described."""


@dataclass(frozen=True)
class Framed:
    """Parts one behind the other.  A tuple is a list; bytes that are empty are left out of JSON."""

    KINDS: ClassVar[Mapping[str, Reader]] = {}
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
    def kinds(cls, plain: Mapping[str, Any]) -> Mapping[str, Reader]:
        """``KINDS``, where JSON does not ask for others."""
        return cls.KINDS

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The frame that :meth:`plain` described.  Raises ValueError (pydantic.ValidationError for a wrong field)."""
        names = {field.name: isinstance(field.default, tuple) for field in fields(cls)}
        unknown = members(plain).keys() - names.keys()
        if unknown:
            raise ValueError(f"{cls.__name__} has no {', '.join(sorted(map(str, unknown)))}")
        values: dict[str, Any] = {}
        kinds = cls.kinds(plain)
        for name, is_list in names.items():
            kind = kinds.get(name)
            if kind is None:
                values[name] = hex_in(plain, name)
            elif is_list:
                values[name] = tuple(kind.of_plain(entry) for entry in objects_in(plain, name))
            else:
                values[name] = kind.of_plain(object_in(plain, name))
        return cls(**values)


class Kinds:
    """Structures of one size; a key in their bytes says which of them it is.

    ``key`` finds it in a body, ``plain_key`` in JSON; ``other`` is for a key that is not among ``known``.
    """

    def __init__(
        self,
        other: type[Struct],
        known: Mapping[Any, type[Struct]],
        key: Callable[[bytes, int], Any],
        plain_key: Callable[[Mapping[str, Any]], Any],
    ) -> None:
        self.other, self.known, self.key, self.plain_key = other, known, key, plain_key

    def of_body(self, body: bytes, at: int) -> type[Struct]:
        """The structure that begins at ``at``."""
        return self.known.get(self.key(body, at), self.other)

    def of_plain(self, value: Mapping[str, Any], /) -> Struct:
        """The structure that JSON described."""
        return self.known.get(self.plain_key(value), self.other).of_plain(value)


class Part(c.Construct):  # type: ignore[misc]
    """A part of a frame."""

    reader: Reader | None = None
    """What makes it from JSON; None for bytes."""
    structure = "Frame"
    """The section that it belongs to, for errors."""
    field = "part"
    """Its name there."""

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any], plain: bool) -> tuple[Any, int]:
        """The part that begins at ``at`` of a body, as objects or as JSON holds it, and where it ends.

        ``head`` holds the fields of the frame's head.  Raises TruncatedError, DecodeError.
        """
        raise NotImplementedError

    def truncated(self, reason: str, path: str, offset: int) -> TruncatedError:
        """What is raised where bytes are missing."""
        return TruncatedError(reason, structure=self.structure, path=path, offset=offset)

    def _parse(self, stream: Any, context: Any, path: str) -> Any:
        begin = context.setdefault("_begin", stream.tell())  # of the frame: its first part sets it
        at = stream.tell() - begin
        stream.seek(begin)
        head = context.get("head")
        value, end = self._cut(stream.read(), at, {} if head is None else vars(head), plain=False)
        stream.seek(begin + end)
        return value

    def _build(self, obj: Any, stream: Any, context: Any, path: str) -> Any:
        for piece in obj if isinstance(obj, tuple) else (obj,):
            stream.write(piece if isinstance(piece, bytes) else piece.encode())
        return obj


class Head(Part):
    """The head of a frame.  ``length`` is the field that says how many bytes the frame has, itself included."""

    def __init__(self, kind: type[Struct], length: str = "") -> None:
        super().__init__()
        self.kind, self.length = kind, length
        self.reader: Reader = kind
        self.place = kind.at(length).offset if length else 0

    def kind_of(self, body: bytes) -> type[Struct]:
        """The head's class, where the body chooses it."""
        return self.kind

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any], plain: bool) -> tuple[Any, int]:
        kind = self.kind_of(body)
        try:
            value = kind.plain_of(body) if plain else kind.decode(body)
        except WireError as error:
            raise error.within(self.structure, "head") from None
        if self.length:
            length = value[self.length] if plain else getattr(value, self.length)  # type: ignore[index]
            if length < kind.SIZE:
                reason = f"{length} bytes, but the head alone has {kind.SIZE}"
                raise DecodeError(reason, structure=self.structure, path=f"head.{self.length}", offset=self.place)
            if length > len(body):
                raise self.truncated(f"{length} bytes needed, {len(body)} given", f"head.{self.length}", self.place)
        return value, kind.SIZE


class Many(Part):
    """A list of structures of one size, as many as ``counter`` of the head says.

    ``within`` is the field of the head that says where the frame ends.
    """

    def __init__(
        self,
        kind: type[Struct] | Kinds,
        head: type[Struct],
        counter: str,
        within: str = "",
    ) -> None:
        super().__init__()
        self.kind = kind.other if isinstance(kind, Kinds) else kind
        self.choose = kind.of_body if isinstance(kind, Kinds) else None
        self.reader: Reader = kind
        self.counter, self.place, self.within = counter, head.at(counter).offset, within

    def count(self, head: Mapping[str, Any]) -> int:
        """How many."""
        number: int = head[self.counter]
        return number

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any], plain: bool) -> tuple[Any, int]:
        count = self.count(head)
        size, left = count * self.kind.SIZE, (head[self.within] if self.within else len(body)) - at
        if size > left:
            raise self.truncated(
                f"{count} {self.field} need {size} bytes, {left} given", f"head.{self.counter}", self.place
            )
        end, step, kind, found = at + size, self.kind.SIZE, self.kind, []
        while at < end:
            if self.choose is not None:
                kind = self.choose(body, at)
            try:
                found.append(kind.plain_of(body, at) if plain else kind.decode(body, at))
            except WireError as error:
                index = len(found)
                raise error.within(self.structure, f"{self.field}[{index}]") from None
            at += step
        return found if plain else tuple(found), end


class Upto(Part):
    """The bytes up to where the frame ends: what ``within`` of the head says, or the body's end."""

    def __init__(self, within: str = "") -> None:
        super().__init__()
        self.within = within

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any], plain: bool) -> tuple[bytes, int]:
        end = head[self.within] if self.within else len(body)
        return body[at:end], max(at, end)


H = TypeVar("H", bound=Struct)


@dataclass(frozen=True)
class FramedSection(Framed, Generic[H]):
    """Base of a section with variable parts.  Subclass it with ``guid=`` and ``FRAME``."""

    GUID: ClassVar[UUID]
    """Section Type."""
    HEAD: ClassVar[type[Struct]]
    """The smallest head."""
    SIZE: ClassVar[int]
    """Bytes of the smallest body."""
    FRAME: ClassVar[c.Construct]
    """The body as a construct declaration, to be embedded in declarations of one's own."""
    _PARTS: ClassVar[tuple[tuple[str, Part], ...]]

    head: H
    """The fixed part."""

    def __init_subclass__(cls, *, guid: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if guid is not None:
            cls.GUID = UUID(guid)
        if "FRAME" in vars(cls):
            cls._PARTS = tuple((named.name, named.subcon) for named in cls.FRAME.subcons)
            for name, part in cls._PARTS:
                part.structure, part.field = cls.__name__, name
            cls.KINDS = {name: part.reader for name, part in cls._PARTS if part.reader is not None}
            cls.HEAD = cls._PARTS[0][1].kind
            cls.SIZE = cls.HEAD.SIZE

    @classmethod
    def of_body(cls, body: bytes) -> Self:
        """Read a whole body.  Raises TruncatedError, DecodeError."""
        found = cls.FRAME.parse(body)
        return cls(**{field.name: found[field.name] for field in fields(cls)})

    @classmethod
    def plain_of_body(cls, body: bytes) -> dict[str, Any]:
        """``of_body(body).plain()`` without the objects."""
        head, at = cls._PARTS[0][1]._cut(body, 0, {}, True)
        out = {"head": head}
        for name, part in cls._PARTS[1:]:
            value, at = part._cut(body, at, head, True)
            if not isinstance(value, bytes):
                out[name] = value
            elif value:
                out[name] = value.hex()
        return out

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The section that :meth:`plain` described.

        Raises ValueError (pydantic.ValidationError for a wrong field), also where a count does not count its list.
        """
        given = super().of_plain(plain)
        if cls.of_body(given.encode()) != given:
            raise ValueError(f"{cls.__name__}: the counts and lengths of its head are not those of its parts")
        return given


__all__ = ["Framed", "FramedSection", "Head", "Kinds", "Many", "Part", "Reader", "Upto"]
