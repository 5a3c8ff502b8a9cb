"""`vmm-ras qemu-migration`: what QEMU's migration stream carries."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cper.words import counted
from vmm_ras.cli.common import OPTIONS, Json, console, print_json

if TYPE_CHECKING:
    from vmm_ras.qemu_migration.cursor import Buffer
    from vmm_ras.qemu_migration.state import RasState
    from vmm_ras.qemu_migration.stream import MigrationFile

app = typer.Typer(help="QEMU's migration streams: which RAS state they carry, and which they lack.", **OPTIONS)


@app.callback()
def main() -> None:
    """QEMU's migration streams: which RAS state they carry, and which they lack."""


@app.command("show")
def show(file: Annotated[Path, typer.Argument(help="What `migrate` wrote.")], json_: Json = False) -> None:
    """Show the RAS state of a guest that QEMU migrated into a file.

    QEMU for arm64, and its machine virt.

    Example: vmm-ras qemu-migration show guest.mig
    """
    from vmm_ras.errors import InputError
    from vmm_ras.qemu_migration.state import plain, ras_state
    from vmm_ras.qemu_migration.stream import read_migration

    data = _mapped(file)
    try:
        found = read_migration(data)
        state = ras_state(found)
        if json_:
            print_json(plain(found, state))
        else:
            _render(found, state)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    finally:
        if isinstance(data, mmap.mmap):
            data.close()


def registers_of(file: Path) -> dict[int, int]:
    """System registers of the first vCPU in a stream.  Raises InputError."""
    from vmm_ras.errors import InputError
    from vmm_ras.qemu_migration.state import ras_state
    from vmm_ras.qemu_migration.stream import read_migration

    data = _mapped(file)
    try:
        cpus = ras_state(read_migration(data)).cpus
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    finally:
        if isinstance(data, mmap.mmap):
            data.close()
    if not cpus:
        raise InputError(f"{file}: the stream has no arm64 vCPU")
    return cpus[0].registers


def _mapped(file: Path) -> Buffer:
    """The file's bytes; only those that are looked at come into memory.  Raises InputError."""
    from vmm_ras.cli.common import read_bytes
    from vmm_ras.errors import InputError

    if str(file) == "-":
        return read_bytes(file)
    try:
        with file.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: {getattr(error, 'strerror', None) or 'empty'}") from None


def _render(file: MigrationFile, state: RasState) -> None:
    from rich.table import Table
    from rich.text import Text

    from vmm_ras.cli.show import render
    from vmm_ras.cli.show_fields import block_fields

    out = console()
    ram = sum(b.size for b in file.ram.blocks.values())
    out.print(
        f"{file.machine or 'machine not named'}: {counted(len(state.cpus), 'vCPU')}, "
        f"{counted(len(file.devices), 'device')}, {ram >> 20} MiB in {counted(len(file.ram.blocks), 'RAM block')}, "
        f"{counted(file.pages, 'page')} of {file.page_size} bytes",
    )
    for cpu in state.cpus:
        if cpu.serror is not None:
            esr = f"ESR {cpu.serror['esr']:#x}" if cpu.serror["has_esr"] else "no syndrome"
            out.print(f"vCPU {cpu.number}: a virtual SError is pending, {esr}", style="bold")
    if state.origin:
        out.print(f"error sources: by the address of {state.origin}, {state.address:#x}")
    for s in state.sources:
        gate = "no ack register" if s.ack is None else "not acknowledged" if s.unacked else "acknowledged"
        where = f"source {s.source.source_id}, {s.source.notification.plain}, block {s.source.block:#x}"
        out.print(f"{where}: {s.state}, {gate}", style="bold" if s.block is not None else "")
        if s.block is not None:
            render(out, s.block.encode(), block_fields(s.block))
    if state.ged_events:
        out.print(f"event device: events {state.ged_events:#x} wait for the guest", style="bold")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Not in the file")
    for note in state.notes:
        table.add_row(Text(note))
    out.print()
    out.print(table)
