"""Columns say what reading record by record says."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest

from cper.columns import columns, word_type
from cper.memory import PlatformMemory
from cper.pcie import Pcie
from cper.record import Record
from cper.record_header import SectionDescriptor
from cper.section import MODULES, Section, section_class
from cper.wire import OpenFlags, Struct

FIXED = [cls for cls in map(section_class, MODULES) if issubclass(cls, Section)]


def records(cls, count, seed=1):
    """Random bodies in records."""
    rng = random.Random(seed)
    descriptor = SectionDescriptor.blank(cls.GUID)
    return [Record.of_bodies([(rng.randbytes(cls.SIZE), descriptor)]).encode() for _ in range(count)]


def flat(section: Struct, prefix=""):
    """(path, value, raw words' cell) of every field that is no structure."""
    for slot in section.words.slots:
        value = getattr(section, slot.name)
        inner = isinstance(slot.kind, type) and issubclass(slot.kind, Struct)
        if inner and value is not None:
            yield from flat(value, f"{prefix}{slot.name}.")
        elif inner:
            yield from ((f"{prefix}{slot.name}.{p}", None, s) for p, s in leaves(slot.kind))
        else:
            yield f"{prefix}{slot.name}", value, slot


def leaves(kind):
    for slot in kind.words.slots:
        if isinstance(slot.kind, type) and issubclass(slot.kind, Struct):
            yield from ((f"{slot.name}.{p}", s) for p, s in leaves(slot.kind))
        else:
            yield slot.name, slot


@pytest.mark.parametrize("cls", FIXED, ids=lambda c: c.__name__)
def test_columns_agree_with_sections(cls):
    data = records(cls, 30)
    if any("signature" in slot.name for slot in cls.words.slots):
        pytest.fail("constants need bytes of their own")
    found = columns(b"".join(data), cls)
    for row, raw in enumerate(data):
        section = cls.of_body(raw[200:])
        seen = set()
        for path, value, slot in flat(section):
            seen.add(path)
            column = found[path]
            assert len(column.values) == 30
            if column.valid is not None:
                assert bool(column.valid[row]) == (value is not None), path
            elif value is None:
                pytest.fail(f"{path} is None but has no validation bit")
            if value is None:
                assert not column.values[row : row + 1].tobytes().strip(b"\0"), path
            elif slot.load is None and slot.dump is None and isinstance(value, int | OpenFlags):
                assert int(column.values[row]) == int(value), path
            elif column.values.dtype.kind == "V":
                at = cls.at(path)
                assert column.values[row].tobytes() == raw[200 + at.offset : 200 + at.offset + at.size], path
        assert seen == set(found)


def test_a_column_of_bytes_is_the_bytes():
    data = records(Pcie, 5)
    found = columns(b"".join(data), Pcie)
    at = Pcie.at("aer.tlp_prefix_log")
    for row, raw in enumerate(data):
        if found["aer.tlp_prefix_log"].valid[row]:
            assert found["aer.tlp_prefix_log"].values[row].tobytes() == raw[200 + at.offset : 200 + at.offset + at.size]


def test_only_the_columns_that_are_asked_for():
    data = b"".join(records(Pcie, 5))
    whole, some = columns(data, Pcie), columns(data, Pcie, ["aer.header_log", "port_type"])
    assert list(some) == [name for name in whole if name in {"aer.header_log", "port_type"}]
    for name, column in some.items():
        assert np.array_equal(column.values, whole[name].values)
        assert np.array_equal(column.valid, whole[name].valid)
    with pytest.raises(ValueError, match=r"^Pcie has no aer, colour$"):
        columns(data, Pcie, ["colour", "port_type", "aer"])


@pytest.mark.parametrize("word", [0, 1 << 3, (1 << 22) - 1, None])
def test_validation_words_alike_or_not(word):
    """Blocks that have one validation word are filled without a look at each row: the same columns."""
    rng = random.Random(2)
    bodies = [rng.randbytes(80) for _ in range(40)]
    if word is not None:
        bodies = [word.to_bytes(8, "little") + body[8:] for body in bodies]
    descriptor = SectionDescriptor.blank(PlatformMemory.GUID)
    data = b"".join(Record.of_bodies([(body, descriptor)]).encode() for body in bodies) * 120
    found = columns(data, PlatformMemory)
    for name in ("node", "bank", "bank_group", "row_high", "physical_address"):
        want = [getattr(PlatformMemory.of_body(body), name) for body in bodies] * 120
        assert found[name].values.tolist() == [value or 0 for value in want]
        assert found[name].valid.tolist() == [value is not None for value in want]


def test_other_records_are_passed_over():
    memory, other = records(PlatformMemory, 3), records(Pcie, 2)
    short = Record.of_bodies([(bytes(73), SectionDescriptor.blank(PlatformMemory.GUID))]).encode()
    data = memory[0] + other[0] + memory[1] + short + other[1] + memory[2]
    found = columns(data, PlatformMemory)
    want = [PlatformMemory.of_body(raw[200:]).node or 0 for raw in memory]
    assert found["node"].values.tolist() == want
    assert columns(b"", PlatformMemory)["node"].values.tolist() == []


def test_more_than_one_block():
    data = records(PlatformMemory, 50) * 200
    found = columns(b"".join(data), PlatformMemory)["physical_address"]
    want = [PlatformMemory.of_body(raw[200:]).physical_address or 0 for raw in data[:50]]
    assert np.array_equal(found.values, np.array(want * 200, "u8"))


@pytest.mark.parametrize("data", [b"junk" * 100, b"CPER" + bytes(200), records(PlatformMemory, 1)[0][:-1]])
def test_what_is_no_record_is_refused(data):
    with pytest.raises(ValueError, match="no whole record begins at 0x0"):
        columns(data, PlatformMemory)


def test_without_numpy_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ValueError, match="columns need numpy"):
        columns(b"x", PlatformMemory)


def test_the_words_of_a_structure_are_a_type():
    kind = word_type(PlatformMemory)
    assert kind.itemsize == 80
    body = records(PlatformMemory, 1)[0][200:]
    assert int(np.frombuffer(body, kind)["node"][0]) == int.from_bytes(body[32:34], "little")
