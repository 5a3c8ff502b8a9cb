"""Many records of one section type as columns: one array per field (needs numpy, the extra ``columns``).

The arrays come from the declarations: a structured type for the words of header, descriptor and section, and per field
its slice and its validation bit.  A field that is not valid in a record is 0 there and False in ``Column.valid``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from cper.record_header import RecordHeader, SectionDescriptor
from cper.section import Section
from cper.wire import Struct

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK = 4096
"""Records that are taken at once: so many stay in a processor's cache."""


class Column(NamedTuple):
    """A field of many records."""

    values: NDArray[Any]
    """Numbers as they are (binary coded decimals as their bytes); GUIDs, text and arrays as bytes of fixed length."""
    valid: NDArray[np.bool_] | None
    """Where its validation bit is set; None where it has none."""


def word_type(kind: type[Struct]) -> np.dtype[Any]:
    """The words of a structure as a numpy structured type."""
    import numpy as np

    names, formats, offsets = [], [], []
    for name, cell, offset in kind.words.words:
        names.append(name)
        formats.append(f"<{_CODES[cell.fmt]}" if cell.fmt in _CODES else f"V{cell.size}")
        offsets.append(offset)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": kind.SIZE})


_CODES = {"B": "u1", "H": "u2", "I": "u4", "Q": "u8", "b": "i1", "h": "i2", "i": "i4", "q": "i8"}


