"""Records of one shape: whatever tells where their fields lie, and which there are, has the same bits in all of them.

Of a shape that is met often a function is written that makes JSON text of its records.  No condition is left in it:
all words are unpacked at once, and their values go into a tree that is kept, so that no dictionary is made.  Bits that
are no field's belong to the shape, too: reserved ones, and those under clear validation bits.  A record that differs
in one of them has another shape, and what no function was written for is read as ever.
"""

from __future__ import annotations

import re
import struct
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
    _Unpack: TypeAlias = Callable[["bytes | bytearray | memoryview"], tuple[bytes, ...]]

OFTEN = 32
"""Of so many inputs of one length that no function took, the last one's shape gets one."""
SHAPES = 256
"""That get a function: hostile input costs no more time, and no more memory."""
TURNS = 8
"""Of one length, that are tried one after the other."""
NARROW = 8
"""Bits of a word whose fields are looked up together."""
LENGTHS = 1024
"""Of inputs that are counted."""
SIZE = 4096
"""Bytes of the longest input whose shape is looked at."""

_join = b"".join


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
        self.whole = _unpacker({m.start(): f"{len(m[0])}s" for m in re.finditer(b"\xff+", self._of_mask(0, len(data)))})
        """What unpacks the bytes that belong to the shape as a whole."""
        self.key = _join(self.whole.unpack_from(data))
        """These bytes."""

    def _add(self, piece: Piece) -> None:
        layout = piece.kind.words
        if "residue" in piece.node and not all(s.exact for s in layout.slots):
            return  # which may be of a field's own bits: then all of them belong to the shape
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

    def _of_mask(self, at: int, size: int) -> bytes:
        return (self.mask >> 8 * at & (1 << 8 * size) - 1).to_bytes(size, "little")

    def source(self) -> str:
        """The generated Python source of :meth:`function`."""
        return self._write()[0]

    def function(self) -> Text:
        """What makes JSON text of an input that has ``key``.

        None where it is of another shape all the same, where it is too odd, and where another thread is in the tree.
        """
        source, names = self._write()
        _fold(self.tree, {id(node) for node, _, _ in self._fields})
        run(f"<JSON text of {len(self._data)} bytes, shape {hash(self.value):x}>", source, names)
        text: Text = names["text"]
        return text

    def _write(self) -> tuple[str, dict[str, Any]]:
        places = sorted(self._words)
        writer = Values([self._words[at] for at in places])
        nodes = {id(node): node for node, _, _ in self._fields}
        number = {key: n for n, key in enumerate(nodes)}
        found: dict[int, list[_Field]] = {at: [] for at in places}
        for i, (node, at, slot) in enumerate(self._fields):
            s = replace(slot, word=places.index(at))
            lines, value = writer.value(i, s, slice_of(s))
            found[at].append(_Field(s.mask << s.lo, f"n{number[id(node)]}[{s.name!r}]", value, lines))
        targets: list[str] = []
        tables: list[str] = []
        body: list[str] = []
        for word, (at, fields) in enumerate(found.items()):
            part = self._part(at)
            if len(fields) == 1 and fields[0].value == f"w{word}" and not part:
                targets.append(fields[0].target)
                continue
            targets.append(f"w{word}")
            if part:
                body.append(f"if w{word} & {part:#x} != {self.value >> 8 * at & part:#x}: return None")
            for group in _groups(fields):
                if len(group) > 1:
                    table, lines = _together(f"both{len(tables)}", word, group)
                    tables.append(table)
                else:
                    lines = [*group[0].lines, f"{group[0].target} = {group[0].value}"]
                body += lines
        odd = any(line.endswith("odd = 1") for line in body)
        names = writer.names | {
            "unpack_from": _unpacker({at: cell.fmt for at, cell in self._words.items()}).unpack_from,
            "dumps": orjson.dumps, "shelf": [(self.tree, *nodes.values())],
        }  # fmt: skip
        body = [
            f"{', '.join(['tree', *(f'n{n}' for n in range(len(nodes)))])} = held",
            f"{', '.join(targets)}, = unpack_from(data)",
            *(["odd = 0"] if odd else []),
            *body,
            "return None if odd else dumps(tree)" if odd else "return dumps(tree)",
        ]
        lines = ["def text(data):", "    try:", "        held = shelf.pop()", "    except IndexError:"]
        lines += ["        return None", "    try:", *indented(indented(body))]
        return "\n".join([*tables, *lines, "    finally:", "        shelf.append(held)"]), names

    def _part(self, at: int) -> int:
        """The bits of the word there that belong to the shape, though others of their byte do not."""
        mask = self._of_mask(at, self._words[at].size)
        return int.from_bytes(bytes(byte if byte != 0xFF else 0 for byte in mask), "little")


