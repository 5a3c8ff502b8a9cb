"""Whatever the bytes or the JSON are, a decoder gives a result or one clear error, in bounded time and memory."""

from __future__ import annotations

import inspect
import random
import time
import tracemalloc
from contextlib import suppress
from functools import cache

import construct
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from acpi.ghes import DataEntry201, ErrorStatusHeader, StatusBlock
from acpi.hest import Hest
from acpi.image import find_sources, find_tables, place
from acpi.presets import PRESETS
from acpi.table import Rsdp, TableHeader, Xsdt, seal
from cper.memory import PlatformMemory
from cper.record import Record, RecordHeader
from cper.section import MODULES, body_of_plain, plain_body, read_section
from cper.wire import Struct, WireError, explain
from tests.strategies import (
    BODIES,
    EDGES,
    JSON,
    LONG,
    NAMES,
    any_json,
    declared,
    hests,
    images,
    in_place,
    modules,
    mutated,
    plain_like,
    records,
    status_blocks,
    xsdts,
)

STRUCTS = declared()
every_struct = pytest.mark.parametrize("cls", STRUCTS, ids=lambda c: c.__name__)
few = settings(max_examples=settings.default.max_examples // 5 if LONG else 4)
GUIDS = st.sampled_from(list(MODULES)) | st.uuids()


def attempt(read, *args):
    """The result, or None where there was one clear error; anything else is raised."""
    try:
        return read(*args)
    except ValidationError as error:
        assert error.errors(include_url=False)
    except WireError as error:
        text = str(error)
        assert text.isprintable()
        assert error.structure
        assert error.reason
    except ValueError as error:
        assert str(error)
        assert "\n" not in str(error)
    return None


# -- structures -------------------------------------------------------------------------


@every_struct
def test_structures(cls):
    names = (*cls.model_fields, "no_such_field")

    def holds(raw, offset, plain):
        value = attempt(cls.decode, raw, offset)
        if value is not None:
            assert value.encode() == raw[offset : offset + cls.SIZE]
        attempt(cls.plain_of, raw, offset)
        built = attempt(cls.of_plain, plain)
        if built is not None:
            assert cls.decode(built.encode()) == built
        if isinstance(plain, dict):
            with suppress(ValidationError):
                constructed(cls, plain)

    if LONG:
        few(given(st.binary(max_size=cls.SIZE + 4) | images(cls), st.integers(-2, 4), plain_like(names))(holds))()
        return
    r = random.Random(cls.__name__)
    for number in range(8):
        image = in_place(cls, r.randbytes(cls.SIZE))
        raw = r.choice((image, image + b"\xff" * 4, r.randbytes(r.randrange(cls.SIZE + 5))))
        plain = cls.decode(image).plain() if number & 1 else {}
        plain |= {r.choice(names): any_json(r) for _ in range(r.randrange(3))}
        holds(raw, r.choice((0, 0, 0, -2, -1, 1, 4)), r.choice((plain, plain, plain, any_json(r))))


def constructed(cls, plain):
    """A constructor takes it or says for each field what is wrong; what it takes it can write."""
    try:
        value = cls(**{str(k): v for k, v in plain.items()})
    except ValidationError as error:
        lines = explain(error, cls)
        assert lines
        assert all(line.startswith(cls.__name__) for line in lines)
        raise
    assert cls.decode(value.encode()) == value


# -- frames -----------------------------------------------------------------------------


def is_frame(thing):
    """A class that is no structure, no construct declaration, and no base that only its subclasses fill in."""
    open_base = getattr(thing, "__parameters__", ())
    return inspect.isclass(thing) and not issubclass(thing, Struct | construct.Construct) and not open_base


@cache
def parsers():
    """Every class and function of the packages that reads a frame: label to reader."""
    found = {
        "StatusBlock.decode": StatusBlock.decode,
        "Record.decode": Record.decode,
    }
    for module in modules():
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", None) != module.__name__ or name.startswith("_"):
                continue
            if is_frame(thing):
                for method in ("parse", "examine"):
                    if hasattr(thing, method):
                        found[f"{name}.{method}"] = getattr(thing, method)
            elif inspect.isfunction(thing) and name in {"parse_table", "examine_table"}:
                found[name] = thing
    return found


SIGNATURES = ["HEST", "XSDT", "BERT", "ERST", "EINJ", "SDEI", "CCEL", "AEST", "RASF", "RAS2", "APIC", "FACP", "GTDT"]


@st.composite
def tables(draw):
    """A sealed table of some signature and revision with any body, edges of length and count in it."""
    body = bytearray(draw(st.binary(max_size=160)))
    for _ in range(draw(st.integers(0, 3))):
        if len(body) >= 4:
            at = 4 * draw(st.integers(0, len(body) // 4 - 1))
            body[at : at + 4] = draw(st.sampled_from(EDGES)).to_bytes(4, "little")
    header = TableHeader(signature=draw(st.sampled_from(SIGNATURES)), length=0, revision=draw(st.integers(0, 6)))
    return seal(header, bytes(body))


frames = st.binary(max_size=200) | mutated(status_blocks() | records() | hests() | xsdts()) | tables()


@pytest.mark.parametrize("label", sorted(parsers()))
def test_frames(label):
    read = parsers()[label]

    @few
    @given(frames)
    def holds(raw):
        attempt(read, raw)

    holds()


@given(mutated(status_blocks()))
def test_status_blocks_keep_every_byte_or_refuse(raw):
    block = attempt(StatusBlock.decode, raw)
    if block is not None:
        assert block.encode() == raw[: block.size]
        assert StatusBlock.of_plain(block.plain()).encode() == block.encode()
        for entry in block.entries:
            attempt(entry.section)


@given(mutated(records()))
def test_records_keep_every_byte_or_refuse(raw):
    record = attempt(Record.decode, raw)
    if record is not None:
        assert record.encode() == raw[: record.header.record_length]
        assert Record.of_plain(record.plain()).encode() == record.encode()
        for section in record.sections:
            attempt(section.section)


@cache
def plain_readers():
    """Every class of the packages that is no structure and reads JSON."""
    found = {"StatusBlock": StatusBlock.of_plain, "Record": Record.of_plain}
    for module in modules():
        for name, thing in vars(module).items():
            own = getattr(thing, "__module__", None) == module.__name__ and not name.startswith("_")
            if own and is_frame(thing) and inspect.ismethod(getattr(thing, "of_plain", None)):
                found[name] = thing.of_plain
    return found


deep = plain_like(NAMES, plain_like(NAMES) | st.lists(plain_like(NAMES), max_size=2))
TABLE_NAMES = ("header", "sources", "entries", "trailing", "data", "type", "banks", "signature", "length", "revision")
deep_tables = plain_like(TABLE_NAMES, plain_like(TABLE_NAMES) | st.lists(plain_like(TABLE_NAMES), max_size=2))


@pytest.mark.parametrize("label", sorted(plain_readers()))
def test_frames_from_json(label):
    read = plain_readers()[label]

    @few
    @given(deep | deep_tables)
    def holds(plain):
        attempt(read, plain)

    holds()


# -- section bodies ---------------------------------------------------------------------


@given(GUIDS, BODIES | st.binary(max_size=200))
def test_section_bodies(guid, body):
    attempt(read_section, guid, body)
    assert body_of_plain(guid, plain_body(guid, body)) == body


@given(GUIDS, st.dictionaries(st.sampled_from(["section", "body", "tail", "length"]), JSON, max_size=4))
def test_section_bodies_from_json(guid, plain):
    found = attempt(body_of_plain, guid, plain)
    assert found is None or isinstance(found, bytes)


# -- tables in guest memory ---------------------------------------------------------------


BASE = 0x4000_0000


class Memory:
    """A small guest memory that a hostile guest wrote; it counts what is read of it."""

    def __init__(self, data):
        self.data, self.taken = data, 0

    def read(self, gpa, size):
        at = gpa - BASE
        if not 0 <= at <= at + size <= len(self.data):
            raise WireError("outside", structure="Memory", offset=gpa)
        self.taken += size
        return bytes(self.data[at : at + size])


@cache
def placed():
    image = place(PRESETS["default"].sources, BASE)
    data = bytearray(1 << 16)
    for _, gpa, raw in image.regions:
        data[gpa - BASE : gpa - BASE + len(raw)] = raw
    return bytes(data), image.region("hest")[0] - BASE


def reseal(data, at, length):
    """Make the checksum of a table right again."""
    if 36 <= length <= len(data) - at:
        data[at + 9] = 0
        data[at + 9] = -sum(data[at : at + length]) & 0xFF


@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=8), st.booleans(), st.booleans())
def test_tables_in_hostile_memory(changes, pointer, table):
    start, hest = placed()
    data = bytearray(start)
    for at, value in changes:
        data[at] = value
    if pointer:
        data[32] = data[8] = 0
        data[8] = -sum(data[:20]) & 0xFF
        data[32] = -sum(data[:36]) & 0xFF
    if table:
        for at in (64, hest):
            reseal(data, at, int.from_bytes(data[at + 4 : at + 8], "little"))
    memory = Memory(data)
    found = attempt(find_tables, memory.read, BASE)
    if found and "HEST" in found:
        attempt(find_sources, memory.read, found["HEST"][1])
    assert memory.taken < 64 << 20


@given(st.binary(max_size=256), st.integers(0, 8))
def test_tables_in_arbitrary_memory(data, at):
    attempt(find_tables, Memory(data).read, BASE + at)
    attempt(find_sources, Memory(data).read, data)


# -- bounds -----------------------------------------------------------------------------


def hostile():
    """Inputs that ask for the most work a byte: (name, reader, bytes)."""
    n = 60_000
    entry = DataEntry201(section_type=PlatformMemory.GUID).encode()
    count = n // 64
    block = ErrorStatusHeader(uncorrectable=True, data_length=64 * count).encode() + entry * count
    sections = 500
    length = 128 + 72 * sections
    header = RecordHeader(section_count=sections, severity=0, record_length=length).encode()
    descriptor = (128).to_bytes(4, "little") + bytes(68)
    table = lambda signature, body: seal(TableHeader(signature=signature, length=0, revision=2), body)  # noqa: E731
    return [
        ("small entries", StatusBlock.decode, block),
        ("huge length", StatusBlock.decode, block[:12] + b"\xff\xff\xff\xff" + block[16:]),
        ("empty sections", Record.decode, header + descriptor * sections),
        ("many sections", Record.decode, header[:10] + b"\xff\xff" + header[12:] + bytes(n)),
        ("many addresses", Xsdt.parse, table("XSDT", bytes(n))),
        ("many sources", Hest.parse, table("HEST", b"\xff\xff\xff\xff" + bytes(n))),
        ("zeroes", StatusBlock.decode, bytes(n)),
        ("ones", StatusBlock.decode, b"\xff" * n),
    ]


@pytest.mark.parametrize(("name", "read", "data"), hostile(), ids=lambda v: v if isinstance(v, str) else "")
def test_work_and_memory_are_bounded_by_what_was_given(name, read, data):
    with suppress(WireError):
        read(data)
    tracemalloc.start()
    began = time.process_time()
    try:
        with suppress(WireError):
            read(data)
        spent, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(data) + 100_000
    assert spent < 10


def test_the_walk_over_tables_is_bounded():
    """64 KiB of guest memory, an XSDT that names one table eight thousand times."""
    big = seal(TableHeader(signature="BIGT", length=0, revision=1), bytes(60_000))
    data = bytearray(1 << 18)
    data[:36] = Rsdp(xsdt_address=BASE + 64).sealed().encode()
    xsdt = Xsdt.build([BASE + (1 << 17)] * 8000)
    data[64 : 64 + len(xsdt)] = xsdt
    data[1 << 17 : (1 << 17) + len(big)] = big
    memory = Memory(data)
    with pytest.raises(WireError, match="together"):
        find_tables(memory.read, BASE)
    assert memory.taken < 18 << 20


def test_the_targets_are_there():
    """Discovery finds what it must."""
    assert {"Hest.parse", "Xsdt.parse", "StatusBlock.decode", "Record.decode"} <= parsers().keys()
    assert {"Hest", "StatusBlock", "Record"} <= plain_readers().keys()
    assert in_place(RecordHeader, bytes(128))[:4] == b"CPER"
