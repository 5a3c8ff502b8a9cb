"""JSON text of whole status blocks (ACPI 6.5, 18.3.2.7.1), many of which have one shape (``cper.shape``)."""

from __future__ import annotations

import orjson

from acpi.ghes import ErrorStatusHeader, StatusBlock
from cper.shape import Piece, Shape, Shapes, pieces_of
from cper.wire import WireError

FIXED = frozenset({
    "raw_data_length", "data_length", "section_type", "error_data_length", "revision", "severity", "flags",
})  # fmt: skip
"""Fields of header and entries that tell where others lie and which there are, and those of few different values."""


def json_of(data: bytes | bytearray | memoryview) -> bytes:
    """``orjson.dumps(StatusBlock.decode(data).plain())``, by a function of the block's shape where many were met.

    Raises TruncatedError, DecodeError.
    """
    return text_of(data) or orjson.dumps(StatusBlock.decode(data).plain())


def shape_of(data: bytes) -> Shape | None:
    """The shape of a block; None for what is no good block, has raw data, or a section that does not tell its shape."""
    try:
        block = StatusBlock.decode(data)
    except WireError:
        return None
    tree, at = block.plain(), ErrorStatusHeader.SIZE
    pieces = [Piece(0, ErrorStatusHeader, tree["header"], FIXED)]
    for entry, node in zip(block.entries, tree["entries"], strict=True):
        body = at + entry.header.SIZE
        inner = pieces_of(entry.section(), body, node["section"]) if node.keys() == {"header", "section"} else None
        if inner is None:
            return None
        pieces += [Piece(at, type(entry.header), node["header"], FIXED), *inner]
        at = body + len(entry.body)
    return Shape(data, tree, pieces) if at == len(data) else None


text_of = Shapes(shape_of).text
"""The JSON text of a good block whose shape was met often, else None.  Raises nothing."""


__all__ = ["json_of", "shape_of", "text_of"]
