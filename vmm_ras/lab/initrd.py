"""The guest's root file system: busybox, the victim, and one script; before it, tables that replace the firmware's."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

from vmm_ras.lab import cpio
from vmm_ras.lab.packages import Lab

FOLDERS = ("bin", "dev", "proc", "sys", "tmp")
UPGRADES = "kernel/firmware/acpi"
"""Where Linux looks for tables (``Documentation/admin-guide/acpi/initrd_table_override.rst``)."""


def build(lab: Lab, programs: Mapping[str, bytes] | None = None) -> bytes:
    """The archive, compressed; ``programs``: more of them, by name."""
    ours = Path(__file__).with_name("guest")
    nodes = [cpio.directory(name) for name in FOLDERS]
    nodes += [
        cpio.console(),
        cpio.program("bin/busybox", lab.busybox.read_bytes()),
        cpio.program("bin/victim", lab.victim.read_bytes()),
        cpio.program("bin/ask", (ours / "ask").read_bytes()),
        cpio.program("init", (ours / "init").read_bytes()),
    ]
    nodes += [cpio.program(f"bin/{name}", data) for name, data in (programs or {}).items()]
    return gzip.compress(cpio.archive(nodes), 1, mtime=0)


def with_tables(tables: Mapping[str, bytes], root: bytes) -> bytes:
    """The archive behind one that holds tables, by file name: that one Linux reads before it unpacks anything."""
    folders = UPGRADES.split("/")
    nodes = [cpio.directory("/".join(folders[:depth])) for depth in range(1, len(folders) + 1)]
    nodes += [cpio.plain_file(f"{UPGRADES}/{name}", data) for name, data in tables.items()]
    return cpio.archive(nodes) + root
