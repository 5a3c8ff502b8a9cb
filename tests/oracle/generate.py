"""Random records of each section type that both libcper and this project know; counts and lengths agree."""

from __future__ import annotations

import random
from collections.abc import Callable
from uuid import UUID

from cper import ia32x64
from cper.arm_context import ArmContext
from cper.libcper.record import TYPES
from cper.record import Record, RecordHeader, SectionDescriptor
from cper.section import Section, section_class

BITS = {
    "ProcessorGeneric": 13, "PlatformMemory": 22, "PlatformMemory2": 22, "Pcie": 8, "PciBus": 9,
}  # fmt: skip
"""Validation bits that both know."""
SMALL = {
    "ProcessorGeneric": (8, 9, 10, 11), "PlatformMemory": (9 + 0, 72), "PlatformMemory2": (61,), "PciBus": (16,),
    "Pcie": (8,), "DmarGeneric": (4, 5, 6, 7),
}  # fmt: skip
"""Offsets of bytes that are more telling when they are small: they have names."""


def number(size: int) -> bytes:
    """Bytes of a number that is often 0, often small, often all ones, else anything; rarely beyond 63 bits."""
    kind = random.random()
    if kind < 0.1:
        return bytes(size)
    if kind < 0.2:
        return random.randint(0, 20).to_bytes(size, "little")
    raw = bytearray(random.randbytes(size))
    if size == 8 and kind < 0.9:
        raw[7] &= 0x7F
    return bytes(raw)


