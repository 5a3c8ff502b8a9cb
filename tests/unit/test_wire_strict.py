"""Constructors are strict, decoding is lenient; open enums pass unknown values on and remember none."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections import deque

import pytest
from hypothesis import settings
from pydantic import ValidationError

from cper.common import Severity, Timestamp
from cper.memory import MemoryErrorType, PlatformMemory
from cper.wire import EncodeError, OpenEnum, OpenFlags, Struct, explain
from tests.strategies import declared, enums, flags
from tests.unit.test_wire_layout import Colour, Everything, Inner, Marks

STRUCTS = declared()
every_struct = pytest.mark.parametrize("cls", STRUCTS, ids=lambda c: c.__name__)


def good(cls: type[Struct]) -> dict:
    """Arguments that the constructor takes: those of all-zero bytes, where rules between fields allow that."""
    out = {}
    for slot in cls.words.slots:
        if not cls.model_fields[slot.name].is_required():
            continue
        if isinstance(slot.kind, type) and issubclass(slot.kind, Struct):
            out[slot.name] = slot.kind(**good(slot.kind))
        else:
            zero = cls.plain_of(_zero(cls)).get(slot.name)
            out[slot.name] = 1 if cls is Timestamp else zero
    return out


def _zero(cls):
    from tests.strategies import in_place

    return in_place(cls, bytes(cls.SIZE))


def is_signed(cls, slot):
    """Whether the field is a signed word (the formats of ``struct`` in lower case)."""
    return not slot.mask and cls.words.words[slot.word][1].fmt in {"b", "h", "i", "q"}


def bad_values(slot, size, signed):
    """Values that a field of this kind must refuse."""
    width = slot.mask.bit_length() if slot.mask else 8 * size
    kind = slot.kind
    if slot.const is not None:
        return [slot.const * 2 if isinstance(slot.const, str) else slot.const ^ 1, None]
    if isinstance(kind, type) and issubclass(kind, Struct):
        return [5, "x", {"no_such": 1}]
    if kind is bool:
        return [2, 1.0, "yes", "0x1"]
    if isinstance(kind, type) and issubclass(kind, OpenEnum | OpenFlags):
        return [1 << width, -1, True, 1.0, "no_such_name", "0xzz"]
    if (slot.load is None and slot.plain is None) or slot.mask:
        below = -(1 << width) if signed else -1
        return [1 << width, below, True, 1.0, "5", "0xzz", b"\1", f"{1 << width:#x}"]
    return []


@every_struct
def test_every_field_refuses_what_it_cannot_hold_and_says_where(cls):
    arguments = good(cls)
    cls(**arguments)
    for slot in cls.words.slots:
        row = cls.at(slot.name)
        for value in bad_values(slot, row.size, is_signed(cls, slot)):
            with pytest.raises(ValidationError) as caught:
                cls(**(arguments | {slot.name: value}))
            first = explain(caught.value, cls)[0]
            assert first.startswith(f"{cls.__name__}.{slot.name}"), (slot.name, value, first)
            assert f" at {row.offset:#x}: " in first or slot.kind in STRUCTS, (slot.name, value, first)
            assert "\n" not in first


@every_struct
def test_pack_and_encode_refuse_what_does_not_fit_and_say_where(cls):
    arguments = good(cls)
    full = {name: value for name, value in cls(**arguments) if name != "residue"}
    for slot in cls.words.slots:
        if slot.const is not None or slot.dump or (isinstance(slot.kind, type) and issubclass(slot.kind, Struct)):
            continue
        row = cls.at(slot.name)
        width = slot.mask.bit_length() if slot.mask else 8 * row.size
        for value in (1 << width, -(1 << width) if is_signed(cls, slot) else -1):
            wrong = full | {slot.name: value}
            for write in (lambda w=wrong: cls.pack(**w), cls.model_construct(**wrong, residue=None).encode):
                with pytest.raises(EncodeError) as caught:
                    write()
                assert (caught.value.structure, caught.value.path) == (cls.__name__, slot.name)
                assert caught.value.offset == row.offset


def test_numbers_may_be_written_in_hexadecimal():
    value = Everything(a="0x1F", b="0xffff", colour="0x1", marks="0x5", low="0xF", day="0x3B")
    assert (value.a, value.b, value.colour, int(value.marks), value.low, value.day) == (31, 65535, 1, 5, 15, 59)
    assert PlatformMemory(physical_address="0xFFFFFFFFFFFFFFFF", bank_group="0x12").bank_group == 0x12
    assert Everything.of_plain({"a": "0x10"}).a == 16


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "abcde"), ("name", "\u20ac"), ("name", 5), ("raw", b"ab"), ("raw", b"abcd"), ("raw", "zz"),
        ("numbers", (1, 2)), ("numbers", (1, 2, 65536)), ("numbers", (1, 2, "x")), ("numbers", 5),
        ("id", "not-a-guid"), ("id", 5), ("inner", {"magic": 1}), ("inner", {"value": 1 << 16}), ("other", 3),
        ("day", 166), ("day", -1), ("day", True), ("day", 1.0), ("unknown", 1), ("residue", b"short"),
        ("tint", 4), ("high", 2), ("high", False), ("maybe", 256), ("flag", 1),
    ],
)  # fmt: skip
def test_other_cells_refuse_what_they_cannot_hold(field, value):
    with pytest.raises(ValidationError):
        Everything(**{"a": 1, field: value})


def test_residue_cannot_touch_what_a_field_owns():
    with pytest.raises(ValidationError, match="residue touches"):
        Everything(a=1, residue=b"\0\0\1" + bytes(77))
    with pytest.raises(ValidationError, match="residue has 3 bytes"):
        Everything(a=1, residue=b"abc")
    tail = bytes(79) + b"\x01"
    assert Everything(a=1, residue=tail).encode()[-1] == 1


def test_structures_cannot_be_changed():
    with pytest.raises(ValidationError):
        Inner().value = 3


def test_rules_between_fields_hold_for_constructors_and_not_for_decoding():
    with pytest.raises(ValidationError, match="bank excludes"):
        PlatformMemory(bank=1, bank_group=2)
    both = (1 << 6 | 1 << 19).to_bytes(8, "little") + bytes(72)
    found = PlatformMemory.decode(both)
    assert (found.bank, found.bank_group) == (0, 0)
    assert PlatformMemory.of_plain(found.plain()) == found
    with pytest.raises(ValidationError, match="day"):
        Timestamp(second=0, minute=0, hour=0, day=32, month=1, year=0, century=20)
    assert Timestamp.decode(bytes(8)).day == 0


def test_explain_is_one_line_for_each_field():
    with pytest.raises(ValidationError) as caught:
        PlatformMemory(node=1 << 16, card=-1, nothing=5)
    lines = explain(caught.value, PlatformMemory)
    assert [line.split(": ")[0] for line in lines] == [
        "PlatformMemory.node at 0x20", "PlatformMemory.card at 0x22", "PlatformMemory.nothing",
    ]  # fmt: skip
    with pytest.raises(ValidationError) as inner:
        Everything(a=1, inner={"value": -1})
    assert explain(inner.value, Everything)[0].startswith(
        f"Everything.inner.value at {Everything.at('inner.value').offset:#x}"
    )


def test_what_json_cannot_hold_is_an_encode_error():
    for value in ({"a": 1 << 70}, {"a": {1, 2}}, {1: 2}, {"a": "\ud800"}):
        with pytest.raises(EncodeError, match="no JSON"):
            Everything.of_plain(value)
    with pytest.raises(ValidationError):
        Everything.of_plain([1])


# -- open enums and flags -----------------------------------------------------------------


@pytest.mark.parametrize("cls", [Colour, *enums()], ids=lambda c: c.__name__)
def test_an_open_enum_passes_unknown_values_on(cls):
    unknown = next(n for n in range(1000) if n not in cls.__members__.values())
    found = cls(unknown)
    assert isinstance(found, cls)
    assert found == unknown
    assert not found.known
    assert found.plain == unknown
    assert found.name == f"UNKNOWN_{unknown:#x}"
    assert unknown not in list(cls)
    for member in cls:
        assert member.known
        assert cls(int(member)) is member
        assert member.plain == member.name.lower()
    for wrong in ("x", 1.5, None):
        with pytest.raises(ValueError, match="not a valid"):
            cls(wrong)


def test_unknown_values_are_equal_hash_alike_and_survive_json():
    a, b = Severity(77), Severity(77)
    assert a == b == 77
    assert hash(a) == hash(b)
    value = Everything(a=1, colour=77)
    assert json.loads(value.model_dump_json())["colour"] == 77
    assert Everything.decode(value.encode()).colour == 77
    assert Everything.decode(value.encode()) == value


def test_ever_new_unknown_values_take_no_memory():
    """Sixty thousand; the long profile takes the million."""
    last = 1000 + (1_000_000 if settings.default.max_examples > 1000 else 60_000)
    make, known = MemoryErrorType, len(MemoryErrorType._value2member_map_)
    for value in range(1000, 1100):
        make(value)
    gc.collect()
    before = sys.getallocatedblocks()
    deque(map(make, range(1000, last)), maxlen=0)
    gc.collect()
    assert sys.getallocatedblocks() - before < 200
    assert len(MemoryErrorType._value2member_map_) == known
    assert len(MemoryErrorType.__members__) == 16


def test_decoding_many_unknown_values_takes_no_memory():
    raw = bytearray(Everything(a=1).encode())
    at = Everything.at("marks").offset
    tracemalloc.start()
    try:
        for n in range(300):
            raw[at : at + 2] = n.to_bytes(2, "little")
            raw[at - 2] = n & 0xFF
            Everything.decode(raw)
            Everything.plain_of(raw)  # the names of the last 256 are remembered
        base = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for n in range(3000):
            raw[at : at + 2] = n.to_bytes(2, "little")
            raw[at - 2] = n & 0xFF
            Everything.decode(raw)
            Everything.plain_of(raw)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now - base < 40_000
    assert peak - base < 100_000


@pytest.mark.parametrize("cls", [Marks, *flags()], ids=lambda c: c.__name__)
def test_open_flags_name_what_they_know(cls):
    everything = sum(cls.names.values())
    assert cls(everything).plain == [name.lower() for name in cls.names]
    assert cls(0).plain == []
    assert str(cls(0)) == "0"
    for name, mask in cls.names.items():
        assert getattr(cls, name) == mask
        assert cls(mask).plain == [name.lower()]
    odd = cls(everything | 1 << 40)
    assert odd.plain[-1] == 1 << 40
    assert str(odd).endswith("0x10000000000")
    assert len(set(cls.names.values())) == len(cls.names)


def test_open_flags_are_read_from_names_numbers_and_lists():
    assert Everything(a=1, marks=["loud", "SOFT", "0x10"]).marks == 0x15
    assert Everything(a=1, marks=3).marks.plain == ["loud", 2]
    for wrong in (["no_such"], [-1], [True], [[1]], 1.5, {"loud": 1}, None, 1 << 16):
        with pytest.raises(ValidationError):
            Everything(a=1, marks=wrong)
