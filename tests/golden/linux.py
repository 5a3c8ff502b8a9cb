"""What arm64 Linux logs about a status block, written from decoded fields; what it did log, and what was put in.

The formats are those of ``drivers/acpi/apei/ghes.c`` and ``drivers/firmware/efi/cper.c``; only values come from us.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from acpi.ghes import StatusBlock
from cper.memory import MemoryErrorType, PlatformMemory
from cper.wire import Struct, WireError
from tests.golden.evidence import constant, table

LINUX = Path(__file__).parents[2] / "fixtures" / "linux"
KERNELS = ("6.1", "6.12", "7.2")
PROFILES_OF = {"6.1": "linux-6.1", "6.12.43": "linux-6.12.43", "6.12": "linux-6.12", "7.2": "linux-7.2"}
"""The guest profile of each kernel."""
BLOCK_LENGTH = 8192
"""What lies behind a vector in the source's block is zero."""
DIMMS = {0x1100: " DIMM 0"}
"""SMBIOS handles that the machine had: QEMU numbers its memory devices from 0x1100."""
SEVERITY = {0: "recoverable", 1: "fatal", 2: "corrected", 3: "info"}


@cache
def vectors() -> dict[str, Any]:
    """Every vector by name."""
    found: dict[str, Any] = json.loads((LINUX / "vectors.json").read_text())["vectors"]
    return found


@cache
def blocks() -> tuple[str, ...]:
    """Names of the vectors whose block a kernel read."""
    return tuple(sorted(p.stem for p in (LINUX / "blocks").glob("*.bin")))


@cache
def raw(name: str) -> bytes:
    """The block as the kernel found it in the source's memory."""
    return (LINUX / "blocks" / f"{name}.bin").read_bytes().ljust(BLOCK_LENGTH, b"\0")


@cache
def acted() -> dict[str, Any]:
    """What each kernel did about every block that it was told, by name."""
    found: dict[str, Any] = json.loads((LINUX / "acted.json").read_text())
    return found


def acted_on(name: str, kernel: str) -> dict[str, Any]:
    """What one kernel did about one block; 6.12.43 did as 6.12 where it is not mentioned.  Raises KeyError."""
    entry: dict[str, Any] = acted()[name]
    did: dict[str, Any] = entry["6.12" if kernel == "6.12.43" and kernel not in entry else kernel]
    return did


@cache
def told(name: str) -> bytes:
    """The block as the kernels found it in the source's memory, for all that ``acted`` knows."""
    block = acted()[name].get("block")
    return raw(name) if block is None else bytes.fromhex(block).ljust(BLOCK_LENGTH, b"\0")


@cache
def log(kernel: str, name: str) -> tuple[str, ...]:
    """The lines that a kernel logged."""
    return tuple((LINUX / kernel / f"{name}.log").read_text().split("\n"))


PREFIX = re.compile(r"^\{\d+\}\[Hardware Error\]: ")


def report(lines: tuple[str, ...]) -> list[str]:
    """The error report out of a log, without prefix, bodies of sections of other types and words about error_status."""
    out: list[str] = []
    foreign = False
    for line in lines:
        if line.startswith("Kernel panic"):
            break
        if PREFIX.match(line):
            text = PREFIX.sub("", line)
            if text.startswith((" Error ", " precise", " imprecise")):
                foreign = False
            if not foreign:
                out.append(re.sub(r"error_status: .* \(", "error_status: (", text))
            if "section type: unknown" in text or re.match(r"  section_type: (?!memory)", text):
                foreign = True
        elif line.startswith("[Firmware Warn]: GHES: Invalid address") or line.startswith("Memory failure"):
            continue  # what it did, not what it read
        elif line:
            out.append(line)
    return out


class Part(NamedTuple):
    """An entry's header and its memory section, if it is one: None where the section cannot be read."""

    header: Any
    memory: Any
    is_memory: bool


def parts(block: StatusBlock) -> list[Part]:
    """The entries of a decoded block."""
    found = []
    for entry in block.entries:
        is_memory = entry.header.section_type == PlatformMemory.GUID
        found.append(Part(entry.header, _section(entry.body) if is_memory else None, is_memory))
    return found


