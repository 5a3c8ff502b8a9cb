"""`vmm-ras cper`: records, sections and status blocks."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from cper.words import counted
from vmm_ras.cli.common import (
    MAX_FILE,
    OPTIONS,
    Json,
    console,
    number,
    print_json,
    read_bytes,
    section_class,
    usage,
    write_bytes,
)
from vmm_ras.cli.cper_decode import decode
from vmm_ras.cli.cper_diff import diff
from vmm_ras.cli.cper_input import (
    Bare,
    Format,
    JsonFormat,
    Own,
    complain,
    explained,
    libcper_document,
    load_sections,
    read_data,
    read_items,
)
from vmm_ras.cli.cper_types import schema, types

app = typer.Typer(help="CPER records, sections and status blocks.", **OPTIONS)


class To(str, Enum):
    """What to convert into."""

    record = "record"
    status_block = "status_block"


@app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="A CPER record or a status block; raw, hex, dump, Base64; - is stdin.")],
    type_: Bare = None,
    every: Annotated[bool, typer.Option("--all", help="List fields that are not valid, too.")] = False,
    format_: JsonFormat = Format.own,
    own: Own = None,
    json_: Json = False,
) -> None:
    """Show CPER records, status blocks or a bare section.

    As a tree of fields with their places, and as a dump.  What is cut off or contradicts itself is shown as far as
    it can be read; then exit 1.

    Example: vmm-ras cper show out/demo/blocks/000001-source1.bin
    """
    from acpi import document

    _whole_records_only(format_, type_)
    load_sections(own)
    if type_ is not None:
        _show_section(file, type_, every, json_)
        return
    found = read_items(file)
    if format_ is Format.libcper:
        documents = [libcper_document(item) for item in found if item.kind != "padding"]
        print_json(documents[0] if len(documents) == 1 else documents)
    elif json_:
        documents = [document.of_item(item) for item in found]
        print_json(documents[0] if len(documents) == 1 else documents)
    else:
        from vmm_ras.cli.show import reading_fields, render

        for item in found:
            if item.offset and item.kind != "padding":
                print(f"\nat {item.offset:#x}")
            if item.kind == "padding":
                print(f"{counted(len(item.data), 'byte')} of zeroes behind it are not shown")
            else:
                render(console(), item.data, reading_fields(item), every=every)
    complain(found)


def _whole_records_only(format_: Format, type_: str | None) -> None:
    if format_ is Format.libcper and type_ is not None:
        usage("--format libcper is for whole records: it goes without --type")


def _show_section(file: Path, type_: str, every: bool, json_: bool) -> None:
    from acpi import document

    cls, body = section_class(type_), read_data(file)
    found = document.of_section(cls, body)
    if json_:
        print_json(found)
    else:
        from vmm_ras.cli.show import render, section_fields

        render(console(), body, section_fields(cls, body), every=every)
    if "error" in found:
        print(f"vmm-ras: {found['error']}".replace("\n", " "), file=sys.stderr)
        raise typer.Exit(1)


@app.command("encode")
def encode(
    file: Annotated[
        Path, typer.Argument(metavar="JSON", help="What `cper show --json` or `cper decode` prints; - is stdin.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    type_: Annotated[
        str | None, typer.Option("--type", metavar="SECTION", help="The JSON is the fields of a section of this type.")
    ] = None,
    format_: JsonFormat = Format.own,
    own: Own = None,
    json_: Json = False,
) -> None:
    """Encode JSON as CPER records, status blocks or a bare section.

    Example: vmm-ras cper show --json block.bin | vmm-ras cper encode - -o again.bin
    """
    from acpi import document
    from cper.section import body_of_plain
    from cper.wire import WireError
    from vmm_ras.errors import InputError

    _whole_records_only(format_, type_)
    load_sections(own)
    parts: list[bytes] = []
    try:
        for value in _documents(file):
            if format_ is Format.libcper:
                from cper.libcper.record import to_record

                parts.append(to_record(value).encode())
            elif type_ is not None and value.get("kind") != "section":
                parts.append(body_of_plain(section_class(type_).GUID, {"section": value}))
            else:
                plain = {key: inner for key, inner in value.items() if key not in {"file", "offset"}}
                parts.append(document.encode(plain, MAX_FILE))
    except WireError:
        raise
    except ValueError as error:
        raise InputError(explained(error, file)) from None
    data = b"".join(parts)
    write_bytes(output, data)
    if json_:
        print_json({"file": str(output), "size": len(data)})
    else:
        print(f"{output}: {counted(len(data), 'byte')}")


def _documents(file: Path) -> list[dict[str, Any]]:
    """One document, a list of them, or one in each line."""
    import orjson

    from vmm_ras.errors import InputError

    text = read_bytes(file)
    try:
        value = orjson.loads(text)
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            value = [orjson.loads(line) for line in lines]
        except ValueError:
            raise InputError(f"{file}: not JSON: {error}") from None
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(v, dict) for v in values):
        raise InputError(f"{file}: an object expected")
    return values


@app.command("convert")
def convert(
    file: Annotated[Path, typer.Argument(help="Status blocks or CPER records; raw, hex, dump, Base64; - is stdin.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    to: Annotated[To | None, typer.Option(help="What to write.  [default: what the file is not]")] = None,
    record_id: Annotated[str, typer.Option(metavar="N", help="Record id of the first record; it counts up.")] = "0",
    json_: Json = False,
) -> None:
    """Convert status blocks into CPER records, and back.

    What only one of them can hold is told.

    Example: vmm-ras cper convert out/demo/blocks/000001-source1.bin -o record.cper --record-id 1
    """
    from acpi.conversion import block_of, record_of
    from acpi.ghes import StatusBlock
    from acpi.stream import Kind

    next_id = number(record_id, "--record-id")
    found = [item for item in read_items(file) if item.kind is not Kind.PADDING]
    if any(item.fault for item in found):
        complain(found)
    parts, lost = [], []
    for item in found:
        if to is not None and item.kind == to.value:
            parts.append(item.data)
            continue
        read = item.read()
        made = record_of(read, record_id=next_id) if isinstance(read, StatusBlock) else block_of(read)  # type: ignore[arg-type]
        next_id = next_id + 1 if next_id else 0
        parts.append(made.value.encode())
        lost += [{"offset": item.offset, "lost": text} for text in made.lost]
    data = b"".join(parts)
    write_bytes(output, data)
    if json_:
        print_json({"file": str(output), "size": len(data), "items": len(parts), "lost": lost})
        return
    for note in lost:
        print(f"note: not carried over at {note['offset']:#x}: {note['lost']}", file=sys.stderr)
    print(f"{output}: {counted(len(data), 'byte')}")


app.command("decode")(decode)
app.command("diff")(diff)
app.command("types")(types)
app.command("schema")(schema)
__all__ = ["app", "usage"]
