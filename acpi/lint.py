"""What Linux or the specification objects to in tables (ACPI 6.5, 5.2 and 18), each with its clause or observation.

Every statement about Linux was read from its source, version 7.2 (Debian 7.2.13-1); the function is named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from acpi.finding import LINUX, Finding, Level, Report
from acpi.frame import RawTable, Table
from acpi.hest import Hest
from acpi.lint_hest import NEEDS_ERROR_DEVICE, lint_hest
from acpi.lint_instructions import lint_einj, lint_erst
from acpi.lint_other import lint_aest, lint_bert, lint_fixed, lint_ras2
from acpi.notification import NotificationType
from acpi.table import TableHeader, checksum
from acpi.tables import examine_table
from cper.wire import WireError

REVISIONS: dict[str, set[int]] = {
    "AEST": {1, 2}, "BERT": {1}, "CCEL": {1}, "EINJ": {1, 2}, "ERST": {1}, "HEST": {1, 2}, "RAS2": {1}, "RASF": {1},
    "SDEI": {1},
}  # fmt: skip
"""Revisions that the specifications have given each table."""
_RULES: dict[str, Callable[[Any, Report], None]] = {
    "AEST": lint_aest, "BERT": lint_bert, "CCEL": lint_fixed, "EINJ": lint_einj, "ERST": lint_erst, "HEST": lint_hest,
    "RAS2": lint_ras2, "RASF": lint_fixed, "SDEI": lint_fixed,
}  # fmt: skip
_CHECKED_BY = {
    "EINJ": f"{LINUX} einj_check_table",
    "ERST": f"{LINUX} erst_check_table",
    "HEST": f"{LINUX} apei_hest_parse",
}
"""Who in Linux finds that a table's count is wrong."""
_ERROR_DEVICE = (bytes.fromhex("41d00c33"), b"PNP0C33")
"""The error device's hardware id in AML: compressed, or as text."""


def lint(*tables: bytes | Table, linux: bool = True) -> list[Finding]:
    """Every objection to these tables, and to their being together.

    A table is given as its bytes or as its class.  ``linux``: the guest is Linux.  Rules about what is missing apply
    only where the set has a FADT: a single table is not blamed for the others.  Never raises for bad bytes.
    """
    findings: list[Finding] = []
    parsed: list[tuple[str, bytes, Table | None]] = []
    for given in tables:
        data = given if isinstance(given, bytes) else given.build()
        signature, table, found = _lint_one(data, linux)
        findings += found
        parsed.append((signature, data, table))
    return findings + _together(parsed, linux)


def _lint_one(data: bytes, linux: bool) -> tuple[str, Table | None, list[Finding]]:
    try:
        header = TableHeader.decode(data)
    except WireError as error:
        report = Report("?", linux)
        report.error(f"header.{error.path}", error.offset or 0, error.reason, "5.2.6")
        return "", None, report.findings
    report = Report(header.signature, linux)
    try:
        table, problem = examine_table(data)
    except WireError as error:
        report.error(error.path, error.offset or 0, error.reason, "5.2.6")
        return header.signature, None, report.findings
    _header(header, data, report)
    if problem is not None:
        clause = _CHECKED_BY.get(header.signature, "5.2.6") if linux else "5.2.6"
        report.error(problem.path, problem.offset or 0, problem.reason, clause)
    if header.signature in _RULES and not isinstance(table, RawTable):
        _RULES[header.signature](table, report)
    return header.signature, table, report.findings


def _header(header: TableHeader, data: bytes, report: Report) -> None:
    raw = data[: header.length]
    if checksum(raw):
        text = f"{header.checksum:#04x}, but {header.checksum + checksum(raw) & 0xFF:#04x} is right"
        report.error("header.checksum", 9, text, "5.2.6")
    if len(data) > header.length:
        text = f"{header.length} bytes, but {len(data)} are given"
        report.warning("header.length", 4, text, "5.2.6")
    known = REVISIONS.get(header.signature)
    if known is not None and header.revision not in known:
        text = f"revision {header.revision} is not one of {', '.join(map(str, sorted(known)))}"
        report.warning("header.revision", 8, text, "5.2.6")
    for name in ("signature", "oem_id", "oem_table_id", "creator_id"):
        value: str = getattr(header, name)
        if not value.rstrip("\0").isascii() or not value.rstrip("\0").isprintable():
            report.warning(f"header.{name}", header.at(name).offset, f"{value!r} is not printable ASCII", "5.2.6")


def _together(parsed: Sequence[tuple[str, bytes, Table | None]], linux: bool) -> list[Finding]:
    found: list[Finding] = []
    signatures = [signature for signature, _, _ in parsed]
    for signature in dict.fromkeys(signatures):
        if signature in _RULES and signatures.count(signature) > 1:
            text = f"{signatures.count(signature)} tables of this signature: OSPM reads the first"
            found.append(Finding(Level.WARNING, signature, "header.signature", 0, text, "5.2.6"))
    hest = next((table for _, _, table in parsed if isinstance(table, Hest)), None)
    if hest is None or "FACP" not in signatures or not linux:
        return found
    told = {s.notification.type for s in hest.generic_sources if s.enabled}
    if NotificationType.SDEI in told and "SDEI" not in signatures:
        text = "a source tells by SDEI, but there is no SDEI table: Linux makes no SDEI device"
        found.append(Finding(Level.ERROR, "HEST", "sources", 40, text, f"{LINUX} sdei_present_acpi"))
    aml = [data for signature, data, _ in parsed if signature in {"DSDT", "SSDT"}]
    if told & NEEDS_ERROR_DEVICE and aml and not any(name in data for data in aml for name in _ERROR_DEVICE):
        text = "a source tells by SCI, GSIV or GPIO, but there is no error device PNP0C33: nobody listens"
        found.append(Finding(Level.ERROR, "HEST", "sources", 40, text, f"{LINUX} hed.c"))
    return found


__all__ = ["Finding", "Level", "lint"]
