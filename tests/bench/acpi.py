"""A HEST of many sources, and a guest's firmware with it: processor time to build and to read back."""

from __future__ import annotations

import time
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from acpi.firmware import build
from acpi.firmware_presets import describe, with_sources
from acpi.hest import Hest, NotificationType
from acpi.image import Image, SourceDescription, build_hest

COUNT = 10_000
LIMIT = 1.0
"""Seconds of processor time for a HEST of that many sources, both ways, on a machine that does nothing else."""


class Taken(NamedTuple):
    """Seconds of processor time."""

    build: float
    read: float


def hest() -> tuple[Hest, Hest, Taken]:
    """Descriptions to a table's bytes, and back; the table, what was read, and how long it took."""
    descriptions = [SourceDescription(i, NotificationType.SDEI, vector=i + 1) for i in range(COUNT)]
    start = time.process_time()
    table = build_hest(descriptions, 0x1_0000_0000)
    data = table.build()
    built = time.process_time()
    again = Hest.parse(data)
    return table, again, Taken(built - start, time.process_time() - built)


def firmware() -> tuple[Image, Taken]:
    """A description to the files of fw_cfg, and the image that their script makes of them."""
    sources = [
        SourceDescription(i, NotificationType.POLLED, poll_interval_ms=1000, block_length=1024) for i in range(COUNT)
    ]
    description = with_sources(describe("minimal-vmm"), *sources)
    start = time.process_time()
    found = build(description)
    built = time.process_time()
    image = found.image()
    return image, Taken(built - start, time.process_time() - built)


def acpi(console: Console) -> bool:
    """Print both, the least of three; whether a HEST is built and read back within the limit."""
    tables, whole = min(hest()[2] for _ in range(3)), min(firmware()[1] for _ in range(3))
    table = Table(f"{COUNT:,} sources", "build", "read back, or placed")
    table.add_row("HEST", f"{tables.build:.2f} s", f"{tables.read:.2f} s")
    table.add_row("a guest's firmware", f"{whole.build:.2f} s", f"{whole.read:.2f} s")
    console.print(f"ACPI tables, processor time (HEST: at most {LIMIT} s together)")
    console.print(table)
    return sum(tables) <= LIMIT
