"""Two readings of one record, member by member."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from cper.arm_processor_types import ArmProcessorNumber
from cper.libcper import record as shape
from cper.libcper.arm_processor import write_arm
from cper.record import Record
from tests.oracle.defects import DEFECTS, LEFT_OUT, MISSING, WHOLE, Defect, clamped

ARM = UUID("e19e3d16-bc11-11e4-9caa-c2051d5d46b0")
_NUMBERED = {0: "Cache Error", 1: "TLB Error", 2: "Bus Error", 3: "Micro-Architectural Error"}


def mine(data: bytes) -> dict[str, Any]:
    """Our reading in libcper's shape; Type of an ARM error as its module 0.0.4 numbers it, as UEFI did before 2.9A."""
    record = Record.decode(data)
    out = shape.of_record(record)
    for index, section in enumerate(record.sections):
        if section.descriptor.section_type == ARM:
            out["sections"][index] = {"ArmProcessor": write_arm(section.body, ArmProcessorNumber, _NUMBERED)}
    found: dict[str, Any] = json.loads(json.dumps(out))
    return found


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything that is no object or list; empty ones are nothing."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


class Tally:
    """What was compared, and what differed."""

    def __init__(self) -> None:
        self.records: Counter[str] = Counter()
        self.members: Counter[str] = Counter()
        self.clamped = 0
        self.defects: Counter[Defect] = Counter()
        self.whole: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.unexplained: dict[tuple[str, str], tuple[Any, Any, str]] = {}

    def compare(self, guid: UUID, data: bytes, theirs: Any, ours: dict[str, Any]) -> None:
        """One record."""
        key = shape.TYPES[guid].key
        self.records[key] += 1
        if theirs is None:
            self.unexplained[key, "(everything)"] = (None, "a record", data.hex())
            return
        if key in WHOLE and "Unknown" in theirs["sections"][0]:
            self.whole[key] += 1
            theirs, ours = theirs | {"sections": []}, ours | {"sections": []}
        a, b = dict(leaves(theirs)), dict(leaves(ours))
        for path in a.keys() | b.keys():
            self._member(key, path, a.get(path, MISSING), b.get(path, MISSING), data)

    def _member(self, key: str, path: str, theirs: Any, ours: Any, data: bytes) -> None:
        self.members[key] += 1
        if theirs == ours and type(theirs) is type(ours):
            return
        inside = re.sub(rf"^sections\[0\]\.{key}\.", "", path)
        if clamped(theirs, ours):
            self.clamped += 1
        elif key in LEFT_OUT and ours is MISSING and LEFT_OUT[key].fullmatch(inside):
            self.left_out[key] += 1
        else:
            for defect in DEFECTS:
                if defect.explains(key, inside, theirs, ours):
                    self.defects[defect] += 1
                    return
            self.unexplained.setdefault((key, inside), (theirs, ours, data.hex()))


__all__ = ["Tally", "leaves", "mine"]
