"""`python -m tests.schemas` writes fixtures/schema from the declarations; a test keeps it so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from acpi.document_schema import document_schema
from cper.schema import section_schema
from cper.section import MODULES, section_class

FOLDER = Path(__file__).parents[1] / "fixtures" / "schema"


def schemas() -> dict[str, dict[str, Any]]:
    """File name to schema: the document, and every section type."""
    out = {"document.json": document_schema()}
    for guid in MODULES:
        cls = section_class(guid)
        assert cls is not None
        out[f"{cls.__name__}.json"] = section_schema(cls)
    return out


def text(schema: dict[str, Any]) -> str:
    """The schema as the file holds it."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for name, schema in schemas().items():
        (FOLDER / name).write_text(text(schema))
