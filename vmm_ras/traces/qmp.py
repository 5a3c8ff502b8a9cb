"""QMP event logs: MEMORY_FAILURE (QEMU's qapi/run-state.json) among the JSON objects of a monitor, one per line.

QEMU's event has no address.  An address may be there as an extra: ``gpa``, and ``size``, in ``data``; then the event is
a MemoryFault.  Without it, it is Unlocated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from vmm_ras.events import Code, MemoryFault
from vmm_ras.traces.items import Entry, Tally, Unlocated, shown
from vmm_ras.traces.lines import LONGEST

PAGE = 4096
"""Bytes of a fault whose event has a gpa and no size."""
RECIPIENTS = ("hypervisor", "guest")
ACTIONS = ("ignore", "inject", "fatal", "reset")
_KNOWN = ", ".join(RECIPIENTS) + "; " + ", ".join(ACTIONS)
WITHOUT_CODE = "action-required errors with a guest address: a fault does not keep that they were consumed"
WITHOUT_PLACE = "memory-failure events without an address: QEMU's own have none"
MAYBE = "events without action-required: AO, or AR to an AMD guest (QEMU 10.0 sets no flag there); taken as neither"

_OBJECT = re.compile(
    rb'\s*\{\s*(?:"(?:QMP|return|error|timestamp|execute|exec-oob|arguments|id|data)"\s*:|"event"\s*:\s*"[A-Z][A-Z_0-9]*")'
)
_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,16}\Z")


def recognises(line: bytes) -> bool:
    """Whether a line can only be QMP's: events are in capitals there, and times are in ``timestamp``."""
    return _OBJECT.match(line) is not None


def read(batches: Iterable[tuple[int, list[bytes | None]]], tally: Tally) -> Iterator[Entry]:
    """MemoryFault or Unlocated per MEMORY_FAILURE; all else that QMP says is ignored.  Raises InputError when strict.

    The trace clock is the event's timestamp, a wall clock.
    """
    for first, lines in batches:
        for number, line in enumerate(lines, first):
            if line is None:
                reason = f"a line of more than {LONGEST} bytes, expected a JSON object"
                yield number, None, tally.reject(number, reason)
                continue
            if not line.strip():
                continue
            try:
                fields = orjson.loads(line)
            except ValueError:
                yield number, None, tally.reject(number, f"{shown(line)} is not JSON, expected an object of QMP")
                continue
            if not isinstance(fields, dict):
                yield number, None, tally.reject(number, "no object, expected one of QMP")
            elif fields.get("event") == "MEMORY_FAILURE":
                at = seconds(fields.get("timestamp"))
                item = failure(fields.get("data"), at, tally)
                yield number, at, tally.reject(number, item) if isinstance(item, str) else item


def failure(data: Any, time: float | None, tally: Tally, whose: str = "") -> MemoryFault | Unlocated | str:
    """The event's item, or what is wrong with its data."""
    if not isinstance(data, dict):
        return "MEMORY_FAILURE without data, expected an object"
    recipient, action, flags = data.get("recipient"), data.get("action"), data.get("flags")
    if recipient not in RECIPIENTS or action not in ACTIONS:
        return f"MEMORY_FAILURE with another recipient or action, expected one of {_KNOWN}"
    required = flags.get("action-required") if isinstance(flags, dict) else None
    if not isinstance(required, bool):
        return "MEMORY_FAILURE without the flag action-required, expected true or false"
    return item_of(str(recipient), str(action), required, time, tally, data, whose)


def item_of(
    recipient: str, action: str, required: bool, time: float | None, tally: Tally, data: dict[str, Any], whose: str = ""
) -> MemoryFault | Unlocated | str:
    """A MemoryFault if ``data`` has a gpa, else Unlocated."""
    if data.get("gpa") is None:
        tally.notes[WITHOUT_PLACE] += 1
        code = Code.AR if required else Code.AO if action == "ignore" else None
        if code is None:
            tally.notes[MAYBE] += 1
        return Unlocated(code, 0, f"{whose}recipient {recipient}, action {action}", time)
    gpa, size = _integer(data["gpa"]), _integer(data.get("size", PAGE))
    if gpa is None or size is None or not size or gpa + size > 1 << 64:
        return "MEMORY_FAILURE with a gpa that makes no sense, expected integers or hex strings within 64 bits"
    if required:
        tally.notes[WITHOUT_CODE] += 1
    return MemoryFault(gpa, size, time)


def seconds(timestamp: Any) -> float | None:
    """Seconds since the epoch, None where QEMU could not tell (it says -1 then) or there is no timestamp."""
    if not isinstance(timestamp, dict):
        return None
    whole, micro = timestamp.get("seconds"), timestamp.get("microseconds", 0)
    if type(whole) is not int or type(micro) is not int or not (0 <= whole < 1 << 40 and 0 <= micro < 1_000_000):
        return None
    return (whole * 1_000_000 + micro) / 1e6


def _integer(value: Any) -> int | None:
    if isinstance(value, str) and _HEX.match(value):
        return int(value, 16)
    return value if type(value) is int and 0 <= value < 1 << 64 else None
