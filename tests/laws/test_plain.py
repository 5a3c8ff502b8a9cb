"""The short way from JSON to bytes says what the long way says, of every structure."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cper.memory import PlatformMemory
from cper.record import Record
from cper.wire import WireError
from tests.strategies import JSON, declared, images, records


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
    @settings(max_examples=max(8, settings.default.max_examples // 6))
    @given(images(cls), st.data())
    def holds(raw, data):
        try:
            plain = json.loads(json.dumps(cls.plain_of(raw)))
        except WireError:
            return
        assert cls.raw_of_plain(plain) == raw
        without_residue(plain)
        short = cls._pack_plain(plain)
        assert short is not None
        assert short == long_way(cls, plain)
        if not plain:
            return
        name = data.draw(st.sampled_from([*plain, "no_such_field"]))
        plain[name] = data.draw(JSON | st.sampled_from([True, False, -1, 1 << 8, 1 << 16, 1 << 32, 1 << 64, [], {}]))
        short = cls._pack_plain(plain)
        assert short is None or short == long_way(cls, plain)
        plain.pop(name)
        short = cls._pack_plain(plain)
        assert short is None or short == long_way(cls, plain)

    holds()


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
