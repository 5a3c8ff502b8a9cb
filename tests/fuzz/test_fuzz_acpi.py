"""Any bytes as any table: decoded, or one clear error; and what is decoded is written again as it was."""

import os
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acpi.aest import Aest
from acpi.bert import BootErrorRegion
from acpi.bus import Bus
from acpi.dump import read_directory, read_dump
from acpi.einj import TriggerTable
from acpi.einj_device import einj_table
from acpi.einj_parameters import InjectionParameters
from acpi.erst_device import erst_table
from acpi.erst_store import MemoryMedium, SlotStore
from acpi.hest import Hest
from acpi.hest_frame import HEST
from acpi.interpreter import Dialect, Interpreter
from acpi.lint import lint
from acpi.ras2 import RasMemory
from acpi.table import TableHeader, seal
from acpi.tables import MODULES, examine_table, parse_table, table_class
from cper.wire import DecodeError, WireError
from tests.golden.iasl_samples import SAMPLES
from tests.protocol.test_erst import kill_again_and_again

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
EDGES = [
    0,
    1,
    2,
    3,
    4,
    12,
    20,
    28,
    35,
    36,
    43,
    44,
    48,
    64,
    92,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0xFFFFFFFF,
]

signatures = st.sampled_from([s.encode() for s in MODULES] + [b"XXXX"])


@cache
def seeds():
    """Good tables."""
    made = [make().build() for make in SAMPLES.values()]
    return [*made, erst_table(0x1000).build(), einj_table(0x1000, 0x2000, einjv2=True).build()]


@st.composite
def tables(draw):
    """A table with a right header and any body, or a good one with some of it changed."""
    if draw(st.booleans()):
        header = TableHeader(
            signature=draw(signatures).decode(), length=0, revision=draw(st.integers(0, 3)), checksum=0
        )
        body = draw(st.binary(max_size=256))
        if draw(st.booleans()):
            body = draw(st.sampled_from(EDGES)).to_bytes(4, "little") + body
        return seal(header, body)
    raw = bytearray(draw(st.sampled_from(seeds())))
    for _ in range(draw(st.integers(1, 5))):
        what = draw(st.sampled_from(["byte", "word", "cut", "grow"]))
        at = draw(st.integers(0, len(raw) - 1)) if raw else 0
        if what == "byte" and raw:
            raw[at] = draw(st.integers(0, 255))
        elif what == "word":
            size = draw(st.sampled_from([2, 4]))
            raw[at : at + size] = (draw(st.sampled_from(EDGES)) & (1 << 8 * size) - 1).to_bytes(size, "little")
        elif what == "cut":
            del raw[at:]
        else:
            raw += draw(st.binary(max_size=40))
    if draw(st.booleans()) and len(raw) >= 36:
        return seal(TableHeader.decode(bytes(raw)), bytes(raw[36:]))
    return bytes(raw)


def written(table):
    """The table as it was read; one that has no words for a wrong checksum is built, and keeps the checksum read."""
    if hasattr(table, "encode"):
        return table.encode()
    built = table.build()
    return built[:9] + bytes([table.header.checksum]) + built[10:]


@given(tables())
def test_any_bytes_as_any_table(data):
    try:
        table, error = examine_table(data)
    except DecodeError as wrong:
        assert str(wrong).startswith("Table.header")
        return
    length = int.from_bytes(data[4:8], "little")
    assert written(table) == data[:length]
    assert isinstance(table.plain(), dict)
    table.build()
    try:
        again = parse_table(data)
    except DecodeError as wrong:
        assert error is not None
        assert str(wrong) == str(error)
        assert wrong.path
        assert wrong.offset is not None
        assert 0 <= wrong.offset <= length
        return
    assert error is None
    assert written(again) == data[:length]


@given(tables())
def test_every_class_refuses_what_is_another_table(data):
    for signature in MODULES:
        if data[:4] != signature.encode():
            with pytest.raises(DecodeError):
                table_class(signature).parse(data)


@given(tables())
def test_lint_takes_anything(data):
    for finding in lint(data, data[: len(data) // 2]):
        assert finding.text
        assert finding.offset >= 0


@given(tables())
def test_both_framings_of_hest_agree(data):
    if data[:4] != b"HEST" or len(data) < 40 or int.from_bytes(data[4:8], "little") != len(data):
        return
    try:
        one = Hest.parse(data)
    except WireError as error:
        with pytest.raises(type(error)) as caught:
            HEST.parse(data)
        assert (caught.value.path, caught.value.offset, caught.value.reason) == (error.path, error.offset, error.reason)
        return
    other = HEST.parse(data)
    assert (one.sources, one.trailing) == (tuple(other.sources), other.trailing)


@given(st.binary(max_size=400), st.sampled_from([1, 2]))
def test_any_bytes_as_aest_nodes(raw, revision):
    header = TableHeader(signature="AEST", length=0, revision=revision)
    table, _ = Aest.examine(seal(header, raw))
    assert table.encode()[36:] == raw


@given(st.binary(max_size=400))
def test_any_bytes_as_what_is_in_memory(raw):
    region = BootErrorRegion.decode(raw)
    assert b"".join(b.encode() for b in region.blocks) + region.rest == raw
    for read in (
        TriggerTable.decode,
        InjectionParameters.decode,
        RasMemory.decode,
        lambda d: RasMemory.decode(d, rasf=True),
    ):
        try:
            read(raw)
        except DecodeError as error:
            assert str(error)


@given(st.binary(max_size=600))
def test_any_bytes_as_files(raw):
    for read in (read_dump, lambda d: read_directory({"HEST": d})):
        try:
            read(raw)
        except DecodeError as error:
            assert str(error)


@given(st.lists(st.tuples(st.integers(0, 6000), st.binary(max_size=40)), max_size=5))
def test_any_damage_to_a_record_store(damage):
    medium = MemoryMedium()
    store = SlotStore.format(medium, 3, 512)
    for number in (1, 2, 3):
        store.write(number, bytes([number]) * (128 + number))
    for at, data in damage:
        medium.data[at : at + len(data)] = data
    try:
        found = SlotStore.open(medium)
    except DecodeError:
        return
    for number in found.ids():
        data = found.read(number)
        assert data is not None
        found.write(number, data)
    assert len(found) <= found.capacity + 1


@given(tables(), st.integers(0, 255), st.sampled_from(Dialect))
def test_no_table_of_instructions_drives_unbounded_work(data, action, dialect):
    try:
        table, _ = examine_table(data)
    except DecodeError:
        return
    entries = getattr(table, "entries", ())
    if not entries or not hasattr(entries[0], "instruction"):
        return
    run = Interpreter(entries, Bus(0x1000, 0x2000), dialect, 500)
    for wanted in {action, *(int(e.action) for e in entries)}:
        try:
            run.run(wanted, 1)
        except DecodeError as error:
            assert str(error).startswith("Instructions.")


if LONG:

    def test_a_thousand_writes_survive_the_process_that_makes_them(tmp_path):
        written, kills = kill_again_and_again(tmp_path, 1000, 1200, 100)
        assert written >= 1000, f"{written} acknowledged writes, {kills} kills"
        assert kills >= 100