def _section(body: bytes) -> PlatformMemory | None:
    try:
        return PlatformMemory.of_body(body)
    except WireError:
        return None


def render(header: Any, entries: list[Part]) -> list[str]:
    """The report that Linux would write about these fields."""
    out = ["Hardware error from APEI Generic Hardware Error Source: 5"]
    if header.severity == 2:
        out.append("It has been corrected by h/w and requires no further action")
    out.append(f"event severity: {SEVERITY[int(header.severity)]}")
    for index, (entry, memory, is_memory) in enumerate(entries):
        stamp = getattr(entry, "timestamp", None)
        if stamp is not None:
            out.append(f" {'precise' if stamp.precise else 'imprecise'} tstamp: {stamp}")
        # cper.c keeps the severity in 16 bits
        out.append(f" Error {index}, type: {SEVERITY.get(int(entry.severity) & 0xFFFF, 'unknown')}")
        if entry.fru_id is not None:
            out.append(f" fru_id: {entry.fru_id}")
        if entry.fru_text is not None:
            out += f" fru_text: {_escaped(entry.fru_text)}".split("\n")
        if not is_memory:
            out.append(FOREIGN)
            continue
        out.append("  section_type: memory error")
        out += _memory(memory) if memory is not None else ["[Firmware Warn]: error section length is too small"]
    return out


FOREIGN = "  (a section of another type)"


def without_foreign(lines: list[str]) -> list[str]:
    """A report with a section of another type as one line."""
    return [
        FOREIGN if "section type: unknown" in line or re.match(r"  section_type: (?!memory)", line) else line
        for line in lines
    ]


def _escaped(text: str) -> str:
    text = text.split("\0", maxsplit=1)[0][:20]
    return "".join("\\t" if c == "\t" else c if c == "\n" or " " <= c <= "~" else f"\\x{ord(c):02x}" for c in text)


def number(value: Any) -> Any:
    """The number that the bytes of a structure are; anything else itself."""
    return int.from_bytes(value.encode(), "little") if isinstance(value, Struct) else value


def _memory(m: Any) -> list[str]:
    out = []
    if m.error_status is not None:
        out.append(f"   error_status: (0x{number(m.error_status):016x})")
    if m.physical_address is not None:
        out.append(f"  physical_address: 0x{m.physical_address:016x}")
    if m.physical_address_mask is not None:
        out.append(f"  physical_address_mask: 0x{m.physical_address_mask:016x}")
    place = _location(m)
    if place:
        out.append("  " + place)
    if m.error_type is not None:
        known = m.error_type in set(MemoryErrorType)
        words = MemoryErrorType(m.error_type).name.lower() if known else "unknown"
        out.append(f"  error_type: {int(m.error_type)}, {words}")
    if m.module_handle is not None:
        absent = f"not present. DMI handle: 0x{m.module_handle:04x}"
        out.append(f"  DIMM location: {DIMMS.get(m.module_handle, absent)} ")
    return out


def _location(m: Any) -> str:
    row = m.row
    if m.row_high is not None:  # cper.c takes the whole row then, whether bit 8 is set or not
        row = (_word(m, "row") if row is None else row) | m.row_high << 16
    numbers = [
        ("node", m.node), ("card", m.card), ("module", m.module), ("rank", m.rank), ("bank", m.bank),
        ("bank_group", m.bank_group), ("bank_address", m.bank_address), ("device", m.device), ("row", row),
        ("column", m.column), ("bit_position", m.bit_position),
    ]  # fmt: skip
    ids = [("requestor_id", m.requestor_id), ("responder_id", m.responder_id), ("target_id", m.target_id)]
    found = [f"{name}:{value} " for name, value in numbers if value is not None]
    found += [f"{name}:0x{value:016x} " for name, value in ids if value is not None]
    return "".join(found) + (f"chip_id:{m.chip_id} " if m.chip_id is not None else "")


def _word(m: Struct, path: str) -> int:
    row = m.at(path)
    return int.from_bytes(m.encode()[row.offset : row.offset + row.size], "little")


def comparable(lines: list[str]) -> list[str]:
    """Names of error types as those of an enum."""
    return [
        re.sub(r"(error_type: \d+, )(.*)", lambda m: m[1] + re.sub(r"[^a-z0-9]+", "_", m[2].lower()), line)
        for line in lines
    ]


