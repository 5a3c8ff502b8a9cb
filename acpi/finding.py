"""What lint finds: how bad, where, what, and by which clause (ACPI 6.5) or observation (a kernel's source or log)."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from acpi.gas import AddressSpace, GenericAddress
from acpi.register import access
from cper.wire import Struct

LINUX = "Linux 7.2"
"""The kernel whose source (Debian 7.2.13-1) the observations of ``acpi.lint`` were read from."""


class Level(StrEnum):
    """How bad."""

    ERROR = "error"
    """OSPM refuses it, or errors will be lost."""
    WARNING = "warning"
    """It works, but not as its author thought; or the specification forbids it."""
    NOTE = "note"
    """Worth knowing."""


class Finding(NamedTuple):
    """One objection."""

    level: Level
    table: str
    """Signature."""
    path: str
    """Field, as in an error message."""
    offset: int
    """Bytes from the start of the table."""
    text: str
    clause: str
    """Clause of the specification, or the observation."""

    def __str__(self) -> str:
        return f"{self.level}: {self.table} {self.path} at {self.offset:#x}: {self.text} ({self.clause})"


class Report:
    """Collects the findings of one table; ``linux`` says whether Linux's objections count."""

    def __init__(self, table: str, linux: bool = True) -> None:
        self.table, self.linux, self.findings = table, linux, list[Finding]()

    def error(self, path: str, offset: int, text: str, clause: str) -> None:
        """OSPM refuses it, or errors will be lost."""
        self._add(Level.ERROR, path, offset, text, clause)

    def warning(self, path: str, offset: int, text: str, clause: str) -> None:
        """It works, but not as its author thought; or the specification forbids it."""
        self._add(Level.WARNING, path, offset, text, clause)

    def note(self, path: str, offset: int, text: str, clause: str) -> None:
        """Worth knowing."""
        self._add(Level.NOTE, path, offset, text, clause)

    def _add(self, level: Level, path: str, offset: int, text: str, clause: str) -> None:
        full = f"ACPI 6.5, {clause}" if clause[:1].isdigit() else clause
        self.findings.append(Finding(level, self.table, path, offset, text, full))

    def reserved(self, value: Struct, path: str, offset: int, clause: str) -> None:
        """Reserved bits that are set, in ``value`` and in the structures inside it."""
        if value.residue:
            first = next(i for i, byte in enumerate(value.residue) if byte)
            self.warning(path, offset + first, "reserved bits are set", clause)
        for row in value.layout:
            inner = getattr(value, row.path, None) if "." not in row.path else None
            if isinstance(inner, Struct):
                self.reserved(inner, f"{path}.{row.path}", offset + row.offset, clause)

    def register(self, value: GenericAddress, path: str, offset: int, clause: str, bits: int = 0) -> None:
        """A register that Linux cannot reach, that is not in memory, or that has not ``bits`` bits (0: any)."""
        _, reason = access(value)
        if reason:
            self.error(path, offset, reason, f"{LINUX} apei_check_gar" if self.linux else clause)
        elif value.address_space != AddressSpace.SYSTEM_MEMORY:
            self.warning(path, offset, f"{value.address_space.plain} is not system memory", clause)
        if bits and not reason and (value.bit_width != bits or value.bit_offset):
            self.warning(
                path,
                offset + 1,
                f"bits {value.bit_offset} to {value.bit_offset + value.bit_width}, not 0 to {bits}",
                clause,
            )
        if bits and not reason and value.address % (bits // 8):
            self.warning(path, offset + 4, f"{value.address:#x} is not aligned to {bits // 8} bytes", clause)


__all__ = ["LINUX", "Finding", "Level", "Report"]
