"""BERT with its region, frames of equal structures, AEST nodes, RAS memory, dumps, and what backs each table."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import acpi
from acpi.aest import Aest, AestNode
from acpi.aest_interface import AestInterface, AestInterface4k, AestInterruptV2
from acpi.aest_parts import AestGic, AestNodeHeader, AestProcessor, AestProcessorGeneric, AestSmmu
from acpi.bert import Bert, BootErrorRegion
from acpi.dump import DumpedTable, plain_table, read_acpidump, read_directory, read_dump
from acpi.einj import Einj
from acpi.erst import Erst, ErstEntry
from acpi.erst_device import erst_table
from acpi.evidence import STRUCTURES, TABLES
from acpi.frame import RawTable, new_header
from acpi.ghes import Entry, StatusBlock
from acpi.hest import Hest
from acpi.presets import PRESETS
from acpi.ras2 import Ras2, Ras2AddressTranslation, Ras2PatrolScrub, Ras2PccDescriptor, RasMemory
from acpi.rasf import PatrolScrubCommand, RasfPatrolScrub, RasSharedMemory
from acpi.sdei import Sdei
from acpi.table import TableHeader, Xsdt, seal
from acpi.tables import MODULES, examine_table, parse_table, table_class
from cper.memory import PlatformMemory
from cper.wire import DecodeError, EncodeError, TruncatedError
from tests.golden.iasl_samples import SAMPLES

FIXTURES = Path(__file__).parents[2] / "fixtures"


def block(address=0x1000, count=1):
    return StatusBlock.of([Entry.of(PlatformMemory(physical_address=address + i)) for i in range(count)])


class TestBootErrorRegion:
    def test_blocks_lie_back_to_back(self):
        blocks = [block(0x1000), block(0x2000, 3), StatusBlock.of([], correctable=True)]
        data = BootErrorRegion.build(blocks, 2048)
        assert len(data) == 2048
        found = BootErrorRegion.decode(data)
        assert list(found.blocks) == blocks
        assert (found.error, found.rest.strip(b"\0")) == (None, b"")
        assert "rest" not in found.plain()
        assert [len(b["entries"]) for b in found.plain()["blocks"]] == [1, 3, 0]

    def test_a_region_without_errors(self):
        for data in (b"", bytes(19), bytes(4096)):
            assert BootErrorRegion.decode(data) == BootErrorRegion((), data)

    def test_it_stops_where_linux_stops(self):
        one, two = block().encode(), block(0x5000).encode()
        empty = bytes(4) + two[4:]
        found = BootErrorRegion.decode(one + empty + two)
        assert (len(found.blocks), found.error, found.rest) == (1, None, empty + two)
        cut = BootErrorRegion.decode(one + two[:-1])
        assert (len(cut.blocks), cut.rest) == (1, two[:-1])
        assert str(cut.error) == "BootErrorRegion.blocks[1].header.data_length at 0xb8: 172 bytes needed, 171 given"
        wrong = bytearray(two)
        wrong[20 + 24] ^= 1
        bad = BootErrorRegion.decode(one + bytes(wrong))
        assert bad.error is not None
        assert bad.error.path == "blocks[1].entries[0].header.error_data_length"
        assert "rest" in bad.plain()
        assert "error" in bad.plain()

    def test_a_block_may_end_where_the_region_ends(self):
        one = block().encode()
        assert BootErrorRegion.build([block()], 172) == one
        for tail in (b"", b"\1" * 19):
            found = BootErrorRegion.decode(one + tail)
            assert (len(found.blocks), found.rest, found.error) == (1, tail, None)
        header = StatusBlock.of([], correctable=True)
        assert BootErrorRegion.decode(one + header.encode()).blocks[1] == header

    def test_a_region_that_is_too_small(self):
        with pytest.raises(EncodeError, match="the blocks have 172 bytes, the region 171"):
            BootErrorRegion.build([block()], 171)

    def test_a_huge_region_costs_no_more_than_its_limit(self, monkeypatch):
        monkeypatch.setattr("acpi.bert.LARGEST_REGION", 2000)
        tiny = StatusBlock.of([], correctable=True).encode()
        assert len(BootErrorRegion.decode(tiny * 101).blocks) == 100

    def test_the_table(self):
        table = Bert.of(boot_error_region_length=4096, boot_error_region=0x1234_5678)
        assert table.head.boot_error_region == 0x1234_5678
        assert Bert.parse(table.build()).build() == table.build()
        assert Bert.of_plain(table.plain()) == table
        with pytest.raises(DecodeError, match=r"Bert.header.signature at 0x0: expected 'BERT', found 'SDEI'"):
            Bert.parse(Sdei.of().build())
        with pytest.raises(TruncatedError, match=r"Bert.head.boot_error_region at 0x28: 48 bytes needed, 40 given"):
            Bert.parse(seal(new_header("BERT", 1), bytes(4)))


class TestListTables:
    def test_a_count_past_the_end_is_one_error_and_the_entries_are_there(self):
        raw = bytearray(erst_table(0x1000).build())
        raw[44:48] = (1 << 31).to_bytes(4, "little")
        with pytest.raises(TruncatedError) as caught:
            Erst.parse(bytes(raw))
        assert str(caught.value) == (
            f"Erst.head.instruction_entry_count at 0x2c: {1 << 31} entries need {(1 << 31) * 32} bytes, 864 given"
        )
        table, error = Erst.examine(bytes(raw))
        assert str(error) == str(caught.value)
        assert table.entries == erst_table(0x1000).entries
        assert table.encode() == raw
        assert Erst.parse(table.build()).head.instruction_entry_count == 27
        assert [table.offset(i) for i in (0, 1, 26)] == [48, 80, 880]
        assert table.build()[table.offset(3) : table.offset(4)] == table.entries[3].encode()

    def test_a_count_short_of_the_end_leaves_trailing_bytes(self):
        raw = bytearray(erst_table(0x1000).build())
        raw[44] = 26
        table = Erst.parse(bytes(raw))
        assert (len(table.entries), len(table.trailing)) == (26, 32)
        assert table.encode() == raw

    @pytest.mark.parametrize("name", ["ERST", "EINJ", "RAS2", "BERT", "RASF", "CCEL", "SDEI", "HEST"])
    def test_json_in_and_out(self, name):
        table = SAMPLES[name]()
        kind = type(table)
        whole = kind.parse(table.build())
        assert kind.of_plain(whole.plain()) == whole
        assert kind.of_plain(whole.plain()).encode() == whole.encode()

    @pytest.mark.parametrize("name", SAMPLES)
    def test_every_cut_is_one_error(self, name):
        data = SAMPLES[name]().build()
        for length in (*range(0, min(120, len(data)), 3), *range(120, len(data), 29)):
            with pytest.raises(DecodeError):
                parse_table(data[:length])
            if length < 36:
                continue
            sealed = seal(TableHeader.decode(data), data[36:length])
            table, error = examine_table(sealed)
            assert table.encode() == sealed
            assert error is None or str(error)

    def test_entries_that_are_not_ours(self):
        with pytest.raises(ValueError):
            Erst.of([ErstEntry(action=1, instruction=1)], instruction_entry_count=-1)


class TestAest:
    def node(self, **header):
        return AestNode.of(
            AestSmmu(iort_node_reference=5), AestInterface4k(type=1, address=8, error_record_count=1),
            [AestInterruptV2(type=0, gsiv=9), AestInterruptV2(type=1, gsiv=10)], **header,
        )  # fmt: skip

    def table(self, raw, revision=2):
        return seal(new_header("AEST", revision), raw)

    def changed(self, **fields):
        """The node with other words in its header."""
        node = self.node()
        return node.header.model_copy(update=fields).encode() + node.encode()[44:]

    def test_places_follow_from_the_parts(self):
        header = self.node().header
        places = (header.length, header.node_data_offset, header.node_interface_offset, header.node_interrupt_offset)
        assert places == (44 + 8 + 80 + 24, 44, 52, 132)
        assert header.node_interrupt_count == 2
        assert self.node(timestamp_rate=7).header.timestamp_rate == 7
        with pytest.raises(ValueError, match="bytes are no node-specific data"):
            AestNode.of(b"", AestInterface4k(type=1))

    def test_parts_in_another_order_are_found_and_the_bytes_kept(self):
        node = self.node()
        raw = node.encode()
        moved = node.header.model_copy(
            update={"node_interrupt_offset": 44, "node_data_offset": 44 + 24, "node_interface_offset": 44 + 24 + 8}
        )
        odd = moved.encode() + raw[132:156] + raw[44:52] + raw[52:132]
        found = Aest.parse(self.table(odd)).nodes[0]
        assert (found.data, found.interface, found.interrupts) == (node.data, node.interface, node.interrupts)
        assert (found.image, found.encode()) == (odd, odd)

    @pytest.mark.parametrize(
        ("fields", "path", "offset"),
        [
            ({"length": 43}, "header.length", 1),
            ({"length": 157}, "header.length", 1),
            ({"node_data_offset": 43}, "header.node_data_offset", 4),
            ({"node_data_offset": 149}, "header.node_data_offset", 4),
            ({"node_data_offset": 0xFFFFFFFF}, "header.node_data_offset", 4),
            ({"node_interface_offset": 77}, "header.node_interface_offset", 8),
            ({"node_interrupt_offset": 133}, "header.node_interrupt_offset", 12),
            ({"node_interrupt_offset": 12}, "header.node_interrupt_offset", 12),
            ({"node_interrupt_count": 3}, "header.node_interrupt_offset", 12),
            ({"node_interrupt_count": 0xFFFFFFFF}, "header.node_interrupt_offset", 12),
        ],
    )
    def test_places_outside_the_node(self, fields, path, offset):
        good = self.node().encode()
        with pytest.raises(DecodeError) as caught:
            Aest.parse(self.table(good + self.changed(**fields)))
        assert (caught.value.path, caught.value.offset) == (f"nodes[1].{path}", 36 + 156 + offset)
        table, error = Aest.examine(self.table(good + self.changed(**fields)))
        assert str(error) == str(caught.value)
        assert table.encode() == self.table(good + self.changed(**fields))
        assert len(table.nodes) == 1

    def test_an_unknown_group_format(self):
        raw = bytearray(self.node().encode())
        raw[53] = 3
        with pytest.raises(
            DecodeError, match=r"Aest.nodes\[0\].interface.group_format at 0x59: group format 3 is unknown"
        ):
            Aest.parse(self.table(bytes(raw)))

    @pytest.mark.parametrize(("kind", "revision"), [(7, 2), (200, 1), (2, 3), (0, 0)])
    def test_unknown_types_and_revisions_are_kept_whole(self, kind, revision):
        raw = self.changed(type=kind)
        table = Aest.parse(self.table(raw + raw, revision))
        assert [n.data for n in table.nodes] == [raw[44:], raw[44:]]
        assert table.encode() == self.table(raw + raw, revision)

    def test_a_node_that_contradicts_itself_is_not_written(self):
        node = self.node()
        with pytest.raises(EncodeError, match=r"AestNode.header.length at 0x1: the parts have 144 bytes, not 156"):
            node._replace(interrupts=node.interrupts[:1]).encode()

    def test_a_processor_resource_is_found_where_it_lies(self):
        data = AestProcessor(processor_id=1, resource_type=2)
        node = AestNode.of(data, AestInterface4k(type=0), [], AestProcessorGeneric(resource=0x11223344))
        raw = self.table(bytes(self.node().encode()) + node.encode())
        assert Aest.parse(raw).nodes[1] == node
        odd = node.header.model_copy(update={"node_data_offset": 44 + 80, "node_interface_offset": 44})
        moved = odd.encode() + node.encode()[64:] + node.encode()[44:64]
        found = Aest.parse(self.table(moved)).nodes[0]
        assert (found.data, found.resource, found.interface) == (node.data, node.resource, node.interface)
        assert "image" in found.plain()
        assert "image" not in node.plain()
        assert node.plain()["resource"] == {"resource": 0x11223344}
        unknown = bytearray(node.encode())
        unknown[48] = 3
        kept = Aest.parse(self.table(bytes(unknown))).nodes[0]
        assert (kept.resource, kept.image) == (None, bytes(unknown))
        assert AestNode.decode(node.encode()) == node

    def test_an_interface_may_be_absent(self):
        header = AestNodeHeader(type=4, length=52, node_data_offset=44)
        raw = header.encode() + AestGic(interface_type=1).encode()
        node = Aest.parse(self.table(raw)).nodes[0]
        assert (node.interface, node.interrupts, node.image) == (None, (), None)
        old = AestNode.of(AestGic(interface_type=1), AestInterface(type=0))
        assert Aest.parse(self.table(old.encode(), 1)).nodes[0] == old


class TestRasMemory:
    def memory(self, *blocks):
        return RasMemory.of(RasSharedMemory(signature=0x50434301), blocks)

    def test_blocks_by_their_type(self):
        scrub = Ras2PatrolScrub(
            command=PatrolScrubCommand.START_PATROL_SCRUBBER, requested_address_range=(0x1000, 0x2000)
        )
        translate = Ras2AddressTranslation(logical_address=7)
        other = (9).to_bytes(2, "little") + (1).to_bytes(2, "little") + (10).to_bytes(2, "little") + b"abcd"
        memory = self.memory(scrub, translate, other)
        assert memory.head.parameter_block_count == 3
        assert RasMemory.decode(memory.encode()) == memory
        assert RasMemory.decode(memory.encode() + b"behind") == memory
        assert memory.plain()["blocks"][2] == {"data": other.hex()}
        assert memory.plain()["blocks"][0]["requested_address_range"] == [0x1000, 0x2000]

    def test_rasf_has_blocks_of_its_own(self):
        scrub = RasfPatrolScrub(command=1, requested_address_range=(1, 2), speed=7, running=True)
        memory = self.memory(scrub)
        assert RasMemory.decode(memory.encode(), rasf=True) == memory
        assert RasMemory.decode(memory.encode()).blocks == (scrub.encode(),)

    @pytest.mark.parametrize(
        ("raw", "reason", "offset"),
        [
            (b"\1\2\3\4\5", "6 bytes needed, 5 given", 48),
            (b"\0\0\1\0\x05\0", "5 bytes is less than 6", 52),
            (b"\0\0\1\0\xff\xff" + bytes(20), "65535 bytes needed, 26 given", 52),
        ],
    )
    def test_lengths_that_cannot_be(self, raw, reason, offset):
        head = RasSharedMemory(signature=1, parameter_block_count=0xFFFF).encode()
        with pytest.raises(DecodeError) as caught:
            RasMemory.decode(head + raw)
        assert (caught.value.path, caught.value.offset) == ("blocks[0].length", offset)
        assert caught.value.reason == reason

    def test_the_shortest_block(self):
        memory = self.memory(bytes.fromhex("090001000600"))
        assert RasMemory.decode(memory.encode()) == memory

    def test_a_count_that_is_wrong_is_not_written(self):
        memory = self.memory()._replace(blocks=(b"123456",))
        with pytest.raises(EncodeError, match="1 block, but the head says 0"):
            memory.encode()
        with pytest.raises(TruncatedError, match=r"RasMemory.head.signature at 0x0"):
            RasMemory.decode(b"")


class TestRegistry:
    def test_every_class_is_there_and_reads_its_signature(self):
        for signature in MODULES:
            assert hasattr(table_class(signature), "parse")
        assert table_class("XXXX") is RawTable
        assert isinstance(parse_table(Sdei.of().build()), Sdei)
        assert isinstance(parse_table(RawTable(new_header("OEM1", 1), b"x").build()), RawTable)

    def test_a_table_too_short_for_its_class_comes_raw(self):
        raw = seal(new_header("EINJ", 1), b"abc")
        table, error = examine_table(raw)
        assert isinstance(table, RawTable)
        assert (table.encode(), error is not None) == (raw, True)
        assert table.plain()["body"] == b"abc".hex()

    def test_evidence_is_about_what_is_declared(self):
        found = {t.name: t for t in acpi.types()}
        assert found.keys() >= MODULES.keys()
        assert found.keys() >= STRUCTURES.keys()
        assert found.keys() >= TABLES.keys()
        assert all(found[name].backed for name in (*STRUCTURES, *TABLES))
        assert (found["HestHeader"].kind, found["HestHeader"].size) == ("structure", 40)
        assert found["ERST"].declared == "acpi.erst:Erst"


class TestDumps:
    hest = PRESETS["default"].place(0x1000).region("hest")[1]

    def test_a_file_holds_one_table_or_several(self):
        assert read_dump(self.hest, "x") == [DumpedTable("HEST", self.hest, "x")]
        two = read_dump(self.hest + Sdei.of().build())
        assert [(t.signature, len(t.data)) for t in two] == [("HEST", len(self.hest)), ("SDEI", 36)]

    def test_zeros_behind_a_table_are_padding(self):
        tables = (FIXTURES / "qemu/fwcfg-11.1-etc_acpi_tables.bin").read_bytes()
        found = read_dump(tables)
        assert {"DSDT", "HEST", "XSDT"} <= {t.signature for t in found}
        assert b"".join(t.data for t in found).ljust(len(tables), b"\0") == tables
        assert [t.data for t in read_dump(self.hest + bytes(3) + self.hest + bytes(4096))] == [self.hest] * 2

    def test_roots_are_tables_too(self):
        image = PRESETS["default"].place(0x1000)
        rsdp, xsdt = image.region("rsdp")[1], image.region("xsdt")[1]
        found = read_dump(rsdp + xsdt + self.hest)
        assert [t.signature for t in found] == ["RSDP", "XSDT", "HEST"]
        plain = [plain_table(t) for t in found]
        assert plain[0]["xsdt_address"] == image.region("xsdt")[0]
        assert plain[1]["addresses"] == [image.region("hest")[0]]
        assert len(plain[2]["sources"]) == 3
        old = b"RSD PTR " + bytes(12)
        assert [len(t.data) for t in read_dump(old + self.hest)] == [20, len(self.hest)]
        assert plain_table(read_dump(old)[0])["revision"] == 0

    @pytest.mark.parametrize(
        ("data", "path", "offset"),
        [
            (b"", "tables[0]", 0),
            (b"HEST\x24\0\0\0" + bytes(27), "tables[0]", 0),
            (b"HEST\x23\0\0\0" + bytes(28), "tables[0].length", 4),
            (b"HEST\xff\xff\xff\xff" + bytes(28), "tables[0].length", 4),
            (b"HEST\x25\0\0\0" + bytes(28), "tables[0].length", 4),
            (b"HEST\x24\0\0\0" + bytes(28) + b"x", "tables[1]", 36),
        ],
    )
    def test_files_that_are_no_tables(self, data, path, offset):
        with pytest.raises(DecodeError) as caught:
            read_dump(data)
        assert (caught.value.path, caught.value.offset) == (path, offset)

    def test_acpidump_of_two_tables(self):
        text = (FIXTURES / "acpi" / "acpidump.txt").read_bytes()
        found = read_dump(text, "dump")
        assert [(t.signature, t.name, t.address) for t in found] == [("HEST", "dump", 0), ("ERST", "dump", 0)]
        assert found[0].data == (FIXTURES / "qemu" / "HEST-qemu11.1.bin").read_bytes()
        assert found[1].data == (FIXTURES / "acpi" / "ERST-qemu7.2.bin").read_bytes()
        assert read_dump(text.replace(b"\n", b"\r\n"))[1].data == found[1].data

    def test_acpidump_of_the_older_kind(self):
        text = (
            b"\nSDEI @ 0x7fe2222\n"
            b"  0000: 53 44 45 49 24 00 00 00 01 00 41 42 43 44 45 46  SDEI$.....ABCDEF\n"
            b"  0010: 41 42                                            AB\n"
        )
        assert read_acpidump(text) == [DumpedTable("SDEI", b"SDEI\x24\0\0\0\1\0ABCDEFAB", "", 0x7FE2222)]

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            (b"HEST @ 0x0\n    0010: 48 \n", 2),
            (b"    0000: 48 45 53 54 \n", 1),
            (b"HEST @ 0x0\n    0000: 48 45 \n    0010: 53 \n", 3),
            (b"HEST @ 0x0\nhello\n", 2),
        ],
    )
    def test_acpidump_that_is_broken_names_the_line(self, text, line):
        with pytest.raises(DecodeError, match=rf"acpidump.line {line}: "):
            read_acpidump(text)

    def test_limits(self, monkeypatch):
        monkeypatch.setattr("acpi.dump.MOST_TABLES", 3)
        one = Sdei.of().build()
        assert len(read_dump(one * 3)) == 3
        with pytest.raises(DecodeError, match=r"Dump.tables\[3\] at 0x6c: more than 3 tables"):
            read_dump(one * 4)
        text = b"HEST @ 0x0\n    0000: 48 \n"
        assert len(read_acpidump(text * 3)) == 3
        with pytest.raises(DecodeError, match=r"acpidump\.line 7: more than 3 tables"):
            read_acpidump(text * 4)
        monkeypatch.setattr("acpi.dump.MAX_TABLE_SIZE", 17)
        line = b"HEST @ 0x0\n    0000: " + b"48 " * 16 + b"\n    0010: 48 "
        assert len(read_acpidump(line + b"\n")[0].data) == 17
        with pytest.raises(DecodeError, match=r"acpidump\.line 3: the table is larger than 17 bytes"):
            read_acpidump(line + b"49 \n")

    def test_a_root_of_either_revision_cut_or_whole(self):
        rsdp = PRESETS["default"].place(0x1000).region("rsdp")[1]
        for length in (8, 15, 16, 20, 35, 36):
            assert [t.data for t in read_dump(rsdp[:length])] == [rsdp[:length]]
        assert read_dump(rsdp[:15] + b"\1" + rsdp[16:20])[0].data[15] == 1

    def test_a_directory_as_linux_shows_it(self):
        region = BootErrorRegion.build([block()], 4096)
        bert = Bert.of(boot_error_region_length=4096, boot_error_region=1).build()
        files = {
            "HEST": self.hest,
            "BERT": bert,
            "data/BERT": region,
            "data/CCEL": b"x",
            "SSDT1": RawTable(new_header("SSDT", 2), b"aml").build(),
        }
        found = read_directory(files)
        assert [(t.signature, t.name) for t in found] == [
            ("BERT", "BERT"), ("HEST", "HEST"), ("SSDT", "SSDT1"), ("BERT", "data/BERT")
        ]  # fmt: skip
        plain = [plain_table(t) for t in found]
        assert plain[0]["boot_error_region_length"] == 4096
        assert plain[2]["body"] == b"aml".hex()
        assert plain[3]["blocks"][0]["entries"][0]["section"]["physical_address"] == 0x1000
        with pytest.raises(DecodeError, match=r"Directory.HEST.tables\[0\].length at 0x4"):
            read_directory({"HEST": self.hest[:-1]})

    def test_what_cannot_be_read_to_its_end_is_shown_with_the_error(self):
        raw = seal(TableHeader.decode(self.hest), (9).to_bytes(4, "little") + self.hest[40:])
        plain = plain_table(read_dump(raw)[0])
        assert len(plain["sources"]) == 3
        assert plain["error"].startswith("Hest.sources[3].type")
        short = plain_table(DumpedTable("EINJ", b"EINJ"))
        assert (short["data"], "error" in short) == (b"EINJ".hex(), True)
        assert "error" in plain_table(DumpedTable("XSDT", seal(new_header("XSDT", 1), b"abc")))
        assert Xsdt.parse(Xsdt.build([1]))[1] == (1,)


@given(st.binary(max_size=200))
def test_any_text_is_a_dump_or_one_error(text):
    for data in (text, b"HEST @ 0x00\n" + text, b"HEST @ 0x0\n    0000: 48 \n" + text):
        try:
            for table in read_dump(data):
                assert plain_table(table)["signature"] == table.signature
        except DecodeError as error:
            assert str(error)


def test_bytes_that_are_read_are_written_again():
    for make in SAMPLES.values():
        data = make().build()
        wrong = bytes([*data[:9], data[9] ^ 0xFF, *data[10:]])
        assert type(make()).parse(wrong).encode() == wrong
        assert type(make()).parse(wrong).build() == data
    assert isinstance(Hest.parse(SAMPLES["HEST"]().build()), Hest)
    assert isinstance(Einj.parse(SAMPLES["EINJ"]().build()), Einj)
    assert isinstance(Ras2.of([Ras2PccDescriptor(pcc_subspace_id=1)]), Ras2)
