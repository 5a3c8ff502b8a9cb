"""What must hold of any bytes taken as a CPER record, a status block, a stream, text, JSON, or a section's body.

The first byte says as what (``kind_of``): the corpus of found cases (``fixtures/fuzz/cper``) is kept in this form, so
frames and section types are only ever added behind the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any
from uuid import UUID
from zlib import crc32

import orjson

from acpi import document
from acpi.conversion import block_of, record_of
from acpi.damage import DamagedBlock
from acpi.ghes import StatusBlock
from acpi.stream import MAX_SIZE, items
from cper.damage import DamagedRecord, faults_of
from cper.libcper.record import of_record, to_record
from cper.record import Record
from cper.record_text import json_of
from cper.section import MODULES, body_of_plain, plain_body, read_section, section_class, section_named
from cper.text_form import of_text
from cper.wire import WireError
from tests.fuzz.report import SECONDS, SHARE
from tests.fuzz.test_fuzz_sections import seeds as bodies
from tests.golden.linux import LINUX
from tests.golden.test_libcper import vectors

GUIDS = list(MODULES)


def as_json(plain: Any) -> Any:
    """What comes back of it as JSON text."""
    return orjson.loads(orjson.dumps(plain))


def inside(error: WireError, data: bytes) -> None:
    """An error is told at a place of the input."""
    assert error.offset is not None
    assert 0 <= error.offset <= len(data), error


def record(data: bytes, all_laws: bool) -> None:
    """As a record, whole or damaged."""
    try:
        found = Record.decode(data)
    except WireError as error:
        inside(error, data)
        damaged = DamagedRecord.decode(data)
        assert damaged.faults
        assert damaged.encode() == data
    else:
        whole = data[: found.header.record_length]
        assert found.encode() == whole
        if all_laws:
            plain = found.plain()
            assert Record.of_plain(as_json(plain)).encode() == whole
            assert Record.raw_of_plain(as_json(plain)) == whole
            assert Record.plain_of(data) == plain
            assert json_of(data) == orjson.dumps(plain)
            faults_of(found)
            found.overlaps()
            block_of(found)
    if all_laws:
        assert DamagedRecord.of_plain(as_json(DamagedRecord.decode(data).plain())).encode() == data


def block(data: bytes, all_laws: bool) -> None:
    """As a status block, whole or damaged."""
    try:
        found = StatusBlock.decode(data)
    except WireError as error:
        inside(error, data)
        damaged = DamagedBlock.decode(data)
        assert damaged.faults
        assert damaged.encode() == data
    else:
        assert found.encode() == data[: found.size]
        if all_laws:
            assert StatusBlock.of_plain(as_json(found.plain())).encode() == data[: found.size]
            record_of(found).value.encode()
    if all_laws:
        assert DamagedBlock.of_plain(as_json(DamagedBlock.decode(data).plain())).encode() == data


def stream(data: bytes, all_laws: bool) -> None:
    """As a stream: every byte is in an item, however it is cut into chunks, and its document gives it again."""
    found = list(items([data]))
    assert b"".join(item.data for item in found) == data
    for item in found:
        item.read()
    if all_laws:
        assert list(map(str, items([data[i : i + 64] for i in range(0, len(data), 64)]))) == list(map(str, found))
        for item in found:
            plain = document.of_item(item)
            assert document.text_of_item(item) in {None, orjson.dumps(plain)}
            assert document.encode(as_json(plain), MAX_SIZE) == item.data


def text(data: bytes, all_laws: bool) -> None:
    """As text in any form."""
    try:
        of_text(data)
    except ValueError as error:
        assert str(error)


def json_object(data: bytes) -> dict[str, Any] | None:
    """The object that JSON text holds, if any."""
    try:
        value = orjson.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def json_document(data: bytes, all_laws: bool) -> None:
    """As the JSON text of a document."""
    if (value := json_object(data)) is not None:
        written(value, all_laws)


def written(value: dict[str, Any], all_laws: bool) -> None:
    """A document is refused, or what is written of it is read and written as the same again."""
    try:
        raw = document.encode(value, MAX_SIZE)
    except ValueError as error:
        assert str(error)
        return
    if all_laws and value.get("kind") == "section":
        again = document.of_section(section_named(str(value["type"])), raw)
        assert document.encode(as_json(again), MAX_SIZE) == raw
    elif all_laws and len(raw) < 1 << 16:
        stream(raw, True)


def libcper(data: bytes, all_laws: bool) -> None:
    """As a record in libcper's shape, and back."""
    try:
        found = Record.decode(data)
    except WireError:
        return
    plain = of_record(found)
    if all_laws:
        libcper_written(as_json(plain))


