"""Records of one shape: whatever tells where their fields lie, and which there are, has the same bits in all of them.

Of a shape that is met often a function is written that makes JSON text of its records.  No condition is left in it:
all words are unpacked at once, and their values go into a tree that is kept, so that no dictionary is made.  Bits that
are no field's belong to the shape, too: reserved ones, and those under clear validation bits.  A record that differs
in one of them has another shape, and what no function was written for is read as ever.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import orjson

from cper.framed import FramedSection
from cper.section import Section
from cper.wire import Cell, Struct
from cper.wire._codegen import indented, run, slice_of
from cper.wire._layout import Slot
from cper.wire._plain_of import Values, is_nested

if TYPE_CHECKING:
    from cper.section import AnySection

    Text: TypeAlias = Callable[["bytes | bytearray | memoryview"], bytes | None]
    Plain: TypeAlias = dict[str, Any]

OFTEN = 32
"""Of so many inputs of one length that no function took, the last one's shape gets one."""
SHAPES = 256
"""That get a function: hostile input costs no more time, and no more memory."""
MASKS = 8
"""Of one length, that differ in which bits are fields."""
LENGTHS = 1024
"""Of inputs that are counted."""
SIZE = 4096
"""Bytes of the longest input whose shape is looked at."""


class Piece(NamedTuple):
    """A structure of the input, and where its fields are in what JSON holds."""

    offset: int
    kind: type[Struct]
    node: Plain
    fixed: frozenset[str] = frozenset()
    """Fields that tell where others lie, and which there are."""


class Shape:
    """The shape of an input: ``number & mask == value`` for all that share it, little-endian."""

    def __init__(self, data: bytes, tree: Plain, pieces: Iterable[Piece]) -> None:
        self.tree, self.mask = tree, (1 << 8 * len(data)) - 1
        self._data = data
        self._words: dict[int, Cell] = {}
        self._fields: list[tuple[Plain, int, Slot]] = []
        for piece in pieces:
            self._add(piece)
        self.value = int.from_bytes(data, "little") & self.mask

    def _add(self, piece: Piece) -> None:
        layout = piece.kind.words
        flags = 0
        if layout.flags is not None:
            _, cell, at = layout.words[layout.flags]
            flags = int.from_bytes(self._data[piece.offset + at : piece.offset + at + cell.size], "little")
        for s in layout.slots:
            if s.word == layout.flags or s.const is not None or s.name in piece.fixed or s.flag & ~flags:
                continue
            _, cell, at = layout.words[s.word]
            at += piece.offset
            if is_nested(s):
                self._add(Piece(at, s.kind, piece.node[s.name]))  # type: ignore[arg-type]
                continue
            self._words[at] = cell
            self._fields.append((piece.node, at, s))
            self.mask &= ~((s.mask << s.lo or (1 << 8 * cell.size) - 1) << 8 * at)

    def source(self) -> str:
        """The generated Python source of :meth:`function`."""
        return self._write()[0]

    def function(self) -> Text:
        """What makes JSON text of an input of the shape; None where it is too odd, or where other threads are in it."""
        source, names = self._write()
        run(f"<JSON text of {len(self._data)} bytes, shape {hash(self.value):x}>", source, names)
        text: Text = names["text"]
        return text

    def _write(self) -> tuple[str, dict[str, Any]]:
        places = sorted(self._words)
        writer = Values([self._words[at] for at in places])
        nodes = {id(node): node for node, _, _ in self._fields}
        number = {key: n for n, key in enumerate(nodes)}
        targets = {at: f"w{places.index(at)}" for at in places}
        sharing = Counter(at for _, at, _ in self._fields)
        lines = []
        for i, (node, at, slot) in enumerate(self._fields):
            s = replace(slot, word=places.index(at))
            before, value = writer.value(i, s, slice_of(s))
            target = f"n{number[id(node)]}[{s.name!r}]"
            if value == targets[at] and sharing[at] == 1:
                targets[at] = target
            else:
                lines += [*before, f"{target} = {value}"]
        odd = any(line.endswith("odd = 1") for line in lines)
        names = writer.names | {
            "unpack_from": self._unpacker().unpack_from, "dumps": orjson.dumps,
            "shelf": [(self.tree, *nodes.values())],
        }  # fmt: skip
        held = ", ".join(["tree", *(f"n{n}" for n in range(len(nodes)))])
        body = [
            f"{held} = held",
            f"{', '.join(targets.values())}, = unpack_from(data)",
            *(["odd = 0"] if odd else []),
            *lines,
            "return None if odd else dumps(tree)" if odd else "return dumps(tree)",
        ]
        return "\n".join([
            "def text(data):",
            "    try:",
            "        held = shelf.pop()",
            "    except IndexError:",
            "        return None",
            "    try:",
            *indented(indented(body)),
            "    finally:",
            "        shelf.append(held)",
        ]), names  # fmt: skip

    def _unpacker(self) -> struct.Struct:
        """What unpacks the words that hold fields."""
        form, end = "<", 0
        for at in sorted(self._words):
            form += f"{at - end}x{self._words[at].fmt}"
            end = at + self._words[at].size
        return struct.Struct(form)


class Shapes:
    """The functions for the shapes that were met often; ``of`` tells the shape of an input, None where it has none."""

    def __init__(self, of: Callable[[bytes], Shape | None]) -> None:
        self._of = of
        self._known: dict[int, list[tuple[int, dict[int, Text]]]] = {}
        self._missed: dict[int, int] = {}
        self.count = 0
        """How many have a function."""

    def text(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """The JSON text of an input; None where its shape has no function (yet).  Raises nothing."""
        known = self._known.get(len(data))
        if known is not None:
            number = int.from_bytes(data, "little")
            for mask, functions in known:
                function = functions.get(number & mask)
                if function is not None:
                    return function(data)
        self._miss(data)
        return None

    def _miss(self, data: bytes | bytearray | memoryview) -> None:
        size = len(data)
        if len(self._missed) == LENGTHS:
            self._missed.clear()
        times = self._missed[size] = self._missed.get(size, 0) + 1
        if times % OFTEN or size > SIZE or self.count == SHAPES:
            return
        shape = self._of(bytes(data))
        if shape is None:
            return
        masks = self._known.setdefault(size, [])
        functions = next((functions for mask, functions in masks if mask == shape.mask), None)
        if functions is None:
            if len(masks) == MASKS:
                return
            functions = {}
            masks.append((shape.mask, functions))
        if shape.value not in functions:
            self.count += 1
            functions[shape.value] = shape.function()


def pieces_of(section: AnySection | bytes, at: int, node: Plain) -> Iterator[Piece] | None:
    """The pieces of a section body that begins at ``at``; None where it does not say what its shape is."""
    if isinstance(section, Section):
        return iter([Piece(at, type(section), node)])
    if not isinstance(section, FramedSection) or section.SHAPED_BY is None:
        return None
    return _framed(section.parts(), section.SHAPED_BY, at, node)


def _framed(
    parts: Iterable[tuple[str, int, Struct | bytes]], fixed: Mapping[str, frozenset[str]], at: int, node: Plain
) -> Iterator[Piece]:
    for path, offset, part in parts:
        if isinstance(part, Struct):
            inner: Any = node
            for name, index in re.findall(r"(\w+)(?:\[(\d+)\])?", path):
                inner = inner[name][int(index)] if index else inner[name]
            yield Piece(at + offset, type(part), inner, fixed.get(re.sub(r"\[\d+\]", "", path), frozenset()))


__all__ = ["Piece", "Shape", "Shapes", "pieces_of"]
