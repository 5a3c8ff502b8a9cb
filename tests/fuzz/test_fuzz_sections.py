"""Every section type of the registry: any body is read or refused with one clear error; JSON gives its bytes again."""

from __future__ import annotations

import json
import time
from functools import cache
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acpi.ghes import StatusBlock
from cper.section import MODULES, body_of_plain, plain_body, read_section, section_class
from cper.wire import WireError
from tests.golden.linux import LINUX, blocks, raw
from tests.strategies import JSON, LONG, mutated

few = settings(max_examples=settings.default.max_examples // 2 if LONG else 8)


def seeds(guid):
    """Bodies of this type that kernels or libcper were given."""
    return [body for kind, body in _known() if kind == guid]


@cache
def _known():
    found = []
    for path in sorted((LINUX / "sections").glob("*.json")):
        blocks_ = (StatusBlock.decode(bytes.fromhex(v["block"])) for v in json.loads(path.read_text()).values())
        found += [(e.header.section_type, e.body) for block in blocks_ for e in block.entries]
    for name in blocks():
        if name.startswith("mem-"):
            found += [(e.header.section_type, e.body) for e in StatusBlock.decode(raw(name)).entries]
    libcper = json.loads((LINUX.parent / "libcper" / "arm_ras_nvidia.json").read_text()).values()
    return found + [(UUID(v["section_type"]), bytes.fromhex(v["body"])) for v in libcper]


def bodies(guid):
    """Bytes of any length about the type's own, and real bodies with something changed."""
    size = section_class(guid).SIZE
    known = seeds(guid)
    arbitrary = st.binary(max_size=size + 80) | st.binary(min_size=size, max_size=size + 80)
    return arbitrary | mutated(st.sampled_from(known)) if known else arbitrary


@pytest.mark.parametrize("guid", MODULES, ids=lambda g: MODULES[g].partition(":")[2])
def test_any_body_is_read_or_refused_and_never_lost(guid):
    @few
    @given(bodies(guid))
    def holds(body):
        try:
            section = read_section(guid, body)
        except WireError as error:
            assert error.structure
            assert error.path or error.offset == len(body)
            assert error.offset is not None
            assert 0 <= error.offset <= len(body)
            assert str(error).isprintable()
            assert plain_body(guid, body) == {"body": body.hex(), "error": str(error)}
        else:
            assert section.encode()[: len(body)] == body[: len(section.encode())]
            assert plain_body(guid, body)["section"] == section.plain()
        plain = json.loads(json.dumps(plain_body(guid, body)))
        assert body_of_plain(guid, plain) == body

    holds()


@pytest.mark.parametrize("guid", MODULES, ids=lambda g: MODULES[g].partition(":")[2])
def test_any_json_is_taken_or_refused(guid):
    cls = section_class(guid)
    plain = plain_body(guid, bytes(cls.SIZE)).get("section", {})

    @few
    @given(st.dictionaries(st.sampled_from([*plain, "no_such_field", "residue", "tail"]), JSON, max_size=3))
    def holds(changes):
        try:
            body = body_of_plain(guid, {"section": plain | changes})
        except ValueError as error:
            assert str(error)
        else:
            assert body_of_plain(guid, plain_body(guid, body)) == body

    holds()


@pytest.mark.parametrize("guid", MODULES, ids=lambda g: MODULES[g].partition(":")[2])
@pytest.mark.parametrize("fill", [0, 0xFF])
def test_work_is_bounded_by_what_was_given(guid, fill):
    """Counts as high as they go, over 64 KiB."""
    body = bytes([fill]) * (1 << 16)
    began = time.process_time()
    assert body_of_plain(guid, plain_body(guid, body)) == body
    assert time.process_time() - began < 5
