"""Laws that hold for every declared structure; a new one is covered the moment it is declared."""

from __future__ import annotations

import json
import random
import struct
from functools import cache

import pytest

from cper.wire import DecodeError, LayoutError, Struct, TruncatedError, WireError
from cper.wire._construct import twin
from cper.wire._layout import field_names
from tests.laws.schema import problems
from tests.strategies import LONG, constants, declared, each_image, in_place, without_residue

STRUCTS = declared()
every_struct = pytest.mark.parametrize("cls", STRUCTS, ids=lambda c: c.__name__)


@cache
def schema_of(cls):
    return cls.model_json_schema()


@cache
def twin_of(cls):
    return twin(cls)


@cache
def readers_of(cls):
    """Readers of all fields, of every second, of every third; of each alone in the long profile."""
    names = tuple(s.name for s in cls.words.slots)
    some = [names[::-1], names[::2], names[1::2], names[::3], names[1::3], names[2::3]]
    return [(f, cls.reader(*f)) for f in dict.fromkeys([*some, *((n,) for n in names if LONG)]) if f]


def decode_then_encode_is_the_identity_wherever_the_bytes_lie(cls, raw):
    value = cls.decode(raw)
    assert value.encode() == raw
    at = raw[-1] & 7
    around = b"\xa5" * at + raw + b"\x5a\xa5"
    for form in (around, bytearray(around), memoryview(around)):
        found = cls.decode(form, at)
        assert found == value
        assert found.encode() == raw
        assert cls.plain_of(form, at) == cls.plain_of(raw)


def json_says_the_same_on_every_way_and_loses_nothing(cls, raw):
    value = cls.decode(raw)
    plain = cls.plain_of(raw)
    assert plain == value.plain()
    assert plain == json.loads(json.dumps(plain))
    assert plain == json.loads(value.model_dump_json(exclude_none=True))
    again = cls.of_plain(plain)
    assert again == value
    assert again.encode() == raw
    schema = schema_of(cls)
    assert problems(plain, schema, schema) == []


def pack_writes_what_the_object_writes(cls, raw):
    value = without_residue(cls.decode(raw))
    fields = {name: v for name, v in value if name != "residue"}
    packed = cls.pack(**fields)
    assert packed == value.encode()
    assert cls.decode(packed) == value


def the_construct_twin_reads_and_writes_the_same_words(cls, raw):
    parsed = twin_of(cls).parse(raw)
    words = {name: parsed[name] for name, _, _ in cls.words.words}
    assert list(words.values()) == list(struct.unpack(cls.words.format, raw))
    assert twin_of(cls).build(words) == raw


def a_reader_reads_what_decoding_gives(cls, raw):
    value = cls.decode(raw)
    for names, read in readers_of(cls):
        assert read(b"\xa5" + raw, 1) == tuple(getattr(value, name) for name in names)


LAWS = (
    decode_then_encode_is_the_identity_wherever_the_bytes_lie,
    json_says_the_same_on_every_way_and_loses_nothing,
    pack_writes_what_the_object_writes,
    the_construct_twin_reads_and_writes_the_same_words,
    a_reader_reads_what_decoding_gives,
)


@every_struct
def test_laws(cls):
    each_image(cls, lambda raw: [law(cls, raw) for law in LAWS])


