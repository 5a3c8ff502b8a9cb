"""What libcper read of random records (``fixtures/libcper``), and what we read of them in the same shape."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cper.libcper.record import TYPES, of_record, to_record
from cper.record import Record
from tests.command_line import cli
from tests.oracle.compare import Tally, leaves, mine
from tests.oracle.defects import DEFECTS, MISSING, Defect
from tests.strategies import JSON

VECTORS = Path(__file__).parents[2] / "fixtures" / "libcper" / "vectors.jsonl"


@cache
def vectors() -> list[tuple[bytes, Any]]:
    """(record, libcper's reading)."""
    rows = [json.loads(line) for line in VECTORS.read_text().splitlines()]
    return [(bytes.fromhex(row["record"]), row["libcper"]) for row in rows]


def of_type(guid) -> list[tuple[bytes, Any]]:
    return [(data, theirs) for data, theirs in vectors() if data[144:160] == guid.bytes_le]


@pytest.mark.parametrize("guid", TYPES, ids=lambda g: TYPES[g].name)
def test_both_readings_agree_but_for_known_defects(guid):
    tally = Tally()
    for data, theirs in of_type(guid):
        tally.compare(guid, data, theirs, mine(data))
    assert tally.unexplained == {}
    assert sum(tally.members.values()) > 200
    assert sum(tally.records.values()) == 12


def test_a_wrong_value_is_found():
    """The comparison can fail: every number of a reading, made another, is unexplained."""
    found = 0
    for data, theirs in vectors()[::25]:
        guid = next(g for g in TYPES if g.bytes_le == data[144:160])
        good = mine(data)
        for path, value in leaves(good):
            if type(value) is not int or path.endswith(("classCode", "message_number", "o0")):
                continue
            wrong = json.loads(json.dumps(good))
            *steps, last = path.replace("[", ".[").split(".")
            inner = wrong
            for step in steps:
                inner = inner[int(step[1:-1])] if step.startswith("[") else inner[step]
            inner[last] = value ^ 1
            tally = Tally()
            tally.compare(guid, data, theirs, wrong)
            given_up = "Unknown" in theirs["sections"][0]
            assert tally.unexplained or tally.clamped or given_up, path
            found += 1
    assert found > 200


def test_a_defect_explains_only_what_it_says():
    defect = Defect("Memory", r"bank\.(address|group)", True, "", "")
    assert defect.explains("Memory", "bank.address", 3, MISSING)
    assert not defect.explains("Memory", "bank.address", MISSING, 3)
    assert not defect.explains("Memory", "bank.address", 3, 4)
    assert not defect.explains("Memory2", "bank.address", 3, MISSING)
    assert not defect.explains("Memory", "bank.value", 3, MISSING)
    assert len({(d.section, d.path, d.theirs) for d in DEFECTS}) == len(DEFECTS)
    assert all(d.clause and d.why for d in DEFECTS)


def test_the_shape_says_the_same_after_writing_and_reading():
    for data, _ in vectors():
        plain = json.loads(json.dumps(of_record(Record.decode(data))))
        again = to_record(plain)
        second = json.loads(json.dumps(of_record(Record.decode(again.encode()))))
        lengths = {"recordLength", "sectionLength", "sectionOffset", "length"}
        assert [leaf for leaf in leaves(second) if leaf[0].rpartition(".")[2] not in lengths] == [
            leaf for leaf in leaves(plain) if leaf[0].rpartition(".")[2] not in lengths
        ]


def test_libcpers_own_json_is_encoded():
    """What libcper wrote becomes a record that says the same, where the module cut no number off."""
    seen = 0
    for data, theirs in vectors():
        try:
            made = to_record(theirs)
        except ValueError as error:
            assert "Unknown" not in theirs["sections"][0], error
            continue
        record, found = Record.decode(data), Record.decode(made.encode())
        assert found.header.record_id == min(record.header.record_id, (1 << 63) - 1)
        assert found.sections[0].descriptor.fru_text == record.sections[0].descriptor.fru_text
        seen += 1
    assert seen > 150


def _changed(plain: Any, path: str, value: Any) -> Any:
    out = json.loads(json.dumps(plain))
    *steps, last = path.replace("[", ".[").split(".")
    inner = out
    for step in steps:
        inner = inner[int(step[1:-1])] if step.startswith("[") else inner[step]
    inner[last] = value
    return out


def plains():
    """libcper's JSON of some records."""
    return st.sampled_from([json.loads(json.dumps(of_record(Record.decode(data)))) for data, _ in vectors()[::4]])


@given(st.deferred(plains), st.data(), JSON)
def test_any_json_of_this_shape_is_encoded_or_refused(plain, data, value):
    path, _ = data.draw(st.sampled_from(list(leaves(plain))))
    try:
        to_record(_changed(plain, path, value)).encode()
    except ValueError as error:
        assert str(error)


def test_the_command_line_writes_and_reads_it(tmp_path):
    data, _ = vectors()[40]
    (tmp_path / "r").write_bytes(data)
    shown = cli("cper", "show", tmp_path / "r", "--format", "libcper").stdout
    assert json.loads(shown) == json.loads(json.dumps(of_record(Record.decode(data))))
    cli("cper", "encode", "-", "-o", tmp_path / "again", "--format", "libcper", stdin=shown)
    assert cli("cper", "show", tmp_path / "again", "--format", "libcper").stdout == shown
    rows = cli("cper", "decode", tmp_path / "r", "--jsonl", "--format", "libcper").stdout
    assert json.loads(rows) == {"file": str(tmp_path / "r"), "offset": 0} | json.loads(shown)
    block = tmp_path / "block"
    cli("cper", "convert", tmp_path / "r", "-o", block)
    done = cli("cper", "show", block, "--format", "libcper")
    assert json.loads(done.stdout)["sections"] == json.loads(shown)["sections"]
    error = cli("cper", "encode", "-", "-o", tmp_path / "no", "--format", "libcper", stdin=b"{}", code=1).stderr
    assert error == b"vmm-ras: 'header': an object expected\n"
    cut = cli("cper", "show", "-", "--format", "libcper", stdin=data[:-4], code=1)
    assert cut.stdout == b""
    assert cut.stderr.count(b"\n") == 1
