"""JSON Schema of sections, derived from their declarations (draft 2020-12)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from cper.construct_section import ConstructSection
from cper.framed import Framed, Kinds
from cper.section import Section
from cper.wire import Struct

if TYPE_CHECKING:
    from cper.section import AnySection

DIALECT = "https://json-schema.org/draft/2020-12/schema"
HEX: dict[str, Any] = {"type": "string", "format": "binary"}
"""Bytes in hexadecimal."""


def section_schema(cls: type[AnySection] | type[ConstructSection]) -> dict[str, Any]:
    """What JSON holds under ``section`` for this type."""
    if issubclass(cls, ConstructSection):
        return {"$schema": DIALECT, "title": cls.__name__, "type": "object"}
    if issubclass(cls, Section) and cls.FORMS:
        forms = {"title": cls.__name__, "anyOf": [reference(form) for form in cls.FORMS]}
        return {"$schema": DIALECT} | forms | definitions(cls.FORMS)
    if issubclass(cls, Struct):
        return {"$schema": DIALECT} | cls.model_json_schema()
    used: dict[str, type[Struct]] = {}
    out = _framed(cls, used)
    return {"$schema": DIALECT} | out | definitions(used.values())


def definitions(kinds: Iterable[type[Struct]]) -> dict[str, Any]:
    """``$defs`` of these structures and of those inside them."""
    _, found = models_json_schema([(kind, "validation") for kind in kinds], ref_template="#/$defs/{model}")
    return {"$defs": found.get("$defs", {})}


def reference(kind: type[Struct]) -> dict[str, Any]:
    """A reference to a structure's definition."""
    return {"$ref": f"#/$defs/{kind.__name__}"}


def object_of(properties: dict[str, Any], required: Iterable[str] = ()) -> dict[str, Any]:
    """An object of these members and no others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _framed(cls: type[Framed], used: dict[str, type[Struct]]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    fixed = cls.kinds.__func__ is Framed.kinds.__func__  # type: ignore[attr-defined]
    for field in fields(cls):
        reader = cls.KINDS.get(field.name) or (getattr(cls, "HEAD", None) if field.name == "head" else None)
        if not fixed and field.name != "head":  # the head says what it is
            one: dict[str, Any] = {"anyOf": [HEX, {"type": "object"}]}
        else:
            one = HEX if reader is None else _read_by(reader, used)
        properties[field.name] = {"type": "array", "items": one} if isinstance(field.default, tuple) else one
    required = [field.name for field in fields(cls) if not isinstance(field.default, tuple | bytes)]
    doc = " ".join((cls.__doc__ or "").split())
    return {"title": cls.__name__, "description": doc} | object_of(properties, required)


def _read_by(reader: Any, used: dict[str, type[Struct]]) -> dict[str, Any]:
    if isinstance(reader, Kinds):
        kinds = list(dict.fromkeys([*reader.known.values(), reader.other]))
        used.update({kind.__name__: kind for kind in kinds})
        return {"anyOf": [reference(kind) for kind in kinds]}
    if isinstance(reader, type) and issubclass(reader, Struct):
        used[reader.__name__] = reader
        return reference(reader)
    if isinstance(reader, type) and issubclass(reader, Framed):
        return _framed(reader, used)
    return {"type": "object"}


__all__ = ["DIALECT", "HEX", "definitions", "object_of", "reference", "section_schema"]
