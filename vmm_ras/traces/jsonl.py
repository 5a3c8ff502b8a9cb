"""The native trace: JSON Lines, one object with an ``event`` per line (docs/trace-format.md; ``schema()``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any, Final

import orjson

from vmm_ras.events import Code, HostSignal, new
from vmm_ras.traces.items import Entry, Header, Tally, TraceItem, Unlocated
from vmm_ras.traces.lines import LONGEST

U32_MAX: Final = (1 << 32) - 1
_INFINITY: Final = float("inf")
_CODES: Final = {"AR": Code.AR, "AO": Code.AO}
_members: Final[Callable[[Any], tuple[Any, Any, Any, Any, Any]]] = itemgetter("event", "code", "hva", "lsb", "tid")
_OBJECT = re.compile(rb'\s*\{\s*["}]')


def recognises(line: bytes) -> bool:
    """Whether a line can only be JSON Lines: a kernel's ``{1}[Hardware Error]`` is none."""
    return _OBJECT.match(line) is not None


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one line."""
    from vmm_ras.traces import jsonl_models

    return jsonl_models.schema()


def read(batches: Iterable[tuple[int, list[bytes | None]]], tally: Tally) -> Iterator[Entry]:
    """An item per line; blank lines are ignored.  Raises InputError when strict.

    The trace clock is the line's ``time``; it becomes the events' wall-clock time if the header's clock is ``wall``.
    """
    wall = begun = False
    loads, make, signal = orjson.loads, new, HostSignal
    for first, lines in batches:
        number = first - 1
        for line in lines:
            number += 1
            # A trace is mostly signals in their ordinary form, read here by hand: a model costs several times as much.
            # All else, and anything odd, takes the way of the models, which accepts these lines too, to the same items.
            try:
                fields = loads(line)  # type: ignore[arg-type]  # None raises as a bad line does
                event, word, hva, lsb, tid = _members(fields)
                code = _CODES[word]
                if (
                    event == "signal"
                    and type(hva) is type(lsb) is type(tid) is int
                    and hva >= 0
                    and 0 <= lsb <= 63
                    and 0 <= tid <= U32_MAX
                ):
                    count = len(fields)
                    if count == 6:
                        at = fields["time"]
                        if type(at) is not float:
                            at = float(at) if type(at) is int else _INFINITY
                        if 0.0 <= at < _INFINITY:
                            begun = True
                            yield number, at, make(signal, (code, hva, lsb, tid, at if wall else None))
                            continue
                    elif count == 5:
                        begun = True
                        yield number, None, make(signal, (code, hva, lsb, tid, None))
                        continue
            except (ValueError, KeyError, TypeError):
                pass
            entry = _one(line, wall, begun)
            if entry is None:
                continue
            if isinstance(entry, str):
                yield number, None, tally.reject(number, entry)
                continue
            begun = True
            match entry[1]:
                case Header(_, wall, addresses) if addresses != "hva":
                    tally.notes["host physical addresses stand in for the hva (--map HPA:GPA:SIZE)"] += 1
                case Header(_, wall, _):
                    pass
                case Unlocated():
                    tally.notes["errors of which nothing says which memory they hit"] += 1
            yield number, entry[0], entry[1]


def _one(line: bytes | None, wall: bool, begun: bool) -> tuple[float | None, TraceItem] | str | None:
    """Time and item of any line, what is wrong with it, or None for a blank one."""
    from vmm_ras.traces import jsonl_models

    if line is None:
        return f"a line of more than {LONGEST} bytes, expected a JSON object"
    if not line.strip():
        return None
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return jsonl_models.not_json(error)
    entry = jsonl_models.parse(fields, wall)
    if begun and not isinstance(entry, str) and isinstance(entry[1], Header):
        return "event 'trace' after other events, expected it in the first line"
    return entry
