"""Writes docs/fuzz.md of what the runs of a working folder told."""

from __future__ import annotations

from pathlib import Path


def write(work: Path) -> None:
    """The page."""
