"""`vmm-ras cper` beyond one good block: damaged and many records, text forms, diff, convert, own sections, types."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from acpi.ghes import Entry, StatusBlock
from acpi.stream import items
from cper.common import Timestamp
from cper.guids import BODIES, CREATORS
from cper.memory import PlatformMemory
from cper.record import NOTIFICATION_TYPES, Record, SectionDescriptor
from cper.section import MODULES, _classes, _met, section_class, section_named
from cper.wire import EncodeError
from tests.command_line import cli, tree_paths
from vmm_ras.cli.common import console
from vmm_ras.cli.show import reading_fields, render

ROOT = Path(__file__).parents[2]
OWN = ROOT / "docs" / "examples" / "own_sections.py"
MEMORY = PlatformMemory(physical_address=0x1234_5000, node=3, error_type=3)
RECORD = Record.of([MEMORY, PlatformMemory(card=1)], record_id=9).encode()
BLOCK = StatusBlock.of([Entry.of(MEMORY, fru_text="DIMM A1")]).encode()
FANS = UUID("5f0e9a51-3a0b-4a6e-9d5e-0c6f3a1d7b10")
RAIL = UUID("5f0e9a51-3a0b-4a6e-9d5e-0c6f3a1d7b11")


@pytest.fixture(autouse=True)
def own_sections_are_forgotten():
    known, modules, met = dict(_classes), dict(MODULES), dict(_met)
    yield
    for table, before in ((_classes, known), (MODULES, modules), (_met, met)):
        table.clear()
        table.update(before)


# -- damaged --------------------------------------------------------------------------------

DAMAGED = {
    "cut": (RECORD[:-30], "Record.header.record_length at 0x14: 432 bytes needed, 402 given; 1 more"),
    "in-descriptor": (RECORD[:210], "Record.header.record_length at 0x14"),
    "in-header": (RECORD[:40], "Record.header.platform_id at 0x20: 128 bytes needed, 40 given"),
    "signature": (RECORD[:6] + bytes(4) + RECORD[10:], "Record.header.signature_end at 0x6"),
    "block": (BLOCK[:-30], "StatusBlock.header.data_length at 0xc"),
    "body": (
        Record.of_bodies([(bytes(20), Record.of([MEMORY]).sections[0].descriptor)]).encode(),
        "PlatformMemory.sections[0].section at 0xdc: 73 bytes needed, 20 given",
    ),
    "junk": (RECORD + b"junk", "Stream at 0x0: neither a record nor a status block begins here (of the item at 0x1b0)"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_left_is_shown_and_one_line_says_what_is_not(name, tmp_path):
    data, why = DAMAGED[name]
    path, again = tmp_path / "damaged", tmp_path / "again"
    path.write_bytes(data)
    done = cli("cper", "show", path, code=1)
    assert done.stderr.decode().count("\n") == 1
    assert done.stderr.decode().startswith(f"vmm-ras: {why}")
    assert len(tree_paths(done.stdout.decode())) > 3

    text = cli("cper", "show", path, "--json", code=1)
    assert text.stderr == done.stderr
    cli("cper", "encode", "-", "-o", again, stdin=text.stdout)
    assert again.read_bytes() == data


def test_guids_have_their_names(tmp_path):
    header = {"creator_id": CREATORS["linux_pstore"], "notification_type": NOTIFICATION_TYPES["boot"]}
    descriptor = SectionDescriptor.blank(BODIES["pstore_dmesg"])
    (tmp_path / "dmesg").write_bytes(Record.of_bodies([(b"<6>hello", descriptor)], **header).encode())
    shown = cli("cper", "show", tmp_path / "dmesg").stdout.decode()
    for name in ("linux_pstore", "boot", "pstore_dmesg"):
        assert f"{name} (" in shown
    assert "  pstore_dmesg" in cli("cper", "decode", tmp_path / "dmesg").stdout.decode()


def test_a_cut_body_is_shown_as_far_as_it_goes(tmp_path):
    (tmp_path / "cut").write_bytes(RECORD[:-30])
    paths = tree_paths(cli("cper", "show", tmp_path / "cut", "--all", code=1).stdout.decode())
    assert "sections[0].section.module_handle" in paths
    assert "sections[1].section.bit_position" in paths
    assert "sections[1].section.module_handle" not in paths


# -- forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [bytes.hex, lambda b: b.hex(" ", 4), lambda b: base64.encodebytes(b).decode()])
def test_text_is_read_as_the_bytes_are(form):
    raw = cli("cper", "show", "-", "--json", stdin=RECORD).stdout
    assert cli("cper", "show", "-", "--json", stdin=form(RECORD).encode()).stdout == raw
    assert cli("cper", "show", "-", "--type", "memory", stdin=form(MEMORY.encode()).encode()).stdout


def test_the_dump_that_is_shown_is_read_again():
    full = PlatformMemory.decode(bytes(range(1, 81)))
    block = StatusBlock.of([Entry.of(full, fru_text="x" * 20, fru_id=FANS)]).encode()
    shown = cli("cper", "show", "-", stdin=block).stdout.decode()
    dump = shown[shown.index("\n000000  ") :]
    assert json.loads(cli("cper", "show", "-", "--json", stdin=dump.encode()).stdout) == json.loads(
        cli("cper", "show", "-", "--json", stdin=block).stdout
    )


def test_the_dump_of_a_record_with_zeroes_is_read_again(tmp_path):
    shown = cli("cper", "show", "-", stdin=RECORD).stdout.decode()
    dump = shown[shown.index("\n000000  ") :]
    assert "\n  *\n" in dump
    assert json.loads(cli("cper", "show", "-", "--json", stdin=dump.encode()).stdout) == json.loads(
        cli("cper", "show", "-", "--json", stdin=RECORD).stdout
    )


def test_text_of_no_form_is_one_line():
    for text in (b"hello, world\nhere\n", b"{0x43, 0x50, 0x45, 0x52};\n", "Wörter\n".encode()):
        error = cli("cper", "show", "-", stdin=text, code=1).stderr
        assert error.startswith(b"vmm-ras: -: text that is neither hexadecimal, a dump of it")
        assert error.count(b"\n") == 1
    assert b"Record.header" in cli("cper", "show", "-", stdin=b"CPER", code=1).stderr


@pytest.mark.parametrize("columns", [20, 80, 110, 160])
def test_a_narrow_terminal_leaves_no_value_out(monkeypatch, columns):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    out, (item,) = console(), items([RECORD])
    out.file = io.StringIO()
    render(out, item.data, reading_fields(item))
    table = re.sub(r"\x1b\[[\d;]*m", "", out.file.getvalue()).split("\n000000")[0]

    assert ("Bytes" in table, "Meaning" in table) == (columns > 100, columns > 150)
    for field in reading_fields(item):
        if field.size and field.value not in {"", "-"}:
            assert field.path.rpartition(".")[2] in table
            assert all(word in table for word in field.value.split()), field


def test_broken_text_is_one_line():
    error = cli("cper", "show", "-", stdin=RECORD.hex().encode() + b"5", code=1).stderr
    assert error == b"vmm-ras: -: an odd number of hexadecimal digits\n"


def test_several_items_are_a_list_that_gives_the_same_bytes(tmp_path):
    data = RECORD + bytes(30) + BLOCK
    text = cli("cper", "show", "-", "--json", stdin=data).stdout
    assert [d["kind"] for d in json.loads(text)] == ["record", "padding", "status_block"]
    cli("cper", "encode", "-", "-o", tmp_path / "again", stdin=text)
    assert (tmp_path / "again").read_bytes() == data
    assert b"at 0x1ce" in cli("cper", "show", "-", stdin=data).stdout


def test_a_block_of_zeroes_says_that_there_is_no_error():
    assert json.loads(cli("cper", "show", "-", "--json", stdin=bytes(20)).stdout)["header"]["entry_count"] == 0


def test_bodies_that_lie_over_each_other_are_told(tmp_path):
    data = bytearray(RECORD)
    data[200:204] = (300).to_bytes(4, "little")
    told = "sections[1] overlaps sections[0] at 0x12c"
    assert told in cli("cper", "show", "-", stdin=bytes(data)).stdout.decode()
    assert told in cli("cper", "decode", "-", stdin=bytes(data)).stdout.decode()
    shown = cli("cper", "show", "-", "--json", stdin=bytes(data)).stdout
    assert json.loads(shown)["overlaps"] == [told]
    cli("cper", "encode", "-", "-o", tmp_path / "again", stdin=shown)
    assert (tmp_path / "again").read_bytes() == data
    notes = cli("cper", "show", "-", "--format", "libcper", stdin=bytes(data)).stderr.decode()
    assert notes == f"note: not carried over at 0x0: bytes between the bodies\nnote: not carried over at 0x0: {told}\n"


# -- encode -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"kind":"record","version":2}', "'version': 2 is not known, only 1"),
        ('{"kind":"banana"}', "'kind': one of record"),
        ('{"kind":"record","version":1,"sektions":[]}', "has no 'sektions'"),
        ('{"kind":"padding","size":99999999999}', "'size': a number up to"),
        ('{"kind":"record","size":99999999999,"sections":[]}', "99999999999 bytes are more than"),
        ('{"kind":"section","type":"Nothing"}', "no section type 'Nothing' is known"),
        ('{"header":{"severity":0},"entries":[{"header":{"section_type":7}}]}', "entries[0]: section_type"),
        ("[]", "an object expected"),
    ],
)
def test_a_document_that_cannot_be_is_one_line(text, why, tmp_path):
    error = cli("cper", "encode", "-", "-o", tmp_path / "no", stdin=text.encode(), code=1).stderr.decode()
    assert error.startswith("vmm-ras: ")
    assert error.count("\n") == 1
    assert why in error


# -- decode -----------------------------------------------------------------------------------


def test_a_folder_is_decoded_in_order_and_errors_do_not_end_it(tmp_path):
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    (folder / "1.bin").write_bytes(RECORD + BLOCK + bytes(100) + RECORD)
    (folder / "2.hex").write_text(RECORD.hex())
    (folder / "deeper" / "3.bin").write_bytes(RECORD + b"\x11" * 70_000 + RECORD[:300])
    (folder / "4.b64").write_text("Q1BFUgEB/")
    done = cli("cper", "decode", folder, "--jsonl", code=1)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(Path(r["file"]).name, r.get("kind")) for r in rows] == [
        ("1.bin", "record"), ("1.bin", "status_block"), ("1.bin", "record"), ("2.hex", "record"), ("4.b64", None),
        ("3.bin", "record"), ("3.bin", "bytes"), ("3.bin", "record"),
    ]  # fmt: skip
    assert rows[2]["offset"] == len(RECORD) + len(BLOCK) + 100
    assert rows[-1]["faults"]
    assert done.stderr == b"vmm-ras: 7 items of 4 files, 2 damaged, 1 file not read to the end\n"
    text = cli("cper", "decode", folder, code=1).stdout.decode().splitlines()
    assert len(text) == 8
    assert "PlatformMemory (DIMM A1)" in text[1]


def test_rows_of_decode_are_encoded_again(tmp_path):
    rows = cli("cper", "decode", "-", "--jsonl", stdin=BLOCK + RECORD + RECORD).stdout
    cli("cper", "encode", "-", "-o", tmp_path / "again", stdin=rows)
    assert (tmp_path / "again").read_bytes() == BLOCK + RECORD + RECORD


@pytest.mark.parametrize(
    ("options", "rows"), [(["--jsonl"], 1), (["--of", "PlatformMemory", "--columns", "offset,node"], 2)]
)
def test_a_stream_needs_little_memory(tmp_path, options, rows):
    many = tmp_path / "many"
    code = (
        "import re, sys; from vmm_ras.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(int(re.search('VmHWM:\\\\s*(\\d+)', open('/proc/self/status').read())[1]) >> 10, file=sys.stderr)"
    )
    words = [sys.executable, "-c", code, "cper", "decode", str(many), *options]
    mebibytes = []
    for count in (4_000, 24_000):
        many.write_bytes(RECORD * count)
        done = subprocess.run(words, capture_output=True, check=True, timeout=120, stdin=subprocess.DEVNULL)
        assert done.stdout.count(b"\n") == count * rows + (rows > 1)
        mebibytes.append(int(done.stderr.split()[-1]))
    assert mebibytes[1] - mebibytes[0] < 6, "for 9 MB more of records, which are 15 MB of JSON"


# -- columns ----------------------------------------------------------------------------------


def table(*words, stdin=b"", code=0):
    """The rows of a CSV, and what was said."""
    done = cli("cper", "decode", *words, stdin=stdin, code=code)
    return list(csv.DictReader(io.StringIO(done.stdout.decode()))), done.stderr.decode().splitlines()


def test_columns_are_fields_of_each_section(tmp_path):
    (tmp_path / "in").write_bytes(RECORD + BLOCK + bytes(100) + RECORD)
    names = "offset,index,header.severity,descriptor.fru_text,physical_address,node,error_type,card"
    rows, said = table(tmp_path / "in", "--of", "PlatformMemory", "--columns", names)
    assert [list(row) for row in rows] == [names.split(",")] * 5
    both = ["305418240", "3", "multi_bit_ecc", ""], ["", "", "", "1"]
    assert [list(row.values()) for row in rows] == [
        ["0", "0", "recoverable", "", *both[0]], ["0", "1", "recoverable", "", *both[1]],
        ["432", "0", "recoverable", "DIMM A1", *both[0]],
        ["704", "0", "recoverable", "", *both[0]], ["704", "1", "recoverable", "", *both[1]],
    ]  # fmt: skip
    assert said == ["5 rows from 3 items of 1 file, 0 damaged, 0 files not read to the end"]
    split = names.partition(",node")
    lines = cli(
        "cper",
        "decode",
        tmp_path / "in",
        "--jsonl",
        "--of",
        "memory",
        "--columns",
        split[0],
        "--columns",
        names[len(split[0]) + 1 :],
    ).stdout.splitlines()
    assert [list(json.loads(line)) for line in lines] == [names.split(",")] * 5
    assert json.loads(lines[1]) == dict.fromkeys(names.split(",")) | {
        "offset": 0, "index": 1, "header.severity": "recoverable", "card": 1
    }  # fmt: skip


@pytest.mark.parametrize("folder", ["blocks", "records"])
def test_columns_say_what_the_documents_say(folder):
    """Of what foreign generators made, each section and no other has its row."""
    files = ROOT / "fixtures" / "linux" / folder
    documents = [json.loads(line) for line in cli("cper", "decode", files, "--jsonl", code=1).stdout.splitlines()]
    of = {"PlatformMemory": "physical_address,error_status.type", "ArmProcessor": "head.mpidr,error_information.0.type"}
    for name, columns in of.items():
        guid = str(section_named(name).GUID)
        rows, _ = table(files, "--of", name, "--columns", f"file,offset,index,{columns}", code=1)
        found = {
            (d["file"], str(d["offset"]), str(n)): p["section"]
            for d in documents for n, p in enumerate(d.get("sections", d.get("entries", ())))
            if p.get("descriptor", p.get("header"))["section_type"] == guid and "section" in p
        }  # fmt: skip
        assert len(rows) == len(found) > 0
        for row in rows:
            section = found[row["file"], row["offset"], row["index"]]
            for column in columns.split(","):
                value = section
                for step in column.split("."):
                    value = dict(enumerate(value)).get(int(step)) if step.isdecimal() else (value or {}).get(step)
                given = json.loads(row[column]) if row[column][:1] in {"[", "{"} else row[column]
                assert given == ("" if value is None else value if isinstance(value, list) else str(value))


def test_times_lists_and_quotes_in_columns():
    data = Record.of([MEMORY], timestamp=Timestamp.of(1_763_700_000)).encode()
    rows, _ = table("-", "--columns", "header.timestamp,header.flags,header.severity", stdin=data)
    assert rows == [{"header.timestamp": "2025-11-21 04:40:00", "header.flags": "[]", "header.severity": "recoverable"}]
    odd = StatusBlock.of([Entry.of(MEMORY, fru_text='a,"b"')]).encode()
    rows, _ = table("-", "--columns", "descriptor.fru_text,header.correctable", stdin=odd)
    assert rows == [{"descriptor.fru_text": 'a,"b"', "header.correctable": "false"}]


def test_what_columns_cannot_read_is_one_line_each_and_at_most_ten(tmp_path):
    bad = Record.of_bodies([(bytes(20), Record.of([MEMORY]).sections[0].descriptor)]).encode()
    (tmp_path / "in").write_bytes(RECORD + bad + RECORD + bad * 11)
    rows, said = table(tmp_path / "in", tmp_path / "none", "--of", "PlatformMemory", "--columns", "node", code=1)
    assert [row["node"] for row in rows] == ["3", "", "3", ""]
    why = "PlatformMemory at 0x14: 73 bytes needed, 20 given"
    assert said[0] == f"vmm-ras: {tmp_path}/in: item 1 at 0x1b0: {why}"
    assert said[1] == f"vmm-ras: {tmp_path}/in: item 3 at {2 * len(RECORD) + len(bad):#x}: {why}"
    assert len(said) == 11
    assert said[-1] == (
        "vmm-ras: 4 rows from 14 items of 2 files, 12 damaged, 1 file not read to the end; 3 more not shown"
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--of", "PlatformMemory", "--columns", "nod"], "PlatformMemory has no such field; did you mean 'node'?"),
        (["--of", "Fans", "--columns", "rpm"], "--of 'Fans': expected one of ProcessorGeneric"),
        (["--columns", "node"], "a field of which sections? say --of SECTION"),
        (["--columns", "header.severty"], "a header has no such field; did you mean 'severity'?"),
        (["--columns", "descriptor.zzz"], "a descriptor has only "),
        (["--of", "ArmProcessor", "--columns", "error_information.x"], "ArmProcessor has no such field"),
        (["--of", "memory"], "--of: expected --columns with it"),
        (["--columns", "file,,offset"], "expected names, each once"),
        (["--columns", "file", "--columns", "file"], "expected names, each once"),
        (["--columns", "file", "--format", "libcper"], "it goes without --format libcper"),
    ],
)
def test_columns_that_cannot_be_are_usage(words, why):
    done = cli("cper", "decode", "-", *words, stdin=RECORD, code=2)
    assert why in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""


def test_columns_of_own_sections():
    fans = Record.of_bodies([(bytes.fromhex("0100020110270004"), SectionDescriptor.blank(FANS))]).encode()
    words = ["--section", OWN, "--of", "Fans", "--columns", "chassis,cause,rpm.1,rpm"]
    assert table("-", *words, stdin=fans)[0] == [
        {"chassis": "1", "cause": "stalled", "rpm.1": "1024", "rpm": "[10000,1024]"}
    ]


# -- diff, convert ----------------------------------------------------------------------------


def test_a_difference_has_a_name_and_both_values(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(RECORD)
    other = PlatformMemory(physical_address=0x9000, node=3, error_type=3, rank=1)
    b.write_bytes(Record.of([other, PlatformMemory(card=1), MEMORY], record_id=9).encode())
    rows = {r["path"]: (r["a"], r["b"]) for r in json.loads(cli("cper", "diff", a, b, "--json").stdout)}
    assert rows["sections[0].section.physical_address"] == (0x1234_5000, 0x9000)
    assert rows["sections[0].section.rank"] == (None, 1)
    assert rows["sections[2].section.node"] == (None, 3)
    assert rows["header.section_count"] == (2, 3)
    assert "header.record_id" not in rows
    text = cli("cper", "diff", a, b, "--fail-on", "differ", code=4).stdout.decode()
    assert f"{len(rows)} fields differ" in text
    assert cli("cper", "diff", a, a, "--fail-on", "different").stdout == b"no difference\n"


def test_bare_sections_are_compared_by_their_type(tmp_path):
    (tmp_path / "b").write_bytes(PlatformMemory(physical_address=0x1234_5000, node=4, error_type=3).encode())
    done = cli("cper", "diff", "-", tmp_path / "b", "--type", "PlatformMemory", "--json", stdin=MEMORY.encode())
    assert json.loads(done.stdout) == [{"path": "section.node", "a": 3, "b": 4}]
    assert b"standard input" in cli("cper", "diff", "-", "-", stdin=RECORD, code=2).stderr


def test_libcper_s_shape_is_of_whole_records(tmp_path):
    for command in (("show", "-"), ("encode", "-", "-o", str(tmp_path / "no"))):
        done = cli("cper", *command, "--type", "memory", "--format", "libcper", stdin=MEMORY.encode(), code=2)
        assert done.stderr == b"vmm-ras: --format libcper is for whole records: it goes without --type\n"


def test_a_byte_that_no_field_claims_is_a_difference_too(tmp_path):
    other = bytearray(RECORD)
    other[120] ^= 1
    (tmp_path / "b").write_bytes(other)
    (row,) = json.loads(cli("cper", "diff", "-", tmp_path / "b", "--json", stdin=RECORD).stdout)
    assert row["path"] == "header.residue"


def test_blocks_become_records_and_back(tmp_path):
    record, block = tmp_path / "record", tmp_path / "block"
    cli("cper", "convert", "-", "-o", record, "--record-id", "7", stdin=BLOCK + BLOCK)
    rows = [json.loads(r) for r in cli("cper", "decode", record, "--jsonl").stdout.splitlines()]
    assert [(r["kind"], r["header"]["record_id"]) for r in rows] == [("record", 7), ("record", 8)]
    done = cli("cper", "convert", record, "-o", block)
    assert block.read_bytes() == BLOCK + BLOCK
    assert b"note: not carried over at 0x0: record_id of the record" in done.stderr
    same = json.loads(cli("cper", "convert", record, "-o", block, "--to", "record", "--json").stdout)
    assert (same["items"], same["lost"]) == (2, [])
    assert block.read_bytes() == record.read_bytes()
    assert b"record_length" in cli("cper", "convert", "-", "-o", block, stdin=RECORD[:-1], code=1).stderr


# -- own sections -----------------------------------------------------------------------------

FANS_BODY = bytes.fromhex("0700 02 01 a00f 0000")
RAIL_BODY = bytes.fromhex("07000000 0102 0300 4c040000 e8030000")


def own_record():
    from cper.record_header import SectionDescriptor

    bodies = [(FANS_BODY, SectionDescriptor.blank(FANS)), (RAIL_BODY, SectionDescriptor.blank(RAIL))]
    return Record.of_bodies(bodies).encode()


def test_sections_of_ones_own_are_as_the_built_in_ones(tmp_path):
    path, again = tmp_path / "r", tmp_path / "again"
    path.write_bytes(own_record())
    assert "no known layout" in cli("cper", "show", path).stdout.decode()
    text = cli("cper", "show", path, "--section", OWN, "--json").stdout
    fans, rail = (s["section"] for s in json.loads(text)["sections"])
    assert fans == {"chassis": 7, "count": 2, "cause": "stalled", "rpm": [4000, 0]}
    assert rail == {"rail": "memory", "phase": 2, "socket": 3, "millivolts": 1100, "limit": 1000}
    cli("cper", "encode", "-", "-o", again, "--section", OWN, stdin=text.replace(b"4000", b"4001"))
    assert again.read_bytes() == own_record().replace(b"\xa0\x0f", b"\xa1\x0f")
    paths = tree_paths(cli("cper", "show", path, "--section", OWN).stdout.decode())
    assert {"sections[0].section.rpm", "sections[1].section.millivolts"} <= paths
    (tmp_path / "fans").write_bytes(FANS_BODY)
    bare = json.loads(cli("cper", "show", tmp_path / "fans", "--type", "fans", "--section", OWN, "--json").stdout)
    assert (bare["type"], bare["section"]) == ("Fans", fans)
    names = {t["name"]: t for t in json.loads(cli("cper", "types", "--section", OWN, "--json").stdout)}
    assert names["PowerRail"]["sizes"] == "16"
    assert not names["Fans"]["backed"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("x = 1", "declares no section type"),
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        (OWN.read_text().replace("5f0e9a51-3a0b-4a6e-9d5e-0c6f3a1d7b11", "a5bc1114-6f64-4ede-b863-3e83ed7c83b1"),
         "is cper.memory:PlatformMemory already"),
        (OWN.read_text().replace('"chassis"', '"residue"'), "a member cannot be called residue"),
    ],
)  # fmt: skip
def test_a_file_without_a_proper_section_is_one_line(code, why, tmp_path):
    (tmp_path / "own.py").write_text(code)
    error = cli("cper", "show", "-", "--section", tmp_path / "own.py", stdin=RECORD, code=1).stderr.decode()
    assert error.count("\n") == 1
    assert why in error
    assert "own.py" in error


def test_a_plug_in_is_loaded_when_its_section_is_met(tmp_path, monkeypatch):
    (tmp_path / "vendor_fans.py").write_text(OWN.read_text())
    info = tmp_path / "vendor_fans-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor-fans\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[vmm_ras.sections]\n{RAIL} = vendor_fans:PowerRail\n{FANS} = vendor_fans:Fans\nnonsense = vendor_fans:Fans\n"
        f"{PlatformMemory.GUID} = vendor_fans:Fans\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    done = cli("cper", "show", "-", "--json", stdin=RECORD)
    assert "vendor_fans" not in sys.modules
    notes = done.stderr.decode().splitlines()
    assert notes == [
        "note: plug-in vendor_fans:Fans: its name 'nonsense' is no GUID",
        f"note: plug-in vendor_fans:Fans: section type {PlatformMemory.GUID} is cper.memory:PlatformMemory already",
    ]
    fans, rail = json.loads(cli("cper", "show", "-", "--json", stdin=own_record()).stdout)["sections"]
    assert (fans["section"]["rpm"], rail["section"]["rail"]) == ([4000, 0], "memory")
    del sys.modules["vendor_fans"]


def test_a_plug_in_that_does_not_load_is_a_note_and_its_type_unknown(tmp_path, monkeypatch):
    (tmp_path / "vendor_broken.py").write_text("Rail = 7\n")
    info = tmp_path / "vendor_broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[vmm_ras.sections]\n{RAIL} = vendor_broken:Rail\n{FANS} = vendor_nowhere:Fans\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    why = {
        f"note: plug-in vendor_broken:Rail: section type {RAIL} cannot be loaded: Rail is no section type of this GUID",
        f"note: plug-in vendor_nowhere:Fans: section type {FANS} cannot be loaded: No module named 'vendor_nowhere'",
    }
    done = cli("cper", "show", "-", "--json", stdin=own_record())
    assert set(done.stderr.decode().splitlines()) == why
    cli("cper", "encode", "-", "-o", tmp_path / "again", stdin=done.stdout)
    assert (tmp_path / "again").read_bytes() == own_record()
    assert set(cli("cper", "types").stderr.decode().splitlines()) == why
    assert b"'Rail': expected one of" in cli("cper", "show", "-", "--type", "Rail", code=2, stdin=b"").stderr
    monkeypatch.setattr("cper.section.unloadable", [])
    MODULES[RAIL] = "vendor_broken:Rail"
    with pytest.raises(ImportError, match="vendor_broken:Rail"):
        section_class(RAIL)


class TestAConstructDeclaration:
    """What it does not write again is kept."""

    def section(self, declaration):
        from cper.construct_section import construct_section

        return construct_section("Own", str(FANS), declaration)

    def test_padding_computed_values_and_a_tail_are_kept(self):
        import construct as c

        own = self.section(
            c.Struct("a" / c.Int8ul, c.Padding(2), "twice" / c.Computed(lambda x: x.a * 2), "raw" / c.Bytes(2))
        )
        body = bytes.fromhex("05 ffee 0102 77")
        found = own.of_body(body)
        assert found.plain() == {
            "a": 5, "twice": 10, "raw": {"hex": "0102"}, "residue": "00ffee0000", "tail": "77",
        }  # fmt: skip
        assert own.of_plain(found.plain()).encode() == body
        assert [name for _, _, name, _ in found.fields()] == ["a", "raw", "tail"]

    def test_what_it_cannot_read_is_told(self):
        import construct as c

        from cper.wire import DecodeError

        own = self.section(c.Struct("n" / c.Int8ul, "list" / c.Array(c.this.n, c.Int16ul)))
        with pytest.raises(DecodeError, match=r"Own\.list at 0x0: stream read less than specified"):
            own.of_body(b"\x05\x00")
        with pytest.raises(EncodeError, match=r"Own\.list: expected 2 elements"):
            own.of_plain({"n": 2, "list": [1]}).encode()


# -- types and schemas ----------------------------------------------------------------------------


def test_evidence_is_what_the_fixtures_hold():
    from tests.cper_evidence import FILE, text

    made = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "-"], input=text(), capture_output=True, text=True, check=True
    )
    assert FILE.read_text() == made.stdout, "python -m tests.cper_evidence writes it anew"


def test_types_and_schemas_are_listed():
    rows = json.loads(cli("cper", "types", "--json").stdout)
    assert [r["guid"] for r in rows] == [str(g) for g in MODULES]
    memory = next(r for r in rows if r["name"] == "PlatformMemory")
    assert (memory["sizes"], memory["clause"]) == ("73, 80", "UEFI 2.10, N.2.5, Table N.31")
    assert sum("N.2" in r["clause"] for r in rows) >= 20
    assert "PlatformMemory" in cli("cper", "types").stdout.decode()
    assert json.loads(cli("cper", "schema", "memory").stdout)["title"] == "PlatformMemory"
    assert json.loads(cli("cper", "schema").stdout)["anyOf"]


@pytest.mark.parametrize("command", ["show", "encode", "decode", "diff", "convert", "types", "schema"])
def test_help_has_an_example_and_json(command):
    text = cli("cper", command, "--help").stdout.decode()
    assert f"Example: vmm-ras cper {command}" in text or f"| vmm-ras cper {command}" in text
    assert "--json" in text
