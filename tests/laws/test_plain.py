"""The short way from JSON to bytes says what the long way says, of every structure."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cper.memory import PlatformMemory
from cper.record import Record
from tests.strategies import JSON, LONG, declared, each_image, images, records

ODD = [
    *(None, True, False, -1, 0, 1 << 8, 1 << 16, 1 << 32, 1 << 63, 1 << 64, 1.0, 0.5, [], {}, [1], {"a": 1}, "", "x"),
    *("0x10", "0xzz", "fatal", "other", ["correctable"], "a5bc1114-6f64-4ede-b863-3e83ed7c83b1", "00" * 16, "zz"),
]


def long_way(cls, plain):
    try:
        return cls.of_plain(plain).encode()
    except ValueError as error:
        return type(error)


def without_residue(plain):
    """Less what only the long way reads."""
    plain.pop("residue", None)
    for inner in plain.values():
        if isinstance(inner, dict):
            without_residue(inner)


@pytest.mark.parametrize("cls", declared(), ids=lambda c: c.__name__)
def test_both_ways_agree(cls):
    def holds(raw):
        plain = json.loads(json.dumps(cls.plain_of(raw)))
        assert cls.raw_of_plain(plain) == raw
        without_residue(plain)
        short = cls._pack_plain(plain)
        assert short is not None
        assert short == long_way(cls, plain)
        r = random.Random(raw)
        for name in r.sample([*plain, "no_such_field"], min(3, len(plain))):
            for other in (plain | {name: r.choice(ODD)}, {k: v for k, v in plain.items() if k != name}):
                short = cls._pack_plain(other)
                assert short is None or short == long_way(cls, other)

    each_image(cls, holds)


if LONG:

    @pytest.mark.parametrize("cls", declared(), ids=lambda c: c.__name__)
    def test_both_ways_agree_on_any_json(cls):
        @given(images(cls), JSON, st.data())
        def holds(raw, odd, data):
            plain = json.loads(json.dumps(cls.plain_of(raw)))
            plain[data.draw(st.sampled_from([*plain, "no_such_field"]))] = odd
            short = cls._pack_plain(plain)
            assert short is None or short == long_way(cls, plain)

        holds()


@pytest.mark.parametrize("cls", declared(), ids=lambda c: c.__name__)
def test_what_is_remembered_is_not_what_is_given(cls):
    """Who changes the JSON of one structure does not change that of the next."""

    def holds(raw):
        first = cls.plain_of(raw)
        text = json.dumps(first)
        scribble(first)
        assert json.dumps(cls.plain_of(raw)) == text

    each_image(cls, holds)


def scribble(plain):
    """Spoil it, and all that it holds."""
    for inner in list(plain.values() if isinstance(plain, dict) else plain):
        if isinstance(inner, dict | list):
            scribble(inner)
    plain.clear()


@given(records())
def test_a_record_is_made_either_way(raw):
    plain = json.loads(json.dumps(Record.decode(raw).plain()))
    assert Record.raw_of_plain(plain) == raw


def test_a_wrong_record_is_refused_as_ever():
    plain = Record.of([PlatformMemory(node=1)]).plain()
    plain["header"]["record_length"] = 7
    with pytest.raises(ValueError, match="the header says"):
        Record.raw_of_plain(plain)
    plain["sections"][0]["descriptor"]["severity"] = "bad"
    with pytest.raises(ValueError, match="none of recoverable") as caught:
        Record.raw_of_plain(plain)
    assert caught.value.__notes__ == ["sections[0]"]
