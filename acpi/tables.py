"""Every table by its signature (ACPI 6.5, 5.2.6): the class that reads it; classes load when their signature is met."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from acpi.frame import RawTable, Table
from acpi.table import TableHeader
from cper.wire import WireError

MODULES: dict[str, str] = {
    "AEST": "acpi.aest:Aest",
    "APIC": "acpi.madt:Madt",
    "BERT": "acpi.bert:Bert",
    "CCEL": "acpi.ccel:Ccel",
    "EINJ": "acpi.einj:Einj",
    "ERST": "acpi.erst:Erst",
    "FACP": "acpi.fadt:Fadt",
    "GTDT": "acpi.gtdt:Gtdt",
    "HEST": "acpi.hest:Hest",
    "RAS2": "acpi.ras2:Ras2",
    "RASF": "acpi.rasf:Rasf",
    "SDEI": "acpi.sdei:Sdei",
    "SPCR": "acpi.spcr:Spcr",
}
"""Signature to ``module:class``.  A table of one's own is added here, before it is met."""


def table_class(signature: str) -> Any:
    """The class of a signature; ``RawTable`` where none is known."""
    place = MODULES.get(signature)
    if place is None:
        return RawTable
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def parse_table(data: bytes) -> Table:
    """Any table as its class, or as it is where no class is known.  Raises DecodeError, TruncatedError."""
    table: Table = _class_of(data).parse(data)
    return table


def examine_table(data: bytes) -> tuple[Table, WireError | None]:
    """As much of a table as can be read, and why not all; see ``Hest.examine``.

    A table whose own class cannot begin to read it comes as a RawTable.  Raises DecodeError, TruncatedError only where
    the header cannot be read.
    """
    found = _class_of(data)
    examine = getattr(found, "examine", None)
    try:
        table, error = examine(data) if examine is not None else (found.parse(data), None)
    except WireError as error_:
        table, error = RawTable.parse(data), error_
    return table, error


def _class_of(data: bytes) -> Any:
    try:
        header = TableHeader.decode(data)
    except WireError as error:
        raise error.within("Table", "header") from None
    return table_class(header.signature)


__all__ = ["MODULES", "examine_table", "parse_table", "table_class"]
