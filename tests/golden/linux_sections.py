"""Sections of other types that real arm64 kernels read: ``fixtures/linux/sections`` holds block, values and logs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from acpi.ghes import Entry, StatusBlock
from tests.golden.linux import KERNELS, LINUX, PREFIX


@cache
def family(name: str) -> dict[str, Any]:
    """The vectors of one file by name: ``block`` (hex), ``sections`` (what was put in), ``log`` (by kernel)."""
    found: dict[str, Any] = json.loads((LINUX / "sections" / f"{name}.json").read_text())
    return found


def vectors(name: str) -> list[str]:
    """Names of the vectors of one file; each was read by all kernels."""
    assert all(set(v["log"]) == set(KERNELS) for v in family(name).values())
    return sorted(family(name))


def entries(name: str, vector: str) -> list[tuple[Entry, dict[str, Any]]]:
    """The entries of a vector's block, each with what was put in."""
    found = family(name)[vector]
    return list(zip(StatusBlock.decode(bytes.fromhex(found["block"])).entries, found["sections"], strict=True))


def printed(name: str, vector: str, kernel: str) -> list[list[str]]:
    """What a kernel printed of each section: its lines behind ``Error N, type:``, without prefix."""
    return sections(family(name)[vector]["log"][kernel])


def sections(log: Iterable[str]) -> list[list[str]]:
    """A log's lines of each section."""
    out: list[list[str]] = []
    for line in log:
        text = PREFIX.sub("", line)
        if PREFIX.match(line) and re.match(r" Error \d+, type: ", text):
            out.append([])
        elif out and (PREFIX.match(line) or line.startswith("[Firmware Warn]: error section")):
            out[-1].append(text.strip())
    return out


def dumped(lines: list[str]) -> bytes:
    """The bytes of a section that a kernel did not know and dumped as 32-bit words."""
    length = next(int(m[1], 16) for line in lines if (m := re.match(r"section length: 0x([0-9a-f]+)", line)))
    words = [w for line in lines if (m := re.match(r"[0-9a-f]{8}: ((?:[0-9a-f]{8} )+)", line)) for w in m[1].split()]
    return b"".join(int(w, 16).to_bytes(4, "little") for w in words)[:length]


def items(lines: list[str]) -> list[str | bytes]:
    """A log, each hex dump as its bytes."""
    out: list[str | bytes] = []
    for line in lines:
        if (found := re.match(r"([0-9a-f]{8}): (([0-9a-f]{2,8} ?)+)(  .*)?$", line)) is None:
            out.append(line)
            continue
        raw = b"".join(bytes.fromhex(group)[::-1] for group in found[2].split())
        if int(found[1], 16):
            out[-1] += raw  # type: ignore[operator]
        else:
            out.append(raw)
    return out
