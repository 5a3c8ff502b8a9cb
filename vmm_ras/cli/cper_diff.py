"""`vmm-ras cper diff`: two files of records or status blocks, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from cper.words import counted
from vmm_ras.cli.common import Json, console, print_json, section_class, usage
from vmm_ras.cli.cper_input import Bare, Own, load_sections, read_data, read_items


def diff(
    a: Annotated[Path, typer.Argument(help="A CPER record or status block; - is stdin.")],
    b: Annotated[Path, typer.Argument(help="What to compare it with.")],
    type_: Bare = None,
    fail_on: Annotated[str, typer.Option(metavar="WORD", help="differ: exit 4 if they do.")] = "",
    own: Own = None,
    json_: Json = False,
) -> None:
    """Compare two files field by field.

    Bytes that no field claims are compared as `residue`, `gaps` or `body`.

    Example: vmm-ras cper diff before.cper after.cper --fail-on differ
    """
    if fail_on not in {"", "differ", "different"}:
        usage(f"--fail-on {fail_on!r}: expected differ")
    if str(a) == str(b) == "-":
        usage("standard input can be one of the two only")
    load_sections(own)
    rows = list(differences(_documents(a, type_), _documents(b, type_)))
    if json_:
        print_json(
            [{"path": path, "a": None if x is MISSING else x, "b": None if y is MISSING else y} for path, x, y in rows]
        )
    elif rows:
        _table(a, b, rows)
    else:
        print("no difference")
    if rows and fail_on:
        raise typer.Exit(4)


MISSING = object()
"""What stands for a field that only the other one has."""


def differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, one value, the other) of every field that is not the same."""
    a, b = _empty_like(b) if a is MISSING else a, _empty_like(a) if b is MISSING else b
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            yield from differences(a.get(key, MISSING), b.get(key, MISSING), f"{path}.{key}" if path else key)
    elif isinstance(a, list) and isinstance(b, list) and any(isinstance(v, dict) for v in (*a, *b)):
        for index in range(max(len(a), len(b))):
            x, y = (v[index] if index < len(v) else MISSING for v in (a, b))
            yield from differences(x, y, f"{path}[{index}]")
    elif a != b or type(a) is not type(b):
        yield path, a, b


def _empty_like(value: Any) -> Any:
    """What a missing part is compared as, so that each of its fields is told."""
    if isinstance(value, dict):
        return {}
    return [] if isinstance(value, list) and any(isinstance(v, dict) for v in value) else MISSING


def _documents(file: Path, type_: str | None) -> Any:
    from acpi import document

    if type_ is not None:
        return document.of_section(section_class(type_), read_data(file))
    found = [document.of_item(item) for item in read_items(file)]
    return found[0] if len(found) == 1 else found


def _table(a: Path, b: Path, rows: list[tuple[str, Any, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("Field", str(a), str(b), box=None, pad_edge=False, header_style="bold")
    for path, x, y in rows:
        table.add_row(Text(path, style="cyan"), Text(_shown(x), style="red"), Text(_shown(y), style="green"))
    console().print(table)
    print(f"{counted(len(rows), 'field differs', 'fields differ')}")


def _shown(value: Any) -> str:
    if value is MISSING:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if value < 100 else f"{value:#x}"
    return str(value)
