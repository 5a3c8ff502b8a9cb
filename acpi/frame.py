"""The frames that tables share (ACPI 6.5, 5.2.6): a fixed part alone, or a fixed part and a list of equal structures.

``parse`` is lenient (nothing is lost, a wrong checksum is no error); ``examine`` also gives what can be read of a table
that contradicts itself.  ``encode`` writes what was read, its contradictions included: ``examine(data)[0].encode()`` is
``data`` again.  ``build`` sets length, counts and checksum right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import construct as c

from acpi.table import TableHeader, open_table, seal
from cper.plain import hex_in, members, object_in, objects_in
from cper.wire import Struct, TruncatedError, WireError
from cper.wire._construct import Wire
from cper.words import counted


class TableHead(Struct):
    """Base of a table's fixed part: the header, then fields of its own.  Not a structure by itself."""

    header: TableHeader
    """The header that every table has."""


class Table(Protocol):
    """What every table can do."""

    @property
    def header(self) -> TableHeader:
        """The header as it was read, or as it will be written but for length and checksum."""

    def build(self) -> bytes:
        """The table's bytes, with length, counts and checksum set right."""

    def encode(self) -> bytes:
        """The table's bytes with length, counts and checksum as they are."""

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the table."""


def new_header(signature: str, revision: int) -> TableHeader:
    """A header in our own words; length and checksum are set when the table is built."""
    return TableHeader(signature=signature, length=0, revision=revision)


H = TypeVar("H", bound=TableHead)
E = TypeVar("E", bound=Struct)


@dataclass(frozen=True)
class FixedTable(Generic[H]):
    """A table that is one structure.  Subclasses name it, its signature and the revision that :meth:`of` writes."""

    SIGNATURE: ClassVar[str]
    REVISION: ClassVar[int]
    HEAD: ClassVar[type[TableHead]]

    head: H
    trailing: bytes = b""
    """Bytes behind the fixed part that the table's length covers: kept, never read."""

    @property
    def header(self) -> TableHeader:
        """The header as it was read, or as it will be written but for length and checksum."""
        return self.head.header

    @classmethod
    def of(cls, header: TableHeader | None = None, **fields: Any) -> Self:
        """The table with these fields; ``header`` gives the OEM's words.  Raises pydantic.ValidationError."""
        head: Any = cls.HEAD(header=header or new_header(cls.SIGNATURE, cls.REVISION), **fields)
        return cls(head)

    def build(self) -> bytes:
        """The table's bytes, with length and checksum."""
        return seal(self.header, (self.head.encode() + self.trailing)[TableHeader.SIZE :])

    def encode(self) -> bytes:
        """The table's bytes with length and checksum as they are."""
        whole = self.head.encode() + self.trailing
        return whole[: self.header.length] if self.header.length else whole

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a table.  Raises DecodeError (signature, length), TruncatedError."""
        header, _ = open_table(data, cls.SIGNATURE, structure=cls.__name__)
        head: Any = _head(cls.HEAD, data[: header.length], cls.__name__)
        return cls(head, data[cls.HEAD.SIZE : header.length])

    @classmethod
    def examine(cls, data: bytes) -> tuple[Self, WireError | None]:
        """:meth:`parse`, in the form that tables with a list have: such a table is read whole or not at all."""
        return cls.parse(data), None

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the table."""
        return self.head.plain() | ({"trailing": self.trailing.hex()} if self.trailing else {})

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The table that :meth:`plain` described.  Raises ValueError (pydantic.ValidationError for a wrong field)."""
        head: Any = cls.HEAD.of_plain(members(plain, without=("trailing",)))
        return cls(head, hex_in(plain, "trailing"))


@dataclass(frozen=True)
class ListTable(Generic[H, E]):
    """A table of a fixed part and ``COUNT`` structures of one kind behind it."""

    SIGNATURE: ClassVar[str]
    REVISION: ClassVar[int]
    HEAD: ClassVar[type[TableHead]]
    ENTRY: ClassVar[type[Struct]]
    COUNT: ClassVar[str]
    """The field of the fixed part that counts the structures."""
    FRAME: ClassVar[c.Construct]
    """The table as a construct declaration."""

    head: H
    """The fixed part; its count is set when the table is built."""
    entries: tuple[E, ...]
    trailing: bytes = b""
    """Bytes behind the last entry that the table's length covers: kept, never read."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.FRAME = c.Struct(
            "head" / Wire(cls.HEAD),
            "entries" / Counted(cls.ENTRY, cls.__name__, cls.HEAD, cls.COUNT),
            "trailing" / c.GreedyBytes,
        )

    @property
    def header(self) -> TableHeader:
        """The header as it was read, or as it will be written but for length and checksum."""
        return self.head.header

    @classmethod
    def of(cls, entries: Iterable[E], header: TableHeader | None = None, **fields: Any) -> Self:
        """The table with these entries; ``header`` gives the OEM's words.  Raises pydantic.ValidationError."""
        found = tuple(entries)
        words = header or new_header(cls.SIGNATURE, cls.REVISION)
        head: Any = cls.HEAD(**{"header": words, cls.COUNT: len(found), **fields})
        return cls(head, found)

    def build(self) -> bytes:
        """The table's bytes, with length, count and checksum."""
        head = self.head.model_copy(update={self.COUNT: len(self.entries)})
        return seal(self.header, self._frame(head)[TableHeader.SIZE :])

    def encode(self) -> bytes:
        """The table's bytes with length, count and checksum as they are."""
        return self._frame(self.head)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a table.  Raises DecodeError (signature, length), TruncatedError (a count past the table's end)."""
        table, error = cls.examine(data)
        if error is not None:
            raise error
        return table

    @classmethod
    def examine(cls, data: bytes) -> tuple[Self, WireError | None]:
        """Read the entries that are there, and say why not all can be read that the count promises; None where all can.

        Raises DecodeError, TruncatedError only where the fixed part cannot be read.
        """
        header, _ = open_table(data, cls.SIGNATURE, structure=cls.__name__)
        data = data[: header.length]
        head: Any = _head(cls.HEAD, data, cls.__name__)
        try:
            frame = cls.FRAME.parse(data)
        except TruncatedError as error:
            at = cls.HEAD.at(cls.COUNT)
            there = (len(data) - cls.HEAD.SIZE) // cls.ENTRY.SIZE
            frame = cls.FRAME.parse(data[: at.offset] + there.to_bytes(at.size, "little") + data[at.offset + at.size :])
            return cls(head, tuple(frame.entries), frame.trailing), error
        return cls(head, tuple(frame.entries), frame.trailing), None

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the table."""
        out = self.head.plain() | {"entries": [entry.plain() for entry in self.entries]}
        return out | ({"trailing": self.trailing.hex()} if self.trailing else {})

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The table that :meth:`plain` described.  Raises ValueError (pydantic.ValidationError for a wrong field)."""
        head: Any = cls.HEAD.of_plain(members(plain, without=("entries", "trailing")))
        entries: Any = tuple(cls.ENTRY.of_plain(entry) for entry in objects_in(plain, "entries"))
        return cls(head, entries, hex_in(plain, "trailing"))

    def offset(self, index: int) -> int:
        """Byte offset of entry ``index`` from the start of the table."""
        return self.HEAD.SIZE + self.ENTRY.SIZE * index

    def _frame(self, head: Any) -> bytes:
        frame: bytes = self.FRAME.build({"head": head, "entries": self.entries, "trailing": self.trailing})
        return frame


@dataclass(frozen=True)
class RawTable:
    """A table that no class of ours reads, AML included: its header, and its body as it is."""

    header: TableHeader
    body: bytes

    def build(self) -> bytes:
        """The table's bytes, with length and checksum."""
        return seal(self.header, self.body)

    def encode(self) -> bytes:
        """The table's bytes with length and checksum as they are."""
        return self.header.encode() + self.body

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read any table.  Raises DecodeError (length), TruncatedError."""
        return cls(*open_table(data, structure="Table"))

    @classmethod
    def examine(cls, data: bytes) -> tuple[Self, WireError | None]:
        """:meth:`parse`, in the form that tables with a list have."""
        return cls.parse(data), None

    def plain(self) -> dict[str, Any]:
        """What JSON holds of the table."""
        return {"header": self.header.plain(), "body": self.body.hex()}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The table that :meth:`plain` described.  Raises ValueError (pydantic.ValidationError for a wrong field)."""
        return cls(TableHeader.of_plain(object_in(plain, "header")), hex_in(plain, "body"))


class Counted(c.Construct):  # type: ignore[misc]
    """Structures of one kind, as many as a field of ``context.head`` says; the bound is checked before one is read."""

    def __init__(self, kind: type[Struct], structure: str, head: type[Struct], count: str) -> None:
        super().__init__()
        self.wire, self.structure, self.count, self.at = Wire(kind), structure, count, head.at(count).offset

    def _parse(self, stream: Any, context: Any, path: str) -> list[Struct]:
        count, size, at = getattr(context.head, self.count), self.wire.kind.SIZE, stream.tell()
        left = c.stream_size(stream) - at
        if count * size > left:
            raise TruncatedError(
                f"{counted(count, 'entry needs', 'entries need')} {count * size} bytes, {left} given",
                structure=self.structure, path=f"head.{self.count}", offset=self.at,
            )  # fmt: skip
        found: list[Struct] = []
        for index in range(count):
            try:
                found.append(self.wire._parse(stream, context, path))
            except WireError as error:
                raise error.within(self.structure, f"entries[{index}]") from None
        return found

    def _build(self, obj: Iterable[Struct], stream: Any, context: Any, path: str) -> Iterable[Struct]:
        for entry in obj:
            stream.write(entry.encode())
        return obj


def _head(kind: type[TableHead], data: bytes, structure: str) -> TableHead:
    try:
        return kind.decode(data)
    except WireError as error:
        raise error.within(structure, "head") from None


__all__ = ["Counted", "FixedTable", "ListTable", "RawTable", "Table", "TableHead", "new_header"]
