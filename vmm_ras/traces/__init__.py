"""Traces: files and pipes in which memory failures of a host were recorded, read as our events.

``open_trace`` finds the format by content and iterates as ``(line, at, item)``::

    with open_trace("qemu.strace") as trace:
        for line, at, item in trace:
            ...
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from os import PathLike, fspath
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal, Self

from vmm_ras.errors import InputError
from vmm_ras.memory import MemorySlot
from vmm_ras.traces import jsonl, kernel_log, libvirt, qemu_log, qmp, script, strace, tracepoints
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
    Tally,
    TraceItem,
    Unlocated,
    VcpuThread,
)
from vmm_ras.traces.lines import LONGEST, Lines

if TYPE_CHECKING:
    from vmm_ras.traces.rasdaemon import Database

__all__ = [
    "AckDelay",
    "BadLine",
    "Entry",
    "Format",
    "Header",
    "MaskSerror",
    "MemorySlot",
    "PollStop",
    "RunAt",
    "SdeiRegistered",
    "Trace",
    "TraceItem",
    "Unlocated",
    "VcpuThread",
    "open_trace",
]

Format = Literal[
    "jsonl", "strace", "kernel-log", "ftrace", "perf-script", "qmp", "qemu-log", "libvirt", "rasdaemon", "empty"
]

UNDECIDED_MAX = LONGEST
"""Bytes that may come before the first line that tells the format."""

_READABLE = (
    "strace, ftrace or perf script output, a kernel log, QMP events, a QEMU log, virsh events, a rasdaemon database, "
    "or vmm-ras JSON Lines"
)
_BINARY = {
    b"PERFILE2": "a perf.data file, expected what `perf script` prints of it",
    b"\x17\x08Dtracing": "a trace.dat file, expected what `trace-cmd report` prints of it",
    b"LPKSHHRH": "a journal file, expected what `journalctl -k -o short-unix` prints of it",
    b"SQLite format 3\0": "a database in a pipe or in gzip, expected it as a file of its own",
}
_HPA = "the host physical address stands in for the hva (--map HPA:GPA:SIZE), and each loss is one page of the host"
_LIMITS: dict[Format, str] = {
    "kernel-log": f"a kernel log has no host virtual address, and neither AR nor AO: {_HPA}, as AO",
    "ftrace": f"signal events have no address: {_HPA}",
    "perf-script": f"signal events have no address: {_HPA}",
    "rasdaemon": f"the database has neither address nor thread nor AR or AO, nor whom the kernel told: {_HPA}, as AO",
    "qmp": "MEMORY_FAILURE has no host address and no thread; with a gpa member it is a fault by guest address",
    "libvirt": "libvirt's memory-failure event has no address and no thread",
    "qemu-log": "QEMU's messages have no thread",
}


class Trace:
    """A trace that is being read: an iterator, in one pass, in bounded memory, of ``(line, at, item)``.

    ``line`` counts from 1.  ``at`` is the trace clock in seconds, None where the line shows no time: only differences
    mean anything, and it goes back where the trace's own clock does.  ``item`` is a HostSignal, GuestAbort or
    MemoryFault, or one of the items of this package; a bad line is a BadLine.

    Iterating raises InputError: when strict, for the first bad line ("FILE:LINE: what, expected what"); always, for a
    stream that cannot be read to its end ("FILE: gzip data ends after line N, ..."), after all that could be read.
    """

    def __init__(
        self, stream: BinaryIO, name: str, *, strict: bool = False, page_shift: int = 12, owned: bool = False
    ) -> None:
        lines = Lines(stream, name)
        self.name = name
        self.compressed = lines.compressed
        """Whether the stream is gzip."""
        self.format: Format
        """How the trace was recorded, by its content; "empty" if there is nothing but blank lines."""
        self._tally = Tally(name, strict)
        self._stream = stream
        self._owned = owned
        self._database: Database | None = None
        if owned and lines.head.startswith(b"SQLite format 3\0"):
            from vmm_ras.traces.rasdaemon import Database

            self._database, self.format = Database(name, name), "rasdaemon"
            self._entries = self._database.read(self._tally, page_shift)
            return
        self.format, batches = _detect(lines, name)
        self._entries = self._read(batches, page_shift)

    @property
    def bad(self) -> int:
        """Bad lines so far."""
        return self._tally.bad

    @property
    def other(self) -> int:
        """SIGBUS deliveries so far that were no memory failure (BUS_ADRERR, sent by kill, ...)."""
        return self._tally.other

    @property
    def info(self) -> int:
        """Lines so far about a memory failure that notified nobody (what the kernel did with the page)."""
        return self._tally.info

    @property
    def addresses(self) -> Addresses:
        """What the hva of signals is by the format; a native trace says it in its header."""
        return "hpa" if self.format in {"kernel-log", "ftrace", "perf-script", "rasdaemon"} else "hva"

    @property
    def notes(self) -> list[str]:
        """What the format cannot tell, and what was made of the trace so far: a line each, with how often."""
        limits = [_LIMITS[self.format]] if self.format in _LIMITS else []
        return limits + [f"{text} ({count})" for text, count in sorted(self._tally.notes.items())]

    @property
    def position(self) -> int:
        """Bytes of the stream that were read; 0 where a stream does not tell."""
        try:
            return self._stream.tell()
        except (OSError, ValueError, AttributeError):
            return 0

    def __iter__(self) -> Iterator[Entry]:
        return self._entries

    def __next__(self) -> Entry:
        return next(self._entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, if it was opened for this trace."""
        if self._database is not None:
            self._database.close()
        if self._owned:
            self._stream.close()

    def _read(self, batches: Iterable[tuple[int, list[bytes | None]]], page_shift: int) -> Iterator[Entry]:
        match self.format:
            case "jsonl":
                return jsonl.read(batches, self._tally)
            case "strace":
                return strace.read(batches, self._tally)
            case "kernel-log":
                return kernel_log.read(batches, self._tally, page_shift)
            case "ftrace" | "perf-script":
                return tracepoints.read(batches, self._tally, page_shift)
            case "qmp":
                return qmp.read(batches, self._tally)
            case "qemu-log":
                return qemu_log.read(batches, self._tally)
            case "libvirt":
                return libvirt.read(batches, self._tally)
            case _:
                return iter(())


