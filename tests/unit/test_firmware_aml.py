"""AML terms against their encoding in ACPI 6.5, chapter 20, and against QEMU's bytes (tests/golden)."""

from __future__ import annotations

import pytest

from acpi import aml


@pytest.mark.parametrize(
    ("path", "encoded"),
    [
        ("_HID", b"_HID"),
        ("GED", b"GED_"),
        ("A", b"A___"),
        ("\\", b"\\\x00"),
        ("\\_SB", b"\\_SB_"),
        ("^", b"^\x00"),
        ("^^DEV0", b"^^DEV0"),
        ("\\_SB.GED", b"\\\x2e_SB_GED_"),
        ("_SB.PCI0.GPE_", b"\x2f\x03_SB_PCI0GPE_"),
        (".".join(["ABCD"] * 255), b"\x2f\xff" + b"ABCD" * 255),
    ],
)
def test_names(path, encoded):
    assert aml.name(path) == encoded


@pytest.mark.parametrize(
    "path", ["", "lower", "TOOLONG", "1ABC", "A.", ".A", "A..B", "A B", "\\^A", ".".join(["A"] * 256), "A\n"]
)
def test_no_names(path):
    with pytest.raises(ValueError):
        aml.name(path)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, b"\x00"),
        (1, b"\x01"),
        (2, b"\x0a\x02"),
        (0xFF, b"\x0a\xff"),
        (0x100, b"\x0b\x00\x01"),
        (0xFFFF, b"\x0b\xff\xff"),
        (0x1_0000, b"\x0c\x00\x00\x01\x00"),
        (0xFFFF_FFFF, b"\x0c\xff\xff\xff\xff"),
        (0x1_0000_0000, b"\x0e\x00\x00\x00\x00\x01\x00\x00\x00"),
        (2**64 - 1, b"\x0e" + b"\xff" * 8),
    ],
)
def test_integers_take_their_shortest_form(value, encoded):
    assert aml.integer(value) == encoded


@pytest.mark.parametrize("value", [-1, 2**64])
def test_no_integers(value):
    with pytest.raises(ValueError):
        aml.integer(value)


@pytest.mark.parametrize(
    ("size", "length"),
    [
        (0, b"\x01"),
        (62, b"\x3f"),
        (63, b"\x41\x04"),
        (0xFFF - 2, b"\x4f\xff"),
        (0xFFF - 1, b"\x81\x00\x01"),
        (0xF_FFFF - 3, b"\x8f\xff\xff"),
        (0xF_FFFF - 2, b"\xc1\x00\x00\x01"),
    ],
)
def test_a_package_length_counts_itself(size, length):
    payload = b"x" * size
    assert aml.package(payload) == length + payload


def test_a_package_that_is_too_long():
    class Huge(bytes):
        def __len__(self):
            return aml.MAX_PACKAGE

    with pytest.raises(ValueError, match="more than"):
        aml.package(Huge())


def test_strings_are_ascii():
    assert aml.string("GED") == b"\x0dGED\0"
    for value in ("ä", "a\0b"):
        with pytest.raises(ValueError):
            aml.string(value)


def test_resources_end_with_a_tag():
    assert aml.resources() == b"\x11\x05\x0a\x02\x79\x00"
    assert aml.interrupt(0x29, edge=True) == bytes.fromhex("890600030129000000")
    assert aml.interrupt(0x21, edge=False) == bytes.fromhex("890600010121000000")
    assert aml.memory32_fixed(0x0900_0000, 0x1000) == bytes.fromhex("860900010000000900100000")
    assert len(aml.qword_memory(1 << 32, 0x1000)) == 46
    with pytest.raises(ValueError, match="not below 4 GiB"):
        aml.memory32_fixed(0xFFFF_F000, 0x1001)


def test_a_method_has_up_to_seven_arguments():
    assert aml.method("_EVT", 1) == b"\x14\x06_EVT\x09"
    assert aml.method("_EVT", 7, serialized=False) == b"\x14\x06_EVT\x07"
    with pytest.raises(ValueError):
        aml.method("_EVT", 8)
