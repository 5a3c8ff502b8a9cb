"""JSON text by the function of a shape says what JSON by way of dictionaries says, whatever the fields hold."""

from __future__ import annotations

import random
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acpi import block_text
from acpi.document import of_item, text_of_item
from acpi.ghes import StatusBlock
from acpi.stream import items
from cper import shape as shape_module
from cper.arm_processor import ArmProcessor
from cper.record import Record
from cper.record_text import json_of, shape_of
from cper.section import MODULES, Section, section_class
from cper.shape import OFTEN, Shapes
from tests.golden.linux import LINUX
from tests.golden.test_libcper import vectors
from tests.laws.test_documents import records

SEEDS = st.integers(0, (1 << 64) - 1)


@cache
def good():
    return [data for data, _ in vectors()] + [path.read_bytes() for path in sorted((LINUX / "records").glob("*.cper"))]


@cache
def shaped():
    return [data for data in good() if shape_of(data) is not None]


@cache
def blocks():
    found = [path.read_bytes() for path in sorted((LINUX / "blocks").glob("*.bin"))]
    return [data for data in found if block_text.shape_of(data) is not None]


records_shaped = st.deferred(lambda: st.sampled_from(shaped()))
blocks_shaped = st.deferred(lambda: st.sampled_from(blocks()))


def dictionary(data):
    """The JSON text of a record or a block by way of a dictionary."""
    is_record = data[:4] == b"CPER"
    return orjson.dumps(Record.plain_of(data) if is_record else StatusBlock.decode(data).plain())


@cache
def written(data):
    """A record's or a block's shape, and its function."""
    shape = shape_of(data) or block_text.shape_of(data)
    return shape, shape.function(), "odd = 1" in shape.source()


def others(data, seed):
    """Records of the same shape: all fields 0, all bits set, and anything."""
    shape = written(data)[0]
    free = (1 << 8 * len(data)) - 1 ^ shape.mask
    for bits in (0, free, random.Random(seed).getrandbits(8 * len(data)) & free):
        yield (shape.value | bits).to_bytes(len(data), "little")


def test_every_fixed_section_and_arm_processors_have_a_shape():
    met = {section.descriptor.section_type for data in shaped() for section in Record.decode(data).sections}
    wanted = {guid for guid in MODULES if issubclass(section_class(guid), (Section, ArmProcessor))}
    assert met >= wanted & {s.descriptor.section_type for data in good() for s in Record.decode(data).sections}
    assert len(shaped()) > len(good()) / 2


@given(records_shaped | blocks_shaped, SEEDS)
def test_both_ways_say_the_same_of_anything_of_a_shape(data, seed):
    _, text, can_be_odd = written(data)
    assert text(data) == dictionary(data)
    for other in others(data, seed):
        found = text(other)
        assert found == dictionary(other) or (found is None and can_be_odd)
        assert text(memoryview(other)) == found


@given(records_shaped, SEEDS)
def test_a_bit_that_is_no_field_makes_another_shape(data, seed):
    shape, dice = written(data)[0], random.Random(seed)
    number = int.from_bytes(data, "little") ^ 1 << dice.randrange(8 * len(data))
    changed = number.to_bytes(len(data), "little")
    shapes = Shapes(lambda _: shape)
    for _ in range(OFTEN):
        assert shapes.text(data) is None
    assert (shapes.text(changed) is None) == (number & shape.mask != shape.value) or written(data)[2]


def test_each_bit_beside_a_field_of_its_byte_makes_another_shape():
    tried = 0
    for data in dict.fromkeys([*shaped(), *blocks()]):
        shape, text, _ = written(data)
        mask = shape.mask.to_bytes(len(data), "little")
        mixed = [at for at, byte in enumerate(mask) if byte != 0xFF]
        for at, bit in [(at, bit) for at in mixed for bit in range(8) if mask[at] >> bit & 1]:
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            assert text(changed) is None, f"byte {at}, bit {bit}"
            tried += 1
    assert tried > 1000


@given(records())
def test_text_is_that_of_the_dictionary(data):
    want = orjson.dumps(Record.plain_of(data))
    for _ in range(OFTEN + 2):
        assert json_of(data) == want


def test_text_of_a_document_is_that_of_the_dictionary():
    stream = b"".join([*shaped()[::7], *blocks()[::7], good()[0][:-9], bytes(64), blocks()[0][:-3]] * 3)
    told = 0
    for _ in range(OFTEN):
        for item in items([stream]):
            text = text_of_item(item)
            told += text is not None
            assert text in {None, orjson.dumps(of_item(item))}
    assert told > OFTEN


def test_text_of_a_block_is_that_of_the_dictionary():
    for data in blocks():
        assert block_text.json_of(data) == dictionary(data)
    with pytest.raises(ValueError, match="bytes needed"):
        block_text.json_of(blocks()[0][:-1])


def test_a_damaged_record_is_refused_as_ever():
    shapes = Shapes(shape_of)
    for data in shaped()[:5]:
        for _ in range(2 * OFTEN):
            assert shapes.text(data[:-1]) is None
        with pytest.raises(ValueError, match="bytes needed"):
            json_of(data[:-1])
    assert shapes.count == 0


def test_only_what_is_met_often_gets_a_function():
    shapes = Shapes(shape_of)
    for _ in range(OFTEN):
        assert shapes.text(shaped()[0]) is None
    assert shapes.text(shaped()[0]) == orjson.dumps(Record.plain_of(shaped()[0]))
    assert shapes.count == 1


@pytest.mark.parametrize(("name", "limit"), [("SHAPES", 3), ("TURNS", 1), ("LENGTHS", 2)])
def test_however_many_shapes_there_are_the_work_is_bounded(monkeypatch, name, limit):
    monkeypatch.setattr(shape_module, name, limit)
    monkeypatch.setattr(shape_module, "OFTEN", 2)
    shapes = Shapes(shape_of)
    given = dict.fromkeys(shaped())
    for data in [one for data in given for one in (data, data)]:
        found = shapes.text(data)
        assert found in {None, orjson.dumps(Record.plain_of(data))}
        assert len(shapes._missed) <= shape_module.LENGTHS
        assert all(len(masks) <= shape_module.TURNS for masks in shapes._known.values())
    assert 0 < shapes.count <= shape_module.SHAPES
    assert shapes.count < len({(shape.mask, shape.value) for shape, _, _ in map(written, given)})


def test_threads_do_not_meet_in_one_tree():
    data = next(data for data in shaped() if data[144:160] == ArmProcessor.GUID.bytes_le)
    text = written(data)[1]
    many = [other for seed in range(50) for other in others(data, seed)]
    want = [orjson.dumps(Record.plain_of(other)) for other in many]

    def all_of_them(_):
        return all(found in {None, right} for right, found in zip(want * 5, map(text, many * 5), strict=True))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(all_of_them, range(4)))
    finally:
        sys.setswitchinterval(before)
    assert text(data) == orjson.dumps(Record.plain_of(data))


def test_the_source_is_there_to_be_read():
    source = shape_of(shaped()[0]).source()
    assert "def text(data):" in source
    assert "for " not in source.partition("def text(data):")[2]
