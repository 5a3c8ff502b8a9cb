"""Vendor sections that rasdaemon decodes: bodies made by hand after its headers (places are in fixtures/offsets)."""

from __future__ import annotations

import json
import struct

import pytest

from cper.ampere import Ampere, AmpereErrorRecord, AmpereFirmware, AmperePcieAer, AmperePcieRasdp
from cper.hisilicon import HisiliconCommon, HisiliconOemType1, HisiliconOemType2, HisiliconPcieLocal
from cper.jaguarmicro import (
    JaguarMicroCmn,
    JaguarMicroGic,
    JaguarMicroHacSram,
    JaguarMicroPor,
    JaguarMicroSmmu,
)
from cper.section import body_of_plain, plain_body, read_section
from cper.wire import TruncatedError
from cper.yitian import Yitian

JAGUAR = {
    JaguarMicroPor: "15I", JaguarMicroSmmu: "5I", JaguarMicroHacSram: "4I", JaguarMicroCmn: "14Q", JaguarMicroGic: "8Q",
}  # fmt: skip
"""Registers of each, between common head and tail (jm_payload*_type_sec)."""


def read(cls, body):
    """Our reading, and that nothing is lost of it."""
    section = read_section(cls.GUID, body)
    assert type(section) is cls
    assert section.encode() == body
    assert plain_body(cls.GUID, body) == {"section": section.plain()}
    assert body_of_plain(cls.GUID, json.loads(json.dumps({"section": section.plain()}))) == body
    return section


def numbers(part, *, without=()):
    """What a structure holds, in the order of its declaration."""
    return [value for name, value in part if name != "residue" and name not in without]


@pytest.mark.parametrize("kind", [AmpereErrorRecord, AmperePcieAer, AmperePcieRasdp, AmpereFirmware])
def test_ampere(kind):
    number = [AmpereErrorRecord, AmperePcieAer, AmperePcieRasdp, AmpereFirmware].index(kind)
    words = {0: "I5Q", 1: "8I", 2: "6I", 3: "I5Q"}[number]
    values = list(range(0x101, 0x101 + len(struct.unpack("<" + words, bytes(struct.calcsize("<" + words))))))
    payload = struct.pack("<BBH" + words, number << 6 | 9, 0x22, 2 << 14 | 0x333, *values).ljust(48, b"\0")
    section = read(Ampere, payload + b"more")
    assert type(section.head) is kind
    head = section.head
    assert (head.error_type.plain, head.payload_type, head.subtype) == ("ocm", number, 0x22)
    assert (head.instance_number, head.socket) == (0x333, 2)
    assert numbers(head)[5:] == values
    assert section.trailing == b"more"


def test_hisilicon_oem_type_1():
    body = struct.pack("<I8B5IQ", 0xFFF, 1, 2, 3, 4, 5, 6, 2, 0, 11, 12, 13, 14, 15, 16)
    assert numbers(read(HisiliconOemType1, body)) == [1, 2, 3, 4, 5, 6, 2, 11, 12, 13, 14, 15, 16]
    assert set(numbers(read(HisiliconOemType1, bytes(4) + body[4:]), without=("version",))) == {None}


def test_hisilicon_oem_type_2():
    body = struct.pack("<I8B6Q", 0xFFF, 1, 2, 3, 4, 5, 6, 1, 0, *(n << 32 | n + 8 for n in range(1, 7)))
    found = numbers(read(HisiliconOemType2, body))
    assert found == [1, 2, 3, 4, 5, 6, 1, *(n << 32 | n + 8 for n in range(1, 7))]


def test_hisilicon_pcie_local():
    body = struct.pack("<Q8BHxx33I", (1 << 42) - 1, 1, 2, 3, 4, 5, 6, 7, 0, 0x888, *range(100, 133))
    section = read(HisiliconPcieLocal, body)
    assert numbers(section) == [1, 2, 3, 4, 5, 6, 7, 0, 0x888, tuple(range(100, 133))]


def test_hisilicon_common():
    head = struct.pack("<I10BHBBHB3xB3xI", 0x1FFF, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0x1112, 1, 2, 0x3334, 5, 3, 8)
    section = read(HisiliconCommon, head + struct.pack("<3I", 21, 22, 23))
    found = section.head
    assert numbers(found, without=("pcie_device",)) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0x1112, 3, 8]
    assert numbers(found.pcie_device) == [1, 2, 0x3334, 5]
    assert [r.value for r in section.registers] == [21, 22]
    assert section.trailing == struct.pack("<I", 23)
    none = read(HisiliconCommon, bytes(4) + head[4:])
    assert (none.registers, none.head.register_array_size) == ((), None)
    with pytest.raises(TruncatedError, match=r"head\.register_array_size at 0x1c: 2 registers need 8 bytes, 4 given"):
        read_section(HisiliconCommon.GUID, head + bytes(4))


def test_yitian_ddr():
    registers = list(range(0x201, 0x201 + 28))
    body = struct.pack("<BBH28I12x", 0x50, 1, 2, *registers)
    section = read(Yitian, body + b"x")
    assert numbers(section.ddr[0]) == registers
    assert (section.head.subtype, section.head.instance, section.data) == (1, 2, b"x")
    other = read(Yitian, b"\x51" + body[1:])
    assert (other.ddr, len(other.data)) == ((), 124)
    assert read(Yitian, body[:127]).ddr == ()


@pytest.mark.parametrize("cls", JAGUAR, ids=lambda c: c.__name__)
def test_jaguarmicro(cls):
    words = JAGUAR[cls]
    registers = list(range(0x301, 0x301 + int(words[:-1])))
    head = struct.pack("<I6BHB3x" + words + "I", 0x8FF, 1, 2, 3, 4, 5, 6, 0x788, 9, *registers, 2)
    section = read(cls, head + struct.pack("<3I", 31, 32, 33))
    assert numbers(section.head) == [True, 1, 2, 3, 4, 5, 6, 0x788, 9, *registers, 2]
    assert [r.value for r in section.registers] == [31, 32]
    assert section.trailing == struct.pack("<I", 33)
    assert read(cls, b"\xff\0\0\0" + head[4:]).registers == ()
    with pytest.raises(TruncatedError, match="2 registers need 8 bytes, 7 given"):
        read_section(cls.GUID, head + bytes(7))
