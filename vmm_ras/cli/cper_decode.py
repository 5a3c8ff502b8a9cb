"""`vmm-ras cper decode`: records and blocks of files, directories and streams, one line each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cper.words import counted
from vmm_ras.cli.common import Json, Progress, json_text, usage
from vmm_ras.cli.cper_input import Format, JsonFormat, Own, chunks, libcper_document, load_sections

if TYPE_CHECKING:
    from acpi.stream import Item


def decode(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILE|DIR...", help="Files, directories of them, or - for standard input.")
    ],
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON document a line.")] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B", help="Only these fields, as CSV: a row for each section; may be repeated."),
    ] = None,
    of: Annotated[
        str | None, typer.Option(metavar="SECTION", help="With --columns: only sections of this type.")
    ] = None,
    format_: JsonFormat = Format.own,
    own: Own = None,
    json_: Json = False,
) -> None:
    """Decode many CPER records and status blocks, in little memory.

    They lie one behind the other, or in many files.  An item that cannot be read as a whole is told in its line, and
    reading goes on; then exit 1.  Columns are fields of the section by their path in its JSON, fields of what it
    lies in (header.severity, descriptor.fru_text), and file, offset, index; with --jsonl an object a line.

    Example: vmm-ras cper decode /var/lib/pstore errors.cper --jsonl

    Example: vmm-ras cper decode errors.cper --of PlatformMemory --columns header.timestamp,physical_address,node
    """
    load_sections(own)
    run = _run(columns, of, jsonl or json_, format_)
    for path in paths:
        run.read(path)
    run.end()


def _run(columns: list[str] | None, of: str | None, json_: bool, format_: Format) -> Run:
    if columns is None:
        if of is not None:
            usage("--of: expected --columns with it")
        return Run(json_ or format_ is Format.libcper, format_)
    names = [name.strip() for given in columns for name in given.split(",")]
    if format_ is Format.libcper:
        usage("--columns are fields of our own JSON: it goes without --format libcper")
    if "" in names or len(set(names)) < len(names):
        usage(f"--columns {','.join(names)!r}: expected names, each once")
    from vmm_ras.cli.cper_columns import Columns

    return Columns(names, of, json_)


class Run:
    """What was read so far, and how much of it was damaged."""

    def __init__(self, json_: bool, format_: Format = Format.own) -> None:
        import orjson

        from acpi import document

        self._document_of, self._text_of = document.of_item, document.text_of_item
        self._dumps: Callable[[Any], bytes] = orjson.dumps
        self._json, self._format = json_, format_
        self._out = sys.stdout.buffer
        self._progress = Progress(not sys.stdout.isatty(), "records")
        self.items = self.damaged = self.files = self.unread = 0

    def read(self, path: Path) -> None:
        """Read a file, standard input, or all files of a directory."""
        if str(path) != "-" and path.is_dir():
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                self.read(file)
            return
        self.files += 1
        name = "-" if str(path) == "-" else str(path)
        if not name.isascii():
            self._dumps = json_text
        try:
            with ExitStack() as stack:
                stream = sys.stdin.buffer if name == "-" else stack.enter_context(path.open("rb"))
                for item in _items(chunks(stream)):
                    self._tell(name, item)
        except OSError as error:
            self._fail(name, str(error.strerror))
        except ValueError as error:  # text that is broken somewhere
            self._fail(name, str(error))

    def _tell(self, name: str, item: Item) -> None:
        if item.kind == "padding" or (item.kind == "bytes" and item.fault is None):
            return
        self.items += 1
        if self._json and self._format is not Format.libcper:
            text = self._text_of(item)
            if text is not None:
                self._out.write(self._dumps({"file": name, "offset": item.offset})[:-1] + b"," + text[1:] + b"\n")
                self._progress.step()
                return
        found = self._document_of(item)
        wrong = reason(item, found)
        self.damaged += wrong is not None
        if self._format is Format.libcper and item.fault is None:
            self._write({"file": name, "offset": item.offset} | libcper_document(item))
        elif self._json:
            self._write({"file": name, "offset": item.offset} | found)
        else:
            self._line(name, item, found, wrong)
        self._progress.step()

    def _write(self, row: dict[str, Any]) -> None:
        self._out.write(self._dumps(row) + b"\n")

    def _line(self, name: str, item: Item, found: dict[str, Any], wrong: str | None) -> None:
        header = found.get("header", {})
        parts = [
            f"{name}:{item.offset:#x}", str(item.kind), counted(len(item.data), "byte"),
            *([str(header["severity"])] if "severity" in header else []), *_sections(found), *found.get("overlaps", ()),
            *(
                f"{counted(len(gap['data']) // 2, 'byte')} of no part at {gap['offset']:#x}"
                for gap in found.get("gaps", ())
            ),
            *([f"DAMAGED: {wrong}"] if wrong is not None else []),
        ]  # fmt: skip
        self._out.write("  ".join(parts).encode(errors="surrogateescape") + b"\n")

    def _fail(self, name: str, why: str) -> None:
        self.unread += 1
        if self._json:
            self._write({"file": name, "error": why})
        else:
            self._out.write(f"{name}  {why}\n".encode(errors="surrogateescape"))

    def end(self) -> None:
        """Say how much it was; exit with 1 if anything could not be read."""
        self._progress.end()
        self._out.flush()
        text = self._sum()
        wrong = self.damaged or self.unread
        print(f"vmm-ras: {text}" if wrong else text, file=sys.stderr)
        if wrong:
            raise typer.Exit(1)

    def _sum(self) -> str:
        return (
            f"{counted(self.items, 'item')} of {counted(self.files, 'file')}, {self.damaged} damaged, "
            f"{counted(self.unread, 'file')} not read to the end"
        )


def _items(pieces: Iterator[bytes]) -> Iterator[Item]:
    from acpi.stream import items
    from cper.text_form import decoded

    return items(decoded(pieces))


def _sections(found: dict[str, Any]) -> Iterator[str]:
    from uuid import UUID

    from cper.guids import name_of

    for part in found.get("sections", found.get("entries", ())):
        guid = part.get("descriptor", part.get("header", {})).get("section_type", "")
        fru = part.get("descriptor", part.get("header", {})).get("fru_text")
        yield ((name_of(UUID(guid)) if guid else None) or guid) + (f" ({fru})" if fru else "")


def reason(item: Item, found: dict[str, Any]) -> str | None:
    """Why it cannot be read as a whole; None where it can."""
    parts = found.get("sections", found.get("entries", ()))
    return str(item.fault) if item.fault else next((str(part["error"]) for part in parts if "error" in part), None)
