"""`vmm-ras compare`: one trace under several policies and guests."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cper.words import counted
from vmm_ras.cli.common import Json, Progress, console, print_json, print_table, usage
from vmm_ras.cli.machine import Map, Pages, PageSize, Preset, PresetName, Sdei, Style, Trace, Vcpus, machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.table import Table
    from rich.text import Text

    from vmm_ras.compare import Comparison, Fate, Run, Value

_CONDITIONS = ("lost", "unseen", "panic", "differ")
MAX_RUNS = 16
"""Pairs of policy and guest: each is a machine in memory."""
MOST_TOLD = 20
"""Notices at most about a trace; the rest is counted."""


def compare(
    trace: Trace,
    policies: Annotated[
        list[str] | None,
        typer.Option(
            "--policy", metavar="FILE", help="TOML policy, or 'default'; repeatable. One: beside the default."
        ),
    ] = None,
    guests: Annotated[
        list[str] | None,
        typer.Option("--guest", metavar="PROFILE", help="Guest profile; repeatable.  [default: linux]"),
    ] = None,
    map_: Map = None,
    json_: Json = False,
    events: Annotated[int, typer.Option(min=0, max=100_000, help="How many events that differ are shown.")] = 10,
    fail_on: Annotated[
        str, typer.Option(metavar="LIST", help="Exit 4 if, in any run: lost, unseen, panic; or if runs differ: differ.")
    ] = "",
    preset: Preset = PresetName.default,
    style: Annotated[Style, typer.Option(help="What the records say.")] = Style.native,
    vcpus: Vcpus = 8,
    page_size: Pages = PageSize.k4,
    sdei: Sdei = True,
    strict: Annotated[bool, typer.Option(help="Stop at the first bad line.")] = False,
) -> None:
    """Compare what becomes of a trace under several policies, and guests: a column each, differences marked.

    Times to report are on the trace's clock, from event to acknowledgement.  Exit codes: 0 done, also where runs
    differ; 1 bad data; 2 usage; 3 the host lacks something; 4 a --fail-on condition holds.

    Example: vmm-ras compare qemu.strace --policy default --policy mine.toml --guest linux --guest generic
    """
    wanted = [w for w in fail_on.split(",") if w]
    for word in wanted:
        if word not in _CONDITIONS:
            usage(f"--fail-on {word!r}: expected {', '.join(_CONDITIONS)}")
    files, profiles = list(dict.fromkeys(policies or ())), list(dict.fromkeys(guests or ["linux"]))
    if len(files) < 2 and len(profiles) < 2:
        files = ["default", *(f for f in files if f != "default")]
        if len(files) < 2:
            usage("compare what? give --policy FILE, or --guest twice")
    files = files or ["default"]
    if "-" in files:
        usage("--policy -: a file expected, which is read for each guest")
    if len(files) * len(profiles) > MAX_RUNS:
        usage(f"{len(files)} policies under {len(profiles)} guests: at most {MAX_RUNS} pairs")
    from vmm_ras.compare import Comparison, Run

    runs = [
        Run(file, guest, machine(file, None, guest, map_, preset, vcpus, page_size, sdei, style))
        for file in files
        for guest in profiles
    ]
    comparison = Comparison(runs, events)
    told = _Told(runs[0])
    with _traces(trace, len(runs), strict) as traces:
        for _ in comparison.play([told.reading(run, found) for run, found in zip(runs, traces, strict=True)]):
            pass
        told.end()
        for note in traces[0].notes:
            print(f"note: {note}", file=sys.stderr)
    if json_:
        print_json({"trace": trace} | comparison.plain())
    else:
        _show(comparison)
    failures = [run.replay.summary.failures for run in runs]
    if ("differ" in wanted and comparison.differs()) or any(f.get(word) for f in failures for word in wanted):
        raise typer.Exit(4)


class _Told:
    """What the runs notice of the trace: what the first does is told as it goes, the first ``MOST_TOLD`` of it."""

    def __init__(self, first: Run) -> None:
        self._first, self._count = first, 0
        self._progress = Progress(what="trace entries")

    def reading(self, run: Run, entries: Iterable[Any]) -> Iterator[Any]:
        """The entries; what was noticed of one is gone when the next is read: all lines of a trace may be bad."""
        for entry in entries:
            yield entry
            if run is self._first:
                self._progress.step()
                self._tell()
            run.replay.notices.clear()

    def end(self) -> None:
        """Say how much was left out."""
        self._tell()
        self._progress.end()
        left = self._count - MOST_TOLD
        if left > 0:
            print(f"{counted(left, 'more notice', form=',')} (vmm-ras replay tells all)", file=sys.stderr)

    def _tell(self) -> None:
        for notice in self._first.replay.notices:
            self._count += 1
            if self._count <= MOST_TOLD:
                self._progress.end()
                print(notice, file=sys.stderr)
        self._first.replay.notices.clear()


@contextmanager
def _traces(trace: str, count: int, strict: bool) -> Iterator[list[Any]]:
    """The trace, opened for each run; standard input is kept in a file for that."""
    from vmm_ras.traces import open_trace

    with ExitStack() as stack:
        if trace != "-":
            yield [stack.enter_context(open_trace(trace, strict=strict)) for _ in range(count)]
            return
        from shutil import copyfileobj
        from tempfile import NamedTemporaryFile

        kept = stack.enter_context(NamedTemporaryFile())
        copyfileobj(sys.stdin.buffer, kept)
        kept.flush()
        streams = [stack.enter_context(open(kept.name, "rb")) for _ in range(count)]
        yield [open_trace("-", stdin=stream, strict=strict) for stream in streams]


def _show(comparison: Comparison) -> None:
    from rich.table import Table

    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for run in comparison.runs:
        table.add_column(_name(run, comparison), justify="right", overflow="fold")
    figures = list(comparison.table())
    told = next(cells for figure, cells in figures if figure.key == "told")
    others = any(value != base for value, base in told)
    for figure, cells in figures:
        timed = figure.key.startswith("report_")
        better = 0 if timed and others else figure.better  # times of other events are no better and no worse
        marked = any(value != base for value, base in cells)
        table.add_row(figure.words, *(_cell(v, b, better, timed) for v, b in cells), style="" if marked else "dim")
    print_table(table)
    for run in comparison.runs:
        if why := run.replay.summary.panicked:
            out.print(f"{_name(run, comparison)}: panicked: {why}")
    out.print(f"\n{counted(comparison.differing, 'event', form=',')} fared differently")
    if comparison.examples:
        print_table(_examples(comparison))


def _name(run: Run, comparison: Comparison) -> str:
    one_policy = len({r.policy for r in comparison.runs}) == 1
    one_guest = len({r.guest for r in comparison.runs}) == 1
    return run.guest if one_policy else run.policy if one_guest else f"{run.policy}, {run.guest}"


def _cell(value: Value, base: Value, better: int, seconds: bool) -> Text:
    """A value, and how far it is from the one that it is compared with."""
    from rich.text import Text

    text = Text("-" if value is None else _time(value) if seconds else f"{value:,}")
    if value != base:
        by = (value or 0) - (base or 0)
        style = "yellow" if value is None or base is None or not better else "green" if by * better > 0 else "red"
        if value is not None and base is not None:
            text.append(f" ({'+' if by > 0 else '-'}{_time(abs(by)) if seconds else format(abs(by), ',')})")
        else:
            text.append(" (*)")
        text.stylize(style)
    return text


def _time(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds >= 1 else f"{seconds * 1000:.3f} ms"


def _examples(comparison: Comparison) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("line", "code", "gpa"):
        table.add_column(name, justify="right" if name == "line" else "left")
    for run in comparison.runs:
        table.add_column(_name(run, comparison), overflow="fold")
    for event in comparison.examples:
        cells = [
            Text(_fate(fate), style="" if fate == event.fates[base] else "yellow")
            for fate, base in zip(event.fates, comparison.base, strict=True)
        ]
        table.add_row(f"{event.line:,}", event.code, "" if event.gpa is None else f"{event.gpa:#x}", *cells)
    left = comparison.differing - len(comparison.examples)
    if left:
        table.add_row("...", "", f"{left:,} more (--events)")
    return table


def _fate(fate: Fate) -> str:
    return f"{fate.delivery or 'not told'}, {fate.outcome}{', acked' if fate.acked else ''}"
