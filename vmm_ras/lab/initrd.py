"""The guest's root file system: busybox, the victim, and one script."""

from __future__ import annotations

import gzip
from pathlib import Path

from vmm_ras.lab import cpio
from vmm_ras.lab.packages import Lab

FOLDERS = ("bin", "dev", "proc", "sys", "tmp")


def build(lab: Lab) -> bytes:
    """The archive, compressed."""
    nodes = [cpio.directory(name) for name in FOLDERS]
    nodes += [
        cpio.console(),
        cpio.program("bin/busybox", lab.busybox.read_bytes()),
        cpio.program("bin/victim", lab.victim.read_bytes()),
        cpio.program("init", (Path(__file__).with_name("guest") / "init").read_bytes()),
    ]
    return gzip.compress(cpio.archive(nodes), 1, mtime=0)
