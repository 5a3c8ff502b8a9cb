"""What a guest finds when it starts: against dtc, against kernels of Debian, and against numbers read by hand."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acpi.firmware import build
from acpi.firmware_presets import MIB, RAM, describe
from acpi.image import find_tables
from acpi.machine import Range
from vmm_ras.boot import device_tree, efi
from vmm_ras.boot.device_tree import cells
from vmm_ras.boot.efi import MemoryType, Used
from vmm_ras.boot.kernel_image import ALIGNMENT, Kernel, read_header
from vmm_ras.boot.layout import MAX_COMMAND_LINE, lay_out
from vmm_ras.errors import InputError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "boot"
HEADERS = json.loads((FIXTURES / "image-headers.json").read_text())
KERNEL = Kernel(0, 35 * MIB + 4096, 12)


class TestDeviceTree:
    def test_the_bytes_are_those_of_dtc(self):
        chosen = {
            "bootargs": "console=ttyAMA0 loglevel=4",
            "linux,initrd-start": cells(0x4223_0000),
            "linux,initrd-end": cells(0x4234_5678),
            "linux,uefi-system-table": cells(0x5FFD_0000),
            "linux,uefi-mmap-start": cells(0x1_5FFD_00C0),
            "linux,uefi-mmap-size": 160,
            "linux,uefi-mmap-desc-size": 40,
            "linux,uefi-mmap-desc-ver": 1,
            "linux,uefi-secure-boot": 2,
            "rng-seed": bytes.fromhex("00010203feffab"),
        }
        other = {"bootargs": "", "size": (1, 2, 3), "nothing": b""}
        found = device_tree.blob(
            {"#address-cells": 2, "#size-cells": 2}, {"chosen": chosen, "empty": {}, "other@1000": other}
        )
        assert found == (FIXTURES / "chosen.dtb").read_bytes()

    @pytest.mark.parametrize(
        ("properties", "text"),
        [
            ({"a\0b": 1}, "a property's name"),
            ({"a": "x\0y"}, "a has a NUL"),
            ({"a": 1 << 32}, "no 32-bit cells"),
            ({"a": (1, -1)}, "no 32-bit cells"),
            ({"a": bytes(2 << 20)}, "more than 2097152"),
        ],
    )
    def test_what_no_blob_can_hold(self, properties, text):
        with pytest.raises(InputError, match=text):
            device_tree.blob({}, {"chosen": properties})


class TestKernelImage:
    @pytest.mark.parametrize("found", HEADERS, ids=lambda h: f"{h['package']} {h['version']}")
    def test_kernels_of_debian(self, found):
        kernel = read_header(bytes.fromhex(found["header"]), "Image")
        assert (kernel.text_offset, kernel.page_shift) == (0, 12)
        assert found["file_size"] <= kernel.size < found["file_size"] + 8 * MIB

    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (b"", "no arm64 Image"),
            (bytes(64), "magic number at byte 56 is 0x0"),
            (b"\x1f\x8b" + bytes(62), "gzip-compressed"),
            (b"\xfd7zXZ" + bytes(62), "xz-compressed"),
            (b"\x28\xb5\x2f\xfd" + bytes(62), "zstd-compressed"),
            (b"MZ\0\0zimg" + bytes(56), "zboot"),
            (b"\x7fELF" + bytes(60), "no arm64 Image"),
        ],
    )
    def test_what_is_none(self, data, text):
        with pytest.raises(InputError, match=f"^vmlinuz: .*{text}"):
            read_header(data, "vmlinuz")

    @pytest.mark.parametrize(
        ("offset", "value", "text"),
        [(24, 0xB, "big-endian"), (16, 0, "not to be believed"), (16, 1 << 40, "believed"), (8, 2 << 20, "believed")],
    )
    def test_headers_that_are_not_to_be_believed(self, offset, value, text):
        data = bytearray.fromhex(HEADERS[0]["header"])
        data[offset : offset + 8] = value.to_bytes(8, "little")
        with pytest.raises(InputError, match=text):
            read_header(bytes(data), "Image")

    @pytest.mark.parametrize(("flags", "shift"), [(0, 12), (2, 12), (4, 14), (6, 16), (0xA, 12)])
    def test_page_sizes(self, flags, shift):
        data = bytearray.fromhex(HEADERS[0]["header"])
        data[24] = flags
        assert read_header(bytes(data), "Image").page_shift == shift


def _used(draw_ranges):
    return [Used(Range(RAM + 4096 * at, 4096 * size), "ACPI NVS") for at, size in draw_ranges]


class TestMemoryMap:
    @given(st.lists(st.tuples(st.integers(0, 250), st.integers(1, 9)), max_size=6))
    def test_it_covers_all_ram_once(self, ranges):
        ram = Range(RAM, 256 * 4096)
        free, used = set(range(256)), []
        for at, size in ranges:
            if set(range(at, at + size)) <= free:
                free -= set(range(at, at + size))
                used.append((at, size))
        found = efi.memory_map([ram], _used(used))
        at = RAM
        for d in found:
            pages = range((at - RAM) // 4096, (at - RAM) // 4096 + d.number_of_pages)
            assert (d.physical_start, d.attribute) == (at, 8)
            assert (d.type == MemoryType.CONVENTIONAL) == (set(pages) <= free)
            assert d.type == MemoryType.CONVENTIONAL or not set(pages) & free
            at += d.number_of_pages * 4096
        assert at == ram.end

    def test_two_banks(self):
        banks = [Range(1 << 32, MIB), Range(RAM, MIB)]
        found = efi.memory_map(banks, [Used(Range((1 << 32) + 0x1000, 0x1000), "reserved")])
        assert [(int(d.type), d.physical_start, d.number_of_pages) for d in found] == [
            (7, RAM, 256), (7, 1 << 32, 1), (0, (1 << 32) + 0x1000, 1), (7, (1 << 32) + 0x2000, 254),
        ]  # fmt: skip

    @pytest.mark.parametrize("ranges", [[(0, 3), (2, 2)], [(255, 2)], [(300, 1)], [(0.5, 1)]])
    def test_what_cannot_be(self, ranges):
        used = [Used(Range(int(RAM + 4096 * at), 4096 * size), "reserved") for at, size in ranges]
        with pytest.raises(InputError, match="EFI memory map"):
            efi.memory_map([Range(RAM, 256 * 4096)], used)


class TestEfiTables:
    """Read back by hand, at the offsets of UEFI 2.10, 4.3."""

    PLACED = efi.place(RAM, 0x1_0000, 0x1234_5678, efi.memory_map([Range(RAM, MIB)], []))

    def memory(self, gpa, size):
        found = bytearray(0x1_0000)
        for _, at, data in self.PLACED.regions:
            assert not any(found[at - RAM : at - RAM + len(data)])
            found[at - RAM : at - RAM + len(data)] = data
        return bytes(found[gpa - RAM : gpa - RAM + size])

    def test_system_table(self):
        table = self.memory(self.PLACED.system_table, 120)
        signature, revision, size, crc, _ = struct.unpack_from("<QIIII", table)
        assert (signature, size) == (int.from_bytes(b"IBI SYST", "little"), 120)
        assert (revision >> 16, revision & 0xFFFF) == (2, 100)
        assert crc == zlib.crc32(table[:16] + bytes(4) + table[20:])
        assert not any(table[40:104]), "no console, no services"
        vendor = struct.unpack_from("<Q", table, 24)[0]
        assert self.memory(vendor, 16).decode("utf-16-le") == "vmm-ras\0"

    def test_configuration_tables(self):
        count, at = struct.unpack_from("<QQ", self.memory(self.PLACED.system_table, 120), 104)
        entries = [struct.unpack("<16sQ", self.memory(at + 24 * i, 24)) for i in range(count)]
        found = {str(UUID(bytes_le=guid)): table for guid, table in entries}
        assert found["8868e871-e4f1-11d3-bc22-0080c73c8881"] == 0x1234_5678
        properties = self.memory(found["eb66918a-7eef-402a-842e-931d21c38ae9"], 8)
        assert struct.unpack("<HHI", properties) == (1, 8, 0)

    def test_memory_map(self):
        data = self.memory(self.PLACED.memory_map, self.PLACED.memory_map_size)
        assert struct.unpack("<IIQQQQ", data) == (7, 0, RAM, 0, 256, 8)

    def test_too_little_room(self):
        with pytest.raises(InputError, match="do not fit"):
            efi.place(RAM, 230, 0, efi.memory_map([Range(RAM, MIB)], []))


class TestLayout:
    def place(self, memory=512 * MIB, vcpus=2, kernel=KERNEL, initrd=3 * MIB + 5, line="quiet", seed=b"x" * 32):
        return lay_out(build(describe("minimal-vmm", memory=memory, vcpus=vcpus)), kernel, initrd, line, seed)

    @given(
        st.integers(60, 2000),
        st.integers(1, 64),
        st.integers(0, 4 * MIB),
        st.integers(0, 2 * MIB - 1).map(lambda n: n & -4096),
    )
    def test_nothing_overlaps_and_all_is_in_ram(self, megabytes, vcpus, initrd, text_offset):
        kernel = Kernel(text_offset, 35 * MIB, 12)
        boot = self.place(megabytes * MIB, vcpus, kernel, initrd)
        spans = [(boot.kernel_at, kernel.size), (boot.initrd_at, initrd)] + [(a, len(d)) for _, a, d in boot.regions]
        spans.sort()
        for (at, size), (after, _) in zip(spans, [*spans[1:], (RAM + megabytes * MIB, 0)], strict=True):
            assert RAM <= at <= at + size <= after
        assert (boot.kernel_at - text_offset) % ALIGNMENT == 0
        assert boot.device_tree_at % 8 == 0

    def test_the_tables_are_found_from_the_system_table(self):
        boot = self.place()

        def read(gpa, size):
            for _, at, data in boot.regions:
                if at <= gpa and gpa + size <= at + len(data):
                    return data[gpa - at : gpa - at + size]
            raise AssertionError(f"{gpa:#x}")

        regions = {name: data for name, _, data in boot.regions}
        rsdp = int.from_bytes(regions["efi_configuration_tables"][16:24], "little")
        assert {"APIC", "FACP", "GTDT", "HEST", "SPCR"} == find_tables(read, rsdp).keys()

    def test_the_memory_map_keeps_tables_and_blocks_away_from_the_guest(self):
        boot = self.place()
        regions = {name: (at, data) for name, at, data in boot.regions}
        kinds = {}
        for kind, _, start, _, pages, _ in struct.iter_unpack("<IIQQQQ", regions["efi_memory_map"][1]):
            kinds |= dict.fromkeys(range(start, start + 4096 * pages, 4096), kind)
        assert set(kinds) == set(range(RAM, RAM + 512 * MIB, 4096))

        def kind(name):
            at, data = regions[name]
            return {kinds[page] for page in range(at & -4096, at + len(data), 4096)}

        assert kind("hardware_errors") == {10}
        for name in ("rsdp", "hest", "dsdt", "xsdt", "efi_system_table", "efi_memory_map"):
            assert kind(name) == {9}, name

    def tree(self, **options):
        return {name: data for name, _, data in self.place(**options).regions}["device_tree"]

    def test_the_device_tree_has_all_that_linux_asks_for(self):
        tree = self.tree()
        for name in ("system-table", "mmap-start", "mmap-size", "mmap-desc-size", "mmap-desc-ver", "secure-boot"):
            assert f"linux,uefi-{name}\0".encode() in tree
        assert b"rng-seed\0" in tree
        assert b"quiet\0" in tree
        tree = self.tree(initrd=0, seed=b"")
        assert b"initrd" not in tree
        assert b"rng-seed" not in tree

    def test_too_little_memory_says_how_much_it_takes(self):
        with pytest.raises(
            InputError, match=r"64 MiB hold no kernel of 35 MiB and initrd of 40 MiB; at least (\d+) MiB"
        ) as e:
            self.place(64 * MIB, initrd=40 * MIB)
        enough = int(str(e.value).split("at least ")[1].split()[0])
        self.place(enough * MIB, initrd=40 * MIB)

    def test_a_command_line_that_is_too_long(self):
        self.place(line="x" * MAX_COMMAND_LINE)
        with pytest.raises(InputError, match="2048 bytes"):
            self.place(line="x" * (MAX_COMMAND_LINE + 1))
