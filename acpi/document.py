"""What JSON holds of records, status blocks and bare sections: ``kind`` and ``version`` say what the rest means.

Every document gives its bytes again, damaged ones too: what no field claims travels as hexadecimal text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson

from acpi.damage import DamagedBlock
from acpi.ghes import StatusBlock
from acpi.stream import Item, Kind
from cper.plain import hex_in, members
from cper.section import body_of_plain, plain_body, section_named
from cper.wire import EncodeError

if TYPE_CHECKING:
    from cper.damage import DamagedRecord
    from cper.record import Record
    from cper.section import AnySection

VERSION = 1
"""Of the documents; the schemas of this version are in ``fixtures/schema``."""

_KEYS = {
    "record": {"header", "sections", "gaps", "overlaps", "size", "faults"},
    "status_block": {"header", "entries", "gap", "raw_data", "rest", "faults"},
    "section": {"type", "section", "body", "error", "tail", "length"},
    "padding": {"size"},
    "bytes": {"data"},
}


def head(kind: str) -> dict[str, Any]:
    """The members that every document begins with."""
    return {"kind": kind, "version": VERSION}


def of_item(item: Item) -> dict[str, Any]:
    """The document of an item of a stream."""
    if item.kind is Kind.RECORD:
        if item.fault is None:
            return head("record") | _record().plain_of(item.data)
        from cper.damage import DamagedRecord

        return head("record") | DamagedRecord.decode(item.data).plain()
    if item.kind is Kind.STATUS_BLOCK:
        read: StatusBlock | DamagedBlock
        read = StatusBlock.decode(item.data) if item.fault is None else DamagedBlock.decode(item.data)
        return head("status_block") | read.plain()
    if item.kind is Kind.PADDING:
        return head("padding") | {"size": len(item.data)}
    return head("bytes") | {"data": item.data.hex()}


def text_of_item(item: Item) -> bytes | None:
    """``orjson.dumps(of_item(item))`` of a good item whose shape was met often (``cper.shape``), else None."""
    if item.fault is not None or item.kind not in {Kind.RECORD, Kind.STATUS_BLOCK}:
        return None
    begin, text_of = _text(item.kind)
    text = text_of(item.data)
    return None if text is None else begin + text[1:]


@cache
def _text(kind: Kind) -> tuple[bytes, Callable[[bytes], bytes | None]]:
    """What the text of such a document begins with, and what makes the rest."""
    if kind is Kind.RECORD:
        from cper.record_text import text_of
    else:
        from acpi.block_text import text_of

    return orjson.dumps(head(kind))[:-1] + b",", text_of


@cache
def _record() -> type[Record]:
    """Records are declared when one is met, which is asked for many of them."""
    from cper.record import Record

    return Record


def of_section(cls: type[AnySection], body: bytes) -> dict[str, Any]:
    """The document of a bare section."""
    return head("section") | {"type": cls.__name__} | plain_body(cls.GUID, body)


def encode(document: Mapping[str, Any], limit: int) -> bytes:
    """The bytes that a document described; ``limit``: how many at most.

    Raises ValueError (pydantic.ValidationError for a wrong field).
    """
    kind = document.get("kind", "record" if "sections" in members(document) else "status_block")
    version = document.get("version", VERSION)
    if not isinstance(kind, str) or kind not in _KEYS:
        raise ValueError(f"'kind': one of {', '.join(_KEYS)} expected, not {kind!r}")
    if version != VERSION or isinstance(version, bool):
        raise ValueError(f"'version': {version!r} is not known, only {VERSION}")
    unknown = document.keys() - _KEYS[kind] - {"kind", "version"}
    if unknown:
        raise ValueError(f"a document of kind {kind!r} has no {', '.join(sorted(map(repr, unknown)))}")
    if kind == "record":
        from cper.damage import DamagedRecord
        from cper.record import Record

        if "size" in document:
            return _bounded(DamagedRecord.of_plain(document), limit).encode()
        if "gaps" in document:
            return _bounded(Record.of_plain(document), limit).encode()
        return Record.raw_of_plain(document)
    if kind == "status_block":
        damaged = "rest" in document
        return DamagedBlock.of_plain(document).encode() if damaged else StatusBlock.of_plain(document).encode()
    if kind == "padding":
        size = document.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= limit:
            raise ValueError(f"'size': a number up to {limit} expected")
        return bytes(size)
    if kind == "bytes":
        return hex_in(document, "data")
    try:
        cls = section_named(str(document.get("type")))
    except KeyError:
        raise ValueError(f"'type': no section type {document.get('type')!r} is known") from None
    return body_of_plain(cls.GUID, dict(document))


def _bounded(read: Record | DamagedRecord, limit: int) -> Record | DamagedRecord:
    size = getattr(read, "size", None) or (read.header.record_length if read.header is not None else 0)
    if size > limit:
        raise EncodeError(f"{size} bytes are more than {limit}", structure="Record", path="header.record_length")
    return read


__all__ = ["VERSION", "encode", "head", "of_item", "of_section", "text_of_item"]