def libcper_json(data: bytes, all_laws: bool) -> None:
    """As the JSON text of a record in libcper's shape."""
    if (value := json_object(data)) is not None:
        libcper_written(value)


def libcper_written(value: dict[str, Any]) -> None:
    """A record in libcper's shape is written or refused."""
    try:
        to_record(value).encode()
    except ValueError as error:
        assert str(error)


def changed_document(data: bytes, all_laws: bool) -> None:
    """As changes of the JSON of a good document."""
    written(changed(documents(), data), all_laws)


def changed_libcper(data: bytes, all_laws: bool) -> None:
    """As changes of a good record in libcper's shape."""
    libcper_written(changed(libcper_documents(), data))


def section(index: int, body: bytes, all_laws: bool) -> None:
    """As a body of the section type of this number."""
    guid = GUIDS[index]
    try:
        found = read_section(guid, body)
    except WireError as error:
        inside(error, body)
        plain = plain_body(guid, body)
        assert plain == {"body": body.hex(), "error": str(error)}
    else:
        assert not isinstance(found, bytes)
        encoded = found.encode()
        assert encoded[: len(body)] == body[: len(encoded)]
        plain = plain_body(guid, body)
        if all_laws:
            assert plain["section"] == found.plain()
    if all_laws:
        assert body_of_plain(guid, as_json(plain)) == body


FRAMES: tuple[Callable[[bytes, bool], None], ...] = (
    record, block, stream, text, json_document, libcper, libcper_json, changed_document, changed_libcper,
)  # fmt: skip
NAMES = [*(frame.__name__ for frame in FRAMES), *(place.partition(":")[2] for place in MODULES.values())]


def kind_of(first: int) -> int:
    """The target that a first byte chooses, as an index of ``NAMES``: frames below 0x80, section types above."""
    return first % len(FRAMES) if first < 0x80 else len(FRAMES) + (first - 0x80) % len(GUIDS)


def check(data: bytes, all_laws: bool | None = None) -> None:
    """One input, held to all laws or to those that its CRC chooses.

    Raises AssertionError, or whatever should not have been raised.
    """
    if not data:
        data = b"\0"
    began = time.process_time()
    if all_laws is None:
        all_laws = not crc32(data) % SHARE
    kind, body = kind_of(data[0]), data[1:]
    if kind < len(FRAMES):
        FRAMES[kind](body, all_laws)
    else:
        section(kind - len(FRAMES), body, all_laws)
    took = time.process_time() - began
    assert took < SECONDS, f"{took:.1f} s"


def lasting(data: bytes) -> bytes:
    """The same input in the form that does not hang on how many targets and documents there are: as it is kept."""
    kind, body = kind_of(data[0]), data[1:]
    for target, made, text_target in (
        (changed_document, documents, json_document),
        (changed_libcper, libcper_documents, libcper_json),
    ):
        if NAMES[kind] == target.__name__:
            return bytes([FRAMES.index(text_target)]) + orjson.dumps(changed(made(), body))
    return first(kind) + body


def first(kind: int) -> bytes:
    """The first byte that chooses a target."""
    return bytes([kind if kind < len(FRAMES) else 0x80 + kind - len(FRAMES)])


# -- changes of JSON --------------------------------------------------------------------

