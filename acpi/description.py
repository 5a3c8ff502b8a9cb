"""What a guest's ACPI tables are made from: one machine, its error sources, and the words of the tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from acpi.image import SourceDescription, TableWords
from acpi.machine import Machine


@dataclass(frozen=True)
class Revisions:
    """Revisions of the tables; the defaults are those of ACPI 6.3, HEST that of 6.5."""

    fadt_minor: int = 3
    madt: int = 5
    gtdt: int = 3
    spcr: int = 2
    dsdt: int = 2
    hest: int = 2


@dataclass(frozen=True)
class FirmwareDescription:
    """All that a guest's tables are made from."""

    machine: Machine
    sources: tuple[SourceDescription, ...]
    words: TableWords = field(default_factory=TableWords)
    revisions: Revisions = field(default_factory=Revisions)
    hypervisor: str = ""
    """Up to 8 characters for the FADT."""
    sdei: bool | None = None
    """Whether there is an SDEI table; None: where a source's notification is SDEI."""
    osc: bool = True
    """Whether the DSDT agrees to firmware-first errors (_OSC); QEMU's does not, and Linux goes on without."""
    spcr: bool = True
    """Whether the UART is named as the console."""
    boot_errors: bytes | None = None
    """Boot error region for a BERT (status blocks, back to back); None: no BERT."""
    write_back: Literal["errors", "hest"] | None = None
    """Which address the firmware writes back: that of the error region (QEMU's machines up to 10.1), or the HEST's."""
    extra: tuple[bytes, ...] = ()
    """Further tables, sealed, that hold no address of another one (ERST, EINJ, AEST...)."""
