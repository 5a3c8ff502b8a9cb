"""What was not read of a record or block, and why: an error with its place, kept instead of raised."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from cper.section import Section, section_class
from cper.wire import WireError


def plain_fault(error: WireError) -> dict[str, Any]:
    """What JSON holds of a fault: ``where`` (structure and field), ``offset`` in bytes, ``reason``."""
    where = f"{error.structure}.{error.path}" if error.path else error.structure
    return {"where": where, "offset": error.offset, "reason": error.reason}


def body_fault(guid: UUID, body: bytes, where: str, offset: int) -> WireError | None:
    """Why a body that lies at ``offset`` cannot be read; None where it can, or where its type is unknown."""
    cls = section_class(guid)
    if cls is None:
        return None
    try:
        if issubclass(cls, Section):
            cls.plain_of_body(body)
        else:
            cls.of_body(body)
    except WireError as error:
        path = f"{where}.{error.path}" if error.path else where
        return type(error)(error.reason, structure=error.structure, path=path, offset=offset + (error.offset or 0))
    return None


__all__ = ["body_fault", "plain_fault"]
