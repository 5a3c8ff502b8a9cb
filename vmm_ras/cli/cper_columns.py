"""`vmm-ras cper decode --columns`: chosen fields of many records as a table, a row for each section."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cper.words import counted
from vmm_ras.cli.common import section_class, usage
from vmm_ras.cli.cper_decode import Run, reason

if TYPE_CHECKING:
    from acpi.stream import Item

PLACES = ("file", "offset", "index")
"""Columns that say where a row comes from: file, byte offset of its record there, and number of the section in it."""
MOST_TOLD = 10
"""Lines at most about what could not be read; the rest is counted."""
ANY = "*"
"""In a path: whatever a section type of the user's own has there, which declares no JSON Schema."""
_TIME = ("century", "year", "month", "day", "hour", "minute", "second")


class Columns(Run):
    """The rows written so far; nothing of them is kept."""

    def __init__(self, names: Sequence[str], of: str | None, json_: bool) -> None:
        super().__init__(json_)
        cls = None if of is None else section_class(of, "--of")
        self._names, self._guid = names, None if cls is None else str(cls.GUID)
        self._readers = [_reader(name, cls) for name in names]
        self.rows = self.told = self._number = 0
        if not json_:
            self._table = csv.writer(_Encoded(self._out.write), lineterminator="\n")
            self._table.writerow(names)

    def read(self, path: Path) -> None:
        """Read a file, standard input, or all files of a directory."""
        self._number = 0
        super().read(path)

    def _tell(self, name: str, item: Item) -> None:
        if item.kind == "padding" or (item.kind == "bytes" and item.fault is None):
            return
        found = self._document_of(item)
        header, parts = found.get("header", {}), found.get("sections", found.get("entries", ()))
        if (why := reason(item, found)) is not None:
            self.damaged += 1
            self._complain(f"{name}: item {self._number} at {item.offset:#x}: {why}")
        for index, part in enumerate(parts):
            descriptor = part.get("descriptor", part.get("header", {}))
            if self._guid is None or (descriptor.get("section_type") == self._guid and "section" in part):
                row = {"header": header, "descriptor": descriptor, "section": part.get("section")}
                row |= {"file": name, "offset": item.offset, "index": index}
                self._row([read(row) for read in self._readers])
        self.items, self._number = self.items + 1, self._number + 1
        self._progress.step()

    def _row(self, values: list[Any]) -> None:
        self.rows += 1
        if self._json:
            self._write(dict(zip(self._names, values, strict=True)))
        else:
            self._table.writerow([self._cell(value) for value in values])

    def _cell(self, value: Any) -> Any:
        if type(value) is bool:
            return "true" if value else "false"
        return self._dumps(value).decode() if isinstance(value, dict | list) else value

    def _fail(self, name: str, why: str) -> None:
        self.unread += 1
        self._complain(f"{name}: {why}")

    def _complain(self, line: str) -> None:
        self.told += 1
        if self.told <= MOST_TOLD:
            self._progress.end()
            print(f"vmm-ras: {line}".replace("\n", " "), file=sys.stderr)

    def _sum(self) -> str:
        left = self.told - MOST_TOLD
        more = f"; {left} more not shown" if left > 0 else ""
        return f"{counted(self.rows, 'row')} from {super()._sum()}{more}"


class _Encoded:
    """What the csv module writes, as UTF-8."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._to = write

    def write(self, text: str) -> object:
        """Write a line."""
        return self._to(text.encode(errors="surrogateescape"))


def _reader(name: str, cls: Any) -> Callable[[Mapping[str, Any]], Any]:
    """What takes the column's value out of a row; a name that is no field ends with usage."""
    if name in PLACES:
        return lambda row: row[name]
    root = name.partition(".")[0]
    path = tuple(name.split(".") if root in {"header", "descriptor"} else ["section", *name.split(".")])
    if path[0] == "section" and cls is None:
        usage(f"--columns {name!r}: a field of which sections? say --of SECTION")
    known = {found for schema in _schemas(path[0], cls) for found in _paths(schema, schema, ())}
    plain = tuple("0" if step.isdecimal() else step for step in path[1:])
    if plain not in known and not any((*plain[:n], ANY) in known for n in range(len(plain))):
        usage(f"--columns {name!r}: {_unknown(path, cls, known)}")
    steps = tuple(int(step) if step.isdecimal() else step for step in path)
    return lambda row: _value(row, steps)


def _value(value: Any, steps: tuple[str | int, ...]) -> Any:
    for step in steps:
        if type(step) is int:
            value = value[step] if type(value) is list and step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
        if value is None:
            return None
    if type(value) is dict and "century" in value:
        century, year, month, day, hour, minute, second = (value.get(part, 0) for part in _TIME)
        return f"{century:02}{year:02}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
    return value


def _schemas(root: str, cls: Any) -> Iterator[dict[str, Any]]:
    """The JSON Schema of what a path begins in: of a record's part and of a status block's."""
    from acpi.ghes import DataEntry201, DataEntry300, ErrorStatusHeader
    from cper.record_header import RecordHeader, SectionDescriptor
    from cper.schema import section_schema

    if root == "section":
        yield section_schema(cls)
        return
    for kind in (
        (RecordHeader, ErrorStatusHeader) if root == "header" else (SectionDescriptor, DataEntry300, DataEntry201)
    ):
        yield kind.model_json_schema()


def _paths(schema: dict[str, Any], whole: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every path into JSON of this schema; lists have a 0 there."""
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    for one in schema.get("anyOf", ()):
        yield from _paths(one, whole, path)
    yield path
    if schema.get("type") == "array":
        yield from _paths(schema.get("items", {}), whole, (*path, "0"))
    for name, inner in schema.get("properties", {}).items():
        yield from _paths(inner, whole, (*path, name))
    if schema.get("type") == "object" and "properties" not in schema:
        yield (*path, ANY)


def _unknown(path: tuple[str, ...], cls: Any, known: set[tuple[str, ...]]) -> str:
    from difflib import get_close_matches

    inside = cls.__name__ if path[0] == "section" else f"a {path[0]}"
    near = get_close_matches(".".join(path[1:]), sorted(".".join(one) for one in known if one), 1)
    if near:
        return f"{inside} has no such field; did you mean {near[0]!r}?"
    if path[0] == "section":
        return f"{inside} has no such field (vmm-ras cper schema {inside} lists them)"
    return f"{inside} has only {', '.join(sorted(one[0] for one in known if len(one) == 1 and one[0] != 'residue'))}"
