"""What RAS state a stream carries, and what it lacks (QEMU ``target/arm/machine.c``, ``hw/acpi/ghes.c``).

QEMU sends a vCPU's pending virtual SError as ``cpu/serror``, and nothing where none is pending; where the error
sources lie as ``acpi-ged/ghes`` (address of ``etc/hardware_errors``) or, from machine 10.2 on, ``acpi-ged/hest``
(address of the HEST); and the blocks themselves as part of RAM.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from acpi.ghes import MAX_BLOCK_SIZE, StatusBlock
from acpi.hest import Hest
from acpi.image import PlacedSource, find_sources
from cper.wire import WireError
from vmm_ras.errors import GuestError
from vmm_ras.kvm import one_reg
from vmm_ras.qemu_migration.description import Device
from vmm_ras.qemu_migration.ram import GuestRam
from vmm_ras.qemu_migration.stream import MigrationFile

TABLES_BLOCK = "/rom@etc/acpi/tables"
"""RAMBlock that holds the ACPI tables as firmware loads them: addresses are offsets into files still."""
MAX_TABLES = 1 << 20
MAX_HEST = 64 << 10
LACKS = (
    "poison: a stream has no place for it; QEMU from 9.0 on refuses to migrate once a page is poisoned, an older one "
    "reads the page and dies",
    "reported poison: which pages the guest was told of is known to nobody but the guest",
    "SDEI: QEMU has no dispatcher, so a guest's SDEI state is in the stream of no version",
)
"""What is in no stream, whatever happened."""


class Cpu(NamedTuple):
    """One vCPU."""

    number: int
    serror: dict[str, int] | None
    """``pending``, ``has_esr`` and ``esr``; None where none was pending."""
    registers: dict[int, int]
    """Id of KVM_GET_ONE_REG to value: the system registers that the stream has."""


class Pending(NamedTuple):
    """An error source, and what its memory shows."""

    source: PlacedSource
    ack: int | None
    """The Read Ack Register; None where it cannot be read."""
    state: str
    """``empty``, ``pending``, ``malformed: ...`` or ``unreadable: ...``."""
    block: StatusBlock | None

    @property
    def unacked(self) -> bool:
        """The guest has not acknowledged what was written last."""
        return self.ack is not None and not self.ack & self.source.ack_write


class RasState(NamedTuple):
    """What a file carries."""

    cpus: tuple[Cpu, ...]
    origin: str
    """``hardware_errors`` or ``hest``: which address the stream has; empty for none."""
    address: int
    sources: tuple[Pending, ...]
    ged_events: int | None
    """Events that the Generic Event Device holds for the guest, one bit each; None without such a device."""
    notes: tuple[str, ...]
    """What is not there, and what that means."""


def ras_state(file: MigrationFile) -> RasState:
    """Look for it.  Whatever the guest or a damaged file left in RAM is a note, never an exception."""
    cpus = tuple(_cpu(file, device) for device in file.named("cpu"))
    notes = [] if cpus else ["vCPUs: none: this is no arm64 machine, or none of QEMU's"]
    if cpus and not any(cpu.serror for cpu in cpus):
        notes.append("virtual SError: no cpu/serror: KVM had none pending (under TCG it is never sent)")
    origin, address, sources = _sources(file, notes)
    ged = [value for d in file.named("acpi-ged") for value in file.integers(d, "ged_state.sel")]
    return RasState(cpus, origin, address, sources, ged[0] if ged else None, (*notes, *LACKS))


def _cpu(file: MigrationFile, device: Device) -> Cpu:
    serror = None
    if "cpu/serror" in device.subsections:
        said = {name: file.integers(device, f"cpu/serror.env.serror.{name}") for name in ("pending", "has_esr", "esr")}
        serror = {name: values[0] if values else 0 for name, values in said.items()}
    ids = file.integers(device, "cpreg_vmstate_indexes")
    return Cpu(device.instance, serror, dict(zip(ids, file.integers(device, "cpreg_vmstate_values"), strict=False)))


def _sources(file: MigrationFile, notes: list[str]) -> tuple[str, int, tuple[Pending, ...]]:
    for device in file.named("acpi-ged"):
        for origin, path in (
            ("hest", "acpi-ged/hest.ghes_state.hest_addr_le"),
            ("hardware_errors", "acpi-ged/ghes.ghes_state.hw_error_le"),
            ("hardware_errors", "acpi-ged/ghes.ghes_state.ghes_addr_le"),
        ):
            for address in file.integers(device, path):
                if address:
                    return origin, address, _look(file, origin, address, notes)
    has_tables = _hest(file.ram) is not None
    notes.append(
        "error sources: the tables have a HEST, but no firmware has told QEMU where it lies: nothing can be reported "
        "to this guest yet" if has_tables else "error sources: none: the machine has no HEST (ras=off)"
    )  # fmt: skip
    return "", 0, ()


def _look(file: MigrationFile, origin: str, address: int, notes: list[str]) -> tuple[Pending, ...]:
    read = file.ram.read
    try:
        if origin == "hest":
            size = int.from_bytes(read(address + 4, 4), "little")
            placed = find_sources(read, read(address, min(size, MAX_HEST)))
        else:  # the tables' own HEST has offsets into etc/hardware_errors
            hest = _hest(file.ram)
            if hest is None:
                notes.append(f"error sources: at {address:#x}, but the tables have no HEST")
                return ()
            placed = tuple(
                s._replace(register=s.register + address, ack=None if s.ack is None else s.ack + address)
                for s in find_sources(lambda gpa, size: read(gpa + address, size), hest)
            )
    except (GuestError, WireError) as error:
        notes.append(f"error sources: at {address:#x}, but they cannot be read: {error}")
        return ()
    return tuple(_pending(file.ram, source) for source in placed)


def _pending(ram: GuestRam, source: PlacedSource) -> Pending:
    ack = None
    try:
        if source.ack is not None:
            ack = int.from_bytes(ram.read(source.ack, 8), "little")
        if not source.block or ram.read(source.block, 4) == bytes(4):
            return Pending(source, ack, "empty", None)
        raw = ram.read(source.block, min(source.block_length, MAX_BLOCK_SIZE))
        return Pending(source, ack, "pending", StatusBlock.decode(raw))
    except GuestError as error:
        return Pending(source, ack, f"unreadable: {error}", None)
    except WireError as error:
        return Pending(source, ack, f"malformed: {error}", None)


def _hest(ram: GuestRam) -> bytes | None:
    """The HEST among the tables that firmware has not linked yet."""
    block = ram.blocks.get(TABLES_BLOCK)
    if block is None:
        return None
    try:
        tables = ram.read_block(TABLES_BLOCK, 0, min(block.size, MAX_TABLES))
    except GuestError:
        return None
    at = tables.find(b"HEST")
    while at >= 0:
        data = tables[at : at + int.from_bytes(tables[at + 4 : at + 8], "little")]
        try:
            Hest.parse(data)
        except WireError:
            at = tables.find(b"HEST", at + 4)
            continue
        return data
    return None


def plain(file: MigrationFile, state: RasState) -> dict[str, Any]:
    """Both as JSON-able values."""
    return {
        "machine": file.machine,
        "page_size": file.page_size,
        "capabilities": sorted(file.features),
        "pages": file.pages,
        "ram": [{"name": b.name, "size": b.size} for b in file.ram.blocks.values()],
        "devices": [
            {"name": d.name, "instance": d.instance, "version": d.version, "size": d.end - d.offset,
             "subsections": list(d.subsections)} for d in file.devices
        ],
        "cpus": [
            {"index": c.number, "serror": c.serror,
             "registers": {f"{reg:#018x}": {"name": one_reg.describe(reg), "value": f"{value:#x}"}
                           for reg, value in c.registers.items()}} for c in state.cpus
        ],
        "error_sources": {"from": state.origin, "address": state.address, "sources": [
            s.source._asdict() | {"notification": s.source.notification.plain, "gate": s.ack, "state": s.state,
                                  "unacked": s.unacked, "pending": None if s.block is None else s.block.plain()}
            for s in state.sources
        ]},
        "ged_events": state.ged_events,
        "notes": list(state.notes),
    }  # fmt: skip
