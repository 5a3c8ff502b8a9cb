"""rasdaemon's database: a real one, and files that only look like one."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from vmm_ras.errors import InputError
from vmm_ras.events import Code, HostSignal
from vmm_ras.traces import BadLine, open_trace, rasdaemon

FIXTURES = Path(__file__).parents[2] / "fixtures" / "traces"
SCHEMA = (
    "CREATE TABLE memory_failure_event "
    "(id INTEGER PRIMARY KEY, timestamp TEXT, pfn TEXT, page_type TEXT, action_result TEXT)"
)
STAMP = "2026-11-21 03:15:46 +0000"
EPOCH = 1795230946.0


@pytest.fixture
def make(tmp_path):
    """A database by statements; ``rows`` go into memory_failure_event."""

    def build(*statements: str, rows=()) -> Path:
        path = tmp_path / "ras-mc_event.db"
        with closing(sqlite3.connect(path)) as db, db:
            for statement in statements or (SCHEMA,):
                db.execute(statement)
            if rows:
                db.executemany("INSERT INTO memory_failure_event (timestamp, pfn) VALUES (?, ?)", rows)
        return path

    return build


def read(path: Path, **options):
    with open_trace(path, **options) as trace:
        return list(trace), trace


def test_what_rasdaemon_0_8_3_wrote():
    entries, trace = read(FIXTURES / "rasdaemon-0.8.3.db", strict=True)
    assert (trace.format, trace.addresses, trace.bad, trace.info) == ("rasdaemon", "hpa", 0, 1)
    assert [number for number, _, _ in entries] == [1, 2, 3, 4, 5, 6]
    assert entries[0] == (1, EPOCH, HostSignal(Code.AO, 0x102C05000, 12, 0, EPOCH))
    assert entries[5] == (6, EPOCH + 58, HostSignal(Code.AO, 0x104E61000, 12, 0, EPOCH + 58))
    assert trace.notes[1:] == ["mce_record: the hardware's report, which tells nobody; not used (1)"]


def test_a_rasdaemon_that_does_not_record_lost_pages():
    entries, trace = read(FIXTURES / "rasdaemon-0.6.8.db", strict=True)
    assert entries == []
    assert trace.notes[1:] == ["no table memory_failure_event: this rasdaemon does not record lost pages (1)"]


def test_the_page_shift_is_the_callers():
    entries, _ = read(FIXTURES / "rasdaemon-0.8.3.db", page_shift=16)
    assert entries[0][2] == HostSignal(Code.AO, 0x102C05 << 16, 16, 0, EPOCH)


@pytest.mark.parametrize(
    ("stamp", "at"),
    [
        (STAMP, EPOCH), ("2026-11-21 04:45:46 +0130", EPOCH), ("2026-11-21 03:15:46", None), ("", None), (None, None),
        (b"\xff\xfe", None), (12, None), ("2026-11-31 03:15:46 +0000", None), ("2026-11-21 03:15:46 +9999", None),
    ],
)  # fmt: skip
def test_times(make, stamp, at):
    entries, trace = read(make(rows=[(stamp, "0x1")]))
    assert entries == [(1, at, HostSignal(Code.AO, 0x1000, 12, 0, at))]
    assert ("rows whose timestamp makes no sense (1)" in trace.notes) == (at is None)


@pytest.mark.parametrize(
    "pfn", [None, "", "x", "0x", "1", 17, 1.5, b"\0\xff", "0xfffffffffffff0", "0x1 ", "0x" + "1" * 17]
)
def test_a_bad_row_is_told_with_its_place(make, pfn):
    path = make(rows=[(STAMP, "0x1"), (STAMP, pfn), (STAMP, "0x2")])
    entries, trace = read(path)
    assert [(number, type(item)) for number, _, item in entries] == [(1, HostSignal), (2, BadLine), (3, HostSignal)]
    assert trace.bad == 1
    with pytest.raises(InputError) as error:
        read(path, strict=True)
    assert str(error.value).startswith(f"{path}:2: pfn ")
    assert str(error.value).isprintable()


VIEW = "CREATE VIEW memory_failure_event AS SELECT 1 AS id, '' AS timestamp, '0x1' AS pfn"


@pytest.mark.parametrize(
    ("statements", "what"),
    [
        (["CREATE TABLE other (x)"], "a database without a table of rasdaemon's, expected memory_failure_event"),
        ([VIEW], "a database without a table of rasdaemon's"),
        (["CREATE TABLE memory_failure_event (id INTEGER PRIMARY KEY, pfn TEXT)"], "without a stored column timestamp"),
        (["CREATE TABLE memory_failure_event (timestamp TEXT)"], "without a stored column pfn"),
        (
            ["CREATE TABLE memory_failure_event (timestamp TEXT, pfn TEXT AS (timestamp || '1'))"],
            "without a stored column pfn",
        ),
        (
            ["CREATE TABLE memory_failure_event (id INTEGER PRIMARY KEY, timestamp TEXT, pfn TEXT) WITHOUT ROWID"],
            "no such column: rowid",
        ),
        (["CREATE VIRTUAL TABLE memory_failure_event USING fts5(timestamp, pfn)"], "without a table of rasdaemon's"),
    ],
)
def test_another_schema_is_one_clear_line(make, statements, what):
    path = make(*statements)
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert what in str(error.value)
    assert "expected" in str(error.value)
    assert str(error.value).isprintable()


def test_a_value_without_end(make):
    path = make(rows=[(STAMP, "0x1"), (STAMP, "0" * (rasdaemon.VALUE_MAX + 1))])
    with open_trace(path) as trace:
        assert next(trace)[0] == 1
        with pytest.raises(InputError, match=r"damaged after row 1 \(string or blob too big"):
            next(trace)


def test_work_without_end_is_stopped(make, monkeypatch):
    # Counting a table looks at each of its pages.
    path = make(SCHEMA, "CREATE TABLE mc_event (id INTEGER PRIMARY KEY, err_msg TEXT)")
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO mc_event (err_msg) VALUES (?)", (("x" * 100,) for _ in range(1000)))
    assert read(path)[1].info == 1000
    monkeypatch.setattr(rasdaemon, "STEP", 1)
    monkeypatch.setattr(rasdaemon, "STEPS_MAX", 3)
    with pytest.raises(InputError, match=r"work without end"):
        read(path)


def test_a_damaged_page_gives_what_is_before_it(make):
    path = make(rows=[(STAMP, hex(n)) for n in range(1, 5001)])
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 & -4096
    data[middle : middle + 4096] = bytes(4096)
    path.write_bytes(data)
    with open_trace(path) as trace:
        with pytest.raises(InputError, match=r"is damaged after row \d+ .*expected rasdaemon's") as error:
            list(trace)
        with pytest.raises(StopIteration):
            next(trace)
    rows = int(str(error.value).split("after row ")[1].split()[0])
    assert 1000 < rows < 4000
    with open_trace(path) as trace:
        assert [next(trace)[2].hva >> 12 for _ in range(rows)] == list(range(1, rows + 1))


def test_a_file_that_is_cut_short(make):
    path = make(rows=[(STAMP, hex(n)) for n in range(1, 5001)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"is damaged after row 0 .*expected rasdaemon's"):
        read(path)


@pytest.mark.parametrize("size", [16, 50, 100, 4095])
def test_only_a_head(tmp_path, size):
    path = tmp_path / "head.db"
    path.write_bytes((FIXTURES / "rasdaemon-0.8.3.db").read_bytes()[:size])
    with pytest.raises(InputError, match="expected rasdaemon's"):
        open_trace(path)


def test_the_file_is_not_changed_and_may_be_read_only(make):
    path = make(rows=[(STAMP, "0x1")])
    before = path.read_bytes()
    os.chmod(path, 0o400)
    assert len(read(path)[0]) == 1
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_what_is_not_read_is_said(make, suffix):
    path = make(rows=[(STAMP, "0x1")])
    Path(f"{path}{suffix}").write_bytes(b"x")
    entries, trace = read(path)
    assert len(entries) == 1
    assert any(suffix in note and "not read" in note for note in trace.notes)


def test_a_name_with_signs_of_a_uri(make):
    path = make(rows=[(STAMP, "0x1")])
    odd = path.rename(path.parent / "a?mode=rw&b#c%41.db")
    assert len(read(odd)[0]) == 1


def test_rows_come_in_order_without_sorting(make):
    path = make(rows=[(STAMP, hex(n)) for n in range(1, 20_000)])
    with open_trace(path) as trace:
        assert [next(trace)[2].hva >> 12 for _ in range(3)] == [1, 2, 3]
        assert sum(1 for _ in trace) == 19_996
