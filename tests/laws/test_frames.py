"""Laws of what frames structures: status blocks, records, HEST, XSDT, and tables placed in guest memory."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acpi.ghes import STATUS_BLOCK, DataEntry300, Entry, ErrorStatusHeader, StatusBlock
from acpi.hest import Hest, NotificationType
from acpi.hest_frame import HEST
from acpi.image import SourceDescription, error_region_size, find_sources, find_tables, place
from acpi.table import TableHeader, Xsdt, checksum, seal
from cper.common import Severity
from cper.memory import PlatformMemory
from cper.record import Record, RecordSection
from cper.record_frame import RECORD
from cper.wire import DecodeError, EncodeError, TruncatedError, WireError
from tests.strategies import hests, images, mutated, records, status_blocks, xsdts

MASK = (1 << 64) - 1


def outcome(read, data):
    """What reading gave: the result, or everything that the error says."""
    try:
        return read(data)
    except WireError as error:
        return type(error), str(error), error.offset, error.path, error.structure


# -- status blocks ----------------------------------------------------------------------


def block_twin(data):
    found = STATUS_BLOCK.parse(bytes(data))
    return StatusBlock(found.header, tuple(found.entries), *found.behind)


@given(status_blocks(), st.binary(max_size=8))
def test_a_status_block_loses_nothing(raw, behind):
    block = StatusBlock.decode(raw + behind)
    assert block.encode() == raw
    assert block.size == len(raw)
    assert block_twin(raw + behind) == block
    assert STATUS_BLOCK.build({"header": block.header, "entries": block.entries, "behind": block[2:]}) == raw
    for form in (bytearray(raw), memoryview(raw)):
        assert StatusBlock.decode(form) == block
    plain = json.loads(json.dumps(block.plain()))
    assert StatusBlock.of_plain(plain).encode() == raw


@given(st.binary(max_size=300) | mutated(status_blocks()))
def test_both_readers_of_a_status_block_agree_on_any_bytes(raw):
    fast = outcome(StatusBlock.decode, raw)
    assert fast == outcome(block_twin, raw)
    if isinstance(fast, StatusBlock):
        assert fast.encode() == raw[: fast.size]
    else:
        assert 0 <= fast[2] <= len(raw)
        assert fast[3]


@given(status_blocks(), st.data())
def test_a_status_block_cut_anywhere_is_truncated(raw, data):
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(TruncatedError):
        StatusBlock.decode(raw[:cut])


@given(
    st.lists(images(PlatformMemory).map(PlatformMemory.decode), max_size=3),
    st.sampled_from(list(Severity)),
)
def test_a_built_block_says_of_itself_what_is_true(sections, severity):
    block = StatusBlock.of([Entry.of(s, severity=severity) for s in sections], severity)
    raw = block.encode()
    found = StatusBlock.decode(raw)
    assert found == block
    assert [e.section() for e in found.entries] == sections
    assert found.header.data_length == len(raw) - ErrorStatusHeader.SIZE
    assert found.header.entry_count == len(sections)
    assert (found.header.correctable, found.header.uncorrectable) == (severity == 2, severity != 2)
    several = found.header.multiple_correctable or found.header.multiple_uncorrectable
    assert several == (len(sections) > 1)


def test_lengths_that_contradict_the_parts_are_not_written():
    entry = Entry.of(PlatformMemory(node=1))
    block = StatusBlock.of([entry])
    with pytest.raises(EncodeError, match=r"header\.data_length"):
        block._replace(entries=()).encode()
    with pytest.raises(EncodeError, match=r"entries\[0\]\.header\.error_data_length"):
        StatusBlock.of([entry._replace(header=entry.header.model_copy(update={"error_data_length": 3}))]).encode()
    record = Record.of([PlatformMemory(node=1)])
    with pytest.raises(EncodeError, match=r"header\.record_length"):
        record._replace(sections=()).encode()


# -- records ----------------------------------------------------------------------------


def record_twin(data):
    found = RECORD.parse(bytes(data))
    return found.header, tuple(found.sections)


def record_parts(data):
    return Record.decode(data)[:2]


@given(records(), st.binary(max_size=8))
def test_a_record_loses_nothing(raw, behind):
    record = Record.decode(raw + behind)
    assert record.encode() == raw
    assert record_twin(raw + behind) == record[:2]
    for form in (bytearray(raw), memoryview(raw)):
        assert Record.decode(form) == record
    plain = json.loads(json.dumps(record.plain()))
    assert Record.of_plain(plain).encode() == raw
    if not record.gaps:
        assert RECORD.build({"header": record.header, "sections": record.sections}) == raw


@given(st.binary(max_size=300) | mutated(records()))
def test_both_readers_of_a_record_agree_on_any_bytes(raw):
    fast = outcome(record_parts, raw)
    assert fast == outcome(record_twin, raw)
    if isinstance(fast[0], type):
        assert 0 <= fast[2] <= len(raw)
        assert fast[3]
    else:
        assert Record.decode(raw).encode() == raw[: fast[0].record_length]


def test_a_built_record_says_of_itself_what_is_true():
    sections = [PlatformMemory(node=n, error_type=3) for n in range(3)]
    record = Record.of(sections, severity=Severity.CORRECTED, record_id=7)
    found = Record.decode(record.encode())
    assert [s.section() for s in found.sections] == sections
    assert found.header.section_count == 3
    assert found.header.record_length == len(record.encode()) == 128 + 3 * (72 + 80)
    assert found.gaps == ()
    assert isinstance(found.sections[0], RecordSection)


def test_overlapping_bodies_do_not_cost_more_memory_than_the_record_has():
    body = bytes(2000)
    record = Record.of([PlatformMemory(node=1)] * 20)
    raw = bytearray(record.encode() + body)
    raw[20:24] = len(raw).to_bytes(4, "little")
    for index in range(20):
        at = 128 + 72 * index
        raw[at : at + 8] = (128).to_bytes(4, "little") + (len(raw) - 128).to_bytes(4, "little")
    with pytest.raises(DecodeError, match="overlap"):
        Record.decode(raw)


# -- tables -----------------------------------------------------------------------------


def hest_twin(data):
    header = TableHeader.decode(data)
    found = HEST.parse(bytes(data[: header.length]))
    return Hest(tuple(found.sources), found.head.header, found.trailing)


@given(hests(), st.binary(max_size=8))
def test_a_hest_loses_nothing(raw, behind):
    table = Hest.parse(raw + behind)
    assert table.build() == raw
    assert checksum(raw) == 0
    assert hest_twin(raw) == table
    ends = [table.offset(i) + s.SIZE for i, s in enumerate(table.sources)]
    assert [s.encode() for s in table.sources] == [raw[table.offset(i) : end] for i, end in enumerate(ends)]


@given(st.binary(max_size=200).map(lambda body: seal(TableHeader(signature="HEST", length=0, revision=2), body)))
def test_both_readers_of_a_hest_agree_on_any_body(raw):
    assert outcome(Hest.parse, raw) == outcome(hest_twin, raw)


@given(mutated(hests()))
def test_both_readers_of_a_mutated_hest_agree(raw):
    with suppress(WireError):
        header = TableHeader.decode(raw)
        if header.signature == "HEST" and TableHeader.SIZE <= header.length <= len(raw):
            assert outcome(Hest.parse, raw) == outcome(hest_twin, raw)


@given(xsdts(), st.binary(max_size=8))
def test_an_xsdt_loses_nothing(raw, behind):
    header, addresses = Xsdt.parse(raw + behind)
    assert Xsdt.build(addresses, header) == raw
    assert checksum(raw) == 0
    assert Xsdt.parse(Xsdt.build(addresses))[1] == addresses


@given(st.lists(st.integers(0, MASK), max_size=5))
def test_an_xsdt_holds_any_addresses(addresses):
    assert Xsdt.parse(Xsdt.build(addresses))[1] == tuple(addresses)


@given(st.binary(max_size=80) | mutated(xsdts()))
def test_an_xsdt_of_any_bytes_is_read_or_refused(raw):
    found = outcome(Xsdt.parse, raw)
    if isinstance(found[0], type):
        assert found[4] == "Xsdt"
        assert found[2] is not None


# -- placed in guest memory ---------------------------------------------------------------


class Ram:
    """Guest memory as a dictionary of regions."""

    def __init__(self, size=1 << 20, base=0x4000_0000):
        self.base, self.data = base, bytearray(size)

    def read(self, gpa, size):
        at = gpa - self.base
        if not 0 <= at <= at + size <= len(self.data):
            raise TruncatedError("outside", structure="Ram", offset=gpa)
        return bytes(self.data[at : at + size])

    def write(self, gpa, data):
        at = gpa - self.base
        assert 0 <= at <= at + len(data) <= len(self.data)
        self.data[at : at + len(data)] = data


source_lists = st.lists(
    st.builds(
        SourceDescription,
        source_id=st.integers(0, 0xFFFE),
        notification=st.sampled_from(list(NotificationType)),
        vector=st.integers(0, (1 << 32) - 1),
        poll_interval_ms=st.integers(0, (1 << 32) - 1),
        block_length=st.integers(20, 65536),
        max_sections=st.integers(1, 100),
        max_raw_data_length=st.integers(0, 4096),
        version=st.sampled_from([1, 2]),
        read_ack_preserve=st.integers(0, MASK),
        read_ack_write=st.integers(1, MASK),
    ),
    max_size=4,
    unique_by=lambda s: s.source_id,
)


@given(source_lists, st.integers(0, 16).map(lambda n: 0x4000_0000 + 4096 * n))
def test_what_is_placed_is_found(sources, tables):
    ram = Ram()
    image = place(sources, tables)
    image.write(ram.write)
    spans = sorted((gpa, gpa + len(data)) for _, gpa, data in image.regions)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    found = find_tables(ram.read, image.rsdp)
    assert set(found) == {"HEST"}
    assert found["HEST"] == image.region("hest")
    table = found["HEST"][1]
    read = ram.read
    assert Hest.parse(table).build() == table == image.hest.build()
    placed = find_sources(read, table)
    expected = [s if s.ack is not None else s._replace(ack_preserve=0, ack_write=0) for s in image.sources]
    assert list(placed) == expected
    _, errors = image.region("hardware_errors")
    assert len(errors) == error_region_size(sources)
    for source in placed:  # the gate is open, and the block is empty
        assert int.from_bytes(read(source.register, 8), "little") == source.block
        assert not any(read(source.block, source.block_length))
        if source.ack is not None:
            assert int.from_bytes(read(source.ack, 8), "little") & source.ack_write == source.ack_write


@given(source_lists.filter(bool), st.data())
def test_any_changed_byte_of_the_tables_is_noticed(sources, data):
    ram = Ram()
    image = place(sources, 0x4000_0000)
    image.write(ram.write)
    name = data.draw(st.sampled_from(["rsdp", "xsdt", "hest"]))
    gpa, raw = image.region(name)
    at = data.draw(st.integers(0, len(raw) - 1))
    ram.write(gpa + at, bytes([raw[at] ^ data.draw(st.integers(1, 255))]))
    with pytest.raises(WireError):
        find_tables(ram.read, image.rsdp)


def test_a_source_list_that_contradicts_itself_is_refused():
    one = SourceDescription(0, NotificationType.SEA)
    with pytest.raises(ValueError, match="one source id"):
        place([one, one], 0x4000_0000)
    for length in (19, 65537):
        with pytest.raises(ValueError, match="block length"):
            place([SourceDescription(0, NotificationType.SEA, block_length=length)], 0x4000_0000)


def test_tables_cannot_make_their_reader_read_without_end():
    """Many addresses of one large table: each is a copy, so the sum is bounded, not only each length."""
    ram, reads = Ram(8 << 20), []
    big = seal(TableHeader(signature="BIGT", length=0, revision=1), bytes(4 << 20))
    image = place([], 0x4000_0000)
    image.write(ram.write)
    ram.write(0x4040_0000 - 4096, big[: (4 << 20) + 36])
    xsdt = Xsdt.build([0x4040_0000 - 4096] * 1000)
    ram.write(0x4010_0000, xsdt)
    from acpi.table import Rsdp

    ram.write(image.rsdp, Rsdp(xsdt_address=0x4010_0000).sealed().encode())

    def read(gpa, size):
        reads.append(size)
        return ram.read(gpa, size)

    with pytest.raises(DecodeError, match="together"):
        find_tables(read, image.rsdp)
    assert sum(reads) < 40 << 20


@pytest.mark.parametrize("cut", [1, 63, 64, 71])
def test_an_entry_is_never_completed_from_behind_the_data_length(cut):
    """Neither the 72 bytes of a revision-3 entry nor the 64 of an older one; the entry is named by its number."""
    entry = DataEntry300(section_type=PlatformMemory.GUID, error_data_length=0).encode()
    for count in range(4):
        data = entry * count + entry[:cut]
        header = ErrorStatusHeader(uncorrectable=True, data_length=len(data)).encode()
        for read in (StatusBlock.decode, block_twin):
            with pytest.raises(TruncatedError) as caught:
                read(header + data + bytes(200))
            needed = 64 if cut < 64 else 72
            assert caught.value.path == f"entries[{count}].header"
            assert caught.value.offset == 20 + 72 * count
            assert caught.value.reason == f"{needed} bytes needed, {cut} given"


def test_a_section_is_never_completed_from_behind_the_data_length():
    entry = DataEntry300(section_type=PlatformMemory.GUID, error_data_length=80).encode() + bytes(79)
    header = ErrorStatusHeader(uncorrectable=True, data_length=len(entry)).encode()
    for read in (StatusBlock.decode, block_twin):
        with pytest.raises(TruncatedError) as caught:
            read(header + entry + bytes(200))
        assert str(caught.value) == (
            "StatusBlock.entries[0].header.error_data_length at 0x2c: 80 bytes needed, 79 given"
        )


# What both readers share is not proven by their agreement: the words, counted by hand.
MEMORY_BLOCK = StatusBlock.of([Entry.of(PlatformMemory(node=1))]).encode()
MEMORY_RECORD = Record.of([PlatformMemory(node=1), PlatformMemory(node=2)]).encode()
SECOND = "Record.sections[1].descriptor"
OUTSIDE = "is not between the header and the record's 432 bytes"


def patched(raw, *changes):
    """``raw`` with 32-bit words at the given offsets."""
    out = bytearray(raw)
    for at, value in changes:
        out[at : at + 4] = value.to_bytes(4, "little")
    return bytes(out)


WRONG_BLOCKS = {
    "ErrorStatusHeader.severity at 0x10: 20 bytes needed, 19 given": MEMORY_BLOCK[:19],
    "StatusBlock.header.data_length at 0xc: 172 bytes needed, 171 given": MEMORY_BLOCK[:-1],
    "StatusBlock.header.raw_data_offset at 0x4: 0xab lies inside the 172 bytes before it": patched(
        MEMORY_BLOCK, (4, 171), (8, 1)
    ),
    "StatusBlock.header.raw_data_length at 0x8: 181 bytes needed, 172 given": patched(MEMORY_BLOCK, (4, 180), (8, 1)),
    "StatusBlock.entries[0].header.error_data_length at 0x2c: 81 bytes needed, 80 given": patched(
        MEMORY_BLOCK, (44, 81)
    ),
}
WRONG_RECORDS = {
    "Record.header.reserved at 0x74: 128 bytes needed, 127 given": MEMORY_RECORD[:127],
    "Record.header.signature_start at 0x0: expected 1380274243, found 0": patched(MEMORY_RECORD, (0, 0)),
    "Record.header.record_length at 0x14: 271 bytes cannot hold 2 sections: 272 are needed": patched(
        MEMORY_RECORD, (20, 271)
    ),
    "Record.header.record_length at 0x14: 432 bytes needed, 431 given": MEMORY_RECORD[:-1],
    f"{SECOND}.section_offset at 0xc8: 0x7f {OUTSIDE}": patched(MEMORY_RECORD, (200, 127)),
    f"{SECOND}.section_offset at 0xc8: 0x1b1 {OUTSIDE}": patched(MEMORY_RECORD, (200, 433)),
    f"{SECOND}.section_length at 0xcc: 81 bytes needed, 80 given": patched(MEMORY_RECORD, (204, 81)),
    f"{SECOND}.section_length at 0xcc: the bodies overlap: together they are longer than the record": patched(
        MEMORY_RECORD, (132, 160), (200, 128), (204, 304)
    ),
}


@pytest.mark.parametrize(
    ("readers", "raw", "text"),
    [((StatusBlock.decode, block_twin), raw, text) for text, raw in WRONG_BLOCKS.items()]
    + [((Record.decode, record_twin), raw, text) for text, raw in WRONG_RECORDS.items()],
    ids=[*WRONG_BLOCKS, *WRONG_RECORDS],
)
def test_what_is_wrong_is_named_by_place_and_reason(readers, raw, text):
    for read in readers:
        with pytest.raises(WireError) as caught:
            read(raw)
        assert str(caught.value) == text
