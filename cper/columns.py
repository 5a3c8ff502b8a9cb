"""Many records of one section type as columns: one array per field (needs numpy, the extra ``columns``).

The arrays come from the declarations: a structured type for the words of header, descriptor and section, and per field
its slice and its validation bit.  A field that is not valid in a record is 0 there and False in ``Column.valid``.
"""

from __future__ import annotations

from collections.abc import Iterator
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


def columns(data: bytes | bytearray | memoryview, kind: type[Section]) -> dict[str, Column]:
    """The fields of every section of this type in records that lie one behind the other, each with just one section.

    Keys are field names; those of inner structures with their path.  Records of other types, and of other lengths than
    the section's, are passed over.  Raises ValueError where the bytes are no records one behind the other, or where
    numpy is not installed.
    """
    fields = list(_fields(kind, 0, ""))
    found = list(_rows(data, kind))
    count = sum(len(rows) for rows in found)
    out = {field.path: _empty(count, field) for field in fields}
    at = 0
    for rows in found:
        words: dict[tuple[int, str], NDArray[Any]] = {}  # validation words, once for all their fields
        for field in fields:
            _fill(out[field.path], field, rows, slice(at, at + len(rows)), words)
        at += len(rows)
    return out


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
        code = f"<{_CODES[cell.fmt]}" if cell.fmt in _CODES else f"V{cell.size}"
        yield _Field(f"{prefix}{slot.name}", base + offset, cell.size, code, slot.lo, slot.mask, flags)


def _empty(count: int, field: _Field) -> Column:
    import numpy as np

    return Column(np.empty(count, field.code), np.empty(count, np.bool_) if field.flags else None)


def _fill(
    column: Column, field: _Field, rows: NDArray[Any], part: slice, words: dict[tuple[int, str], NDArray[Any]]
) -> None:
    import numpy as np

    values = column.values[part]
    values[...] = _view(rows, _BODY + field.offset, field.code)
    if field.lo:
        np.right_shift(values, field.lo, out=values)
    if field.mask:
        np.bitwise_and(values, field.mask, out=values)
    if column.valid is None:
        return
    valid = column.valid[part]
    for index, (offset, code, bit) in enumerate(field.flags):
        word = words.get((offset, code))
        if word is None:
            word = words[offset, code] = np.ascontiguousarray(_view(rows, _BODY + offset, code))
        is_set = np.bitwise_and(word, np.array(bit, code)) != 0
        valid[...] = is_set if not index else valid & is_set
    if not valid.all():
        values[~valid] = 0 if values.dtype.kind != "V" else b""


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
    try:
        import numpy as np
    except ImportError:
        raise ValueError("columns need numpy: pip install 'vmm-ras[columns]'") from None
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


def _head(kind: type[Section]) -> list[tuple[int, str, int]]:
    """(offset, type, number) of what a record has that holds just one section of this type."""
    guid = kind.GUID.bytes_le
    return [
        (0, "<u4", int.from_bytes(b"CPER", "little")), (6, "<u4", 0xFFFF_FFFF), (_COUNT, "<u2", 1),
        (_LENGTH, "<u4", _BODY + kind.SIZE), (_PLACE, "<u8", kind.SIZE << 32 | _BODY),
        (_TYPE, "<u8", int.from_bytes(guid[:8], "little")), (_TYPE + 8, "<u8", int.from_bytes(guid[8:], "little")),
    ]  # fmt: skip


def _alike(rows: NDArray[np.uint8], head: list[tuple[int, str, int]]) -> int:
    """How many rows from the first on begin so."""
    import numpy as np

    right = np.ones(len(rows), np.bool_)
    for offset, code, wanted in head:
        right &= _view(rows, offset, code) == np.array(wanted, code)
    return len(rows) if right.all() else int(right.argmin())


def _other(raw: NDArray[np.uint8], at: int) -> int:
    """Where the record that begins here, of whatever type, ends.  Raises ValueError."""
    head = raw[at : at + RecordHeader.SIZE].tobytes()
    length = int.from_bytes(head[_LENGTH : _LENGTH + 4], "little")
    if head[:4] != b"CPER" or length < RecordHeader.SIZE or at + length > len(raw):
        raise ValueError(f"no whole record begins at {at:#x}")
    return at + length


__all__ = ["BLOCK", "Column", "columns", "word_type"]
