"""The JSON Schemas are frozen: a change of what JSON holds is a visible difference in ``fixtures/schema``."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acpi import document
from acpi.stream import items
from cper.section import MODULES, plain_body, section_class
from tests.fuzz.test_fuzz_sections import seeds
from tests.laws.schema import problems
from tests.schemas import FOLDER, schemas, text
from tests.strategies import mutated, records, status_blocks

FROZEN = {path.name: path.read_text() for path in FOLDER.glob("*.json")}


def test_what_is_frozen_is_what_the_declarations_say():
    found = {name: text(schema) for name, schema in schemas().items()}
    assert FROZEN.keys() == found.keys(), "python -m tests.schemas writes them anew"
    assert [name for name in found if FROZEN[name] != found[name]] == [], "python -m tests.schemas writes them anew"


@pytest.mark.parametrize("guid", MODULES, ids=lambda g: MODULES[g].partition(":")[2])
def test_json_of_a_section_follows_its_schema(guid):
    cls = section_class(guid)
    schema = json.loads(FROZEN[f"{cls.__name__}.json"])
    known = seeds(guid)

    @settings(max_examples=settings.default.max_examples // 3)
    @given(
        st.binary(min_size=cls.SIZE, max_size=cls.SIZE + 100)
        | (mutated(st.sampled_from(known)) if known else st.nothing())
    )
    def holds(body):
        plain = plain_body(guid, body)
        if "section" in plain:
            assert problems(plain["section"], schema, schema) == []

    holds()


@given(st.one_of(records(), mutated(records()), status_blocks(), mutated(status_blocks()), st.binary(max_size=60)))
def test_documents_follow_their_schema(data):
    schema = json.loads(FROZEN["document.json"])
    for item in items([data]):
        found = json.loads(json.dumps(document.of_item(item)))
        assert problems(found, schema, schema) == []
    body = document.of_section(section_class(next(iter(MODULES))), data)
    assert problems(body, schema, schema) == []
    assert problems(body | {"other": 1}, schema, schema)
