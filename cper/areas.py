"""What a frame is cut into beside structures and lists: bytes up to somewhere, and a structure where there is room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cper.parts import Part, Reader
from cper.wire import DecodeError, Struct, WireError
from cper.words import counted


class Gap(Part):
    """The bytes up to an offset that ``field`` of the head tells, where ``when`` of the head is not 0; else none."""

    def __init__(self, head: type[Struct], offset: str, when: str) -> None:
        super().__init__()
        self.offset, self.when, self.place = offset, when, head.at(offset).offset

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any]) -> tuple[bytes, int]:
        if not head[self.when]:
            return b"", at
        to, path = head[self.offset], f"head.{self.offset}"
        if to < at:
            reason = f"{to} lies in what precedes it, which ends at {at}"
            raise DecodeError(reason, structure=self.structure, path=path, offset=self.place)
        if to > len(body):
            raise self.truncated(f"{counted(to, 'byte')} needed, {len(body)} given", path, self.place)
        return body[at:to], to

    def _lines(self, names: dict[str, Any]) -> list[str]:
        return [
            f"if head[{self.when!r}]:",
            f"    end = head[{self.offset!r}]",
            "    if not at <= end <= size: return None",
            f"    if end > at: out[{self.field!r}] = body[at:end].hex()",
            "    at = end",
        ]


class Upto(Part):
    """The bytes up to where the frame ends: what ``within`` of the head says, or the body's end."""

    def __init__(self, within: str = "") -> None:
        super().__init__()
        self.within = within

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any]) -> tuple[bytes, int]:
        end = head[self.within] if self.within else len(body)
        return body[at:end], end if end > at else at

    def _lines(self, names: dict[str, Any]) -> list[str]:
        end = self.end(self.within)
        return [f"if at < {end}:", f"    out[{self.field!r}] = body[at:{end}].hex()", f"    at = {end}"]


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

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any]) -> tuple[Any, int]:
        size = head[self.length] if self.length else (head[self.within] if self.within else len(body)) - at
        if size > len(body) - at:
            raise self.truncated(
                f"{counted(size, 'byte')} needed, {len(body) - at} given", f"head.{self.length}", self.place
            )
        if not self.there(size, head):
            return (), at
        try:
            one = self.kind.decode(body, at)
        except WireError as error:
            raise error.within(self.structure, f"{self.field}[0]") from None
        return (one,), at + self.kind.SIZE

    def _lines(self, names: dict[str, Any]) -> list[str]:
        field = self.field
        names[f"plain_{field}"], names[f"there_{field}"] = self.kind.plain_of, self.there
        return [
            f"area = head[{self.length!r}]" if self.length else f"area = {self.end(self.within)} - at",
            "if area > size - at: return None",
            f"out[{field!r}] = found = []",
            f"if there_{field}(area, head):",
            f"    found.append(plain_{field}(body, at))",
            f"    at += {self.kind.SIZE}",
        ]


class Remainder(Part):
    """The bytes that the structure leaves of its area."""

    def __init__(self, beginning: Beginning) -> None:
        super().__init__()
        self.beginning = beginning

    def _cut(self, body: bytes, at: int, head: Mapping[str, Any]) -> tuple[bytes, int]:
        first = self.beginning
        if first.length:
            size = head[first.length]
            end = at + size - (first.kind.SIZE if first.there(size, head) else 0)
        else:
            end = head[first.within]
        return body[at:end], end


__all__ = ["Beginning", "Gap", "Remainder", "Upto"]
