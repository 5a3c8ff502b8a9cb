"""`vmm-ras trace`: convert, count and make traces of memory failures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from cper.words import counted
from vmm_ras.cli.common import OPTIONS, Json, console, json_text, number, print_json, slots, usage
from vmm_ras.cli.machine import SHIFTS, Map, PageSize

if TYPE_CHECKING:
    from vmm_ras.traces import Trace
    from vmm_ras.traces.items import Entry

EXITS = "Exit codes: 0 done, 1 no trace or a damaged one (--strict: a bad line), 2 usage, 3 the host's fault."

app = typer.Typer(
    help="Traces of memory failures: convert any format to the native one, count, make from a seed.",
    epilog=EXITS,
    **OPTIONS,
)

SHOWN = 20
"""Bad lines whose reason is shown."""


class ScenarioName(str, Enum):
    """What can be generated."""

    mixed = "mixed"
    storm = "storm"
    host_64k = "host-64k"
    hugetlb_2m = "hugetlb-2m"
    hugetlb_1g = "hugetlb-1g"
    lost = "lost"
    late_ack = "late-ack"
    restless = "restless"


_FORMATS = (
    "strace, kernel log, ftrace, perf script, QMP events, QEMU log, virsh events, rasdaemon database or JSON Lines; "
    "gzip too; - is stdin."
)
Source = Annotated[str, typer.Argument(metavar="TRACE", help=_FORMATS)]
Shift = Annotated[
    PageSize,
    typer.Option("--host-page", case_sensitive=False, help="Page size of the host, where the trace has page frames."),
]
Strict = Annotated[bool, typer.Option(help="Stop at the first bad line.")]
Out = Annotated[
    Path | None, typer.Option("-o", "--out", help="Write here, by gzip if it ends with .gz; else to stdout.")
]


@app.command("convert", epilog=EXITS)
def convert(
    trace: Source, out: Out = None, host_page: Shift = PageSize.k4, strict: Strict = False, json_: Json = False
) -> None:
    """Convert a trace of any format to JSON Lines.

    It says on stderr what the source does not tell, and which lines are bad; those are left out.  --json gives the
    counts as JSON: on stdout with -o, else on stderr.

    Example: vmm-ras trace convert qemu.ftrace -o qemu.jsonl
    """
    from vmm_ras.traces import open_trace
    from vmm_ras.traces.write import Writer

    if out is not None and _same(trace, out):
        usage(f"-o {out}: the trace itself, which would be lost while it is read")
    with open_trace(trace, strict=strict, page_shift=SHIFTS[host_page.value]) as source, _sink(out) as sink:
        writer = Writer(source.addresses)
        told = _Told(source)
        for line in writer.lines(told.watch(source)):
            sink.write(line)
    notes = list(source.notes)
    if writer.untimed:
        notes.append(f"times that the native trace cannot hold beside the others ({writer.untimed})")
    counts = {
        "file": source.name, "format": source.format, "addresses": writer.addresses, "lines": dict(writer.written),
        "bad_lines": source.bad, "other": source.other, "info": source.info, "notes": notes,
    }  # fmt: skip
    lines = ", ".join(f"{count} {name}" for name, count in writer.written.most_common()) or "nothing to write"
    told.end()
    _summary(json_, out, counts, [f"{source.name}: {source.format}: {lines}", *told.rest(), *_notes(notes)])


@app.command("stats", epilog=EXITS)
def stats(
    trace: Source,
    map_: Map = None,
    host_page: Shift = PageSize.k4,
    storm_gap: Annotated[float, typer.Option(min=0, help="Seconds between events of one storm, at most.")] = 1.0,
    storm_size: Annotated[int, typer.Option(min=2, help="Events of a storm, at least.")] = 10,
    strict: Strict = False,
    json_: Json = False,
) -> None:
    """Count what a trace holds.

    Errors by code, lost pages, rate, storms, granules, threads, and what is not guest memory or has no place.

    Example: vmm-ras trace stats qemu.strace --map 0x7f3a40000000:0x40000000:4G
    """
    from vmm_ras.traces import open_trace
    from vmm_ras.traces.stats import Stats

    counts = Stats(slots(map_), gap=storm_gap, least=storm_size)
    with open_trace(trace, strict=strict, page_shift=SHIFTS[host_page.value]) as source:
        if source.addresses != "hva":
            counts.addresses = source.addresses
        told = _Told(source)
        for _ in counts.take(told.watch(source)):
            pass
    told.end()
    for line in told.rest():
        print(line, file=sys.stderr)
    head = {"file": source.name, "format": source.format}
    tail = {"other": source.other, "info": source.info, "notes": source.notes}
    plain = head | counts.plain() | tail
    if json_:
        print_json(plain)
        return
    from vmm_ras.cli.trace_table import table

    console().print(table(plain))
    for line in _notes(source.notes):
        print(line)


@app.command("generate", epilog=EXITS)
def generate(
    scenario: Annotated[
        ScenarioName, typer.Argument(help="What the host does; --list says more.")
    ] = ScenarioName.mixed,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    events: Annotated[int | None, typer.Option(min=0, help="Errors in the trace.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Guest memory; takes K, M, G, T.")] = None,
    vcpus: Annotated[int | None, typer.Option(min=1, max=512, help="vCPUs of the guest.")] = None,
    ar: Annotated[float | None, typer.Option(min=0, max=1, help="How many of the errors are AR.")] = None,
    again: Annotated[float | None, typer.Option(min=0, max=1, help="How many are about a page lost before.")] = None,
    lost: Annotated[float | None, typer.Option(min=0, max=1, help="How many signals do not reach the VMM.")] = None,
    storm: Annotated[int | None, typer.Option(min=1, help="Errors of a storm.")] = None,
    granule: Annotated[
        list[str] | None, typer.Option(metavar="SIZE", help="Bytes of a loss, a power of two; repeatable.")
    ] = None,
    late_ack: Annotated[int | None, typer.Option(min=0, help="Milliseconds by which acks are late, at most.")] = None,
    actions: Annotated[
        float | None, typer.Option(min=0, max=1, help="How often the guest does something else.")
    ] = None,
    interval: Annotated[
        float | None, typer.Option(min=0, max=1e6, help="Seconds between errors or storms, on average.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Say what the scenarios are, and stop.")] = False,
    out: Out = None,
    json_: Json = False,
) -> None:
    """Make a trace from a seed.

    The same scenario, options and seed give the same bytes.  --json gives scenario and counts as JSON: on stdout with
    -o, else on stderr.

    Example: vmm-ras trace generate host-64k --seed 7 --events 500 -o storm.jsonl
    """
    from dataclasses import asdict

    from vmm_ras.traces import generate as room
    from vmm_ras.traces.write import Writer

    if list_:
        _list(room.SCENARIOS, json_)
        return
    chosen = room.change(
        room.SCENARIOS[scenario.value][1], events=events, vcpus=vcpus, ar=ar, again=again, lost=lost, storm=storm,
        memory=None if memory is None else number(memory, "--memory"),
        interval_us=None if interval is None else round(interval * 1e6), late_ack_ms=late_ack, actions=actions,
        granules=tuple(_power(text) for text in granule) if granule else None,
    )  # fmt: skip
    if not -(1 << 63) <= seed < 1 << 63:
        usage(f"--seed {seed}: outside 64 bits")
    writer = Writer()
    told = _Told(None, chosen.events)
    with _sink(out) as sink:
        for line in writer.lines(told.watch(room.generate(chosen, seed))):
            sink.write(line)
    told.end()
    counts = {"scenario": scenario.value, "seed": seed, **asdict(chosen), "lines": dict(writer.written)}
    lines = ", ".join(f"{count} {name}" for name, count in writer.written.most_common())
    _summary(json_, out, counts, [f"{scenario.value}, seed {seed}: {lines}"] if out is not None or json_ else [])


def _power(text: str) -> int:
    size = number(text, "--granule")
    if size.bit_count() != 1:
        usage(f"--granule {text!r}: a power of two expected")
    return size.bit_length() - 1


def _list(scenarios: dict[str, Any], json_: bool) -> None:
    from dataclasses import asdict

    if json_:
        print_json({name: {"what": what, **asdict(values)} for name, (what, values) in scenarios.items()})
        return
    for name, (what, _) in scenarios.items():
        print(f"{name:12} {what}")


@contextmanager
def _sink(out: Path | None) -> Iterator[BinaryIO]:
    """Where the lines go."""
    if out is None or str(out) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif out.suffix == ".gz":
        import gzip

        # No name and no time in it: the same lines are the same bytes.
        with out.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, 0) as packed:
            yield packed  # type: ignore[misc]
    else:
        with out.open("wb") as raw:
            yield raw


def _same(trace: str, out: Path) -> bool:
    """Whether both are one regular file."""
    try:
        source = os.fstat(sys.stdin.fileno()) if trace == "-" else os.stat(trace)
        return S_ISREG(source.st_mode) and os.path.samestat(source, out.stat())
    except (OSError, ValueError, AttributeError):
        return False  # who opens it says what is wrong


def _summary(json_: bool, out: Path | None, counts: dict[str, Any], lines: list[str]) -> None:
    if not json_:
        for line in lines:
            print(line, file=sys.stderr)
    elif out is not None and str(out) != "-":
        print_json(counts)
    else:
        print(json_text(counts).decode(), file=sys.stderr)


def _notes(notes: Iterable[str]) -> list[str]:
    return [f"note: {note}" for note in notes]


class _Told:
    """Looks at entries as they pass: tells bad lines, and on a terminal how far it is."""

    def __init__(self, trace: Trace | None, total: int = 0) -> None:
        self._trace = trace
        self._total = total
        self._bad = 0
        self._bar: Any = None

    def watch(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The entries.  Raises what iterating them raises."""
        from vmm_ras.traces.items import BadLine

        self._start()
        try:
            for count, entry in enumerate(entries):
                if isinstance(entry[2], BadLine):
                    self._bad += 1
                    if self._bad <= SHOWN:
                        print(f"line {entry[0]}: {entry[2].reason}", file=sys.stderr)
                if self._bar is not None and not count & 1023:
                    self._bar.update(self._task, completed=count if self._trace is None else self._trace.position)
                yield entry
        finally:
            self.end()

    def rest(self) -> list[str]:
        """How many bad lines there were, if any."""
        if not self._bad:
            return []
        more = f", {self._bad - SHOWN} of them not shown" if self._bad > SHOWN else ""
        return [f"{counted(self._bad, 'bad line')}{more}"]

    def _start(self) -> None:
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import Progress

        if self._trace is not None:
            file = Path(self._trace.name)
            self._total = file.stat().st_size if file.is_file() else 0
        self._bar = Progress(console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("", total=self._total or None)
        self._bar.start()

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
