"""The least work that one event takes in plain Python: what `replay` is measured against.

Hand-written, ``struct`` only, no declarations, no validation, no queue; but the same work that `replay` does
for the same event: JSONL line in, a few rules, poison map, 172-byte block, gate, exception entry or SDEI dispatch,
the guest's read, decoding, cache and acknowledgement, CRC-32C, JSONL line out.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import crcmod.predefined
import orjson

crc32c = crcmod.predefined.mkPredefinedCrcFun("crc-32c")

HEADER = struct.Struct("<IIIII")
ENTRY = struct.Struct("<16sIHBBI16s20sQ")
MEMORY = struct.Struct("<QQQQHHHHHHHHQQQBBHHH")
U64 = struct.Struct("<Q")
GUID = bytes.fromhex("1411bca5646fde4eb8633e83ed7c83b1")
NAMES = (
    *("validation", "status", "pa", "mask", "node", "card", "module", "bank", "device", "row", "column", "bit"),
    *("requestor", "responder", "target", "type", "extended", "rank", "card_handle", "module_handle"),
)
ENTRY_NAMES = ["type", "severity", "revision", "validation", "flags", "length", "fru", "text", "timestamp"]
REGISTER, ACK, BLOCK = 0x100, 0x200, 0x1000
ALL = (1 << 64) - 1


class Memory:
    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def read(self, at: int, size: int) -> bytes:
        if at < 0 or at + size > len(self.data):
            raise ValueError
        return bytes(self.data[at : at + size])

    def write(self, at: int, data: bytes) -> None:
        if at < 0 or at + len(data) > len(self.data):
            raise ValueError
        self.data[at : at + len(data)] = data


class Vcpu:
    __slots__ = ("elr", "esr", "far", "pc", "pstate", "spsr", "vbar", "x")

    def __init__(self) -> None:
        self.pc, self.pstate, self.vbar = 0x400000, 0, 0x10000
        self.elr = self.spsr = self.esr = self.far = 0
        self.x = [0] * 31

    def take(self, esr: int) -> None:
        self.spsr, self.elr, self.esr = self.pstate, self.pc, esr
        self.pc = self.vbar + (0x400 if self.pstate & 15 == 0 else 0x200)
        self.pstate = self.pstate & 0xF0400000 | 0x3C5

    def eret(self) -> None:
        self.pc, self.pstate = self.elr, self.spsr


def rules() -> list[tuple[str, Callable[[str, int | None, int], bool]]]:
    return [
        ("own", lambda code, gpa, lsb: gpa is None),
        ("huge", lambda code, gpa, lsb: lsb > 30),
        ("consumed", lambda code, gpa, lsb: code == "AR"),
        ("found", lambda code, gpa, lsb: code == "AO"),
    ]


@dataclass(frozen=True, slots=True)
class Signal:
    code: str
    hva: int
    lsb: int
    tid: int
    time: float


@dataclass(frozen=True, slots=True)
class Arm:
    gpa: int


@dataclass(frozen=True, slots=True)
class Write:
    gpa: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Sea:
    vcpu: int
    esr: int


@dataclass(frozen=True, slots=True)
class Sdei:
    vcpu: int
    event: int


@dataclass(frozen=True, slots=True)
class Told:
    rule: str
    gpa: int
    page: int
    block: bytes


class Core:
    """Event in, effects out, as the product does it."""

    def __init__(self, hva: int, gpa: int, size: int) -> None:
        self.slots, self.starts = [(hva, gpa, size)], [hva]
        self.poison = bytearray(size >> 12)
        self.base, self.count, self.decide = gpa, 0, rules()

    def receive(self, event: Signal, vcpu: Vcpu) -> list[Any]:
        hva, gpa, size = self.slots[bisect_right(self.starts, event.hva) - 1]
        offset = event.hva - hva
        at = gpa + offset if 0 <= offset < size else None
        name = next(n for n, holds in self.decide if holds(event.code, at, event.lsb))
        assert at is not None
        page = at - self.base >> 12
        self.poison[page] = 2
        self.count += 1
        text = b"vmm memory #%08x" % self.count
        block = (
            HEADER.pack(0x11, 0, 0, 152, 0)
            + ENTRY.pack(GUID, 0, 0x300, 2, 0 if event.code == "AR" else 0x20, 80, bytes(16), text, 0)
            + MEMORY.pack(6, 0, at, -4096 & ALL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        )
        tell: Any
        if event.code == "AR":
            tell = Sea(event.tid & 3, 0x92000410 if vcpu.pstate & 15 == 0 else 0x96000410)
        else:
            tell = Sdei(event.tid & 3, 804)
        told = Told(name, at, page, block)
        return [Arm(ACK), Write(BLOCK, b"\0\0\0\0" + block[4:]), Write(BLOCK, block[:4]), tell, told]


def guest(memory: Memory, cache: list[bytes], offlined: bytearray, base: int) -> tuple[str, bytes]:
    at = U64.unpack(memory.read(REGISTER, 8))[0]
    raw = memory.read(at, 20)
    header = HEADER.unpack(raw)
    if not header[0]:
        return "empty", b""
    raw = memory.read(at, 20 + header[3])
    entry = dict(zip(ENTRY_NAMES, ENTRY.unpack_from(raw, 20), strict=True))
    section = dict(zip(NAMES, MEMORY.unpack_from(raw, 92), strict=True))
    outcome = "swallowed"
    if raw not in cache:
        del cache[0]
        cache.append(raw)
        if header[4] == 0 and entry["severity"] == 0 and entry["type"] == GUID:
            page = section["pa"] - base >> 12
            offlined[page >> 3] |= 1 << (page & 7)
            outcome = "offlined"
    memory.write(at, b"\0\0\0\0")
    value = U64.unpack(memory.read(ACK, 8))[0]
    memory.write(ACK, U64.pack(value & (ALL ^ 1) | 1))
    return outcome, raw


def run(
    lines: Iterable[Any], hva: int, gpa: int, size: int, write: Callable[[bytes], object] | None
) -> tuple[int, int]:
    """Events replayed, and pages acked in the end.  Without ``write``: signals and not lines come in, and no rows go
    out.
    """
    memory, vcpus = Memory(0x10000), [Vcpu() for _ in range(4)]
    memory.write(REGISTER, U64.pack(BLOCK))
    memory.write(ACK, U64.pack(1))
    core, offlined, cache = Core(hva, gpa, size), bytearray(size >> 15), [b""] * 4
    loads, dumps = orjson.loads, orjson.dumps
    count = 0
    for line in lines:
        if write is None:
            event = line
        else:
            fields = loads(line)
            if fields["event"] != "signal":
                continue
            event = Signal(fields["code"], fields["hva"], fields["lsb"], fields["tid"], fields["time"])
        vcpu = vcpus[event.tid & 3]
        for e in core.receive(event, vcpu):
            kind = type(e)
            if kind is Write:
                memory.write(e.gpa, e.data)
            elif kind is Arm:
                value = U64.unpack(memory.read(e.gpa, 8))[0]
                memory.write(e.gpa, U64.pack(value & ~1))
            elif kind is Sea:
                vcpu.take(e.esr)
                outcome, raw = guest(memory, cache, offlined, gpa)
                vcpu.eret()
                esr, delivery, source = e.esr, "sea", 0
            elif kind is Sdei:
                saved = (*vcpu.x[:18], vcpu.pc, vcpu.pstate)
                vcpu.x[:4] = (e.event, 1, vcpu.pc, vcpu.pstate)
                vcpu.pc, vcpu.pstate = 0x20000, vcpu.pstate & 0xF0400000 | 0x3C5
                outcome, raw = guest(memory, cache, offlined, gpa)
                vcpu.x[:18], vcpu.elr, vcpu.spsr = saved[:18], saved[18], saved[19]
                vcpu.pc = vcpu.vbar + 0x480
                vcpu.eret()
                esr, delivery, source = None, "sdei", 1
            else:
                told = e
        acked = bool(U64.unpack(memory.read(ACK, 8))[0] & 1) and raw == told.block
        if acked:
            core.poison[told.page] = 3
        count += 1
        if write is None:
            continue
        row = {
            "seq": count - 1, "line": count, "time": event.time, "code": event.code, "hva": event.hva, "gpa": told.gpa,
            "lsb": event.lsb, "vcpu": event.tid & 3, "rule": told.rule, "delivery": delivery, "source_id": source,
            "esr": esr, "entries": 1, "block": told.block.hex(), "crc32c": crc32c(told.block), "outcome": outcome,
            "acked": acked,
        }  # fmt: skip
        write(dumps(row) + b"\n")
    return count, core.poison.count(3)
