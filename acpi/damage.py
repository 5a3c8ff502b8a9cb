"""What can still be read of a status block that is cut off or contradicts itself (ACPI 6.5, 18.3.2.7.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from acpi.data_entry import DataEntry201, entry_class
from acpi.ghes import Entry, ErrorStatusHeader, StatusBlock
from cper.fault import body_fault, plain_fault
from cper.plain import hex_in, members
from cper.section import plain_body
from cper.wire import TruncatedError, WireError


class DamagedBlock(NamedTuple):
    """As much of a block as could be read; ``faults`` say what could not, and why."""

    header: ErrorStatusHeader | None
    entries: tuple[Entry, ...]
    """The last one's body may be shorter than its entry says."""
    rest: bytes
    """Bytes behind what could be read."""
    faults: tuple[WireError, ...]

    def encode(self) -> bytes:
        """The bytes that were given."""
        head = b"" if self.header is None else self.header.encode()
        return b"".join([head, *(part for e in self.entries for part in (e.header.encode(), e.body)), self.rest])

    def plain(self) -> dict[str, Any]:
        """What JSON holds."""
        out: dict[str, Any] = {} if self.header is None else {"header": self.header.plain()}
        out["entries"] = [
            {"header": e.header.plain(), **plain_body(e.header.section_type, e.body)} for e in self.entries
        ]
        return out | {"rest": self.rest.hex(), "faults": [plain_fault(fault) for fault in self.faults]}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """What :meth:`plain` described, without the faults.  Raises ValueError."""
        if "header" not in members(plain):
            return cls(None, (), hex_in(plain, "rest"), ())
        block = StatusBlock.of_plain({"header": plain["header"], "entries": plain.get("entries", [])})
        return cls(block.header, block.entries, hex_in(plain, "rest"), ())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what can be read.  Raises nothing."""
        try:
            header = ErrorStatusHeader.decode(data)
        except TruncatedError as error:
            return cls(None, (), data, (error,))
        faults: list[WireError] = []
        try:
            StatusBlock.decode(data, header)
        except WireError as error:
            faults.append(error)
        entries: list[Entry] = []
        at, end = ErrorStatusHeader.SIZE, min(ErrorStatusHeader.SIZE + header.data_length, len(data))
        while at + DataEntry201.SIZE <= end:
            row = DataEntry201.at("revision")
            kind = entry_class(int.from_bytes(data[at + row.offset : at + row.offset + row.size], "little"))
            if at + kind.SIZE > end:
                break
            entry = kind.decode(data, at)
            at += kind.SIZE
            stop = min(at + entry.error_data_length, end)
            entries.append(Entry(entry, data[at:stop]))
            at = stop
        return cls(header, tuple(entries), data[at:], tuple(faults))


def faults_of(block: StatusBlock) -> list[WireError]:
    """Why bodies of a whole block cannot be read as the type that their entry names."""
    out, at = [], ErrorStatusHeader.SIZE
    for index, entry in enumerate(block.entries):
        at += entry.header.SIZE
        fault = body_fault(entry.header.section_type, entry.body, f"entries[{index}].section", at)
        out += [fault] if fault is not None else []
        at += len(entry.body)
    return out


__all__ = ["DamagedBlock", "faults_of"]
