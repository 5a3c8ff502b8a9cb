"""Fields as a tree with their bytes beside them, and all bytes as a dump in which each field has its colour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from vmm_ras.cli.show_fields import (
    Field,
    block_fields,
    hest_fields,
    reading_fields,
    section_fields,
    struct_fields,
)

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod

COLOURS = ("cyan", "green", "yellow", "magenta", "bright_blue", "bright_red")
BESIDE = 8
"""Bytes that are printed beside their field; the dump below has them all."""
VALUE = 38
"""Columns that values get at least, enough for a GUID: a terminal that is narrower breaks lines, no name or value."""
ROOM = 30
"""Columns that a terminal needs besides, so that the bytes of each field are printed beside it."""
WIDE = 150
"""Columns of a terminal from which on the meaning of each field is printed too."""


class Node:
    """A part of the tree: a field, or what several fields belong to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.field: Field | None = None
        self.inner: dict[str, Node] = {}

    def at(self, path: str) -> Node:
        """The node of this path, made where it is new."""
        node = self
        for name in path.split("."):
            node = node.inner.setdefault(name, Node(name))
        return node

    def rows(self, guide: str = "", top: bool = True) -> Iterator[tuple[str, Node]]:
        """(guide lines, node) of everything below, in order."""
        nodes = list(self.inner.values())
        for node in nodes:
            last = node is nodes[-1]
            yield ("" if top else guide + ("└─ " if last else "├─ ")), node
            yield from node.rows("" if top else guide + ("   " if last else "│  "), top=False)


def render(console: Console, data: bytes, fields: Iterable[Field], *, every: bool = False) -> None:
    """Print the fields as a tree and the bytes as a dump in the same colours.  ``every``: also what is not valid."""
    from rich.table import Table
    from rich.text import Text

    root = Node("")
    colour: dict[int, str] = {}
    styles: dict[int, str] = {}
    names: dict[int, list[tuple[str, str]]] = {}
    turn = 0
    for field in fields:
        if field.size:
            style = colour.get(field.offset)
            if style is None or not field.bits:
                style = COLOURS[turn % len(COLOURS)]
                turn += 1
            if not any(n in colour for n in (field.offset, field.offset + field.size - 1)):
                colour.update(dict.fromkeys(range(field.offset, field.offset + field.size), style))
                names.setdefault(field.offset // 16, []).append((field.path.rpartition(".")[2], style))
            if field.value in {"-", ""} and not every:
                continue
        else:
            style = "bold"
        node = root.at(field.path)
        node.field = field
        styles[id(node)] = style
    table = Table(box=None, pad_edge=False, header_style="bold")
    rows = [(guide, node, _label(node)) for guide, node in root.rows()]
    least = len("0x0000") + 2 + max((len(guide + label) for guide, _, label in rows), default=0) + 2 + VALUE
    console.width = max(console.width, least)
    heads = {"Offset": True, "Bytes": console.width >= least + ROOM, "Field": True, "Value": True,
             "Meaning": console.width >= WIDE}  # fmt: skip
    for head in (head for head, shown in heads.items() if shown):
        justify: JustifyMethod = "right" if head == "Offset" else "left"
        table.add_column(head, justify=justify, overflow="fold", no_wrap=head != "Value")
    for guide, node, label in rows:
        found, style = node.field, styles.get(id(node), "bold")
        name = Text.assemble((guide, "dim"), (label, style))
        cells: list[str | Text] = ["", "", name, "", ""]
        if found is not None:
            doc = Text(" ".join(found.doc.split()), style="dim")
            cells = [f"{found.offset:#06x}", Text(beside(data, found), style=style), name, found.value, doc]
        table.add_row(*(cell for cell, shown in zip(cells, heads.values(), strict=True) if shown))
    console.print(table)
    console.print()
    dump(console, data, colour, names)


def _label(node: Node) -> str:
    bits = node.field.bits if node.field is not None else None
    return node.name + (f"[{bits[1]}:{bits[0]}]" if bits else "")


def beside(data: bytes, field: Field) -> str:
    """The bytes of a field, as many as fit."""
    part = data[field.offset : field.offset + min(field.size, BESIDE)]
    return part.hex(" ") + (f" +{field.size - BESIDE}" if field.size > BESIDE else "")


def dump(console: Console, data: bytes, colour: dict[int, str], names: dict[int, list[tuple[str, str]]]) -> None:
    """Print all bytes, with the names of the fields that begin in each line."""
    from rich.text import Text

    lines: list[Text] = []

    def flush() -> None:
        if lines:  # many at once: rich takes as long for one
            console.print(Text("\n").join(lines), soft_wrap=True)
            lines.clear()

    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        if not any(row) and start and not any(data[start - 16 : start]) and start + 16 < len(data):
            if start < 32 or any(data[start - 32 : start - 16]):
                lines.append(Text("  *", style="dim"))
            continue
        line = Text(f"{start:06x}  ", style="dim")
        styles = [colour.get(start + n, "dim") for n in range(len(row))]
        styles = [s if byte else f"dim {s.removeprefix('dim')}".strip() for s, byte in zip(styles, row, strict=True)]
        for style, run in groupby(range(len(row)), styles.__getitem__):
            line.append("".join(f"{row[n]:02x} {' ' * (n == 7)}" for n in run), style=style)
        line.append("   " * (16 - len(row)) + " ")
        for n, (name, style) in enumerate(names.get(start // 16, ())):
            line.append(", " if n else "")
            line.append(name, style=style)
        lines.append(line)
        if len(lines) == 256:
            flush()
    flush()


__all__ = [
    "Field",
    "block_fields",
    "hest_fields",
    "reading_fields",
    "render",
    "section_fields",
    "struct_fields",
]
