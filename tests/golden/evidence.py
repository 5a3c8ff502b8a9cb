"""Compares declared layouts with other people's headers, by name; ``fixtures/offsets/ORIGIN.md`` tells the form."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cper.wire import FieldLayout

FIXTURES = Path(__file__).parents[2] / "fixtures"
PACKAGES = ("cper", "acpi", "firmware", "kvm", "boot")


class Place(NamedTuple):
    """Where a header has a field: bytes, and the bits of the unit at ``offset`` where it is a bit-field."""

    offset: int
    size: int
    bits: tuple[int, int] | None

    @property
    def range(self) -> tuple[int, int]:
        """First and last bit from the start of the structure."""
        return absolute(self.offset, self.size, self.bits)


def absolute(offset: int, size: int, bits: tuple[int, int] | None) -> tuple[int, int]:
    """First and last bit from the start of the structure."""
    low, high = bits or (0, 8 * size - 1)
    return 8 * offset + low, 8 * offset + high


@cache
def bindings() -> dict[str, dict[str, Any]]:
    """The tables of both binding files, merged."""
    merged: dict[str, dict[str, Any]] = {}
    for package in PACKAGES:
        for table, entries in tomllib.loads((FIXTURES / "offsets" / f"{package}.toml").read_text()).items():
            known = merged.setdefault(table, {})
            twice = known.keys() & entries.keys()
            assert not twice, f"bound twice: {sorted(twice)}"
            known.update(entries)
    return merged


def table(name: str) -> dict[str, Any]:
    """One table of the bindings, empty where no file has it."""
    return bindings().get(name, {})


@cache
def headers(file: str) -> dict[str, Any]:
    """The structures of one header file."""
    found: dict[str, Any] = json.loads((FIXTURES / "offsets" / f"{file}.json").read_text())["structs"]
    return found


@cache
def _constants() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / "offsets" / "constants.json").read_text())
    return found


@cache
def constant(name: str) -> Any:
    """``group:NAME`` as its number, or as the text of a GUID.  Raises KeyError."""
    group, _, wanted = name.partition(":")
    tables = _constants()[group]
    for values in (tables["values"], *tables["enums"].values(), tables["guids"]):
        if wanted in values:
            return values[wanted]
    raise KeyError(name)


@cache
def place(header: str, path: str) -> Place:
    """Where ``file:struct[@base]`` has the field ``path``.  Raises KeyError."""
    spec, _, base = header.partition("@")
    file, _, struct = spec.partition(":")
    found = _find(file, struct, path)
    return found._replace(offset=found.offset - int(base or 0))


def _find(file: str, struct: str, path: str) -> Place:
    fields = {f["name"]: f for f in headers(file)[struct]["fields"]}
    if path in fields:
        f = fields[path]
        return Place(f["offset"], f["size"], tuple(f["bits"]) if "bits" in f else None)
    for outer, f in fields.items():
        if path.startswith(outer + ".") and "type" in f:
            inner = _find(file, f["type"], path.removeprefix(outer + "."))
            return inner._replace(offset=inner.offset + f["offset"])
    raise KeyError(f"{file}:{struct} has no {path!r}")


def header_size(header: str) -> int:
    """Bytes of the part of a header's structure that ours stands for."""
    spec, _, base = header.partition("@")
    file, _, struct = spec.partition(":")
    return int(headers(file)[struct]["size"]) - int(base or 0)


def complaints(name: str, size: int, rows: Iterable[FieldLayout]) -> list[str]:
    """What the headers have against this layout of structure ``name``; nothing: all fields are bound and agree."""
    return list(find_complaints(name, size, rows))


def find_complaints(name: str, size: int, rows: Iterable[FieldLayout]) -> Iterator[str]:
    """The complaints one by one, for who needs only the first."""
    binding = table("structs").get(name)
    if binding is None:
        yield f"{name}: not bound to any header"
        return
    if "like" in binding:
        binding = table("structs")[binding["like"]]
    fields, without = binding["fields"], binding.get("without", {})
    for header in binding["headers"]:
        if header_size(header) != size and header not in binding.get("size_differs", {}):
            yield f"{name}: {size} bytes, but {header_size(header)} in {header}"
    own = [row for row in rows if "." not in row.path]
    for row in own:
        if row.path in without:
            continue
        theirs = fields.get(row.path, [])
        if not any(theirs):
            yield f"{name}.{row.path}: no header is named for it"
        yield from _place(name, row, list(zip(binding["headers"], theirs, strict=bool(theirs))), binding)
        yield from _valid(name, row, binding)
    known = {row.path for row in own}
    for kind in ("fields", "slices", "valid", "without"):
        for path in binding.get(kind, {}):
            if path.removesuffix(".bits").removesuffix(".valid") not in known:
                yield f"{name}.{path}: {kind} names it, but it is not declared"


def _place(name: str, row: FieldLayout, theirs: list[tuple[str, str]], binding: dict[str, Any]) -> list[str]:
    out, proven = [], row.bits is None
    mine = absolute(row.offset, row.size, row.bits)
    sliced = binding.get("slices", {}).get(row.path) if row.bits is not None else None
    for header, path in theirs:
        if not path:
            continue
        found = place(header, path)
        inside = found.bits is None and found.range[0] <= mine[0] and mine[1] <= found.range[1]
        if found.range == mine:
            proven = True
        elif row.bits is None or not inside:
            out.append(f"{name}.{row.path}: bits {mine} from the start, but {header} has {path} at bits {found.range}")
        elif sliced is not None:  # the constants count in their word
            proven, low = True, 8 * found.offset
            if (expected := _slice(sliced, found.size)) != (mine[0] - low, mine[1] - low):
                bits = mine[0] - low, mine[1] - low
                out.append(f"{name}.{row.path}: bits {bits} of {header} {path}, but the constants say {expected}")
    if not proven and row.path + ".bits" not in binding.get("without", {}):
        out.append(f"{name}.{row.path}: no header says which bits")
    return out


def _slice(source: dict[str, Any], size: int) -> tuple[int, int]:
    if "bits" in source:
        assert source["cited"]
        low, high = source["bits"]
        return low, high
    shift = constant(source["shift"]) if "shift" in source else None
    if "mask" not in source:
        return shift, 8 * size - 1
    mask = constant(source["mask"]) << (shift or 0)
    low = (mask & -mask).bit_length() - 1
    assert mask >> low & ((mask >> low) + 1) == 0, f"{source}: not one run of bits"
    return low, mask.bit_length() - 1


def _valid(name: str, row: FieldLayout, binding: dict[str, Any]) -> list[str]:
    given = binding.get("valid", {}).get(row.path)
    if row.valid is None:
        return [f"{name}.{row.path}: has no validation bit, but {given} give one"] if given else []
    if not given:
        if row.path + ".valid" in binding.get("without", {}):
            return []
        return [f"{name}.{row.path}: no constant is named for validation bit {row.valid}"]
    return [
        f"{name}.{row.path}: validation bit {row.valid}, but {source} is {constant(source):#x}"
        for source in given
        if constant(source) != 1 << row.valid
    ]
