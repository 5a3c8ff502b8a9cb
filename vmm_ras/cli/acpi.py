"""`vmm-ras acpi`: tables read, judged, built, found in guest memory."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cper.words import counted
from vmm_ras.cli.common import (
    MAX_FILE,
    OPTIONS,
    Json,
    console,
    number,
    print_json,
    print_table,
    read_bytes,
    write_bytes,
)

if TYPE_CHECKING:
    from acpi.dump import DumpedTable

app = typer.Typer(help="ACPI tables about errors.", **OPTIONS)
MAX_FILES = 4096
"""Files of a directory of tables."""


class FirmwareName(str, Enum):
    """Whole guests that can be built."""

    qemu_7_2 = "qemu-7.2"
    qemu_10_0 = "qemu-10.0"
    qemu_11_1 = "qemu-11.1"
    minimal_vmm = "minimal-vmm"
    sea_per_vcpu = "sea-per-vcpu"


Tables = Annotated[
    Path, typer.Argument(metavar="FILE|DIR", help="Raw tables, `acpidump` text, or a directory of tables; - is stdin.")
]


@app.command()
def show(
    path: Tables, only: Annotated[str, typer.Option(metavar="SIG", help="Only this table.")] = "", json_: Json = False
) -> None:
    """Show tables: their fields, and their bytes.

    Example: vmm-ras acpi show /sys/firmware/acpi/tables --only HEST
    """
    from acpi.dump import plain_table
    from vmm_ras.errors import InputError

    found = _read(path)
    tables = [t for t in found if not only or t.signature == only.upper()]
    if not tables:
        there = f", there are {', '.join(t.signature for t in found)}" if found else ""
        raise InputError(f"{path}: no table {only}".rstrip() + there)
    if json_:
        print_json([{"name": t.name, "address": t.address, **plain_table(t)} for t in tables])
        return
    from vmm_ras.cli import show_table

    out = console()
    for table in tables:
        show_table.render(out, table)


@app.command()
def lint(
    path: Tables,
    linux: Annotated[bool, typer.Option(help="Whether the guest is Linux.")] = True,
    json_: Json = False,
) -> None:
    """Say what Linux or the specification objects to.

    Each objection names its clause; exit 1 if an error is among them.

    Example: vmm-ras acpi lint /sys/firmware/acpi/tables
    """
    from acpi.finding import Level
    from acpi.lint import lint as judge

    tables = [
        t for t in _read(path) if t.signature not in {"RSD PTR ", "XSDT", "RSDT"} and not t.name.startswith("data/")
    ]
    findings = judge(*(t.data for t in tables), linux=linux)
    if json_:
        print_json(
            {
                "tables": [t.signature for t in tables],
                "findings": [f._asdict() | {"level": f.level.name.lower()} for f in findings],
            }
        )
    else:
        for finding in findings:
            print(finding)
        print(f"{counted(len(tables), 'table')}, {counted(len(findings), 'finding')}")
    if any(f.level == Level.ERROR for f in findings):
        raise typer.Exit(1)


@app.command()
def build(
    preset: Annotated[FirmwareName, typer.Argument(help="Which guest.")],
    out: Annotated[Path, typer.Option(help="Directory to write into.")],
    memory: Annotated[str, typer.Option(metavar="SIZE", help="RAM of the guest.")] = "512M",
    vcpus: Annotated[int, typer.Option(min=1, max=512, help="vCPUs of the guest.")] = 1,
    tables: Annotated[str, typer.Option(metavar="GPA", help="Where the tables go.  [default: top of RAM]")] = "",
    errors: Annotated[
        str, typer.Option(metavar="GPA", help="Where the error region goes.  [default: top of RAM]")
    ] = "",
    json_: Json = False,
) -> None:
    """Build all tables of a guest.

    As fw_cfg files with their loader script, as the placed image, and as single .aml files.

    Example: vmm-ras acpi build minimal-vmm --vcpus 4 --out firmware; vmm-ras acpi lint firmware/aml
    """
    import orjson

    from acpi.firmware import build as make
    from acpi.firmware_presets import describe

    firmware = make(describe(preset.value, memory=number(memory, "--memory"), vcpus=vcpus))
    image = firmware.image(
        number(tables, "--tables") if tables else None, number(errors, "--errors") if errors else None
    )
    for folder in ("fw_cfg", "image", "aml"):
        _make(out / folder)
    for name, data in firmware.files.items():
        write_bytes(out / "fw_cfg" / name.replace("/", "_"), data)
    for name, _, data in image.regions:
        write_bytes(out / "image" / f"{name}.bin", data)
    for name, data in firmware.aml(image).items():
        write_bytes(out / "aml" / name, data)
    layout: dict[str, Any] = {
        "preset": preset.value,
        "rsdp": image.rsdp,
        "regions": [{"name": n, "gpa": gpa, "size": len(d), "file": f"image/{n}.bin"} for n, gpa, d in image.regions],
        "sources": [s._asdict() | {"notification": s.notification.plain} for s in image.sources],
    }
    write_bytes(out / "layout.json", orjson.dumps(layout, option=orjson.OPT_INDENT_2))
    if json_:
        print_json(layout)
    else:
        for name, gpa, data in image.regions:
            print(f"{gpa:#012x}  {len(data):8}  {name}")
        print(f"{out}: fw_cfg/ for firmware that runs the loader script, image/ as placed, aml/ for an initrd")
        print(f"{out / 'aml'}: what `acpi show` and `acpi lint` read")


@app.command()
def find(
    image: Annotated[Path, typer.Argument(help="Raw bytes of guest memory.")],
    base: Annotated[str, typer.Option(metavar="GPA", help="Guest physical address of its first byte.")] = "0x40000000",
    rsdp: Annotated[str, typer.Option(metavar="GPA", help="Where the RSDP is.  [default: look for it]")] = "",
    json_: Json = False,
) -> None:
    """Find tables and pending errors in an image of guest memory.

    It walks RSDP, XSDT and HEST, and decodes what is pending in the error blocks.

    Example: vmm-ras acpi find guest-memory.bin --base 0x40000000
    """
    from vmm_ras.cli import find as finding

    with finding.MemoryImage(image, number(base, "--base")) as memory:
        found = finding.find(memory, number(rsdp, "--rsdp") if rsdp else None)
    if json_:
        print_json(found.plain())
    else:
        finding.render(console(), found)


@app.command()
def types(json_: Json = False) -> None:
    """List every declared table and structure, with its evidence.

    Example: vmm-ras acpi types
    """
    from acpi import types as known

    found = known()
    if json_:
        print_json([t._asdict() | {"backed": t.backed} for t in found])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("Name", "Kind", "Bytes", "Header offsets", "iasl", "Foreign bytes", "Kernel"):
        table.add_column(head, no_wrap=head == "Name", overflow="fold")
    for t in found:
        columns = (t.offsets, t.iasl, t.foreign, t.kernel)
        style = "" if t.backed else "yellow"
        size = "" if t.size is None else str(t.size)
        table.add_row(t.name, t.kind, size, *(", ".join(c) or "-" for c in columns), style=style)
    print_table(table)


def _read(path: Path) -> list[DumpedTable]:
    from acpi.dump import read_directory, read_dump
    from vmm_ras.errors import InputError

    if not path.is_dir():
        return read_dump(read_bytes(path), "" if str(path) == "-" else path.name)
    files: dict[str, bytes] = {}
    size = 0
    for file in sorted(path.rglob("*")):
        if file.is_file():
            files[str(file.relative_to(path))] = data = read_bytes(file)
            size += len(data)
            if len(files) > MAX_FILES or size > MAX_FILE:
                raise InputError(f"{path}: more than {MAX_FILES} files or {MAX_FILE} bytes")
    return read_directory(files)


def _make(folder: Path) -> None:
    from vmm_ras.errors import HostError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"{folder}: {error.strerror}") from None
