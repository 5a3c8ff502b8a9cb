"""What a frame is cut into: a head, structures and lists of them, as construct's own words.  ``areas`` has the rest.

Each part says how it is cut out of a body, and writes lines of a function that makes what JSON holds of it, without
objects (``cper.framed``); what is out of the common is left to cutting, which has the words for it.  Every count and
every length is held against the bytes that are left before anything is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import construct as c

from cper.wire import DecodeError, Struct, TruncatedError, WireError
from cper.words import counted

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

    def _pack_plain(self, value: Mapping[str, Any], /) -> bytes | None:
        return self.known.get(self.plain_key(value), self.other)._pack_plain(value)


class Part(c.Construct):  # type: ignore[misc]
    """A part of a frame."""

    reader: Reader | None = None
    """What makes it from JSON; None for bytes."""
    structure = "Frame"
    """The section that it belongs to, for errors."""
    field = "part"
    """Its name there."""

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any]) -> tuple[Any, int]:
        """The part that begins at ``at`` of a body, and where it ends.

        ``head`` holds the fields of the frame's head.  Raises TruncatedError, DecodeError.
        """
        raise NotImplementedError

    def _plain(self, body: bytes, at: int, head: Mapping[str, Any]) -> tuple[Any, int]:
        """What JSON holds of the part, None for no bytes, and where it ends."""
        value, end = self._cut(body, at, head)
        if isinstance(value, bytes):
            return value.hex() or None, end
        return [one.plain() for one in value] if isinstance(value, tuple) else value.plain(), end

    def _lines(self, names: dict[str, Any]) -> list[str]:
        """Lines that put it into ``out`` and move ``at`` behind it; ``names`` are those that they use.

        They know ``body``, its ``size`` and what JSON holds of the ``head``, and return None where something is wrong.
        """
        names[f"plain_{self.field}"] = self._plain
        return [
            f"value, at = plain_{self.field}(body, at, head)",
            f"if value is not None: out[{self.field!r}] = value",
        ]

    def end(self, within: str) -> str:
        """An expression for where the frame ends."""
        return f"head[{within!r}]" if within else "size"

    def truncated(self, reason: str, path: str, offset: int) -> TruncatedError:
        """What is raised where bytes are missing."""
        return TruncatedError(reason, structure=self.structure, path=path, offset=offset)

    def _parse(self, stream: Any, context: Any, path: str) -> Any:
        begin = context.setdefault("_begin", stream.tell())  # of the frame: its first part sets it
        at = stream.tell() - begin
        stream.seek(begin)
        head = context.get("head")
        value, end = self._cut(stream.read(), at, {} if head is None else vars(head))
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

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any]) -> tuple[Any, int]:
        kind = self.kind_of(body)
        try:
            value = kind.decode(body)
        except WireError as error:
            raise error.within(self.structure, "head") from None
        if self.length:
            length = getattr(value, self.length)
            if length < kind.SIZE:
                reason = f"{counted(length, 'byte')}, but the head alone has {kind.SIZE}"
                raise DecodeError(reason, structure=self.structure, path=f"head.{self.length}", offset=self.place)
            if length > len(body):
                raise self.truncated(
                    f"{counted(length, 'byte')} needed, {len(body)} given", f"head.{self.length}", self.place
                )
        return value, kind.SIZE

    def _lines(self, names: dict[str, Any]) -> list[str]:
        if type(self).kind_of is Head.kind_of:
            names["head_plain"] = self.kind.plain_of
            out = ["head = out['head'] = head_plain(body)", f"at = {self.kind.SIZE}"]
        else:
            names["head_kind"] = self.kind_of
            out = ["kind = head_kind(body)", "head = out['head'] = kind.plain_of(body)", "at = kind.SIZE"]
        if self.length:
            out.append(f"if not at <= head[{self.length!r}] <= size: return None")
        return out


class Many(Part):
    """A list of structures of one size, as many as ``counter`` of the head says; none where that is not valid.

    ``within`` is the field of the head that says where the frame ends.  ``valid``: a bool of the head, without which
    there are none.
    """

    def __init__(
        self, kind: type[Struct] | Kinds, head: type[Struct], counter: str, within: str = "", valid: str = ""
    ) -> None:
        super().__init__()
        self.kind = kind.other if isinstance(kind, Kinds) else kind
        self.choices = kind if isinstance(kind, Kinds) else None
        self.reader: Reader = kind
        self.counter, self.place, self.within, self.valid = counter, head.at(counter).offset, within, valid
        self.always = not valid and head.at(counter).valid is None and type(self).count is Many.count

    def count(self, head: Mapping[str, Any]) -> int:
        """How many."""
        number: int = head.get(self.counter) or 0
        return number if not self.valid or head[self.valid] else 0

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any]) -> tuple[Any, int]:
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
                found.append(kind.decode(body, place))
        except WireError as error:
            index = len(found)
            raise error.within(self.structure, f"{self.field}[{index}]") from None
        return tuple(found), end

    def _lines(self, names: dict[str, Any]) -> list[str]:
        field, plain = self.field, f"plain_{self.field}"
        names[plain], names[f"count_{field}"] = self.kind.plain_of, self.count
        if self.choices is not None:
            names[f"known_{field}"] = {key: kind.plain_of for key, kind in self.choices.known.items()}.get
            names[f"key_{field}"] = self.choices.key
            plain = f"known_{field}(key_{field}(body, place), {plain})"
        count = f"head[{self.counter!r}]" if self.always else f"count_{field}(head)"
        return [
            f"found, end = [], at + {count} * {self.kind.SIZE}",
            f"if end > {self.end(self.within)}: return None",
            f"for place in range(at, end, {self.kind.SIZE}): found.append({plain}(body, place))",
            f"out[{field!r}], at = found, end",
        ]


class One(Part):
    """A structure that is always there; ``Kinds`` choose which."""

    def __init__(self, kind: type[Struct] | Kinds) -> None:
        super().__init__()
        self.kind = kind.other if isinstance(kind, Kinds) else kind
        self.choose = kind.of_body if isinstance(kind, Kinds) else None
        self.reader: Reader = kind

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any]) -> tuple[Any, int]:
        kind = self.kind if self.choose is None else self.choose(body, at)
        try:
            return kind.decode(body, at), at + kind.SIZE
        except WireError as error:
            raise error.within(self.structure, self.field) from None

    def _lines(self, names: dict[str, Any]) -> list[str]:
        field, plain = self.field, f"plain_{self.field}"
        names[plain], names[f"choose_{field}"] = self.kind.plain_of, self.choose
        if self.choose is not None:
            plain = f"choose_{field}(body, at).plain_of"
        return [f"out[{field!r}] = {plain}(body, at)", f"at += {self.kind.SIZE}"]


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

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any]) -> tuple[Any, int]:
        end, found = head[self.within] if self.within else len(body), []
        for index in range(self.count(head)):  # the first that is not there ends it
            size = int.from_bytes(body[at + self.start : at + self.stop], "little")
            stop = min(at + max(size, self.kind.HEAD.SIZE), end)
            try:
                found.append(self.kind.of_body(body[at:stop]))
            except WireError as error:
                raise error.within(self.structure, f"{self.field}[{index}]", at) from None
            at = stop
        return tuple(found), at

    def _lines(self, names: dict[str, Any]) -> list[str]:
        field, least = self.field, self.kind.HEAD.SIZE
        names[f"plain_{field}"], names[f"count_{field}"] = self.kind.plain_of_body, self.count
        return [
            f"found, end = [], {self.end(self.within)}",
            f"for _ in range(count_{field}(head)):",
            f"    stop = at + max(int.from_bytes(body[at + {self.start}:at + {self.stop}], 'little'), {least})",
            f"    found.append(plain_{field}(body[at:min(stop, end)]))",
            "    at = min(stop, end)",
            f"out[{field!r}] = found",
        ]


__all__ = ["Frames", "Head", "Kinds", "Many", "One", "Part", "Reader"]
