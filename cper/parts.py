"""What a frame is cut into: a head, lists, structures and bytes, as construct's own words.

Each part says once how it is cut out of a body: for construct, which makes objects, and for JSON, which needs none.
Every count and every length is held against the bytes that are left before anything is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import construct as c

from cper.wire import DecodeError, Struct, TruncatedError, WireError

if TYPE_CHECKING:
    from cper.framed import Frame


class Reader(Protocol):
    """What makes a part of a frame from JSON: a structure, a frame, or what chooses between several."""

    def of_plain(self, value: Mapping[str, Any], /) -> Any:
        """The part that JSON described."""


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
        self.choices = kind if isinstance(kind, Kinds) else None
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
        choices = self.choices
        try:
            for place in range(at, end, step):
                if choices is not None:
                    kind = choices.known.get(choices.key(body, place), choices.other)
                found.append(kind.plain_of(body, place) if plain else kind.decode(body, place))
        except WireError as error:
            index = len(found)
            raise error.within(self.structure, f"{self.field}[{index}]") from None
        return found if plain else tuple(found), end


class One(Part):
    """A structure that is always there; ``Kinds`` choose which."""

    def __init__(self, kind: type[Struct] | Kinds) -> None:
        super().__init__()
        self.kind = kind.other if isinstance(kind, Kinds) else kind
        self.choose = kind.of_body if isinstance(kind, Kinds) else None
        self.reader: Reader = kind

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any], plain: bool) -> tuple[Any, int]:
        kind = self.kind if self.choose is None else self.choose(body, at)
        try:
            return kind.plain_of(body, at) if plain else kind.decode(body, at), at + kind.SIZE
        except WireError as error:
            raise error.within(self.structure, self.field) from None


class Frames(Part):
    """A list of frames, each as long as its own head says: as many as ``counter`` of the head says.

    ``within`` is the field of the head that says where the frame ends.
    """

    def __init__(self, kind: type[Frame[Any]], counter: str, within: str = "") -> None:
        super().__init__()
        self.kind, self.counter, self.within, self.reader = kind, counter, within, kind
        length = kind.HEAD.at(kind.PARTS[0][1].length)
        self.start, self.stop = length.offset, length.offset + length.size

    def count(self, head: Mapping[str, Any]) -> int:
        """How many."""
        number: int = head[self.counter]
        return number

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any], plain: bool) -> tuple[Any, int]:
        end, found = head[self.within] if self.within else len(body), []
        for index in range(self.count(head)):  # the first that is not there ends it
            size = int.from_bytes(body[at + self.start : at + self.stop], "little")
            stop = min(at + max(size, self.kind.HEAD.SIZE), end)
            try:
                found.append(self.kind.cut(body[at:stop], plain))
            except WireError as error:
                raise error.within(self.structure, f"{self.field}[{index}]", at) from None
            at = stop
        return found if plain else tuple(found), at


class Gap(Part):
    """The bytes up to an offset that ``field`` of the head tells, where ``when`` of the head is not 0; else none."""

    def __init__(self, head: type[Struct], offset: str, when: str) -> None:
        super().__init__()
        self.offset, self.when, self.place = offset, when, head.at(offset).offset

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any], plain: bool) -> tuple[bytes, int]:
        if not head[self.when]:
            return b"", at
        to, path = head[self.offset], f"head.{self.offset}"
        if to < at:
            reason = f"{to} lies in what precedes it, which ends at {at}"
            raise DecodeError(reason, structure=self.structure, path=path, offset=self.place)
        if to > len(body):
            raise self.truncated(f"{to} bytes needed, {len(body)} given", path, self.place)
        return body[at:to], to


class Upto(Part):
    """The bytes up to where the frame ends: what ``within`` of the head says, or the body's end."""

    def __init__(self, within: str = "") -> None:
        super().__init__()
        self.within = within

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any], plain: bool) -> tuple[bytes, int]:
        end = head[self.within] if self.within else len(body)
        return body[at:end], end if end > at else at


class Beginning(Part):
    """A structure at the beginning of an area, where that is long enough; ``whole``: where it is just as long.

    The area is as long as ``length`` of the head says, or reaches up to where the frame ends, which ``within`` of the
    head says, or the body's end.  ``valid``: a bool of the head, without which it is bytes.  What it leaves of the
    area must follow: a :class:`Remainder`, or :class:`Upto` that end.
    """

    def __init__(
        self, kind: type[Struct], head: type[Struct], length: str = "", within: str = "", valid: str = "",
        whole: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kind, self.length, self.within, self.valid, self.whole = kind, length, within, valid, whole
        self.reader: Reader = kind
        self.place = head.at(length).offset if length else 0

    def there(self, size: int, head: Mapping[str, Any]) -> bool:
        """Whether an area of ``size`` bytes begins with the structure."""
        fits = size == self.kind.SIZE if self.whole else size >= self.kind.SIZE
        return fits and (not self.valid or bool(head[self.valid]))

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any], plain: bool) -> tuple[Any, int]:
        size = head[self.length] if self.length else (head[self.within] if self.within else len(body)) - at
        if size > len(body) - at:
            raise self.truncated(f"{size} bytes needed, {len(body) - at} given", f"head.{self.length}", self.place)
        if not self.there(size, head):
            return [] if plain else (), at
        try:
            one = self.kind.plain_of(body, at) if plain else self.kind.decode(body, at)
        except WireError as error:
            raise error.within(self.structure, f"{self.field}[0]") from None
        return [one] if plain else (one,), at + self.kind.SIZE


class Remainder(Part):
    """The bytes that the structure leaves of its area."""

    def __init__(self, beginning: Beginning) -> None:
        super().__init__()
        self.beginning = beginning

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any], plain: bool) -> tuple[bytes, int]:
        first = self.beginning
        if first.length:
            size = head[first.length]
            end = at + size - (first.kind.SIZE if first.there(size, head) else 0)
        else:
            end = head[first.within]
        return body[at:end], end


__all__ = ["Beginning", "Frames", "Gap", "Head", "Kinds", "Many", "One", "Part", "Reader", "Remainder", "Upto"]
