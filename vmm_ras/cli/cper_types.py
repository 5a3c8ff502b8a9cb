"""`vmm-ras cper types` and `cper schema`: what is known of each section type."""

from __future__ import annotations

from typing import Annotated

import typer

from vmm_ras.cli.common import Json, print_json, print_table, section_class
from vmm_ras.cli.cper_input import Own, load_sections


def types(own: Own = None, json_: Json = False) -> None:
    """List every known section type: sizes, clause, GUID, evidence.

    Example: vmm-ras cper types
    """
    from cper.known import known

    load_sections(own)
    found = known()
    if json_:
        print_json([t.plain() for t in found])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("Section", "Bytes", "Clause", "GUID", "Header offsets", "Foreign bytes", "Kernel", "libcper"):
        table.add_column(head, no_wrap=head == "GUID", overflow="fold")
    for t in found:
        backing = (t.offsets, t.foreign, t.kernel, t.libcper)
        table.add_row(
            t.name, t.sizes, t.clause or "-", str(t.guid), *(", ".join(b) or "none" for b in backing),
            style="" if t.backed else "yellow",
        )  # fmt: skip
    print_table(table)


def schema(
    type_: Annotated[str, typer.Argument(metavar="[SECTION]", help="A section type; without: documents.")] = "",
    own: Own = None,
    json_: Json = False,
) -> None:
    """Print the JSON Schema of documents, or of a section's fields.

    A document is what `cper show --json` prints.

    Example: vmm-ras cper schema PlatformMemory
    """
    from acpi.document_schema import document_schema
    from cper.schema import section_schema

    load_sections(own)
    print_json(section_schema(section_class(type_, "SECTION")) if type_ else document_schema())
