"""`vmm-ras hest`: Hardware Error Source Tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cper.words import counted
from vmm_ras.cli.common import MAX_FILE, OPTIONS, Json, console, number, print_json, read_bytes, usage, write_bytes
from vmm_ras.cli.machine import PresetName

app = typer.Typer(help="Hardware Error Source Tables.", **OPTIONS)


@app.command("build")
def build(
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    preset: Annotated[PresetName, typer.Option(help="Whose table.")] = PresetName.default,
    errors: Annotated[
        str, typer.Option(metavar="GPA", help="Guest physical address of the error region (registers and blocks).")
    ] = "0x3ff01000",
    image: Annotated[
        Path | None, typer.Option(help="Also write RSDP, XSDT, HEST and error region, placed, as one file.")
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option(metavar="GPA", help="Where the tables of --image begin.  [default: 4 KiB below --errors]"),
    ] = None,
    json_: Json = False,
) -> None:
    """Build a HEST.

    Example: vmm-ras hest build --preset qemu-11.1 --errors 0x5c410000 -o HEST.bin
    """
    from acpi.presets import PRESETS

    if tables is not None and image is None:
        usage("--tables: where the tables of --image begin, and there is none")
    at = number(errors, "--errors")
    base = at - 4096 if tables is None else number(tables, "--tables")
    try:
        placed = PRESETS[preset.value].place(base, at)
    except ValueError as error:
        usage(str(error))
    _, data = placed.region("hest")
    write_bytes(output, data)
    if image is not None:
        first = min(gpa for _, gpa, _ in placed.regions)
        end = max(gpa + len(d) for _, gpa, d in placed.regions)
        if end - first > MAX_FILE:
            usage(f"--image: {end - first} bytes from the tables to the error region, {MAX_FILE} at most")
        whole = bytearray(end - first)
        for _, gpa, region in placed.regions:
            whole[gpa - first : gpa - first + len(region)] = region
        write_bytes(image, bytes(whole))
    if json_:
        sources = [s._asdict() | {"notification": s.notification.plain} for s in placed.sources]
        print_json({"file": str(output), "size": len(data), "rsdp": placed.rsdp, "sources": sources})
    else:
        print(f"{output}: HEST, {len(data)} bytes, {counted(len(placed.sources), 'source')}, error region at {at:#x}")


@app.command("show")
def show(file: Annotated[Path, typer.Argument(help="A table's bytes.")], json_: Json = False) -> None:
    """Show a HEST: its fields, and its bytes.

    Example: vmm-ras hest show /sys/firmware/acpi/tables/HEST
    """
    from acpi.hest import Hest

    data = read_bytes(file)
    table = Hest.parse(data)
    if json_:
        print_json(table.plain())
        return
    from vmm_ras.cli import show

    show.render(console(), data[: table.header.length], show.hest_fields(table))
