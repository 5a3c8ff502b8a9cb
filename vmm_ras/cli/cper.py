"""`vmm-ras cper`: records, sections and status blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vmm_ras.cli.common import OPTIONS, Json, console, print_json, read_bytes, section_class, write_bytes

app = typer.Typer(help="CPER records, sections and status blocks.", **OPTIONS)


@app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="A CPER record or a Generic Error Status Block; - is stdin.")],
    type_: Annotated[
        str | None, typer.Option("--type", metavar="SECTION", help="The file is a bare section of this type.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List fields that are not valid, too.")] = False,
    json_: Json = False,
) -> None:
    """Show a CPER record, a status block or a bare section: its fields, and its bytes.

    Example: vmm-ras cper show out/demo/blocks/000001-source0.bin
    """
    from acpi.ghes import StatusBlock

    data = read_bytes(file)
    fields: Any
    plain: dict[str, Any]
    if type_ is not None:
        section = section_class(type_).of_body(data)
        plain, length = section.plain(), len(data)
    elif data[:4] == b"CPER":
        from cper.record import Record

        record = Record.decode(data)
        plain, length = {"kind": "record"} | record.plain(), record.header.record_length
    else:
        block = StatusBlock.decode(data)
        plain, length = {"kind": "status_block"} | block.plain(), block.size
    if json_:
        print_json(plain)
        return
    from vmm_ras.cli import show

    if type_ is not None:
        fields = show.section_fields(section)
    elif data[:4] == b"CPER":
        fields = show.record_fields(record)
    else:
        fields = show.block_fields(block)
    show.render(console(), data[:length], fields, every=every)
    if length < len(data):
        print(f"{len(data) - length} bytes behind it are not shown")


@app.command("encode")
def encode(
    file: Annotated[Path, typer.Argument(metavar="JSON", help="What `cper show --json` prints; - is stdin.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    type_: Annotated[
        str | None, typer.Option("--type", metavar="SECTION", help="The JSON is a bare section of this type.")
    ] = None,
    json_: Json = False,
) -> None:
    """Encode JSON as a CPER record, a status block or a bare section.

    Example: vmm-ras cper show --json block.bin | vmm-ras cper encode - -o again.bin
    """
    import orjson
    from pydantic import ValidationError

    from acpi.ghes import StatusBlock
    from cper.record import Record
    from vmm_ras.errors import InputError

    try:
        value = orjson.loads(read_bytes(file))
    except ValueError as error:
        raise InputError(f"{file}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{file}: an object expected")
    try:
        if type_ is not None:
            data = section_class(type_).of_plain(value).encode()
        elif value.get("kind") == "record" or "sections" in value:
            data = Record.of_plain(value).encode()
        else:
            data = StatusBlock.of_plain(value).encode()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        note = "".join(f"{n}: " for n in getattr(error, "__notes__", ()))
        what = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{file}: {note}{where}{': ' if where else ''}{what}") from None
    write_bytes(output, data)
    if json_:
        print_json({"file": str(output), "size": len(data)})
    else:
        print(f"{output}: {len(data)} bytes")
