"""Any trace as the native one: a line of JSON per item, the inverse of ``jsonl`` (docs/trace-format.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from vmm_ras.events import GuestAbort, HostSignal, MemoryFault
from vmm_ras.memory import MemorySlot
from vmm_ras.traces.items import (
    AckDelay,
    Addresses,
    BadLine,
    Entry,
    Header,
    MaskSerror,
    PollStop,
    RunAt,
    SdeiRegistered,
    TraceItem,
    Unlocated,
    VcpuThread,
)

HELD_MAX = 1000
"""Entries that wait for the first one that shows a time."""
_STAMPED = HostSignal | GuestAbort | MemoryFault | Unlocated


class Writer:
    """Lines of a native trace, with what could not be written counted."""

    def __init__(self, addresses: Addresses = "hva") -> None:
        self.addresses: Addresses = addresses
        self.written: Counter[str] = Counter()
        """Lines by ``event``, guest actions by ``action``."""
        self.bad = 0
        self.untimed = 0
        """Times that the native format cannot hold: before 1970, or of another clock than the trace's first."""
        self._wall: bool | None = None

    def lines(self, entries: Iterable[Entry]) -> Iterator[bytes]:
        """A header, and a line per item; bad lines are left out.  Raises what iterating ``entries`` raises."""
        held: list[Entry] = []  # until the first time tells whose clock it is
        for entry in entries:
            if self._wall is None:
                _, at, item = entry
                if isinstance(item, Header):
                    self._wall, self.addresses = item.wall, item.addresses
                elif isinstance(item, _STAMPED) and at is not None:
                    self._wall = item.time is not None
                elif len(held) < HELD_MAX:
                    held.append(entry)
                    continue
                else:
                    self._wall = False
                yield from self._begin(held)
            yield from self._line(entry)
        if self._wall is None:
            yield from self._begin(held)

    def _begin(self, held: list[Entry]) -> Iterator[bytes]:
        yield self._header()
        for early in held:
            yield from self._line(early)
        held.clear()

    def _header(self) -> bytes:
        fields: dict[str, Any] = {"event": "trace", "version": 1, "clock": "wall" if self._wall else "relative"}
        if self.addresses != "hva":
            fields["addresses"] = self.addresses
        return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)

    def _line(self, entry: Entry) -> Iterator[bytes]:
        _, at, item = entry
        if isinstance(item, Header):
            return
        if isinstance(item, BadLine):
            self.bad += 1
            return
        fields = plain(item)
        if at is not None and not isinstance(item, MemorySlot | VcpuThread):
            if at < 0 or (isinstance(item, _STAMPED) and (item.time is not None) != bool(self._wall)):
                self.untimed += 1
            else:
                fields["time"] = at
        self.written[fields.get("action") or fields["event"]] += 1
        yield orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def plain(item: TraceItem) -> dict[str, Any]:
    """The keys of an item's line, but for its time.  Numbers are JSON integers, in the order that is read quickest."""
    match item:
        case HostSignal(code, hva, lsb, tid):
            return {"event": "signal", "code": code.name, "hva": hva, "lsb": lsb, "tid": tid}
        case GuestAbort(vcpu, esr, gva, gpa):
            return {"event": "abort", "vcpu": vcpu, "esr": esr} | _known(gva=gva, gpa=gpa)
        case MemoryFault(gpa, size):
            return {"event": "fault", "gpa": gpa, "size": size}
        case Unlocated(code, tid, what):
            return (
                {"event": "unlocated"} | _known(code=None if code is None else code.name) | {"tid": tid, "what": what}
            )
        case MemorySlot(hva, gpa, size):
            return {"event": "memory", "hva": hva, "gpa": gpa, "size": size}
        case VcpuThread(vcpu, tid):
            return {"event": "vcpu", "vcpu": vcpu, "tid": tid}
        case AckDelay(ms, source_id):
            return {"event": "guest", "action": "ack-delay", "ms": ms} | _known(source_id=source_id)
        case MaskSerror(vcpu, masked):
            return {"event": "guest", "action": "mask-serror", "vcpu": vcpu, "masked": masked}
        case SdeiRegistered(registered):
            return {"event": "guest", "action": "sdei", "registered": registered}
        case RunAt(vcpu, el):
            return {"event": "guest", "action": "el", "vcpu": vcpu, "el": el}
        case PollStop(stopped):
            return {"event": "guest", "action": "poll-stop", "stopped": stopped}
        case _:
            raise TypeError(f"{type(item).__name__} is no line of a native trace")


def _known(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}