class _Field(NamedTuple):
    """What puts a field's value into the tree."""

    bits: int
    """Of its word; 0: all."""
    target: str
    value: str
    """An expression."""
    lines: list[str]
    """That come before."""


def _groups(fields: Iterable[_Field]) -> list[list[_Field]]:
    """The fields of a word, those together that lie within ``NARROW`` bits."""
    groups: list[list[_Field]] = []
    for field in sorted(fields, key=lambda field: field.bits & -field.bits):
        first = groups[-1][0] if groups else field
        near = first.bits and field.bits.bit_length() < (first.bits & -first.bits).bit_length() + NARROW
        if groups and near and not first.lines and not field.lines:
            groups[-1].append(field)
        else:
            groups.append([field])
    return groups


def _together(name: str, word: int, group: list[_Field]) -> tuple[str, list[str]]:
    """A table of the values of several fields by the bits of the word that hold them, and the line that looks there."""
    lo = (group[0].bits & -group[0].bits).bit_length() - 1
    end = 1 << max(field.bits.bit_length() for field in group)
    values = ", ".join(field.value for field in group)
    table = f"{name} = [({values}) for w{word} in range(0, {end:#x}, {1 << lo:#x})]"
    return table, [f"{', '.join(f.target for f in group)} = {name}[w{word} >> {lo} & {(end >> lo) - 1:#x}]"]


def _unpacker(words: Mapping[int, str]) -> struct.Struct:
    """What unpacks the words, by their offsets, and passes over what lies between them."""
    form, end = "<", 0
    for at, word in sorted(words.items()):
        form += f"{at - end}x{word}"
        end = at + struct.calcsize(f"<{word}")
    return struct.Struct(form)


def _fold(value: Any, live: set[int]) -> bool:
    """Make text of every dictionary in which no value is put; whether one is put into this one, or below."""
    found = id(value) in live
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if isinstance(inner, dict | list):
            if _fold(inner, live):
                found = True
            elif isinstance(inner, dict):
                value[key] = orjson.Fragment(orjson.dumps(inner))
    return found


class Shapes:
    """The functions for the shapes that were met often; ``of`` tells the shape of an input, None where it has none."""

    def __init__(self, of: Callable[[bytes], Shape | None]) -> None:
        self._of = of
        self._known: dict[int, list[tuple[str, _Unpack, dict[bytes, list[Text]]]]] = {}
        self._written: set[tuple[int, int]] = set()
        self._missed: dict[int, int] = {}

    @property
    def count(self) -> int:
        """How many have a function."""
        return len(self._written)

    def text(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """The JSON text of an input; None where its shape has no function (yet).  Raises nothing."""
        for _, whole, functions in self._known.get(len(data), ()):
            for function in functions.get(_join(whole(data)), ()):
                text = function(data)
                if text is not None:
                    return text
        self._miss(data)
        return None

    def _miss(self, data: bytes | bytearray | memoryview) -> None:
        size = len(data)
        if len(self._missed) == LENGTHS:
            self._missed.clear()
        times = self._missed[size] = self._missed.get(size, 0) + 1
        if times % OFTEN or size > SIZE or self.count >= SHAPES:
            return
        shape = self._of(bytes(data))
        if shape is None or (shape.mask, shape.value) in self._written:
            return
        known = self._known.setdefault(size, [])
        form = shape.whole.format
        functions = next((functions for other, _, functions in known if other == form), None)
        if functions is None:
            if len(known) == TURNS:
                return
            functions = {}
            known.append((form, shape.whole.unpack_from, functions))
        found = functions.setdefault(shape.key, [])
        if len(found) < TURNS:
            self._written.add((shape.mask, shape.value))
            found.append(shape.function())


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
