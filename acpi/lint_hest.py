"""What Linux and the specification object to in a Hardware Error Source Table (ACPI 6.5, 18.3.2)."""

from __future__ import annotations

from acpi.error_source import (
    NO_RELATED_SOURCE,
    GenericHardwareErrorSource,
    GenericHardwareErrorSourceV2,
    NmiSource,
    SourceFlags,
)
from acpi.finding import LINUX, Report
from acpi.ghes import MAX_BLOCK_SIZE, ErrorStatusHeader
from acpi.hest import Hest, HestHeader, OpaqueSource, Source
from acpi.machine_check import CorrectedMachineCheck, MachineCheckBank, MachineCheckException, MachineCheckSource
from acpi.notification import HardwareErrorNotification, NotificationType
from acpi.register import access
from cper.words import counted

NEEDS_ERROR_DEVICE = {NotificationType.SCI, NotificationType.GPIO_SIGNAL, NotificationType.GSIV}
"""Notifications that Linux takes through the error device PNP0C33."""
_PROBE = f"{LINUX} ghes_probe"
_REFUSED = {
    NotificationType.LOCAL_INTERRUPT: "Linux does not support local interrupts",
    NotificationType.CMCI: "Linux takes CMCI for no generic source",
    NotificationType.MCE: "Linux takes MCE for no generic source",
    NotificationType.SEI: "Linux takes no SEI: the source stays silent",
    NotificationType.SSE: "Linux takes no SSE: the source stays silent",
}


def lint_hest(table: Hest, report: Report) -> None:
    """Everything about the table but what concerns every table."""
    at = HestHeader.at("error_source_count").offset
    if table.count is None and table.trailing:
        text = f"{counted(len(table.trailing), 'byte lies', 'bytes lie')} behind the last source"
        report.warning("error_source_count", at, text, "18.3.2")
    if not table.sources and table.count is None:
        report.note("error_source_count", at, "there is no source", "18.3.2")
    for index, (source, offset) in enumerate(zip(table.sources, table.offsets, strict=False)):
        _source(source, f"sources[{index}]", offset, report)
    _ids(table, report)
    _shared_registers(table, report)
    if report.linux:
        sea = [
            (i, o)
            for i, (s, o) in enumerate(zip(table.sources, table.offsets, strict=False))
            if isinstance(s, GenericHardwareErrorSource) and s.enabled and s.notification.type == NotificationType.SEA
        ]
        for index, offset in sea[1:]:
            report.warning(
                f"sources[{index}].notification.type", offset + 32,
                "every SEA reads all SEA sources: one vCPU can take what is another's", f"{LINUX} ghes_notify_sea",
            )  # fmt: skip


def _source(source: Source, path: str, at: int, report: Report) -> None:
    if isinstance(source, OpaqueSource):
        if report.linux:
            text = f"type {source.type} is not defined: Linux drops the whole table"
            report.error(f"{path}.type", at, text, f"{LINUX} hest_esrc_len")
        return
    fixed = source.header if isinstance(source, MachineCheckSource) else source
    report.reserved(fixed, path, at, "18.3.2")
    for name in ("records_to_preallocate", "max_sections_per_record"):
        if getattr(fixed, name) == 0:
            report.warning(f"{path}.{name}", at + fixed.at(name).offset, "0 is less than 1", "18.3.2")
    if not isinstance(fixed, NmiSource) and fixed.enabled != 1:
        text = "the source is disabled" if fixed.enabled == 0 else f"{fixed.enabled} is neither 0 nor 1"
        report.note(f"{path}.enabled", at + 7, text, "18.3.2")
    if isinstance(source, MachineCheckSource):
        _machine_check(source, path, at, report)
    elif isinstance(source, GenericHardwareErrorSource):
        _generic(source, path, at, report)
    elif not isinstance(source, NmiSource):
        _flags(source.flags, SourceFlags.GHES_ASSIST, path, at, report)
        if source.flags & SourceFlags.GLOBAL and (source.bus or source.segment or source.device or source.function):
            report.note(f"{path}.bus", at + 16, "GLOBAL: the device is ignored", "18.3.2.4")