Path = tuple[Any, ...]
VALUES = [
    None, True, False, 0, 1, -1, 2, 8, 0x7F, 0x100, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63),
    0.5, 1e308, "", "0", "0x10", "no", "zz", "00" * 16, "\u00e9\ud7ff", "A" * 64, "AAA=", [], [0], [[]], {}, {"x": 0},
]  # fmt: skip
"""What a change puts in."""


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """The path of every value inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


def changed(documents: list[tuple[bytes, list[Path]]], data: bytes) -> dict[str, Any]:
    """A document that the first byte chooses, with up to four changes: two bytes say where, one says what."""
    source, where = documents[data[0] % len(documents) if data else 0]
    value: dict[str, Any] = orjson.loads(source)
    for at in range(1, min(len(data) - 2, 13), 3):
        path = where[int.from_bytes(data[at : at + 2], "little") % len(where)]
        inner: Any = value
        what = data[at + 2]
        try:
            for key in path[:-1]:
                inner = inner[key]
            old = inner[path[-1]]
        except (KeyError, IndexError, TypeError):  # an earlier change took it away
            continue
        if isinstance(inner, str):  # or put text in its place
            continue
        if what < 0x80:
            inner[path[-1]] = VALUES[what % len(VALUES)]
        elif what < 0xA0:
            del inner[path[-1]]
        elif what < 0xC0 and isinstance(inner, list):
            inner.append(old)
        elif isinstance(old, int):
            inner[path[-1]] = max(-(1 << 63), min((1 << 64) - 1, old + what - 0xE0))
        elif isinstance(old, str):
            inner[path[-1]] = old[what & 7 :]
    return value


def _documents(plains: Iterable[dict[str, Any]]) -> list[tuple[bytes, list[Path]]]:
    return [(orjson.dumps(plain), list(places(plain))) for plain in plains]


def _good() -> Iterator[tuple[UUID, bytes]]:
    """Good bodies of each section type: the longest and the shortest known, or zeroes."""
    for guid in GUIDS:
        found = [body for body in [*bodies(guid), bytes(200)] if "section" in plain_body(guid, body)]
        for body in {min(found, key=len, default=b""), max(found, key=len, default=b"")}:
            yield guid, body


@cache
def records() -> list[bytes]:
    """Good records."""
    return [data for data, _ in vectors()]


@cache
def blocks() -> list[bytes]:
    """Good status blocks."""
    return [path.read_bytes() for path in sorted((LINUX / "blocks").glob("*.bin"))]


@cache
def documents() -> list[tuple[bytes, list[Path]]]:
    """Our JSON of sections, records and blocks, whole and damaged, and the places in it."""
    return _documents(
        [
            *(document.of_section(section_class(guid), body) for guid, body in _good()),
            *(document.of_item(item) for data in records()[::12] for item in items([data])),
            *(document.of_item(item) for data in blocks()[::8] for item in items([data, b"no record"])),
            *(document.of_item(item) for data in (records()[0], blocks()[0]) for item in items([data[:-9]])),
        ]
    )


@cache
def libcper_documents() -> list[tuple[bytes, list[Path]]]:
    """libcper's JSON of records, and the places in it."""
    return _documents(of_record(Record.decode(data)) for data in records()[::12])


def seeds() -> list[bytes]:
    """Good inputs of every kind to begin with."""
    captured = [path.read_bytes() for path in sorted((LINUX / "records").glob("*.cper"))] + records()[::3]
    given: dict[Callable[[bytes, bool], None], Iterable[bytes]] = {
        record: captured,
        block: blocks(),
        stream: [a + b for a, b in zip(captured[::7], blocks(), strict=False)],
        text: [data.hex().encode() for data in captured[::20]],
        json_document: [source for source, _ in documents()],
        libcper: records()[::6],
        libcper_json: [source for source, _ in libcper_documents()],
        changed_document: [bytes([n, 7 * n % 256, 0, n % 32]) for n in range(len(documents()))],
        changed_libcper: [bytes([n, 7 * n % 256, 0, n % 32]) for n in range(len(libcper_documents()))],
    }
    out = [first(FRAMES.index(frame)) + data for frame, datas in given.items() for data in datas]
    for index, guid in enumerate(GUIDS):
        out += [first(len(FRAMES) + index) + body for body in {*bodies(guid), bytes(200)}]
    return out
