"""JSON Schema of the documents of ``acpi.document``; the fields of a section have schemas of their own."""

from __future__ import annotations

from typing import Any

from acpi.document import VERSION
from acpi.ghes import DataEntry201, DataEntry300, ErrorStatusHeader
from cper.record_header import RecordHeader, SectionDescriptor
from cper.schema import DIALECT, HEX, definitions, object_of, reference

_COUNT = {"type": "integer", "minimum": 0}
_FAULT = object_of({"where": {"type": "string"}, "offset": _COUNT, "reason": {"type": "string"}}, ["where", "reason"])
_BODY = {
    "section": {"type": "object"}, "body": HEX, "error": {"type": "string"}, "tail": HEX, "length": _COUNT,
}  # fmt: skip
_TEXTS = {"type": "array", "items": {"type": "string"}}
_GAPS = {"type": "array", "items": object_of({"offset": _COUNT, "data": HEX}, ["offset", "data"])}


def document_schema() -> dict[str, Any]:
    """The schema of a document of any kind."""
    parts = {"type": "array", "items": object_of({"descriptor": reference(SectionDescriptor), **_BODY}, ["descriptor"])}
    entry = {"anyOf": [reference(DataEntry201), reference(DataEntry300)]}
    entries = {"type": "array", "items": object_of({"header": entry, **_BODY}, ["header"])}
    faults = {"type": "array", "items": _FAULT}
    record = {"header": reference(RecordHeader), "sections": parts, "gaps": _GAPS, "overlaps": _TEXTS}
    block = {"header": reference(ErrorStatusHeader), "entries": entries}
    kinds = [
        _kind("record", record, ["header", "sections"]),
        _kind("record", record | {"size": _COUNT, "faults": faults}, ["size", "sections", "faults"]),
        _kind("status_block", block | {"gap": HEX, "raw_data": HEX}, ["header", "entries"]),
        _kind("status_block", block | {"rest": HEX, "faults": faults}, ["entries", "rest", "faults"]),
        _kind("section", {"type": {"type": "string"}, **_BODY}, ["type"]),
        _kind("padding", {"size": _COUNT}, ["size"]),
        _kind("bytes", {"data": HEX}, ["data"]),
    ]
    used = definitions([RecordHeader, SectionDescriptor, ErrorStatusHeader, DataEntry201, DataEntry300])
    return {"$schema": DIALECT, "title": f"CPER document, version {VERSION}", "anyOf": kinds} | used


def _kind(name: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    own = {"kind": {"const": name}, "version": {"const": VERSION}}
    return object_of(own | properties, ["kind", "version", *required])


__all__ = ["document_schema"]
