"""The counts of `trace stats` as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

THREADS = 8
"""Threads that are shown by name."""
_UNITS = ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B"))


def table(plain: Mapping[str, Any]) -> Table:
    """What ``Stats.plain`` holds."""
    out = Table(box=None, show_header=False, pad_edge=False)
    out.add_row("format", plain["format"])
    out.add_row("events", f"{plain['events']:,}" + _counts(plain["kinds"]))
    out.add_row("codes", _list(plain["codes"]) or "none")
    if plain["unlocated"]:
        out.add_row("without a place", _list(plain["unlocated"]))
    pages = plain["pages"]
    least = "" if pages["exact"] else "at least "
    whose = {"hva": "by host virtual address", "hpa": "by host physical address"}[plain["addresses"]]
    out.add_row("4 KiB pages lost", f"{least}{pages['host']:,} {whose}, {pages['guest']:,} by guest address")
    out.add_row("lost before", f"{plain['repeated']:,}")
    unmapped = plain["unmapped"]
    out.add_row("not guest memory", "unknown: no map" if unmapped is None else f"{unmapped:,}")
    out.add_row("granules", ", ".join(f"{size(int(lsb))}: {n:,}" for lsb, n in plain["granules"].items()) or "none")
    out.add_row("threads", _threads(plain["threads"]))
    time, storms = plain["time"], plain["storms"]
    if time["span"] is None:
        out.add_row("time", "not told")
    else:
        rate = "" if time["per_second"] is None else f", {time['per_second']:,.3g} events/s"
        out.add_row("time", f"{time['span']:,.6g} s{rate}, at most {time['peak_in_a_second']:,} in one second")
        longest = storms["longest"]
        most = "" if longest is None else f", the largest {longest['events']:,} in {longest['seconds']:.3g} s"
        out.add_row("storms", f"{storms['count']:,} of {storms['least']} events or more{most}")
    if plain["trace"]:
        out.add_row("the trace's own", _list(plain["trace"]))
    if plain["bad_lines"] or plain["other"] or plain["info"]:
        other = f"{plain['other']:,} other SIGBUS, {plain['info']:,} that tell nobody"
        out.add_row("other lines", f"{plain['bad_lines']:,} bad, {other}")
    return out


def size(lsb: int) -> str:
    """A power of two of bytes, in words."""
    for shift, unit in _UNITS:
        if lsb >= shift:
            return f"{1 << lsb - shift} {unit}"
    raise AssertionError(lsb)


def _counts(counts: Mapping[str, int]) -> str:
    return f" ({_list(counts)})" if len(counts) > 1 else ""


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _threads(threads: Mapping[str, int]) -> str:
    named = {"unknown" if tid == "0" else tid: count for tid, count in threads.items()}
    first = dict(list(named.items())[:THREADS])
    rest = sum(named.values()) - sum(first.values())
    more = f", {len(named) - len(first)} more with {rest:,}" if rest else ""
    return (_list(first) or "none") + more