def check_entry(head, put):
    """An entry header against what the generator put in."""
    assert put["entry_header_size"] == head.SIZE
    assert str(head.section_type) == put["section_type"].lower()
    assert head.severity == put["error_severity"]
    assert head.revision == put["revision"]
    assert head.flags == put["flags"]
    assert head.error_data_length == put["error_data_length"]
    valid = put["validation_bits"]
    assert (None if head.fru_id is None else str(head.fru_id)) == (put["fru_id"].lower() if valid & 1 else None)
    text = bytes.fromhex(put["fru_text"]).decode("latin-1")
    assert head.fru_text == (text if valid & 2 else None)
    stamp = head.timestamp.encode().hex() if getattr(head, "timestamp", None) else None
    assert stamp == (put["timestamp"] if valid & 4 and head.SIZE == 72 else None)


def memory_values(put):
    """Name to value of each valid field, by Linux' names of the validation bits."""
    values = {
        **put,
        "error_type": put["memory_error_type"],
        "bank_address": put["bank"] & 0xFF,
        "bank_group": put["bank"] >> 8,
        "row_high": put["extended"] & 3,
        "chip_id": put["extended"] >> 5,
    }
    bits = {name: constant(source) for name, (source, *_) in table("structs")["PlatformMemory"]["valid"].items()}
    return {name: values[name] if put["validation_bits"] & bit else None for name, bit in bits.items()}


def check_memory(section, put):
    """A memory section against what the generator put in; what lies beyond a short one is zero."""
    assert section is not None
    length = put["(section length)"]
    for name, value in memory_values(put).items():
        row = PlatformMemory.at(name)
        if row.offset + row.size > length and value is not None:
            there = (1 << 8 * max(length - row.offset, 0)) - 1
            assert number(getattr(section, name)) == value & there, name
        else:
            assert number(getattr(section, name)) == value, name


def check_record_header(head, vector):
    """A record header against what the generator put in."""
    entries, record = vector["fields"]["entries"], vector["record"]
    assert (head.record_length, head.section_count) == (record["length"], len(entries))
    assert (head.record_id, head.revision) == (record["record_id"], 0x0101)
    assert head.severity == vector["fields"]["error_severity"]
    assert (head.signature_start.to_bytes(4, "little"), head.signature_end) == (b"CPER", 0xFFFFFFFF)
    assert str(head.creator_id) == "11223344-5566-7788-99aa-bbccddeeff00"
    assert str(head.notification_type) == "09a9d5ac-5204-4214-96e5-94992e752bcd"
    assert (head.platform_id, head.partition_id, head.flags, head.persistence_information) == (None, None, 0, 0)
    stamps = [e["timestamp"] for e in entries if e["timestamp"] and e["validation_bits"] & 4]
    assert (head.timestamp.encode().hex() if head.timestamp else None) == (stamps[0] if stamps else None)


def check_descriptor(descriptor, put, offset, length):
    """A section descriptor against what the generator put in."""
    assert (descriptor.section_offset, descriptor.section_length, descriptor.revision) == (offset, length, 0x0100)
    assert str(descriptor.section_type) == put["section_type"].lower()
    assert (descriptor.severity, descriptor.flags) == (put["error_severity"], put["flags"])
    valid = put["validation_bits"]
    assert (descriptor.fru_id and str(descriptor.fru_id)) == (put["fru_id"].lower() if valid & 1 else None)
    text = bytes.fromhex(put["fru_text"])[:20].decode("latin-1")
    assert descriptor.fru_text == (text if valid & 2 else None)


def check_block_header(head, fields):
    """A status block's header against what the generator put in."""
    status = fields["block_status"]
    bits = (head.uncorrectable, head.correctable, head.multiple_uncorrectable, head.multiple_correctable)
    assert bits == tuple(bool(status & 1 << bit) for bit in range(4))
    assert head.entry_count == status >> 4 & 0x3FF
    assert head.raw_data_offset == fields["raw_data_offset"]
    assert head.raw_data_length == fields["raw_data_length"]
    assert head.data_length == fields["data_length"]
    assert head.severity == fields["error_severity"]
