"""Streams of records and blocks, whole and damaged: every byte is in an item, and every item's JSON gives it again."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acpi import document
from acpi.conversion import block_of, record_of
from acpi.damage import DamagedBlock
from acpi.ghes import Entry, StatusBlock
from acpi.stream import MAX_SIZE, Kind, items
from cper.common import Severity, Timestamp
from cper.damage import DamagedRecord, faults_of
from cper.fault import body_fault
from cper.memory import PlatformMemory
from cper.record import Record
from cper.text_form import decoded, form_of, of_text
from cper.wire import DecodeError, EncodeError, WireError
from tests.golden.linux import LINUX, raw, vectors
from tests.strategies import mutated, records, status_blocks

MEMORY = PlatformMemory(physical_address=0x1234_5000, node=3, error_type=3)
RECORD = Record.of([MEMORY, PlatformMemory(card=1)], record_id=9).encode()
BLOCK = StatusBlock.of([Entry.of(MEMORY, fru_text="DIMM A1")]).encode()
ANYTHING = st.one_of(records(), mutated(records()), status_blocks(), mutated(status_blocks()), st.binary(max_size=300))


def again(value):
    """Through JSON text."""
    return json.loads(json.dumps(value))


@given(st.binary(max_size=400) | mutated(records()))
def test_a_damaged_record_loses_nothing_and_says_where(data):
    found = DamagedRecord.decode(data)
    assert found.encode() == data
    assert DamagedRecord.of_plain(again(found.plain())).encode() == data
    for fault in found.faults:
        assert fault.reason
        assert 0 <= fault.offset <= len(data)
    try:
        whole = Record.decode(data)
    except WireError as error:
        assert str(found.faults[0]) == str(error)
    else:
        assert not found.faults
        assert [(s.descriptor, s.body) for s in found.sections] == list(whole.sections)


@given(st.binary(max_size=400) | mutated(status_blocks()))
def test_a_damaged_block_loses_nothing_and_says_where(data):
    found = DamagedBlock.decode(data)
    assert found.encode() == data
    assert DamagedBlock.of_plain(again(found.plain())).encode() == data
    try:
        whole = StatusBlock.decode(data)
    except WireError as error:
        assert str(found.faults[0]) == str(error)
    else:
        assert not found.faults
        assert found.entries == whole.entries


def test_what_is_left_of_a_cut_record_is_read():
    found = DamagedRecord.decode(RECORD[:-30])
    assert [f"{f}" for f in found.faults] == [
        f"Record.header.record_length at 0x14: {len(RECORD)} bytes needed, {len(RECORD) - 30} given",
        "Record.sections[1].descriptor.section_length at 0xcc: 80 bytes needed, 50 given",
    ]
    assert PlatformMemory.decode(found.sections[0].body) == MEMORY
    assert len(found.sections[1].body) == 50
    assert found.header.record_id == 9


def test_a_wrong_signature_does_not_hide_the_rest():
    data = RECORD[:6] + bytes(4) + RECORD[10:]
    found = DamagedRecord.decode(data)
    assert "signature_end" in str(found.faults[0])
    assert len(found.sections) == 2
    assert [(g.offset, g.data) for g in found.gaps] == [(6, bytes(4))]


def test_what_is_left_of_a_cut_block_is_read():
    found = DamagedBlock.decode(BLOCK[:-10])
    assert "header.data_length at 0xc" in str(found.faults[0])
    assert found.entries[0].header.fru_text == "DIMM A1"
    assert len(found.entries[0].body) == 70


def test_a_body_that_its_class_cannot_read_is_a_fault():
    record = Record.of_bodies([(bytes(20), Record.of([MEMORY]).sections[0].descriptor)])
    (fault,) = faults_of(record)
    assert str(fault) == "PlatformMemory.sections[0].section at 0xdc: 73 bytes needed, 20 given"
    assert body_fault(PlatformMemory.GUID, MEMORY.encode(), "", 0) is None


# -- records with gaps and overlaps ------------------------------------------------------


def edited(plain):
    return Record.of_plain(again(plain))


def with_places(*places):
    """RECORD with the bodies at these offsets, and room for them."""
    data = bytearray(RECORD + bytes(200))
    data[20:24] = len(data).to_bytes(4, "little")
    for index, (offset, length) in enumerate(places):
        data[128 + 72 * index : 136 + 72 * index] = offset.to_bytes(4, "little") + length.to_bytes(4, "little")
    return bytes(data)


def test_gaps_and_overlaps_are_told():
    record = Record.decode(with_places((272, 80), (300, 80)))
    assert record.overlaps() == ["sections[1] overlaps sections[0] at 0x12c"]
    assert [(g.offset, len(g.data)) for g in record.gaps] == [(380, 252)]
    assert Record.decode(RECORD).overlaps() == []
    assert Record.decode(with_places((200, 80), (352, 80))).overlaps() == [
        "sections[0] overlaps the descriptors at 0xc8"
    ]
    inside = Record.decode(with_places((272, 80), (280, 8)))
    assert inside.overlaps() == ["sections[1] overlaps sections[0] at 0x118"]
    by_a_byte = Record.decode(with_places((272, 80), (351, 80)))
    assert by_a_byte.overlaps() == ["sections[1] overlaps sections[0] at 0x15f"]
    within_both = Record.decode(with_places((200, 300), (272, 80)))
    assert within_both.overlaps() == [
        "sections[0] overlaps the descriptors at 0xc8", "sections[1] overlaps sections[0] at 0x110",
    ]  # fmt: skip
    assert Record.decode(with_places((352, 80), (272, 80))).overlaps() == []
    for data in (with_places((272, 80), (300, 80)), with_places((300, 80), (272, 80))):
        plain = Record.plain_of(data)
        assert plain["overlaps"] == Record.decode(data).overlaps() != []
        assert Record.decode(data).plain() == plain
        assert Record.raw_of_plain(plain) == data


def test_an_edit_of_a_record_with_gaps_is_written():
    data = with_places((272, 80), (400, 80))
    plain = Record.decode(data).plain()
    plain["sections"][1]["section"]["node"] = 7
    plain["header"]["record_id"] = 5
    found = Record.decode(edited(plain).encode())
    assert (found.sections[1].section().node, found.header.record_id) == (7, 5)
    assert found.gaps == Record.decode(data).gaps


def test_an_edit_that_an_overlapping_body_contradicts_is_refused():
    plain = Record.decode(with_places((272, 80), (272, 80))).plain()
    plain["sections"][0]["section"]["node"] = 7
    with pytest.raises(EncodeError, match=r"Record\.sections\[0\].*says something else"):
        edited(plain).encode()


def test_small_json_makes_no_large_record():
    plain = Record.decode(with_places((272, 80), (352, 80))).plain()
    plain["header"]["record_length"] = 0xFFFF_FFFF
    with pytest.raises(EncodeError, match="no part holds the bytes"):
        edited(plain).encode()


@given(records())
def test_the_short_way_to_json_says_the_same(data):
    assert Record.plain_of(data) == Record.decode(data).plain()


# -- streams ------------------------------------------------------------------------------


def pieces(data, size):
    return (data[at : at + size] for at in range(0, len(data), size))


@settings(max_examples=settings.default.max_examples * 2)
@given(st.lists(ANYTHING | st.integers(0, 60).map(bytes), max_size=4), st.integers(1, 300))
def test_every_byte_of_a_stream_is_in_an_item(parts, size):
    data = b"".join(parts)
    found = list(items([data]))
    assert b"".join(item.data for item in found) == data
    assert [item.offset for item in found] == [sum(len(i.data) for i in found[:n]) for n in range(len(found))]
    for item in found:
        text = again(document.of_item(item))
        assert document.encode(text, MAX_SIZE) == item.data
        assert (item.read() is None) == (item.kind in {Kind.PADDING, Kind.BYTES})
    slow = list(items(pieces(data, size)))
    assert b"".join(item.data for item in slow) == data
    whole = [i for i in found if i.kind is Kind.RECORD and i.fault is None]
    assert [i for i in slow if i.kind is Kind.RECORD and i.fault is None] == whole


def test_records_and_blocks_may_follow_each_other():
    data = RECORD + bytes(40) + BLOCK + BLOCK + b"junk" + RECORD[:200] + RECORD
    assert [(i.kind, len(i.data), i.fault is None) for i in items([data])] == [
        ("record", len(RECORD), True), ("padding", 40, True), ("status_block", len(BLOCK), True),
        ("status_block", len(BLOCK), True), ("bytes", 4, False), ("record", 200, False), ("record", len(RECORD), True),
    ]  # fmt: skip


def test_a_length_beyond_all_measure_costs_nothing():
    data = RECORD[:20] + b"\xff\xff\xff\x7f" + RECORD[24:]
    (first, *_) = items([data + RECORD])
    assert "are more than" in str(first.fault)
    assert [i.kind for i in items([data + RECORD])] == ["record", "record"]


def test_an_endless_stream_takes_no_memory():
    seen = sum(len(item.data) for item in items(b"\x11" * (1 << 20) for _ in range(40)))
    assert seen == 40 << 20


# -- text ---------------------------------------------------------------------------------

XXD = b"""00000000: 4350 4552 0101 ffff ffff 0100 0200 0000  CPER............
00000010: 0200 0000 1801 0000 dead                 ..........
"""
HEXDUMP = b"""00000000  43 50 45 52 01 01 ff ff  ff ff 01 00 02 00 00 00  |CPER............|
00000010  02 00 00 00 18 01 00 00                           |........|
00000018
"""


def test_dumps_of_other_programs_are_read():
    start = bytes.fromhex("43504552 0101ffffffff01000200000002000000 18010000")
    assert (form_of(XXD), of_text(XXD)) == ("dump", start + b"\xde\xad")
    assert (form_of(HEXDUMP), of_text(HEXDUMP)) == ("dump", start)


def test_lines_that_a_dump_leaves_out_are_put_back():
    first, second, _ = HEXDUMP.splitlines(True)
    row, rest = of_text(first), bytes.fromhex("0200000018010000")
    assert of_text(first + b"*\n00000040\n") == 4 * row
    assert of_text(first + b"*\n" + second.replace(b"00000010", b"00000030") + b"00000038\n") == 3 * row + rest
    for text, why in (
        (b"*\n", "ends with a"),
        (b"*\nmore\n", "line 3: no line of a hexadecimal dump"),
        (b"*\n00000008\n", "line 3: -8 bytes left out"),
        (b"*\nffffffffffffffff\n", "line 3: 18446744073709551599 bytes left out before it, not 0 to 16777216"),
        (b"*\n00f00010  00 00\n*\n01f00010\n", "line 5: 16777214 bytes left out before it, not 0 to 1048576"),
    ):
        with pytest.raises(ValueError, match=why):
            of_text(first + text)


@given(records() | status_blocks(), st.integers(1, 90), st.sampled_from(["", " ", "\n", ", 0x"]))
def test_text_forms_are_recognised_in_pieces_of_any_size(data, size, separator):
    hexed = separator.join(data.hex()[at : at + 8] for at in range(0, 2 * len(data), 8)).encode()
    for form, text in (("hex", hexed), ("base64", base64.b64encode(data)), ("base64", base64.encodebytes(data))):
        assert form_of(text) == form
        assert b"".join(decoded(pieces(text, max(size, len(text.split(b"\n")[0]) + 1)))) == data
        assert of_text(text) == data
    assert of_text(base64.b64encode(data) + b"\n" + base64.b64encode(data)) == 2 * data
    url = base64.urlsafe_b64encode(data)
    for text in (url, url + b"\n", b"\n".join(url[at : at + 76] for at in range(0, len(url), 76))):
        assert form_of(text) == "base64"
        assert b"".join(decoded(pieces(text, max(size, len(text.split(b"\n")[0]) + 1)))) == data
    if b"-" in url or b"_" in url:
        assert of_text(url.rstrip(b"=")) == data


@pytest.mark.parametrize(
    ("text", "data"),
    [  # RFC 4648, 10, each behind four digits that tell which alphabet it is
        (b"", b""), (b"Zg==", b"f"), (b"Zm8=", b"fo"), (b"Zm9v", b"foo"), (b"Zm9vYg==", b"foob"),
        (b"Zm9vYmE=", b"fooba"), (b"Zm9vYmFy", b"foobar"),
    ],
)  # fmt: skip
def test_base64url_is_read(text, data):
    assert of_text(b"-_-_" + b"AAAA" + text) == bytes.fromhex("fbffbf000000") + data
    assert of_text(b"-_-_" + b"AAAA" + text.rstrip(b"=")) == bytes.fromhex("fbffbf000000") + data
    assert of_text(b"+/+/" + b"AAAA" + text) == bytes.fromhex("fbffbf000000") + data


def test_the_alphabets_of_base64():
    """RFC 4648, tables 1 and 2: the digits in order are the numbers 0 to 63."""
    digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    numbers = int("".join(f"{n:06b}" for n in range(64)), 2).to_bytes(48, "big")
    assert of_text(digits + b"+/") == of_text(digits + b"-_") == numbers


@pytest.mark.parametrize(
    "text", [b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"well-known words, and prose", b"some plain-words here"]
)
def test_prose_is_no_base64url(text):
    assert form_of(text) == "raw"


@given(st.binary(max_size=200))
def test_any_bytes_are_text_or_not(data):
    try:
        found = of_text(data)
    except ValueError as error:
        assert form_of(data) != "raw"
        assert str(error)
    else:
        assert found == data or form_of(data) != "raw"


@pytest.mark.parametrize(
    ("text", "why"),
    [(b"4350455", "odd number"), (b"43504x52", "line 1: no hexa"), (b"Q1BFUgEB/", "in the middle"),
     (b"AAAAAAAA\nAA=A", "line 2: no Base64"), (b"AAAAAAAA_\n", "in the middle"),
     (b"AAAA-AAA\n" * 8000 + b"AAA+", "line 8001: no Base64: digits of base64 and of base64url"),
     (b"AAAAAA+/\nAA", "in the middle")],
)  # fmt: skip
def test_broken_text_is_told(text, why):
    with pytest.raises(ValueError, match=why):
        of_text(text)


# -- one into the other ---------------------------------------------------------------------


@pytest.mark.parametrize("group", ["blk", "ent", "fatal", "mem"])
def test_a_block_becomes_the_record_that_another_generator_made_of_it(group):
    seen = 0
    for name, vector in vectors().items():
        if not vector.get("record") or name.split("-")[0] != group or not (LINUX / "blocks" / f"{name}.bin").exists():
            continue
        theirs = Record.decode((LINUX / vector["record"]["file"]).read_bytes())
        try:
            block = StatusBlock.decode(raw(name))
        except DecodeError:
            continue
        mine = record_of(
            block, record_id=theirs.header.record_id, creator_id=theirs.header.creator_id,
            severity=theirs.header.severity,
        )  # fmt: skip
        if mine.lost:
            continue
        seen += 1
        assert mine.value.sections == theirs.sections, name
        assert mine.value.encode() == theirs.encode(), name
        back = block_of(mine.value)
        assert set(back.lost) == {"creator_id of the record", "record_id of the record"}, name
        assert [e.body for e in back.value.entries] == [e.body for e in block.entries]
    assert seen


@given(status_blocks())
def test_what_conversion_does_not_lose_comes_back(data):
    block = StatusBlock.decode(data)
    there = record_of(block)
    back = block_of(Record.decode(there.value.encode()))
    assert back.lost == ()
    names = ("section_type", "severity", "flags", "fru_id", "fru_text")
    for mine, theirs in zip(back.value.entries, block.entries, strict=True):
        assert mine.body == theirs.body
        assert all(getattr(mine.header, n) == getattr(theirs.header, n) for n in names)
    if not there.lost and all(e.header.revision >= 0x300 for e in block.entries):
        assert [e.header.timestamp for e in back.value.entries] == [e.header.timestamp for e in block.entries]


def test_what_a_conversion_cannot_carry_is_told():
    at = Timestamp.of(1_700_000_000)
    block = StatusBlock.of([Entry.of(MEMORY, timestamp=at), Entry.of(MEMORY)], Severity.FATAL)
    there = record_of(block)
    assert there.lost == ("timestamps of entries: a record has one",)
    assert (there.value.header.timestamp, there.value.header.severity) == (at, Severity.FATAL)
    record = Record.of([MEMORY], record_id=4, flags=2)
    assert block_of(record).lost == ("record_id of the record", "flags of the record")
