"""The description behind a stream's end (QEMU ``migration/vmstate.c``): what every byte of every device means."""

from __future__ import annotations

from typing import Any, NamedTuple

from vmm_ras.errors import InputError
from vmm_ras.qemu_migration.cursor import Buffer, Cursor

VM_EOF, VM_SUBSECTION, VM_DESCRIPTION = 0, 5, 6
MAX_DESCRIPTION = 16 << 20
"""Bytes; QEMU's own are some ten thousand."""
MAX_FIELDS = 1 << 18
"""Of one device."""
MAX_DEPTH = 32
"""Of structures in structures."""
_CANDIDATES = 8
"""The count in front may itself look like the mark."""


class Field(NamedTuple):
    """One field of a device's state."""

    path: str
    """Names from the outermost structure in, with ``[i]`` behind an element of an array of structures."""
    kind: str
    """QEMU's name of the type."""
    offset: int
    """Of its first byte in the file."""
    size: int
    """Bytes of one element."""
    elements: int


class Device(NamedTuple):
    """A device's state."""

    name: str
    instance: int
    version: int
    offset: int
    end: int
    fields: dict[str, Field]
    subsections: tuple[str, ...]
    """The parts that are sent only when there is something to say, in the order in which they come."""


def find_description(data: Buffer) -> tuple[int, dict[str, Any]]:
    """Where the description's section begins, and what it says.  Raises InputError."""
    import orjson

    at = len(data)
    for _ in range(_CANDIDATES):
        at = data.rfind(bytes((VM_EOF, VM_DESCRIPTION)), max(0, len(data) - MAX_DESCRIPTION), at + 1)
        if at < 0:
            break
        if at + 6 + int.from_bytes(data[at + 2 : at + 6], "big") == len(data):
            try:
                said = orjson.loads(data[at + 6 :])
            except ValueError as error:
                raise InputError(f"byte {at + 6}: the description is no JSON: {error}") from None
            if not isinstance(said, dict) or not isinstance(said.get("devices"), list):
                raise InputError(f"byte {at + 6}: the description has no list 'devices'")
            return at + 1, said
    raise InputError(
        f"byte {len(data)}: no description at the end: the file is cut short, or QEMU was told to send none "
        "(suppress-vmdesc)"
    )


class Reader:
    """Walks over a device's bytes as its description says."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.fields: dict[str, Field] = {}
        self.subsections: list[str] = []
        self.steps = 0

    def device(self, said: dict[str, Any], name: str, instance: int, version: int) -> Device:
        """The device; the cursor stands behind it then.  Raises InputError."""
        start = self.cursor.at
        if "fields" in said or "subsections" in said:
            self.structure(said, "", 0)
        else:  # a device that writes what it wants is described by its size alone
            size = _number(said, "size", self.cursor)
            self.leaf(Field(_text(said, "type", "data"), "opaque", self.cursor.skip(size, name), size, 1))
        return Device(name, instance, version, start, self.cursor.at, self.fields, tuple(self.subsections))

    def structure(self, said: dict[str, Any], path: str, depth: int) -> None:
        """The fields of a structure, then its subsections."""
        if depth > MAX_DEPTH:
            raise self.cursor.wrong(f"{path}: more than {MAX_DEPTH} structures in one another")
        for field in _objects(said, "fields", self.cursor):
            self.field(field, path, depth)
        for part in _objects(said, "subsections", self.cursor):
            name = _text(part, "vmsd_name", "")
            if self.cursor.number(1, f"subsection {name}") != VM_SUBSECTION:
                self.cursor.at -= 1
                raise self.cursor.wrong(f"subsection {name!r} expected")
            found = self.cursor.string("the subsection's name")
            if found != name:
                raise self.cursor.wrong(f"subsection {found!r}, the description says {name!r}")
            self.cursor.skip(4, "the subsection's version")
            self.subsections.append(name)
            self.structure(part, f"{name}.", depth + 1)

    def field(self, said: dict[str, Any], path: str, depth: int) -> None:
        """A field, or each element of an array of structures."""
        name = _text(said, "name", "")
        index = said.get("index")
        path = f"{path}{name}" if index is None else f"{path}{name}[{_number(said, 'index', self.cursor)}]"
        count = _number(said, "array_len", self.cursor) if "array_len" in said else 1
        inner = said.get("struct")
        if isinstance(inner, dict):
            if count > MAX_FIELDS:
                raise self.cursor.wrong(f"{path}: {count} elements")
            for i in range(count):
                self.step(path)
                self.structure(inner, f"{path}." if count == 1 else f"{path}[{i}].", depth + 1)
            return
        size = _number(said, "size", self.cursor)
        self.leaf(Field(path, _text(said, "type", ""), self.cursor.skip(size * count, path), size, count))

    def leaf(self, field: Field) -> None:
        """Keep a field; the first of a name counts."""
        self.step(field.path)
        self.fields.setdefault(field.path, field)

    def step(self, path: str) -> None:
        """One more; there is an end."""
        self.steps += 1
        if self.steps > MAX_FIELDS:
            raise self.cursor.wrong(f"{path}: more than {MAX_FIELDS} fields")


def _objects(said: dict[str, Any], key: str, cursor: Cursor) -> list[dict[str, Any]]:
    value = said.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise cursor.wrong(f"the description's {key!r} is no list of objects")
    return value


def _number(said: dict[str, Any], key: str, cursor: Cursor) -> int:
    value = said.get(key)
    if type(value) is not int or value < 0:
        raise cursor.wrong(f"the description's {key!r} is {repr(value)[:40]}: a count expected")
    return value


def _text(said: dict[str, Any], key: str, default: str) -> str:
    value = said.get(key, default)
    return value if isinstance(value, str) else default
