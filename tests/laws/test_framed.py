"""Sections with variable parts: JSON without objects says what JSON by way of objects says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cper.framed import FramedSection
from cper.section import MODULES, section_class
from cper.wire import WireError
from tests.fuzz.test_fuzz_sections import bodies, seeds
from tests.laws.test_plain import scribble
from tests.strategies import LONG

SECTIONS = [cls for cls in map(section_class, MODULES) if issubclass(cls, FramedSection)]
few = settings(max_examples=settings.default.max_examples if LONG else 15)
every_section = pytest.mark.parametrize("cls", SECTIONS, ids=lambda c: c.__name__)
COUNTS = st.lists(st.sampled_from([0, 0, 0, 0, 0, 1, 2, 3, 4, 8, 16, 32, 80, 255]), max_size=400).map(bytes)
"""Bytes that are small numbers: counts that the rest has room for, and counts that it has not."""


def said(read, body):
    """What reading gave, or everything that the error says."""
    try:
        return read(body)
    except WireError as error:
        return type(error), str(error), error.offset


@every_section
def test_both_ways_agree_on_any_body(cls):
    @few
    @given(bodies(cls.GUID) | COUNTS)
    def holds(body):
        found = said(cls.plain_of_body, body)
        assert found == said(lambda raw: cls.of_body(raw).plain(), body)
        short = cls._plain(body)
        assert short == (None if isinstance(found, tuple) else found)
        if short is not None:
            scribble(short)
            assert cls._plain(body) == found

    holds()


@every_section
def test_construct_reads_the_same(cls):
    @few
    @given(bodies(cls.GUID) | COUNTS)
    def holds(body):
        found = said(cls.of_body, body)
        parts = said(cls.FRAME.parse, body)
        if isinstance(found, tuple):
            assert parts == found
        else:
            assert {name: value for name, value in parts.items() if name != "_io"} == {
                name: getattr(found, name) for name, _ in cls.PARTS
            }

    holds()


@every_section
def test_both_ways_back_agree(cls):
    """From JSON to bytes: as it was, and with something in it that is wrong or odd."""

    @few
    @given(bodies(cls.GUID) | COUNTS, st.data())
    def holds(body, data):
        plain = cls._plain(body)
        if plain is None:
            return
        plain = json.loads(json.dumps(plain))
        assert cls.raw_of_plain(plain) == body
        assert written(cls, plain) == body
        inner = data.draw(st.sampled_from(places(plain)))
        name = data.draw(st.sampled_from([*inner, "no_such_field"]))
        odd = [None, True, False, 0, 1, -1, 1 << 8, 1 << 16, 1 << 64, 1.0, "", "0", "00", "ff", [], [{}], {}]
        inner[name] = data.draw(st.sampled_from(odd))
        assert same(lambda: cls.raw_of_plain(plain)) == same(lambda: written(cls, plain))

    holds()


def written(cls, plain):
    return cls.of_plain(plain).encode()


def same(call):
    """What a call gave, or its error."""
    try:
        return call()
    except ValueError as error:
        return type(error), str(error)


def places(plain):
    """Every object in JSON."""
    found = [plain] if isinstance(plain, dict) else []
    for inner in plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ():
        found += places(inner)
    return found


@every_section
def test_the_source_can_be_read(cls):
    assert cls.source().startswith("def plain_of(body):")
    assert all(name in cls.source() for name, _ in cls.PARTS)


def test_there_are_bodies_that_the_short_way_reads():
    for cls in SECTIONS:
        known = [bytes(cls.SIZE) + bytes(64), *seeds(cls.GUID)]
        read = [(body, plain) for body in known if (plain := cls._plain(body)) is not None]
        assert any(cls._pack_plain(plain) == body for body, plain in read), cls
    assert len(SECTIONS) > 10
