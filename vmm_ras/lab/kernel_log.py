"""What an arm64 Linux says about errors in its log and on its console; every pattern was seen on 6.1 and 6.12."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

BOUND = (
    r"HEST: Table parsing has been initialized",
    r"GHES: APEI firmware first mode is enabled by APEI bit",
    r"BERT: Error records from previous boot",
)
"""What a boot with our tables must say."""
WITH_SDEI = (r"sdei: SDEIv1\.\d \(0x0\) detected in firmware",)
"""What it says where there is an SDEI table and somebody answers its calls."""
WITHOUT_SDEI = (
    r"sdei: Failed to get SDEI version: -95",
    r"sdei: disabling SDEI firmware interface",
    r"sdei: failed to mask CPU\[\d\]: -95",
    r"sdei.*probe.* failed with error -95",
)
"""What it says where nobody does (-95: not supported)."""
ERST = (
    r"ERST: Error Record Serialization Table \(ERST\) support is initialized",
    r"pstore: Registered erst as persistent store backend",
)
"""What it says where the serialization table leads to a device."""
COMPLAINTS = re.compile(
    r"ACPI (?:BIOS )?(?:Error|Warning|Exception)|ACPI: .*(?:[Mm]ismatch|[Ii]nvalid|[Uu]nable|[Ii]gnor)"
    r"|Firmware (?:Bug|Warn)"
    r"|(?:GHES|HEST|BERT|ERST|EINJ|APEI|sdei|SDEI|SPCR|MADT|GTDT|FADT|GICv\d|psci)\b.*: .*(?:[Ff]ail|[Ii]nvalid"
    r"|[Uu]nknown|[Uu]nsupported|[Tt]runcated|[Cc]orrupt|[Nn]ot supported|too|[Cc]an't|[Cc]an not|[Uu]nable|[Ss]kip)"
)
"""What it must not say."""
_MEMORY_FAILURE = re.compile(r"Memory failure: 0x([0-9a-f]+): recovery action for (.*): (\w+)")
_STAMP = re.compile(r"^\[ *\d+\.\d+\] ")
_VICTIM = re.compile(r"^VICTIM (\w+) (.*)$", re.MULTILINE)


class MemoryFailure(NamedTuple):
    """What the kernel did about a lost page."""

    pfn: int
    kind: str
    outcome: str
    """``Recovered``, ``Ignored``, ``Delayed`` or ``Failed``."""
    line: str


class Victim(NamedTuple):
    """A process of the guest, as it told of itself."""

    name: str
    pid: int
    va: int
    pa: int
    """Guest physical address of its page."""
    pc: int
    """Of the instruction that reads the page."""
    text: int
    """Guest physical address of that instruction."""


def plain(line: str) -> str:
    """A log line without its time."""
    return _STAMP.sub("", line)


def memory_failures(log: str) -> list[MemoryFailure]:
    """What the kernel did about lost pages, in order."""
    found = []
    for line in log.splitlines():
        match = _MEMORY_FAILURE.search(line)
        if match is not None:
            found.append(MemoryFailure(int(match.group(1), 16), match.group(2), match.group(3), plain(line)))
    return found


def complaints(log: str, expected: Sequence[str] = ()) -> list[str]:
    """Lines in which the kernel objects to the tables, but for those that hold an expected pattern."""
    found = [plain(line) for line in log.splitlines() if COMPLAINTS.search(line)]
    return [line for line in found if not any(re.search(pattern, line) for pattern in expected)]


def victim(text: str) -> Victim:
    """The process that told of itself in ``text``.  Raises ValueError."""
    match = _VICTIM.search(text)
    if match is None:
        raise ValueError(f"no victim in {text[:80]!r}")
    values = dict(part.split("=") for part in match.group(2).split())
    return Victim(match.group(1), int(values["pid"]), *(int(values[k], 16) for k in ("va", "pa", "pc", "text")))


def tables(text: str) -> dict[str, str]:
    """Name to base64 of what ``TABLE name`` lines precede."""
    found: dict[str, str] = {}
    for part in text.split("TABLE ")[1:]:
        name, _, rest = part.partition("\n")
        found[name.strip()] = "".join(rest.split())
    return found
