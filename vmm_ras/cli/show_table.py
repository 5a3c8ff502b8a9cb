"""What people see of an ACPI table: fields with their places where it is a list of structures, else a tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from acpi.dump import DumpedTable, plain_table
from acpi.frame import FixedTable, ListTable
from acpi.hest import Hest
from acpi.tables import examine_table
from cper.wire import WireError
from vmm_ras.cli.show import Field, hest_fields, struct_fields
from vmm_ras.cli.show import render as render_fields

if TYPE_CHECKING:
    from rich.console import Console


def fields(table: Any) -> Iterator[Field] | None:
    """The fields of a table whose structures lie back to back; None for tables of another build."""
    if isinstance(table, Hest):
        return hest_fields(table)
    if isinstance(table, FixedTable | ListTable):
        return _list_fields(table)
    return None


def _list_fields(table: FixedTable[Any] | ListTable[Any, Any]) -> Iterator[Field]:
    yield Field(0, 0, type(table).__name__, f"{table.header.length} bytes")
    yield from struct_fields(table.head, 0, "")
    at = table.head.SIZE
    for index, entry in enumerate(getattr(table, "entries", ())):
        yield Field(at, 0, f"entries[{index}]", type(entry).__name__)
        yield from struct_fields(entry, at, f"entries[{index}].")
        at += entry.SIZE
    if table.trailing:
        yield Field(at, len(table.trailing), "trailing", "bytes that no structure has")


def render(console: Console, dumped: DumpedTable) -> None:
    """Print one table."""
    from rich.text import Text
    from rich.tree import Tree

    title = f"{dumped.signature} {dumped.name}".strip()
    console.rule(title if dumped.address is None else f"{title} @ {dumped.address:#x}", align="left")
    found = None
    try:
        table, error = examine_table(dumped.data)
        if error is not None:
            console.print(Text(str(error), style="red"))
        found = fields(table)
    except WireError:
        pass  # an RSDP, a FACS, a boot error region: no table header
    if found is not None:
        render_fields(console, dumped.data, found)
        return
    tree = Tree(dumped.signature)
    _grow(tree, plain_table(dumped))
    console.print(tree)
    render_fields(console, dumped.data, ())


def _grow(tree: Any, value: Any) -> None:
    from rich.text import Text

    items = value.items() if isinstance(value, dict) else ((f"[{n}]", item) for n, item in enumerate(value))
    for name, item in items:
        if isinstance(item, dict | list) and item:
            _grow(tree.add(Text(str(name), style="bold")), item)
        else:
            shown = f"{item:#x}" if isinstance(item, int) and not isinstance(item, bool) and item > 9 else str(item)
            tree.add(Text.assemble((f"{name} ", "cyan"), shown if len(shown) < 200 else shown[:200] + "..."))
