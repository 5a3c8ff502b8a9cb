"""What Linux and the specification object to in BERT, SDEI, AEST, RASF and RAS2 (ACPI 6.5, 18.3.1; Arm DEN0085)."""

from __future__ import annotations

from acpi.aest import Aest, AestNode
from acpi.aest_interface import AestInterface4k, AestInterface16k, AestInterface64k, AestInterfaceType
from acpi.aest_parts import AestNodeHeader, AestNodeType
from acpi.bert import SMALLEST_REGION, Bert
from acpi.finding import LINUX, Report
from acpi.frame import FixedTable
from acpi.ras2 import Ras2
from cper.words import counted

_RECORDS = {AestInterface4k: 64, AestInterface16k: 256, AestInterface64k: 896}
_ONLY_REVISION_2 = {AestNodeType.PCIE_ROOT_COMPLEX, AestNodeType.PROXY}


def lint_bert(table: Bert, report: Report) -> None:
    """Everything about the table but what concerns every table."""
    length = table.head.boot_error_region_length
    if length < SMALLEST_REGION:
        text = f"{counted(length, 'byte')} cannot hold a block's header of {SMALLEST_REGION}"
        clause = f"{LINUX} bert_check_table" if report.linux else "18.3.1"
        report.error("head.boot_error_region_length", 36, text, clause)
    if table.head.boot_error_region == 0:
        report.error("head.boot_error_region", 40, "the address is 0", "18.3.1")
    lint_fixed(table, report)


def lint_fixed(table: FixedTable, report: Report) -> None:  # type: ignore[type-arg]
    """What holds for tables without a list."""
    report.reserved(table.head, "head", 0, "5.2.6")
    if table.trailing:
        text = f"{counted(len(table.trailing), 'byte lies', 'bytes lie')} behind the last field"
        report.warning("trailing", table.HEAD.SIZE, text, "5.2.6")


def lint_ras2(table: Ras2, report: Report) -> None:
    """Everything about the table but what concerns every table."""
    seen: set[tuple[int, int]] = set()
    for index, entry in enumerate(table.entries):
        path, at = f"entries[{index}]", table.offset(index)
        report.reserved(entry, path, at, "5.2.21")
        if not entry.feature_type.known:
            report.warning(f"{path}.feature_type", at + 3, f"feature {int(entry.feature_type)} is reserved", "5.2.21")
        key = (int(entry.feature_type), entry.instance)
        if key in seen:
            text = f"instance {entry.instance} has a subspace already"
            report.warning(f"{path}.instance", at + 4, text, "5.2.21")
        seen.add(key)
    if table.trailing:
        at = table.offset(len(table.entries))
        text = f"{counted(len(table.trailing), 'byte lies', 'bytes lie')} behind the last descriptor"
        report.warning("trailing", at, text, "5.2.21")


def lint_aest(table: Aest, report: Report) -> None:
    """Everything about the table but what concerns every table."""
    at = table.header.SIZE
    if table.header.revision not in {1, 2}:
        return
    for index, node in enumerate(table.nodes):
        _node(node, table.header.revision, f"nodes[{index}]", at, report)
        at += node.SIZE


def _node(node: AestNode, revision: int, path: str, at: int, report: Report) -> None:
    header, clause = node.header, "DEN0085"
    report.reserved(header, f"{path}.header", at, clause)
    if not header.type.known or (revision == 1 and header.type in _ONLY_REVISION_2):
        text = f"type {int(header.type)} is not one of revision {revision}"
        report.error(f"{path}.header.type", at, text, clause)
        return
    if node.interface is None:
        place = at + AestNodeHeader.at("node_interface_offset").offset
        report.error(f"{path}.header.node_interface_offset", place, "a node needs an interface", clause)
    else:
        _interface(node, revision, path, at, report)
    if header.node_interrupt_count and not header.node_interrupt_offset:
        text = f"{counted(header.node_interrupt_count, 'interrupt')}, but they lie nowhere"
        place = at + AestNodeHeader.at("node_interrupt_offset").offset
        report.error(f"{path}.header.node_interrupt_offset", place, text, clause)
    for index, interrupt in enumerate(node.interrupts):
        name, place = f"{path}.interrupts[{index}]", at + header.node_interrupt_offset + interrupt.SIZE * index
        report.reserved(interrupt, name, place, clause)
        if not interrupt.type.known:
            report.warning(f"{name}.type", place, f"type {int(interrupt.type)} is reserved", clause)
        if interrupt.gsiv == 0:
            report.warning(f"{name}.gsiv", place + 4, "interrupt 0: nothing says which it is", clause)
    if node.image is not None:
        report.note(path, at, "the parts leave gaps, or lie in another order than is usual", clause)


def _interface(node: AestNode, revision: int, path: str, at: int, report: Report) -> None:
    interface, clause, name = node.interface, "DEN0085", f"{path}.interface"
    assert interface is not None
    at += node.header.node_interface_offset
    report.reserved(interface, name, at, clause)
    if not interface.type.known or (revision == 1 and interface.type > AestInterfaceType.MEMORY_MAPPED):
        text = f"type {int(interface.type)} is not one of revision {revision}"
        report.error(f"{name}.type", at, text, clause)
    if interface.type == AestInterfaceType.SYSTEM_REGISTER and interface.address:
        report.note(f"{name}.address", at + 8, "system registers have no address", clause)
    if interface.type == AestInterfaceType.MEMORY_MAPPED and not interface.address:
        report.error(f"{name}.address", at + 8, "the address is 0", clause)
    most = _RECORDS.get(type(interface), 64)
    if not 1 <= interface.error_record_count <= most:
        text = f"{interface.error_record_count} records is not between 1 and {most}"
        report.warning(f"{name}.error_record_count", at + 20, text, clause)


__all__ = ["lint_aest", "lint_bert", "lint_fixed", "lint_ras2"]
