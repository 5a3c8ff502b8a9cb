"""Writes, per structure, the Python source of a function that makes of bytes what JSON holds, without an object.

What decoding asks of the classes of values is asked of tables here: for the word of an enum, the names of flags.
Structures of a few bytes inside others are remembered, because there are few different ones.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from cper.wire._cells import Cell, guid
from cper.wire._codegen import (
    constant,
    indented,
    nested,
    not_zero,
    read_run,
    residue,
    run,
    runs,
    slice_of,
    unknown_flags,
)
from cper.wire._errors import DecodeError, WireError
from cper.wire._layout import Layout, Slot
from cper.wire._names import OpenEnum, OpenFlags

if TYPE_CHECKING:
    from cper.wire._struct import Struct

    Plain: TypeAlias = dict[str, Any]

SMALL = 8
"""Bytes of a structure that is remembered."""
MANY = 12
"""Fields from which on a dictionary is quicker copied and filled than made."""
_BYTE = 1 << 8


def generate_plain(cls: type[Struct], layout: Layout) -> tuple[str, Callable[..., Plain]]:
    """Source of the function, and the function."""
    writer = _Writer(cls, layout)
    source = writer.source()
    run(f"<JSON of {cls.__module__}.{cls.__qualname__}>", source, writer.names)
    return source, writer.names["plain_of"]


def remembering(kind: type[Struct]) -> Callable[[bytes], Plain] | None:
    """``kind.plain_of`` for its bytes, of which the last are remembered: copy what it gives.  None for large ones."""
    if kind.SIZE > SMALL or any(is_nested(s) or _is_list(s) for s in kind.words.slots):
        return None
    return lru_cache(maxsize=_BYTE)(kind.plain_of)


def is_nested(s: Slot) -> bool:
    """Whether the field is a structure."""
    return hasattr(s.kind, "plain_of")


def _is_list(s: Slot) -> bool:
    return s.plain is list or (s.kind is not None and issubclass(s.kind, OpenFlags))


class Values:
    """Expressions for what JSON holds of the words ``w0``, ``w1``, ... of these cells, and the names in them."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = cells
        self.names: dict[str, Any] = {"guid_text": _guid_text}

    def value(self, i: int, s: Slot, word: str) -> tuple[list[str], str]:
        """Lines, and behind them an expression for what JSON holds of the field."""
        names, cell = self.names, self.cells[s.word]
        few = s.mask or (_BYTE - 1 if cell.fmt == "B" else 0)
        if s.const is not None:
            names[f"load{i}"], names[f"const{i}"] = s.load, s.const
            lines = constant(i, s, word)
            plainly = isinstance(s.const, int) and s.load is None
            return ([f"if {word} != {s.const!r}:", *indented(lines)], repr(s.const)) if plainly else (lines, f"f{i}")
        if s.kind is bool:
            return [], f"w{s.word} & {s.mask << s.lo:#x} != 0" if s.mask else f"{word} != 0"
        if s.kind is not None and issubclass(s.kind, OpenEnum):
            known = {int(m): m.plain for m in s.kind}
            if 0 < few < _BYTE:
                return [], self.table(i, [known.get(n, n) for n in range(few + 1)], word)
            names[f"known{i}"] = known.get
            return [], f"known{i}(x := {word}, x)"
        if s.kind is not None and issubclass(s.kind, OpenFlags):
            if 0 < few < _BYTE:
                return [], f"[*{self.table(i, [s.kind._names_of(n) for n in range(few + 1)], word)}]"
            names[f"names{i}"] = s.kind.names_of
            return [], f"[*names{i}({word})] if {word} else []"
        if s.kind is not None:  # a nested structure
            kind: Any = s.kind
            small = remembering(kind)
            names[f"nested{i}"] = small or kind.plain_of
            return nested(s, f"f{i} = nested{i}({word}){'.copy()' if small else ''}"), f"f{i}"
        if cell is guid:
            return [], f"guid_text({word})"
        if s.load is None:
            names[f"plain{i}"] = s.plain
            return [], f"plain{i}({word})" if s.plain else word
        names[f"load{i}"], names[f"dump{i}"], names[f"plain{i}"] = s.load, s.dump, s.plain
        if s.exact:
            return [], f"plain{i}(load{i}({word}))" if s.plain else f"load{i}({word})"
        lines = [f"f{i} = load{i}({word})", f"if dump{i}(f{i}) != {word}: odd = 1"]
        return lines, f"plain{i}(f{i})" if s.plain else f"f{i}"

    def table(self, i: int, values: list[Any], word: str) -> str:
        """An expression for one of the values."""
        self.names[f"table{i}"] = tuple(values)
        return f"table{i}[{word}]"