def _flags(flags: SourceFlags, forbidden: int, path: str, at: int, report: Report) -> None:
    if flags & (forbidden | ~7):
        text = f"{SourceFlags(flags & (forbidden | ~7))} is reserved for this type"
        report.warning(f"{path}.flags", at + 6, text, "18.3.2")


def _machine_check(source: MachineCheckSource, path: str, at: int, report: Report) -> None:
    header = source.header
    _flags(header.flags, SourceFlags.GLOBAL, path, at, report)
    if header.flags & SourceFlags.GHES_ASSIST and header.flags & SourceFlags.FIRMWARE_FIRST:
        report.error(f"{path}.flags", at + 6, "GHES_ASSIST counts only without FIRMWARE_FIRST", "18.3.2.1")
    firmware_first = header.flags & SourceFlags.FIRMWARE_FIRST
    if isinstance(header, CorrectedMachineCheck) and firmware_first and not source.banks and report.linux:
        text = "FIRMWARE_FIRST without a bank: Linux keeps handling all banks itself"
        report.warning(f"{path}.bank_count", at + header.at("bank_count").offset, text, f"{LINUX} hest_parse_cmc")
    if not isinstance(header, MachineCheckException):
        place = at + header.at("notification").offset
        _notification(header.notification, f"{path}.notification", place, report)
    _banks(source, path, at, report)


def _banks(source: MachineCheckSource, path: str, at: int, report: Report) -> None:
    seen: set[int] = set()
    for index, bank in enumerate(source.banks):
        name, place = f"{path}.banks[{index}]", at + source.header.SIZE + MachineCheckBank.SIZE * index
        report.reserved(bank, name, place, "18.3.2.1.1")
        if bank.bank_number in seen:
            report.warning(f"{name}.bank_number", place, f"bank {bank.bank_number} is there already", "18.3.2.1.1")
        seen.add(bank.bank_number)
        if bank.clear_status_on_initialization > 1:
            report.warning(f"{name}.clear_status_on_initialization", place + 1, "neither 0 nor 1", "18.3.2.1.1")
        if not bank.status_data_format.known:
            report.warning(f"{name}.status_data_format", place + 2, "an unknown format", "18.3.2.1.1")


def _generic(source: GenericHardwareErrorSource, path: str, at: int, report: Report) -> None:
    place = {row.path: at + row.offset for row in source.layout}
    if source.flags:
        report.warning(f"{path}.flags", place["flags"], f"{source.flags:#x} is reserved", "18.3.2.7")
    length, where = source.error_status_block_length, place["error_status_block_length"]
    if length < ErrorStatusHeader.SIZE:
        text = f"{counted(length, 'byte')} cannot hold the block's header of {ErrorStatusHeader.SIZE}"
        report.error(f"{path}.error_status_block_length", where, text, _PROBE if report.linux else "18.3.2.7")
    elif length > MAX_BLOCK_SIZE and report.linux:
        text = f"{length} bytes: Linux reads {MAX_BLOCK_SIZE} of them"
        report.warning(f"{path}.error_status_block_length", where, text, f"{LINUX} ghes_new")
    address = source.error_status_address
    report.register(address, f"{path}.error_status_address", place["error_status_address"], "18.3.2.7", 64)
    _notification(source.notification, f"{path}.notification", place["notification"], report)
    _taken(source.notification, f"{path}.notification", place["notification"], report)
    if isinstance(source, GenericHardwareErrorSourceV2):
        _acknowledge(source, path, place, report)


def _acknowledge(source: GenericHardwareErrorSourceV2, path: str, place: dict[str, int], report: Report) -> None:
    register, write, preserve = source.read_ack_register, source.read_ack_write, source.read_ack_preserve
    report.register(register, f"{path}.read_ack_register", place["read_ack_register"], "18.3.2.8", 64)
    if write == 0:
        text = "OSPM sets no bit: the platform never learns that the block was read"
        report.error(f"{path}.read_ack_write", place["read_ack_write"], text, "18.3.2.8")
    if write & preserve:
        text = f"bits {write & preserve:#x} are both kept and set"
        report.warning(f"{path}.read_ack_preserve", place["read_ack_preserve"], text, "18.3.2.8")
    size, _ = access(register)
    if size and write << register.bit_offset >> 8 * size:
        report.error(f"{path}.read_ack_write", place["read_ack_write"], "bits outside the register", "18.3.2.8")
    if register.address == source.error_status_address.address and register.address:
        text = "the acknowledgement would overwrite the block's address"
        report.error(f"{path}.read_ack_register", place["read_ack_register"], text, "18.3.2.8")