def fixed(cls: type[Section]) -> bytes:
    """A section that is one structure: every word of it random."""
    out = bytearray()
    for _, cell, _ in cls.words.words:
        size = cell.size
        out += (
            number(size)
            if size in {1, 2, 4, 8}
            else b"".join(number(8) for _ in range(size // 8)) + random.randbytes(size % 8)
        )
    name = cls.__name__
    if name in BITS:
        out[:8] = random.getrandbits(BITS[name]).to_bytes(8, "little")
        if random.random() < 0.3:
            out[:8] = ((1 << BITS[name]) - 1).to_bytes(8, "little")
    for at in SMALL.get(name, ()):
        if random.random() < 0.8:
            out[at] = random.randint(0, 17)
    if name == "PlatformMemory" and random.random() < 0.7:
        out[9 + 8 - 1 : 9 + 8] = bytes(1)
    if name == "ProcessorGeneric":
        text = bytes(random.choices(b"ABCdef 0123@()", k=random.randint(0, 127)))
        out[24:152] = text.ljust(128, b"\0")
    return bytes(out)


def ia32x64_body() -> bytes:
    """Checks of every kind; at most one context, the last."""
    checks = [*ia32x64.CHECKS.values(), UUID(int=random.getrandbits(128))]
    errors = b""
    for _ in range(random.randint(0, 4)):
        guid = random.choice(checks)
        word = random.getrandbits(16) if random.random() < 0.7 else 0x7FF
        check = (word & (0x7FF if guid != ia32x64.MS_CHECK else 0x3F)).to_bytes(2, "little") + random.randbytes(6)
        errors += (
            guid.bytes_le + random.getrandbits(5).to_bytes(8, "little") + check + b"".join(number(8) for _ in range(4))
        )
    kind = random.choice([None, 0, 1, 2, 3, 4, 5, 6, 7])
    context = b""
    if kind is not None:
        size = {2: 92, 3: 244}.get(kind, 8 * random.randint(1, 12))
        array = random.randbytes(size) if kind not in {2, 3} else _words(size)
        context = kind.to_bytes(2, "little") + size.to_bytes(2, "little") + number(4) + number(8) + array
    count = len(errors) // 64
    valid = random.getrandbits(2) | count << 2 | (kind is not None) << 8
    cpuid = b"".join(number(8) for _ in range(4)) + bytes(16)
    return valid.to_bytes(8, "little") + number(8) + cpuid + errors + context


def _words(size: int) -> bytes:
    raw = bytearray(random.randbytes(size))
    for at in range(7, size, 8):
        raw[at] &= 0x7F
    return bytes(raw)


def arm_body() -> bytes:
    """Errors of every type in every numbering; at most one context."""
    errors = b""
    count = random.randint(0, 4)
    for _ in range(count):
        kind = random.choice([0, 1, 2, 3, 4, 8, 16])
        valid, word = random.getrandbits(5), random.getrandbits(12 if kind in {2, 4} else 7)
        info = word.to_bytes(2, "little") + random.randbytes(6)
        errors += (
            bytes([0, 32])
            + valid.to_bytes(2, "little")
            + bytes([kind])
            + random.choice([b"\0\0", b"\1\0", random.randbytes(2)])
        )
        errors += bytes([random.getrandbits(4)]) + info + number(8) + number(8)
    context = b""
    kind = random.choice([None, *range(10)])
    if kind is not None:
        made = ArmContext.REGISTERS.get(kind)
        size = made.SIZE if made is not None and kind < 9 else 8 * random.randint(1, 9)
        array = _words(size) if size % 8 == 0 else random.randbytes(size)
        context = bytes(2) + kind.to_bytes(2, "little") + size.to_bytes(4, "little") + array
    vendor = random.randbytes(random.randint(1, 30)) if kind is None and random.random() < 0.5 else b""
    body = errors + context + vendor
    valid = random.getrandbits(3) | (8 if vendor else 0)
    head = valid.to_bytes(4, "little") + count.to_bytes(2, "little") + (kind is not None).to_bytes(2, "little")
    head += (40 + len(body)).to_bytes(4, "little") + bytes([random.randint(0, 5), 0, 0, 0]) + number(8) + number(8)
    return head + random.choice([b"\1\0\0\0", bytes(4), b"\0\0\0\x80"]) + number(4) + body


def pci_component_body() -> bytes:
    """Register pairs as many as the counts say."""
    memory, io = random.randint(0, 3), random.randint(0, 3)
    pairs = b"".join(number(8) + number(8) for _ in range(memory + io))
    valid = random.getrandbits(2) | 0x1C
    status = random.randbytes(1) + bytes([random.randint(0, 30)]) + random.randbytes(6)
    return (
        valid.to_bytes(8, "little")
        + status
        + random.randbytes(16)
        + memory.to_bytes(4, "little")
        + io.to_bytes(4, "little")
        + pairs
    )


def firmware_body() -> bytes:
    """Both forms, each of 32 bytes."""
    return (
        bytes([random.randint(0, 3), random.choice([0, 1, 2])]) + random.randbytes(6) + number(8) + random.randbytes(16)
    )


def ccix_body() -> bytes:
    """A log as long as the length says."""
    log = random.randbytes(4 * random.randint(1, 9))
    return (
        (16 + len(log)).to_bytes(4, "little") + random.getrandbits(3).to_bytes(8, "little") + random.randbytes(4) + log
    )


def cxl_protocol_body() -> bytes:
    """DVSEC and error log as long as their lengths say."""
    dvsec, log = random.randbytes(random.randint(0, 60)), random.randbytes(random.choice([0, 24, 88]))
    head = random.getrandbits(7).to_bytes(8, "little") + bytes([random.randint(0, 8)]) + bytes(7)
    head += number(8) + random.randbytes(16) + number(8) + random.randbytes(60)
    return head + len(dvsec).to_bytes(2, "little") + len(log).to_bytes(2, "little") + random.randbytes(4) + dvsec + log


def cxl_component_body() -> bytes:
    """An event record as long as the length says."""
    log = random.randbytes(112)
    head = (32 + len(log)).to_bytes(4, "little") + random.getrandbits(3).to_bytes(8, "little")
    return head + random.randbytes(12) + number(8) + log


_BODIES: dict[str, Callable[[], bytes]] = {
    "Ia32x64Processor": ia32x64_body, "ArmProcessor": arm_body, "PciComponent": pci_component_body,
    "Firmware": firmware_body, "CcixPer": ccix_body, "CxlProtocol": cxl_protocol_body,
    "CxlComponent": cxl_component_body,
}  # fmt: skip


def body(guid: UUID) -> bytes:
    """A random body of this type."""
    key = TYPES[guid].key
    if key in _BODIES:
        return _BODIES[key]()
    cls = section_class(guid)
    assert cls is not None
    assert issubclass(cls, Section)
    return fixed(cls)


def record(guid: UUID) -> bytes:
    """A record with one random section of this type, header and descriptor random too."""
    descriptor = bytearray(random.randbytes(SectionDescriptor.SIZE))
    descriptor[10] = random.getrandbits(2)
    descriptor[16:32] = guid.bytes_le
    descriptor[48:52] = random.choice([0, 1, 2, 3, 3, 9]).to_bytes(4, "little")
    descriptor[52:72] = bytes(random.choices(b"DIMM_ A1", k=random.randint(0, 19))).ljust(20, b"\0")
    made = Record.of_bodies([(body(guid), SectionDescriptor.decode(descriptor))])
    raw = bytearray(made.encode())
    head = bytearray(random.randbytes(RecordHeader.SIZE))
    head[:4], head[6:10], head[10:12], head[20:24] = raw[:4], raw[6:10], raw[10:12], raw[20:24]
    head[12:16] = random.choice([0, 1, 2, 3, 7]).to_bytes(4, "little")
    head[16:20] = random.getrandbits(3).to_bytes(4, "little")
    time = [random.randint(0, 59), random.randint(0, 59), random.randint(0, 23), random.getrandbits(1),
            random.randint(1, 28), random.randint(1, 12), random.randint(0, 99), 20]  # fmt: skip
    head[24:32] = bytes(v if i == 3 else v // 10 << 4 | v % 10 for i, v in enumerate(time))
    head[80:96] = random.choice([raw[80:96], random.randbytes(16)])
    head[96:104] = number(8)
    head[104:108] = random.choice([0, 1, 2, 4, 3]).to_bytes(4, "little")
    head[108:116] = number(8)
    raw[: RecordHeader.SIZE] = head
    return bytes(raw)