class _Writer(Values):
    """The function of one structure, while it is written."""

    def __init__(self, cls: type[Struct], layout: Layout) -> None:
        super().__init__([cell for _, cell, _ in layout.words])
        self.layout = layout
        self.names |= {
            "CLASS": cls, "NAME": cls.__name__, "struct_error": struct.error, "WireError": WireError,
            "DecodeError": DecodeError, "unpack_from": struct.Struct(layout.format).unpack_from,
        }  # fmt: skip

    def source(self) -> str:
        """Its source."""
        layout = self.layout
        flags = "" if layout.flags is None else f"w{layout.flags}"
        targets = [f"w{w}" for w in range(len(layout.words))]
        before: list[str] = []
        items: list[tuple[Slot, str]] = []  # what is always there, and nothing before it that is not
        rest: list[str] = []
        odd = [unknown_flags(layout)]
        numbers = {s.name: i for i, s in enumerate(layout.slots)}
        for words in [[layout.flags or 0], *runs(layout)] if flags else runs(layout):
            mine = [s for s in layout.slots if s.word == words[0]]
            if rest or any(s.flag for s in mine):
                rest += read_run(layout, words, flags, self.read)
                continue
            left = (1 << 8 * layout.words[words[0]][1].size) - 1
            for s in mine:
                lines, value = self.value(numbers[s.name], s, slice_of(s))
                before += lines
                items.append((s, value))
                left &= ~(s.mask << s.lo or left)
            if left and words[0] != layout.flags:
                odd.append(f"w{words[0]} & {left:#x}" if mine else not_zero(layout, words[0]))
        if rest or len(items) < MANY:
            before.append(f"out = {{{', '.join(f'{s.name!r}: {value}' for s, value in items)}}}")
        else:
            self.names["blank"] = dict.fromkeys(s.name for s, _ in items).copy
            for s, value in items:
                if value == f"w{s.word}":
                    targets[s.word] = f"out[{s.name!r}]"
                else:
                    before.append(f"out[{s.name!r}] = {value}")
        if any(line.endswith("odd = 1") for line in before + rest):
            before.insert(0, "odd = 0")
            odd.insert(0, "odd")
        lines = [
            "try:",
            f"    {', '.join(targets)}, = unpack_from(data, offset if offset >= 0 else len(data))",
            "except struct_error:",
            "    raise CLASS._truncated(len(data), offset) from None",
            *before,
            *rest,
        ]
        if "blank" in self.names:
            lines.insert(0, "out = blank()")
        if any(odd):
            exact = all(s.exact for s in layout.slots)
            found = residue(layout, flags) if exact else ["residue = CLASS.decode(data, offset).residue"]
            lines += [f"if {' or '.join(filter(None, odd))}:", *indented(found), "    out['residue'] = residue.hex()"]
        return "\n".join(["def plain_of(data, offset=0):", *indented(lines), "    return out"])

    def read(self, i: int, s: Slot, word: str) -> list[str]:
        """Lines that put the field into ``out``."""
        lines, value = self.value(i, s, word)
        return [*lines, f"out[{s.name!r}] = {value}"]


@lru_cache(maxsize=_BYTE)
def _guid_text(raw: bytes) -> str:
    load: Any = guid.load
    return str(load(raw))


__all__ = ["Values", "generate_plain", "is_nested", "remembering"]