@every_struct
def test_any_bytes_decode_or_raise_a_wire_error_with_path_and_offset(cls):
    def holds(raw):
        r = random.Random(raw)
        for some in (raw, r.randbytes(r.randint(0, cls.SIZE + 8)), raw[: len(raw) * 3 // 4]):
            decodes_or_says_where(cls, some, r.randint(-3, 9))
        decodes_or_says_where(cls, raw, 0)

    each_image(cls, holds)


@every_struct
def test_a_reader_says_what_is_missing_as_decoding_does(cls):
    raw = in_place(cls, bytes(cls.SIZE))
    with pytest.raises(TruncatedError) as whole:
        cls.decode(raw[:-1])
    for _, read in readers_of(cls):
        with pytest.raises(TruncatedError) as caught:
            read(raw[:-1])
        assert str(caught.value) == str(whole.value)


def decodes_or_says_where(cls, raw, offset):
    results = []
    for read in (cls.decode, cls.plain_of):
        try:
            read(raw, offset)
            results.append(None)
        except WireError as error:
            results.append((type(error), str(error), error.offset, error.path, error.structure))
    assert results[0] == results[1]
    short = offset < 0 or len(raw) - offset < cls.SIZE
    assert (results[0] is not None and results[0][0] is TruncatedError) == short
    if results[0] is None:
        return
    kind, text, at, path, structure = results[0]
    row = cls.at(path)
    assert at == offset + row.offset
    assert text.startswith(f"{structure}.{path} at {at:#x}: ")
    assert structure == cls.__name__
    if kind is TruncatedError:  # the first field that is not there as a whole
        have = max(len(raw) - offset, 0) if offset >= 0 else 0
        assert row.offset <= have < row.offset + row.size
    else:
        assert kind is DecodeError
        assert any(row.offset <= place < row.offset + row.size for place, _ in constants(cls))


@every_struct
def test_only_constants_can_make_the_right_number_of_bytes_undecodable(cls):
    for filler in (b"\0", b"\xff", b"\x5a"):
        raw = bytearray(in_place(cls, filler * cls.SIZE))
        assert cls.decode(raw).encode() == raw
        for at, value in constants(cls):
            wrong = bytearray(raw)
            wrong[at] ^= 1
            with pytest.raises(DecodeError) as caught:
                cls.decode(wrong)
            assert caught.value.offset is not None
            assert caught.value.offset <= at < caught.value.offset + len(value)


@every_struct
def test_the_layout_has_no_gap_no_overlap_and_a_row_for_every_field(cls):
    at = 0
    for row in cls.layout:
        if "." in row.path or row.bits:
            continue
        assert row.offset == at
        at += row.size
    assert at == cls.SIZE
    paths = [row.path for row in cls.layout]
    assert len(set(paths)) == len(paths)
    assert {p for p in paths if "." not in p and not cls.at(p).reserved} >= set(cls.model_fields) - {"residue"}
    own = [n for n in field_names(cls) if n in cls.model_fields or n in {w[0] for w in cls.words.words}]
    assert [p for p in paths if "." not in p] == own
    for slot in cls.words.slots:  # what is inside a nested structure has a row too, at its place
        if isinstance(slot.kind, type) and issubclass(slot.kind, Struct):
            for inner in slot.kind.layout:
                found = cls.at(f"{slot.name}.{inner.path}")
                assert (found.offset, found.size, found.bits) == (slot.offset + inner.offset, inner.size, inner.bits)
    with pytest.raises(LayoutError):
        cls.at("no_such_field")


@every_struct
def test_documents_are_derived(cls):
    table = cls.layout_table()
    assert all(f"`{row.path}" in table for row in cls.layout)
    for line in ("def decode(", "def plain_of(", "def encode(", "def pack("):
        assert line in cls.source()
    assert cls.__doc__
    assert set(schema_of(cls)["properties"]) == set(cls.model_fields)


class TestTheLawsThemselves:
    """The schema checker can fail."""

    def test_schema(self):
        from acpi.ghes import ErrorStatusHeader as H

        schema = H.model_json_schema()
        good = H(severity="fatal", entry_count=3).plain()
        assert problems(good, schema, schema) == []
        for key, value in [
            ("entry_count", 1 << 10), ("entry_count", -1), ("entry_count", True), ("correctable", 1),
            ("severity", "no_such"), ("severity", -1), ("raw_data_offset", "5"), ("other", 1), ("residue", "0"),
        ]:  # fmt: skip
            assert problems(good | {key: value}, schema, schema), (key, value)
