"""ACPI Platform Error Interfaces (ACPI 6.5, chapter 18): the tables a guest's firmware owes it, read and built.

One file per table; ``ghes`` holds the Generic Error Status Block that carries CPER sections, ``image`` places tables,
registers and blocks in guest memory, ``tables`` finds a table's class by its signature, ``lint`` says what OSPM
objects to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acpi.evidence import TypeEvidence


def types() -> tuple[TypeEvidence, ...]:
    """Every declared table and structure, with the evidence that backs it."""
    from acpi import evidence

    return evidence.types()
