"""What a wrong declaration is told when it is made, and what a right one knows of itself."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

import pytest

from cper.wire import (
    U8,
    U16,
    U32,
    U64,
    Bcd,
    Bits,
    Cell,
    DecodeError,
    Guid,
    LayoutError,
    OpenEnum,
    OpenFlags,
    Reserved,
    Struct,
    TruncatedError,
    Valid,
    ValidationBits,
    WireError,
    Word,
    array,
    blob,
    guid,
    text,
    u8,
    u16,
    u32,
)
from cper.wire._construct import Wire, twin


class Colour(OpenEnum):
    """A test enum."""

    RED = 0
    GREEN = 1


class Marks(OpenFlags):
    """Test flags."""

    LOUD = 1
    SOFT = 4


class Inner(Struct, size=4):
    """A nested structure with a constant."""

    magic: Annotated[Literal[0xBEEF], u16] = 0xBEEF
    value: U16 = 0


class Everything(Struct, size=80):
    """One of each cell."""

    validation: ClassVar[Word] = ValidationBits("H")
    a: U8
    b: Annotated[U16 | None, Valid(0)] = None
    c: Annotated[U32 | None, Valid(3)] = None
    d: U64 = 7
    colour: Annotated[Colour, u8] = Colour.RED
    maybe: Annotated[Colour | None, u8, Valid(4)] = None
    marks: Annotated[Marks, u16] = Marks(0)
    id: Guid = UUID(int=0)
    name: Annotated[str, text(4)] = ""
    raw: Annotated[bytes, blob(3)] = b"\0\0\0"
    numbers: Annotated[tuple[int, ...], array("H", 3)] = (0, 0, 0)
    inner: Inner = Inner()
    other: Annotated[Inner | None, Valid(15)] = None
    day: Bcd = 1
    word: ClassVar[Word] = Word("I")
    low: Annotated[int, Bits("word", 0, 4)] = 0
    flag: Annotated[bool, Bits("word", 4, 5)] = False
    tint: Annotated[Colour, Bits("word", 8, 10)] = Colour.RED
    high: Annotated[int | None, Bits("word", 31, 32), Valid(1)] = None
    ident: Annotated[UUID | None, guid, Valid(2)] = None
    tail: ClassVar[Word] = Reserved(1)


def declare(size, **fields):
    """A structure of these annotations; a cell without annotation is a ClassVar."""
    space = {"__module__": __name__, "__doc__": "Wrong.", "__annotations__": {}, "model_config": {}}
    for name, hint in fields.items():
        if isinstance(hint, Cell):
            space["__annotations__"][name] = ClassVar[Word]
            space[name] = hint
        else:
            space["__annotations__"][name] = hint
            space[name] = None
    return type(Struct)("Wrong", (Struct,), space, size=size)


N = Annotated[U8 | None, Valid(0)]
WRONG = [
    ({"a": U8, "b": U16}, 4, "add up to 3 bytes, not 4", "", 3),
    ({"a": U8, "b": U16}, 2, "add up to 3 bytes, not 2", "", 3),
    ({}, 1, "add up to 0 bytes", "", 0),
    ({"v": ValidationBits("B"), "a": N, "b": N}, 3, "two fields claim one validation bit", "", 3),
    ({"a": N}, 1, "needs exactly one ValidationBits", "", 1),
    ({"v": ValidationBits("B"), "w": ValidationBits("B"), "a": N}, 3, "needs exactly one ValidationBits", "", 3),
    ({"v": ValidationBits("B"), "a": Annotated[U8 | None, Valid(8)]}, 2, "lies outside its word", "", 2),
    ({"a": Annotated[int, Bits("w", 0, 4)], "w": Word("I")}, 4, "'w', which is not declared above", "a", 0),
    ({"a": Annotated[int, Bits("w", 0, 4)]}, 0, "'w', which is not declared above", "a", 0),
    ({"w": Word("B"), "a": Annotated[int, Bits("w", 0, 9)]}, 1, "bits 0 to 9 are not in 'w'", "a", 1),
    ({"w": Word("B"), "a": Annotated[int, Bits("w", 4, 4)]}, 1, "bits 4 to 4 are not in 'w'", "a", 1),
    ({"w": Word("B"), "a": Annotated[int, Bits("w", -1, 4)]}, 1, "bits -1 to 4 are not in 'w'", "a", 1),
    ({"w": Reserved(4), "a": Annotated[int, Bits("w", 0, 4)]}, 4, "bits 0 to 4 are not in 'w'", "a", 4),
    (
        {"w": Word("B"), "a": Annotated[int, Bits("w", 0, 5)], "b": Annotated[int, Bits("w", 4, 8)]},
        1, "overlaps another slice of 'w'", "b", 0,
    ),
    ({"a": int}, 0, "has no wire cell", "a", 0),
    ({"v": ValidationBits("B"), "c": Annotated[int, Bits("v", 0, 2)], "a": N}, 2, "holds a field's validation", "", 2),
    (
        {"v": ValidationBits("B"), "c": Annotated[int | None, Bits("v", 2, 4), Valid(0)]},
        1, "a slice of the validation word is always valid", "", 1,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "size", "reason", "path", "offset"), WRONG)
def test_a_wrong_declaration_is_refused(fields, size, reason, path, offset):
    with pytest.raises(LayoutError) as caught:
        declare(size, **fields)
    assert reason in caught.value.reason
    assert (caught.value.structure, caught.value.path, caught.value.offset) == ("Wrong", path, offset)
    assert str(caught.value).startswith("Wrong")


def test_a_right_declaration_is_taken():
    assert declare(2, v=ValidationBits("B"), a=N).SIZE == 2
    assert declare(1, w=Word("B"), a=Annotated[int, Bits("w", 0, 4)], b=Annotated[int, Bits("w", 4, 8)]).SIZE == 1


def test_a_structure_knows_where_everything_lies():
    at = {row.path: (row.offset, row.size, row.valid, row.bits) for row in Everything.layout}
    assert at["validation"] == (0, 2, None, None)
    assert at["b"] == (3, 2, 0, None)
    assert at["inner.value"] == (52, 2, None, None)
    assert at["flag"][3] == (4, 4)
    assert at["high"] == (at["word"][0], 4, 1, (31, 31))
    assert [row.path for row in Everything.layout if row.reserved] == ["word", "tail"]
    assert Everything.at("c").offset == 5
    with pytest.raises(LayoutError, match=r"Everything\.nothing"):
        Everything.at("nothing")
    assert "| 0x03 | 2 | `b` | 0 |" in Everything.layout_table()


def test_a_subclass_goes_on_where_its_base_ends():
    class Longer(Inner, size=6):
        """Four bytes and two."""

        more: U16 = 9

    assert [r.path for r in Longer.layout] == ["magic", "value", "more"]
    assert Longer(value=1).encode() == bytes.fromhex("efbe01000900")
    assert Inner.SIZE == 4


def test_everything_encodes_as_written_by_hand():
    value = Everything(
        a=1, b=0x0203, d=0x0405, colour="green", maybe=200, marks=["soft", 0x80],
        id="a5bc1114-6f64-4ede-b863-3e83ed7c83b1", name="abc", raw=b"xyz", numbers=(1, 2, 0xFFFF), inner=Inner(value=5),
        day=59, low=15, flag=True, tint=3, high=1,
    )  # fmt: skip
    hand = bytes.fromhex(
        "1300 01 0302 00000000 0504000000000000 01 c8 8400 1411bca5646fde4eb8633e83ed7c83b1"
        "61626300 78797a 01000200ffff efbe0500 00000000 59 1f030080" + "00" * 17
    )
    assert value.encode() == hand
    assert Everything.decode(hand) == value
    assert Everything.decode(hand).plain() == {
        "a": 1, "b": 0x0203, "d": 0x0405, "colour": "green", "maybe": 200, "marks": ["soft", 0x80],
        "id": "a5bc1114-6f64-4ede-b863-3e83ed7c83b1", "name": "abc", "raw": "78797a", "numbers": [1, 2, 0xFFFF],
        "inner": {"magic": 0xBEEF, "value": 5}, "day": 59, "low": 15, "flag": True, "tint": 3, "high": 1,
    }  # fmt: skip


def test_bits_that_nobody_claims_are_residue():
    hand = bytearray(Everything(a=1).encode())
    spoiled = {0: 0x40, 3: 0xAA, Everything.at("word").offset: 0x20, Everything.at("day").offset: 0x1E, 79: 0x5A}
    for at, value in spoiled.items():
        changed = bytearray(hand)
        changed[at] ^= value
        found = Everything.decode(changed)
        assert found.residue is not None, at
        assert found.encode() == changed
        assert Everything.of_plain(found.plain()) == found
        assert Everything.decode(hand).residue is None
    assert Everything.decode(hand).encode() == hand


def test_a_constant_that_is_wrong_in_a_nested_structure_is_named_with_its_place():
    raw = bytearray(Everything(a=1).encode())
    at = Everything.at("inner.magic").offset
    raw[at] = 0
    with pytest.raises(DecodeError) as caught:
        Everything.decode(b"\0" * 5 + raw, 5)
    assert (caught.value.structure, caught.value.path, caught.value.offset) == ("Everything", "inner.magic", at + 5)
    assert str(caught.value) == f"Everything.inner.magic at {at + 5:#x}: expected 48879, found 48640"


def test_a_structure_inside_a_construct_declaration():
    import construct as c

    frame = c.Struct("count" / c.Int8ul, "items" / c.Array(c.this.count, Wire(Inner)))
    data = b"\x02" + Inner(value=1).encode() + Inner(value=2).encode()
    assert [i.value for i in frame.parse(data)["items"]] == [1, 2]
    assert frame.build({"count": 1, "items": [Inner(value=3)]}) == b"\x01" + Inner(value=3).encode()
    assert Wire(Inner).sizeof() == 4
    with pytest.raises(TruncatedError) as caught:
        frame.parse(data[:-1])
    assert (caught.value.path, caught.value.offset) == ("value", 7)
    with pytest.raises(DecodeError) as wrong:
        frame.parse(data[:5] + b"\0" + data[6:])
    assert (wrong.value.path, wrong.value.offset) == ("magic", 5)
    assert twin(Inner).parse(data[1:5]).value == 1


def test_errors_are_value_errors_in_one_line():
    error = DecodeError("is wrong", structure="A", path="[0].b", offset=3)
    assert isinstance(error, WireError)
    assert isinstance(error, ValueError)
    assert str(error) == "A.[0].b at 0x3: is wrong"
    outer = error.within("B", "list", 16)
    assert (type(outer), str(outer)) == (DecodeError, "B.list[0].b at 0x13: is wrong")
    assert str(WireError("x", structure="A")) == "A: x"
    assert u32.size == 4