def columns(
    data: bytes | bytearray | memoryview, kind: type[Section], names: Collection[str] = ()
) -> dict[str, Column]:
    """The fields of every section of this type in records that lie one behind the other, each with just one section.

    Keys are field names; those of inner structures with their path.  ``names``: only these.  Records of other types,
    and of other lengths than the section's, are passed over.  Raises ValueError where the bytes are no records one
    behind the other, for a field that there is not, or where numpy is not installed.
    """
    try:
        import numpy  # noqa: F401
    except ImportError:
        raise ValueError("columns need numpy: pip install 'vmm-ras[columns]'") from None
    fields = list(_fields(kind, 0, ""))
    unknown = set(names) - {field.path for field in fields}
    if unknown:
        raise ValueError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    wanted = [field for field in fields if not names or field.path in names]
    out = _empty(len(data) // (_BODY + kind.SIZE), wanted)
    bodies, at = _Bodies(kind.SIZE), 0
    for rows in _rows(data, kind):
        bodies.take(rows)
        for field in wanted:
            bodies.fill(out[field.path], field, at)
        at += len(rows)
    return {path: _first(column, at) for path, column in out.items()}


class _Field(NamedTuple):
    path: str
    offset: int
    size: int
    code: str
    lo: int
    mask: int
    flags: tuple[tuple[int, str, int], ...]
    """(offset, type, bit) of every validation bit that must be set."""


def _fields(
    kind: type[Struct], base: int, prefix: str, outer: tuple[tuple[int, str, int], ...] = ()
) -> Iterator[_Field]:
    words = kind.words.words
    for slot in kind.words.slots:
        _, cell, offset = words[slot.word]
        flags = outer
        if slot.flag:
            assert kind.words.flags is not None
            _, flag_cell, flag_at = words[kind.words.flags]
            flags = (*outer, (base + flag_at, f"<{_CODES[flag_cell.fmt]}", slot.flag))
        if isinstance(slot.kind, type) and issubclass(slot.kind, Struct):
            yield from _fields(slot.kind, base + offset, f"{prefix}{slot.name}.", flags)
            continue
        path, at, size, lo, mask = f"{prefix}{slot.name}", base + offset, cell.size, slot.lo, slot.mask
        if mask:  # of a word only the bytes that hold the slice: the column is as narrow as its numbers
            size = next(s for s in (1, 2, 4, 8) if mask << lo % (8 * s) < 1 << 8 * s)
            at, lo = at + lo // 8 // size * size, lo % (8 * size)
            mask = 0 if mask + 1 == 1 << 8 * size else mask
        code = f"<u{size}" if slot.mask else f"<{_CODES[cell.fmt]}" if cell.fmt in _CODES else f"V{size}"
        yield _Field(path, at, size, code, lo, mask, flags)


def _empty(count: int, fields: list[_Field]) -> dict[str, Column]:
    """Columns, all in one piece of memory: the kernel gives large ones at less cost."""
    import numpy as np

    sizes = [(count * field.size + 63 & ~63, count + 63 & ~63 if field.flags else 0) for field in fields]
    room, at, out = np.empty(sum(map(sum, sizes)), np.uint8), 0, {}
    for field, (size, validity) in zip(fields, sizes, strict=True):
        values = room[at : at + count * field.size].view(field.code)
        at += size
        out[field.path] = Column(values, room[at : at + count].view(np.bool_) if field.flags else None)
        at += validity
    return out


def _first(column: Column, count: int) -> Column:
    if count == len(column.values):
        return column
    return Column(column.values[:count].copy(), None if column.valid is None else column.valid[:count].copy())


class _Bodies:
    """Sections one behind the other, block by block."""

    def __init__(self, size: int) -> None:
        import numpy as np

        self.room = np.empty(BLOCK, f"V{size}")
        self.count = 0
        self.views: dict[tuple[int, str], NDArray[Any]] = {}
        """Words of every section there is room for, by offset and type."""
        self.words: dict[tuple[int, str], tuple[NDArray[Any], int | None]] = {}
        """Validation words of this block, and the number that all of them are: looked at once for all their fields."""

    def take(self, rows: NDArray[np.uint8]) -> None:
        """The sections of these records."""
        self.count = len(rows)
        self.room[: self.count] = _view(rows, _BODY, self.room.dtype.str)
        self.words.clear()

    def fill(self, column: Column, field: _Field, at: int) -> None:
        """Put the field of these sections into its column, from row ``at`` on."""
        import numpy as np

        values, there = column.values[at : at + self.count], self._there(field)
        if there is not False:
            values[...] = self._word(field.offset, field.code)
            if field.lo:
                np.right_shift(values, field.lo, out=values)
            if field.mask:
                np.bitwise_and(values, field.mask, out=values)
        if there is not True:
            if values.dtype.kind == "V":
                values[np.logical_not(there)] = b""
            else:
                np.multiply(values, there, out=values)
        if column.valid is not None:
            column.valid[at : at + self.count] = there

    def _word(self, offset: int, code: str) -> NDArray[Any]:
        if (offset, code) not in self.views:
            self.views[offset, code] = _view(self.room, offset, code)
        return self.views[offset, code][: self.count]

    def _there(self, field: _Field) -> NDArray[np.bool_] | bool:
        """Where all its validation bits are set; one bool where that is so everywhere, or nowhere."""
        import numpy as np

        there: NDArray[np.bool_] | bool = True
        for offset, code, bit in field.flags:
            if (offset, code) not in self.words:
                word = self._word(offset, code).copy()
                self.words[offset, code] = word, int(word[0]) if (word == word[0]).all() else None
            word, same = self.words[offset, code]
            if same is None:
                is_set = np.bitwise_and(word, np.array(bit, code)) != 0
                there = is_set if there is True else np.logical_and(there, is_set)
            elif not same & bit:
                return False
        return there


def _view(rows: NDArray[Any], offset: int, code: str) -> NDArray[Any]:
    """The bytes at ``offset`` of every row, as ``code``; nothing is copied."""
    import numpy as np

    kind = np.dtype(code)
    return np.ndarray(len(rows), kind, rows, offset, (rows.strides[0],))


_LENGTH = RecordHeader.at("record_length").offset
_COUNT = RecordHeader.at("section_count").offset
_TYPE = RecordHeader.SIZE + SectionDescriptor.at("section_type").offset
_PLACE = RecordHeader.SIZE + SectionDescriptor.at("section_offset").offset
_BODY = RecordHeader.SIZE + SectionDescriptor.SIZE


def _rows(data: bytes | bytearray | memoryview, kind: type[Section]) -> Iterator[NDArray[np.uint8]]:
    """The records as rows of bytes, block by block."""
    import numpy as np

    raw = np.frombuffer(data, np.uint8)
    stride = _BODY + kind.SIZE
    head = _head(kind)
    at = 0
    while at < len(raw):
        count = min((len(raw) - at) // stride, BLOCK)
        whole = raw[at : at + count * stride].reshape(count, stride)
        good = _alike(whole, head) if count else 0
        if good:
            yield whole[:good]
            at += good * stride
        if good < count or not count:
            at = _other(raw, at)


def _head(kind: type[Section]) -> list[tuple[int, int, list[tuple[int, str, int]]]]:
    """(first byte, bytes, (offset, type, number) in them) of what a record has that holds just one such section."""
    guid = kind.GUID.bytes_le
    header = [
        (0, "<u4", int.from_bytes(b"CPER", "little")), (6, "<u4", 0xFFFF_FFFF), (_COUNT, "<u2", 1),
        (_LENGTH, "<u4", _BODY + kind.SIZE),
    ]  # fmt: skip
    descriptor = [
        (0, "<u8", kind.SIZE << 32 | _BODY), (_TYPE - _PLACE, "<u8", int.from_bytes(guid[:8], "little")),
        (_TYPE - _PLACE + 8, "<u8", int.from_bytes(guid[8:], "little")),
    ]  # fmt: skip
    return [(0, _LENGTH + 4, header), (_PLACE, _TYPE + 16 - _PLACE, descriptor)]


def _alike(rows: NDArray[np.uint8], head: list[tuple[int, int, list[tuple[int, str, int]]]]) -> int:
    """How many rows from the first on begin so."""
    import numpy as np

    right = np.ones(len(rows), np.bool_)
    for start, size, numbers in head:
        near = _view(rows, start, f"V{size}").copy()  # the rows themselves lie too far apart to be read three times
        for offset, code, wanted in numbers:
            right &= _view(near, offset, code) == np.array(wanted, code)
    return len(rows) if right.all() else int(right.argmin())


def _other(raw: NDArray[np.uint8], at: int) -> int:
    """Where the record that begins here, of whatever type, ends.  Raises ValueError."""
    head = raw[at : at + RecordHeader.SIZE].tobytes()
    length = int.from_bytes(head[_LENGTH : _LENGTH + 4], "little")
    if head[:4] != b"CPER" or length < RecordHeader.SIZE or at + length > len(raw):
        raise ValueError(f"no whole record begins at {at:#x}")
    return at + length


__all__ = ["BLOCK", "Column", "columns", "word_type"]