def _notification(value: HardwareErrorNotification, path: str, at: int, report: Report) -> None:
    """What holds for every notification."""
    if value.length != value.SIZE:
        report.warning(f"{path}.length", at + 1, f"{counted(value.length, 'byte')}, not {value.SIZE}", "18.3.2.9")
    if not value.type.known:
        report.error(f"{path}.type", at, f"type {int(value.type)} is reserved", "18.3.2.9")
    if value.configuration_write_enable >> 6:
        report.warning(f"{path}.configuration_write_enable", at + 2, "reserved bits are set", "18.3.2.9")


def _taken(value: HardwareErrorNotification, path: str, at: int, report: Report) -> None:
    """Whether OSPM will ever hear of a generic source."""
    if value.type == NotificationType.POLLED and value.poll_interval_ms == 0:
        text, clause = "0 ms: Linux disables the source", f"{LINUX} ghes_add_timer"
        report.error(f"{path}.poll_interval_ms", at + 4, text, clause if report.linux else "18.3.2.9")
    if value.type == NotificationType.SDEI and value.vector == 0:
        text = "event 0 is the one that software signals: Linux refuses it"
        report.error(f"{path}.vector", at + 8, text, f"{LINUX} sdei_register_ghes" if report.linux else "DEN0054, 4.2")
    if value.type in {NotificationType.EXTERNAL_INTERRUPT, NotificationType.GSIV} and value.vector == 0:
        report.warning(f"{path}.vector", at + 8, "interrupt 0: nothing says which it is", "18.3.2.9")
    if report.linux and value.type in _REFUSED:
        report.error(f"{path}.type", at, _REFUSED[value.type], _PROBE)
    if report.linux and value.type == NotificationType.NMI:
        report.warning(f"{path}.type", at, "only x86 takes NMI", _PROBE)


def _ids(table: Hest, report: Report) -> None:
    seen: dict[int, bool] = {}
    assists = {s.related_source_id for s in table.generic_sources}
    for index, (source, at) in enumerate(zip(table.sources, table.offsets, strict=False)):
        number, path = source.source_id, f"sources[{index}]"
        if number is None:
            continue
        counts = isinstance(source, GenericHardwareErrorSource) and source.enabled != 0
        if number in seen:
            both = counts and seen[number] and report.linux
            text = f"id {number} is there already" + (": Linux drops every generic source" if both else "")
            clause = f"{LINUX} hest_parse_ghes" if both else "18.3.2"
            (report.error if both else report.warning)(f"{path}.source_id", at + 2, text, clause)
        seen[number] = seen.get(number, False) or counts
        if isinstance(source, GenericHardwareErrorSource):
            _related(source, table, path, at, report)
        elif isinstance(source, MachineCheckSource) and number in table.assisted_ids and number not in assists:
            report.warning(f"{path}.flags", at + 6, "GHES_ASSIST, but no generic source is related", "18.3.2.1")


def _related(source: GenericHardwareErrorSource, table: Hest, path: str, at: int, report: Report) -> None:
    related = source.related_source_id
    if related == NO_RELATED_SOURCE:
        return
    if related not in table.by_id:
        report.warning(f"{path}.related_source_id", at + 4, f"there is no source {related}", "18.3.2.7")
    elif related in table.assisted_ids and report.linux:
        text = f"it assists source {related}: Linux does not use it"
        report.note(f"{path}.related_source_id", at + 4, text, f"{LINUX} is_ghes_assist_struct")


def _shared_registers(table: Hest, report: Report) -> None:
    seen: dict[int, int] = {}
    for index, (source, at) in enumerate(zip(table.sources, table.offsets, strict=False)):
        if not isinstance(source, GenericHardwareErrorSource) or not source.enabled:
            continue
        address = source.error_status_address.address
        if address and address in seen:
            text = f"source {seen[address]} has the same register: each may take what is the other's"
            report.warning(f"sources[{index}].error_status_address", at + 24, text, "18.3.2.7")
        seen.setdefault(address, index)


__all__ = ["NEEDS_ERROR_DEVICE", "lint_hest"]
