"""A replay as people read it: a line per event, and a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from cper.words import counted
from vmm_ras.replay import SETTLE
from vmm_ras.rows import OUTCOMES, size_of

if TYPE_CHECKING:
    from vmm_ras.rows import Row
    from vmm_ras.summary import Summary

_GOOD = {"offlined", "soft-offlined", "known"}
_BAD = {"swallowed", "malformed", "garbled", "unreadable", "objerr", "panic", "oops", "serror-panic", "waiting"}


def line(row: Row) -> Text:
    """One event: notification, place, rule, block, delivery, what the guest did, acknowledgement."""
    text = Text(f"{row.at:12.6f} ")
    text.append(f"{row.code} ", style="bold red" if row.code == "AR" else "bold yellow")
    text.append(f"{row.hva or 0:#x} " if row.hva is not None else "")
    text.append(f"{size_of(row.lsb)} ")
    if row.gpa is not None:
        text.append(f"→ gpa {row.gpa:#x} ", style="cyan")
    if row.rule:
        text.append(f"→ rule {row.rule} ", style="magenta")
    if row.block is not None:
        entries = f", {row.pages} entries" if row.pages > 1 else ""
        text.append(f"→ block {len(row.block)} B{entries}, crc {row.crc32c:08x} ", style="blue")
    if row.delivery or row.esr is not None:
        text.append(f"→ {(row.delivery or 'sea').upper()} ", style="bold")
        if row.source_id is not None:
            text.append(f"source {row.source_id} ")
        if row.vcpu is not None and row.delivery not in {"polled", "gsiv", "gpio"}:
            text.append(f"vcpu {row.vcpu} ")
        if row.esr is not None:
            text.append(f"ESR {row.esr:#x} ")
    style = "green" if row.outcome in _GOOD else "red" if row.outcome in _BAD else "yellow"
    text.append(f"→ {OUTCOMES.get(row.outcome, row.outcome)}", style=style)
    if row.acked:
        text.append(" → ack", style="green")
    elif row.block is not None:
        text.append(" → no ack", style="red")
    return text


def summary(s: Summary) -> Table:
    """What became of all events."""
    table = Table(title="Summary", title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")

    def counts(name: str, values: dict[str, int]) -> None:
        found = ", ".join(f"{v:,} {k}" for k, v in values.items() if v)
        if found:
            table.add_row(name, found)

    table.add_row("events", f"{s.events:,} ({', '.join(f'{v:,} {k}' for k, v in s.codes.items()) or 'none'})")
    counts("told by", {k: v for k, v in s.deliveries.items() if k != "none"})
    counts("outcomes", dict(s.outcomes))
    counts("pages told", s.pages)
    if s.pages.get("unreported") or s.pages.get("posted"):
        table.add_row("", f"when the replay ended, {SETTLE:g} s after the last event")
    table.add_row("blocks", f"{s.blocks:,} published")
    signalled = counted(s.signalled, "process", "processes", ",")
    table.add_row("guest", f"{counted(s.offlined, 'page', form=',')} offlined, {signalled} signalled")
    if s.panicked:
        table.add_row("panic", Text(s.panicked, style="bold red"))
    for reason, n in s.undelivered.items():
        table.add_row("no way open", Text(f"{reason} ({counted(n, 'time', form=',')})", style="yellow"))
    for escalation in s.escalations:
        table.add_row("escalated", Text(escalation, style="red"))
    if s.escalated > len(s.escalations):
        more = counted(s.escalated - len(s.escalations), "time", form=",")
        table.add_row("escalated", Text(f"and {more} more", style="red"))
    if s.taken_back:
        table.add_row("taken back", counted(s.taken_back, "block", form=","))
    if s.unlocated:
        errors = counted(s.unlocated, "error", form=",")
        table.add_row("no place", Text(f"{errors} of which the trace does not say where", style="yellow"))
    if s.bad_lines:
        table.add_row("bad lines", Text(f"{s.bad_lines:,}", style="red"))
    failures = s.failures
    table.add_row("failures", ", ".join(f"{v:,} {k}" for k, v in failures.items()))
    return table
