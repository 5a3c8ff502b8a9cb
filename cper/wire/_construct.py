"""Bridges to construct: a structure as one of its subconstructs, and as a twin of raw words.

``Wire(Header)`` lets a construct declaration frame our structures.  ``twin(Header)`` is the same layout in construct's
own words, for people who embed it in declarations of their own.  A twin repeats our mistakes: it is no test oracle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import construct as c

from cper.wire._errors import WireError

if TYPE_CHECKING:
    from cper.wire._struct import Struct

_INTEGERS = {"B": c.Int8ul, "H": c.Int16ul, "h": c.Int16sl, "I": c.Int32ul, "Q": c.Int64ul}


class Wire(c.Construct):  # type: ignore[misc]
    """One of our structures inside a construct declaration; errors are WireErrors with the offset in the stream."""

    def __init__(self, kind: type[Struct]) -> None:
        super().__init__()
        self.kind = kind

    def _parse(self, stream: Any, context: Any, path: str) -> Struct:
        at = stream.tell()
        data = stream.read(self.kind.SIZE)
        if len(data) < self.kind.SIZE:
            raise self.kind._truncated(at + len(data), at)
        try:
            return self.kind.decode(data)
        except WireError as error:
            raise type(error)(
                error.reason, structure=error.structure, path=error.path, offset=at + (error.offset or 0)
            ) from None

    def _build(self, obj: Struct, stream: Any, context: Any, path: str) -> Struct:
        stream.write(obj.encode())
        return obj

    def _sizeof(self, context: Any, path: str) -> int:
        return self.kind.SIZE


def twin(kind: type[Struct]) -> c.Construct:
    """Raw words only (no enums, no validity), named as on the wire."""
    return c.Struct(
        *[
            name / (_INTEGERS[cell.fmt] if cell.fmt in _INTEGERS else c.Bytes(cell.size))
            for name, cell, _ in kind.words.words
        ]
    )