def open_trace(
    source: str | PathLike[str], *, stdin: BinaryIO | None = None, strict: bool = False, page_shift: int = 12
) -> Trace:
    """Open a trace of any Format, plain or gzip (but for a database), whatever its name is.

    ``-`` is ``stdin``, or the process's standard input.  ``strict`` makes the first bad line an error.  ``page_shift``
    is log2 of the host's page size, which what the kernel says of a page frame does not tell.  It reads up to the first
    line that tells the format.  Raises InputError if there is no such file or it is no trace.
    """
    name = fspath(source)
    if name == "-":
        return Trace(sys.stdin.buffer if stdin is None else stdin, "<stdin>", strict=strict, page_shift=page_shift)
    try:
        stream = open(name, "rb")  # noqa: SIM115  # Trace closes it
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: {what}, expected a readable file") from None
    try:
        return Trace(stream, name, strict=strict, page_shift=page_shift, owned=True)
    except BaseException:
        stream.close()
        raise


def _detect(lines: Lines, name: str) -> tuple[Format, Iterable[tuple[int, list[bytes | None]]]]:
    """The format by the first line that can only be of one, and all batches."""
    batches = iter(lines)
    seen: list[tuple[int, list[bytes | None]]] = []
    size = blank = 0
    for number, batch in batches:
        if number == 1 and batch[0] is not None:
            for magic, what in _BINARY.items():
                if batch[0].startswith(magic):
                    raise InputError(f"{name}: {what}")
        seen.append((number, batch))
        for line in batch:
            if line is None:
                size += LONGEST
                continue
            size += len(line) + 1
            blank += not line.strip()
            found = _format(line)
            if found is not None:
                if found == "jsonl" and script.recognises(line):
                    raise InputError(
                        f"{name}: a scenario, expected a trace (`replay` and `scenario run` take scenario files)"
                    )
                return found, chain(seen, batches)
        if size > UNDECIDED_MAX:
            break
    if seen and blank < sum(len(batch) for _, batch in seen):
        raise InputError(f"{name}: not a trace, expected {_READABLE}")
    return "empty", ()


_RECOGNISE: tuple[tuple[Format, Callable[[bytes], bool]], ...] = (
    ("qmp", qmp.recognises),
    ("jsonl", jsonl.recognises),
    ("strace", strace.recognises),
    ("kernel-log", kernel_log.recognises),
    ("ftrace", tracepoints.recognises_ftrace),
    ("perf-script", tracepoints.recognises_perf),
    ("libvirt", libvirt.recognises),
    ("qemu-log", qemu_log.recognises),
)


def _format(line: bytes) -> Format | None:
    for name, recognises in _RECOGNISE:
        if recognises(line):
            return name
    return None
