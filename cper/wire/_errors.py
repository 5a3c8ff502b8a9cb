"""Every wire error says *where*: structure, field path, byte offset.

WireError
 +-- LayoutError           the class is declared wrongly (raised when it is imported)
 +-- DecodeError           the bytes are wrong
 |    +-- TruncatedError   ... there are too few of them
 +-- EncodeError           the value does not fit its cell
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pydantic import ValidationError

    from cper.wire._struct import Struct


class WireError(ValueError):
    """Something about a structure's bytes or declaration is wrong.

    ``structure``, ``path``, ``offset`` (bytes from the start of the data, or None) and ``reason`` say what, and where.
    """

    def __init__(self, reason: str, *, structure: str, path: str = "", offset: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.structure, self.path, self.offset = reason, structure, path, offset

    def __str__(self) -> str:
        where = f"{self.structure}.{self.path}" if self.path else self.structure
        at = "" if self.offset is None else f" at {self.offset:#x}"
        return f"{where}{at}: {self.reason}"

    def within(self, structure: str, field: str, offset: int = 0) -> Self:
        """The same error, seen from an enclosing structure where the inner one starts ``offset`` bytes in."""
        joint = "" if self.path.startswith("[") else "."
        path = f"{field}{joint}{self.path}" if self.path else field
        return type(self)(self.reason, structure=structure, path=path, offset=offset + (self.offset or 0))


class LayoutError(WireError):
    """The declaration contradicts itself: sizes, validation bits or slices."""


class DecodeError(WireError):
    """The bytes cannot be this structure."""


class TruncatedError(DecodeError):
    """Fewer bytes are given than the structure, or a length inside it, needs."""


class EncodeError(WireError):
    """A value does not fit its cell."""


def explain(error: ValidationError, cls: type[Struct]) -> list[str]:
    """A pydantic error in the same words as ours: one line per field, with its byte offset where it has one."""
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        path = ".".join(
            str(step) for step in item["loc"] if str(step) not in {"int", "str", "function-after[fits(), int]"}
        )
        row = next((r for r in cls.layout if r.path == path), None)
        where = "" if row is None else f" at {row.offset:#x}"
        lines.append(f"{cls.__name__}{'.' if path else ''}{path}{where}: {item['msg'].removeprefix('Value error, ')}")
    return lines
