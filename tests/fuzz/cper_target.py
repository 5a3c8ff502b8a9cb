"""What must hold of any bytes taken as a CPER record, a status block, a stream, text, or a body of any section type.

The first byte says as what: the corpus of found cases (``fixtures/fuzz/cper``) is kept in this form.
"""

from __future__ import annotations

import time

import orjson

from acpi import document
from acpi.conversion import block_of, record_of
from acpi.damage import DamagedBlock
from acpi.ghes import StatusBlock
from acpi.stream import MAX_SIZE, items
from cper.damage import DamagedRecord, faults_of
from cper.libcper.record import of_record, to_record
from cper.record import Record
from cper.section import MODULES, body_of_plain, plain_body, read_section
from cper.text_form import of_text
from cper.wire import WireError

SECONDS = 1.0
"""Of processor time that one input may take."""
GUIDS = list(MODULES)


def record(data: bytes) -> None:
    """As a record, whole or damaged."""
    try:
        found = Record.decode(data)
    except WireError as error:
        assert error.offset is not None
        assert 0 <= error.offset <= len(data), error
        assert DamagedRecord.decode(data).faults
    else:
        whole = data[: found.header.record_length]
        assert found.encode() == whole
        assert Record.of_plain(orjson.loads(orjson.dumps(found.plain()))).encode() == whole
        assert Record.plain_of(data) == found.plain()
        faults_of(found)
        found.overlaps()
        block_of(found)
    damaged = DamagedRecord.decode(data)
    assert DamagedRecord.of_plain(orjson.loads(orjson.dumps(damaged.plain()))).encode() == data


def libcper(data: bytes) -> None:
    """As a record in libcper's shape, and back."""
    try:
        found = Record.decode(data)
    except WireError:
        return
    try:
        to_record(orjson.loads(orjson.dumps(of_record(found)))).encode()
    except ValueError as error:
        assert str(error)


def block(data: bytes) -> None:
    """As a status block, whole or damaged."""
    try:
        found = StatusBlock.decode(data)
    except WireError as error:
        assert error.offset is not None
        assert 0 <= error.offset <= len(data), error
        assert DamagedBlock.decode(data).faults
    else:
        assert found.encode() == data[: found.size]
        assert StatusBlock.of_plain(orjson.loads(orjson.dumps(found.plain()))).encode() == data[: found.size]
        record_of(found).value.encode()
    damaged = DamagedBlock.decode(data)
    assert DamagedBlock.of_plain(orjson.loads(orjson.dumps(damaged.plain()))).encode() == data


def stream(data: bytes) -> None:
    """As a stream: every byte is in an item, and its document gives it again."""
    out = []
    for item in items([data]):
        out.append(document.encode(orjson.loads(orjson.dumps(document.of_item(item))), MAX_SIZE))
    assert b"".join(out) == data


def text(data: bytes) -> None:
    """As text in any form."""
    try:
        of_text(data)
    except ValueError as error:
        assert str(error)


def json_document(data: bytes) -> None:
    """As JSON of a document."""
    try:
        value = orjson.loads(data)
    except ValueError:
        return
    if isinstance(value, dict):
        try:
            document.encode(value, MAX_SIZE)
        except ValueError as error:
            assert str(error)


def section(index: int, body: bytes) -> None:
    """As a body of the section type of this number."""
    guid = GUIDS[index % len(GUIDS)]
    try:
        found = read_section(guid, body)
    except WireError as error:
        assert error.offset is not None
        assert 0 <= error.offset <= len(body), error
    else:
        encoded = found if isinstance(found, bytes) else found.encode()
        assert encoded[: len(body)] == body[: len(encoded)]
    assert body_of_plain(guid, orjson.loads(orjson.dumps(plain_body(guid, body)))) == body


_FRAMES = (record, block, stream, text, json_document, libcper)
KINDS = len(_FRAMES) + len(GUIDS)


def check(data: bytes) -> None:
    """One input.  Raises AssertionError, or whatever should not have been raised."""
    if not data:
        return
    began = time.process_time()
    kind, body = data[0] % KINDS, data[1:]
    if kind < len(_FRAMES):
        _FRAMES[kind](body)
    else:
        section(kind - len(_FRAMES), body)
    took = time.process_time() - began
    assert took < SECONDS, f"{took:.1f} s"


def seeds() -> list[bytes]:
    """Good inputs of every kind to begin with."""
    from acpi.stream import items as _items
    from tests.fuzz.test_fuzz_sections import seeds as bodies
    from tests.golden.linux import LINUX
    from tests.golden.test_libcper import vectors

    records = [path.read_bytes() for path in sorted((LINUX / "records").glob("*.cper"))]
    records += [data for data, _ in vectors()]
    blocks = [path.read_bytes() for path in sorted((LINUX / "blocks").glob("*.bin"))]
    out = [b"\0" + data for data in records] + [b"\1" + data for data in blocks]
    out += [b"\2" + a + b for a, b in zip(records[::7], blocks, strict=False)]
    out += [b"\3" + data.hex().encode() for data in records[::20]]
    out += [b"\4" + orjson.dumps(document.of_item(i)) for data in records[::10] for i in _items([data])]
    out += [b"\5" + data for data in records]
    for index, guid in enumerate(GUIDS):
        out += [bytes([len(_FRAMES) + index]) + body for body in [*bodies(guid), bytes(200)]]
    return out
