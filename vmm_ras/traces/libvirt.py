"""libvirt's events as `virsh event` and `virsh qemu-monitor-event` print them (virsh-domain-event.c).

``event 'memory-failure' for domain 'vm':`` and the lines below it say who was told, what was done, and the flags: no
address, no thread.  ``event MEMORY_FAILURE ... for domain 'vm': {...}`` is QEMU's own event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import orjson

from vmm_ras.traces import qmp
from vmm_ras.traces.items import Entry, Tally, ascii_only
from vmm_ras.traces.lines import LONGEST, UntilDamage

_STAMP = rb"(?:(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?[+-]\d{4}): )?"
_EVENT = re.compile(_STAMP + rb"event '([\w-]{1,40})' for domain '?(.{1,200}?)'?: ?", re.DOTALL)
_MONITOR = re.compile(
    _STAMP + rb"event ([A-Z][A-Z_0-9]{1,60})(?: at (\d{1,11}\.\d{6}))? for domain '?(.{1,200}?)'?: ?", re.DOTALL
)
_FIELD = re.compile(rb"\s*(recipient|action|action required|recursive): (\w{1,20})\s*\Z")


def recognises(line: bytes) -> bool:
    """Whether a line can only be virsh's."""
    return _EVENT.match(line) is not None or _MONITOR.match(line) is not None


class _Open:
    """A memory-failure event whose lines are still coming."""

    def __init__(self, number: int, at: float | None, domain: bytes) -> None:
        self.number, self.at, self.domain = number, at, domain
        self.fields: dict[bytes, bytes] = {}


def read(batches: Iterable[tuple[int, list[bytes | None]]], tally: Tally) -> Iterator[Entry]:
    """Unlocated per memory-failure event (MemoryFault where QEMU's own event has a gpa); other events are ignored.

    Trace clock and wall clock are known with ``--timestamp``.  Raises InputError when strict.
    """
    event: _Open | None = None
    whole = UntilDamage(batches)
    for first, lines in whole:
        for number, line in enumerate(lines, first):
            if line is None:
                if event is not None:
                    yield _closed(event, tally)
                    event = None
                yield (
                    number,
                    None,
                    tally.reject(number, f"a line of more than {LONGEST} bytes, expected virsh's output"),
                )
                continue
            if event is not None:
                field = _FIELD.match(line)
                if field is not None and field[1] not in event.fields:
                    event.fields[field[1]] = field[2]
                    if len(event.fields) == 4:
                        yield _closed(event, tally)
                        event = None
                    continue
                if line.strip() == b"flags:":
                    continue
                yield _closed(event, tally)
                event = None
            if match := _EVENT.match(line):
                if match[2] == b"memory-failure":
                    event = _Open(number, _seconds(match[1]), match[3])
            elif (match := _MONITOR.match(line)) and match[2] == b"MEMORY_FAILURE":
                yield _monitor(number, match, line[match.end() :], tally)
    if event is not None:
        yield _closed(event, tally)
    whole.end()


def _closed(event: _Open, tally: Tally) -> Entry:
    """The entry of an event all of whose lines have come, or of one that lacks some."""
    get = event.fields.get
    recipient, action, required = get(b"recipient", b"").decode(), get(b"action", b"").decode(), get(b"action required")
    if recipient not in qmp.RECIPIENTS or action not in qmp.ACTIONS or required not in {b"0", b"1"}:
        reason = "memory-failure without its lines, expected recipient, action and flags below it"
        return event.number, event.at, tally.reject(event.number, reason)
    item = qmp.item_of(recipient, action, required == b"1", event.at, tally, {}, _whose(event.domain))
    assert not isinstance(item, str)  # only an address can be wrong
    return event.number, event.at, item


def _monitor(number: int, match: re.Match[bytes], data: bytes, tally: Tally) -> Entry:
    at = _seconds(match[1]) if match[3] is None else float(match[3])
    try:
        fields = orjson.loads(data)
    except ValueError:
        fields = None
    item = qmp.failure(fields, at, tally, _whose(match[4]))
    return number, at, tally.reject(number, item) if isinstance(item, str) else item


def _whose(domain: bytes) -> str:
    return f"domain {ascii_only(domain)}: "


def _seconds(stamp: bytes | None) -> float | None:
    if stamp is None:
        return None
    try:
        return (datetime.fromisoformat(stamp.decode()) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    except (ValueError, OverflowError):
        return None
