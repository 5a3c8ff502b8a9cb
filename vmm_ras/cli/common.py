"""What the commands share: input, output, options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from vmm_ras.memory import MemorySlot

MAX_FILE = 64 << 20
"""Bytes of a blob that a command reads at most."""

NARROWEST = 80
"""Columns for which tables are made at least: a narrower terminal breaks lines, a narrower table leaves columns out."""

OPTIONS: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""Of every group of commands; without rich's own help, which takes as long as all else."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def console() -> Console:
    """A console for people; as wide as it takes where nobody looks."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich itself ends with 1  # noqa: PLE0704

    out = Output(highlight=False, emoji=False, markup=False)
    out.width = max(out.width, NARROWEST) if out.is_terminal else 200  # a file or pipe has no edge
    return out


def print_table(table: Table) -> None:
    """Print a table in which no word is cut in two: a terminal that is too narrow breaks the lines."""
    out = console()
    for column in table.columns:
        column.min_width = max(map(len, " ".join(map(str, (column.header, *column.cells))).split()), default=0)
    out.print(table, crop=False)


class Progress:
    """How many are done, on a terminal's stderr, while ``wanted``; ``what`` they are."""

    def __init__(self, wanted: bool = True, what: str = "events") -> None:
        from time import monotonic

        self._now, self._start, self._next, self._count = monotonic, monotonic(), 0.0, 0
        self._on, self._what = wanted and sys.stderr.isatty(), what

    def step(self) -> None:
        """One more."""
        self._count += 1
        if self._on and not self._count & 1023 and self._now() > self._next:
            self._next = self._now() + 0.2
            rate = self._count / max(self._now() - self._start, 1e-9)
            print(f"\r{self._count:,} {self._what}, {rate:,.0f}/s ", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Wipe the line."""
        if self._on:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def json_text(value: Any, option: int | None = None) -> bytes:
    """JSON, also of names of files that are not UTF-8: their odd bytes are lone surrogates, as ``\\udcff``."""
    import orjson

    try:
        return orjson.dumps(value, option=option)
    except orjson.JSONEncodeError:
        import json

        return json.dumps(value, indent=2 if option == orjson.OPT_INDENT_2 else None).encode()


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    import orjson

    sys.stdout.buffer.write(json_text(value, orjson.OPT_INDENT_2) + b"\n")


def read_bytes(file: Path) -> bytes:
    """A file, or standard input for ``-``.  Raises InputError."""
    from vmm_ras.errors import InputError

    try:
        if str(file) == "-":
            data = sys.stdin.buffer.read(MAX_FILE + 1)
        else:
            with file.open("rb") as stream:
                data = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    if len(data) > MAX_FILE:
        raise InputError(f"{file}: more than {MAX_FILE} bytes")
    return data


def read_text(file: Path) -> str:
    """A file as UTF-8 text.  Raises InputError with the line that is none."""
    from vmm_ras.errors import InputError

    data = read_bytes(file)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{file}:{data[: error.start].count(10) + 1}: not UTF-8 at byte {error.start}") from None


def write_bytes(file: Path, data: bytes) -> None:
    """Write a file.  Raises HostError."""
    from vmm_ras.errors import HostError

    try:
        file.write_bytes(data)
    except OSError as error:
        raise HostError(f"{file}: {error.strerror}") from None


def number(text: str, what: str) -> int:
    """A number of 64 bits, also hexadecimal, also with K, M, G or T behind it."""
    scale = {"K": 10, "M": 20, "G": 30, "T": 40}.get(text[-1:].upper(), 0)
    try:
        value = int(text[:-1] if scale else text, 0) << scale
    except ValueError:
        usage(f"{what} {text!r}: a number expected")
    if not 0 <= value < 1 << 64:
        usage(f"{what} {text!r}: outside 64 bits")
    return value


def slot(text: str) -> MemorySlot:
    """A memory slot from HVA:GPA:SIZE."""
    from vmm_ras.memory import MemorySlot

    parts = text.split(":")
    if len(parts) != 3:
        usage(f"--map {text!r}: HVA:GPA:SIZE expected")
    found = MemorySlot(*(number(p, "--map") for p in parts))
    if any(n & 0xFFF for n in found) or not found.size:
        usage(f"--map {text!r}: whole pages of 4 KiB expected")
    return found


def slots(texts: list[str] | None) -> list[MemorySlot]:
    """The memory slots of all ``--map``."""
    from vmm_ras.errors import InputError
    from vmm_ras.memory import MemoryMap

    found = [slot(text) for text in texts or ()]
    try:
        MemoryMap(found)
    except InputError as error:
        usage(f"--map: {error}")
    return found


def section_class(name: str, option: str = "--type") -> Any:
    """The section class of that name, which was given with that option."""
    from cper.section import section_named, section_names

    try:
        return section_named(name)
    except KeyError:
        usage(f"{option} {name!r}: expected one of {', '.join(section_names())}")


def usage(text: str) -> NoReturn:
    """Say what is wrong with the command line, and exit with 2."""
    print(f"vmm-ras: {text}", file=sys.stderr)
    raise typer.Exit(2)
