"""Every declared structure, and bytes for it, derived from its declaration; well-formed frames, and broken ones."""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import acpi
import cper
import vmm_ras.boot
import vmm_ras.kvm
from acpi.ghes import DataEntry201, DataEntry300, ErrorStatusHeader
from acpi.hest import FIXED
from acpi.table import TableHeader, seal
from cper.memory import PlatformMemory
from cper.record import RecordHeader, SectionDescriptor
from cper.wire import OpenEnum, OpenFlags, Struct

PACKAGES = (cper, acpi, vmm_ras.boot, vmm_ras.kvm)


@cache
def modules() -> tuple[ModuleType, ...]:
    """Every module of the packages, imported."""
    found = []
    for package in PACKAGES:
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            found.append(importlib.import_module(info.name))
    return tuple(found)


def _below(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _below(sub)


def _ours(cls: type) -> list[Any]:
    modules()
    names = tuple(p.__name__ + "." for p in PACKAGES)
    found = {c.__name__: c for c in _below(cls) if c.__module__.startswith(names)}
    return [found[name] for name in sorted(found)]


@cache
def declared() -> tuple[type[Struct], ...]:
    """Every structure with a layout, by name."""
    return tuple(c for c in _ours(Struct) if "SIZE" in vars(c))


@cache
def enums() -> tuple[type[OpenEnum], ...]:
    """Every open enum."""
    return tuple(c for c in _ours(OpenEnum) if len(c))


@cache
def flags() -> tuple[type[OpenFlags], ...]:
    """Every set of open flags."""
    return tuple(_ours(OpenFlags))


def constants(cls: type[Struct]) -> list[tuple[int, bytes]]:
    """(offset, bytes) of everything that must hold what the declaration says, nested structures included."""
    found = []
    for slot in cls.words.slots:
        _, cell, at = cls.words.words[slot.word]
        if slot.const is not None:
            raw = slot.dump(slot.const) if slot.dump else slot.const.to_bytes(cell.size, "little")
            found.append((at, raw))
        elif not slot.mask and isinstance(slot.kind, type) and issubclass(slot.kind, Struct):
            found += [(at + inner, raw) for inner, raw in constants(slot.kind)]
    return found


def in_place(cls: type[Struct], raw: bytes) -> bytes:
    """``raw`` with the constants of ``cls`` in place."""
    out = bytearray(raw)
    for at, value in constants(cls):
        out[at : at + len(value)] = value
    return bytes(out)


def images(cls: type[Struct]) -> st.SearchStrategy[bytes]:
    """Any bytes of the right length, constants in place."""
    return st.binary(min_size=cls.SIZE, max_size=cls.SIZE).map(lambda raw: in_place(cls, raw))


LONG = settings.default is not None and settings.default.max_examples > 1000
"""Whether this is ``make fuzz``."""


def each_image(cls: type[Struct], holds: Callable[[bytes], None]) -> None:
    """Call ``holds`` with images: with the same twelve at every ``make check``, with ever new ones at ``make fuzz``.

    There are hundreds of structures, and to have Hypothesis draw few images of each takes longer than to look at them.
    """
    if LONG:

        @given(images(cls))
        def held(raw: bytes) -> None:
            holds(raw)

        held()
        return
    r = random.Random(cls.__name__)
    holds(in_place(cls, bytes(cls.SIZE)))
    holds(in_place(cls, b"\xff" * cls.SIZE))
    for sparse in range(10):
        kept = r.randbytes(cls.SIZE)
        holds(in_place(cls, bytes(b if not sparse & 1 or r.random() < 0.3 else 0 for b in kept)))


def without_residue(value: Struct) -> Struct:
    """The same structure, all bits that no field claims zero."""
    update: dict[str, Any] = {"residue": None}
    for name, inner in value:
        if isinstance(inner, Struct):
            update[name] = without_residue(inner)
    return value.model_copy(update=update)


GUIDS = st.one_of(st.just(PlatformMemory.GUID.bytes_le), st.binary(min_size=16, max_size=16))
BODIES = st.one_of(st.binary(max_size=100), images(PlatformMemory), st.binary(min_size=73, max_size=96))


@st.composite
def status_blocks(draw: st.DrawFn) -> bytes:
    """A well-formed block: any header bits, entries of both forms, raw data with and without a gap."""
    parts = []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from([DataEntry201, DataEntry300]))
        body = draw(BODIES)
        head = bytearray(draw(images(kind)))
        head[:16] = draw(GUIDS)
        head[20:22] = draw(st.integers(0, 2) if kind is DataEntry201 else st.integers(3, 255)).to_bytes(2, "big")
        head[24:28] = len(body).to_bytes(4, "little")
        parts.append(bytes(head) + body)
    data = b"".join(parts)
    header = bytearray(draw(images(ErrorStatusHeader)))
    header[12:16] = len(data).to_bytes(4, "little")
    behind = b""
    if draw(st.booleans()):
        gap, raw = draw(st.binary(max_size=8)), draw(st.binary(min_size=1, max_size=16))
        behind = gap + raw
        header[4:8] = (20 + len(data) + len(gap)).to_bytes(4, "little")
        header[8:12] = len(raw).to_bytes(4, "little")
    else:
        header[8:12] = bytes(4)
    return bytes(header) + data + behind


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A well-formed record: bodies back to back or in any order, with gaps and with bytes behind the last."""
    bodies = draw(st.lists(BODIES, max_size=3))
    at = 128 + 72 * len(bodies)
    offsets, tail = {}, b""
    for index in draw(st.permutations(range(len(bodies)))):
        tail += draw(st.binary(max_size=4))
        offsets[index] = at + len(tail)
        tail += bodies[index]
    tail += draw(st.binary(max_size=4))
    descriptors = []
    for index, body in enumerate(bodies):
        one = bytearray(draw(images(SectionDescriptor)))
        one[:8] = offsets[index].to_bytes(4, "little") + len(body).to_bytes(4, "little")
        one[16:32] = draw(GUIDS)
        descriptors.append(bytes(one))
    header = bytearray(draw(images(RecordHeader)))
    header[10:12] = len(bodies).to_bytes(2, "little")
    header[20:24] = (at + len(tail)).to_bytes(4, "little")
    raw = bytearray(bytes(header) + b"".join(descriptors) + tail)
    if len(bodies) > 1 and draw(st.booleans()):  # a descriptor that points to another's body
        raw[128:136] = raw[200:208]
    return bytes(raw)


@st.composite
def hests(draw: st.DrawFn) -> bytes:
    """A well-formed HEST whose sources all have a fixed size, with bytes behind them."""
    sources = [draw(images(draw(st.sampled_from(list(FIXED.values()))))) for _ in range(draw(st.integers(0, 3)))]
    body = len(sources).to_bytes(4, "little") + b"".join(sources) + draw(st.binary(max_size=4))
    return seal(table_header(draw, "HEST"), body)


@st.composite
def xsdts(draw: st.DrawFn) -> bytes:
    """A well-formed XSDT."""
    return seal(table_header(draw, "XSDT"), draw(st.binary(max_size=5).map(lambda b: b * 8)))


def table_header(draw: st.DrawFn, signature: str) -> TableHeader:
    """Any header with this signature."""
    return TableHeader.decode(draw(images(TableHeader))).model_copy(update={"signature": signature})


@st.composite
def mutated(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """Something well-formed with some bytes changed, cut off or added."""
    raw = bytearray(draw(source))
    for _ in range(draw(st.integers(1, 4))):
        what = draw(st.sampled_from(["byte", "word", "cut", "grow"]))
        if what == "byte" and raw:
            raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
        elif what == "word" and len(raw) >= 4:
            at = 4 * draw(st.integers(0, len(raw) // 4 - 1))
            raw[at : at + 4] = draw(st.sampled_from(EDGES)).to_bytes(4, "little")
        elif what == "cut":
            del raw[draw(st.integers(0, len(raw))) :]
        else:
            raw += draw(st.binary(max_size=8))
    return bytes(raw)


EDGES = [0, 1, 19, 20, 63, 64, 71, 72, 127, 128, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["0x10", "0xzz", "fatal", "a5bc1114-6f64-4ede-b863-3e83ed7c83b1", "00" * 80, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
"""Anything that a JSON reader may hand over, and some things that it may not."""


def any_json(r: random.Random, depth: int = 2) -> Any:
    """A value of the kinds of ``JSON``; for what ``each_image`` says, not drawn by Hypothesis."""
    kind = r.randrange(9 if depth else 7)
    if kind < 5:
        return r.choice((None, True, r.randint(-(1 << 70), 1 << 70), r.choice(EDGES), r.random(), float("nan")))
    if kind < 7:
        odd = ["", "0x10", "0xzz", "fatal", "a5bc1114-6f64-4ede-b863-3e83ed7c83b1", "00" * 80, "\ud800", "\0é"]
        return r.choice([*odd, str(r.randrange(256))])
    values = [any_json(r, depth - 1) for _ in range(r.randrange(4))]
    return values if kind == 7 else {r.choice((*NAMES, "x", "")): value for value in values}


NAMES = ("header", "entries", "sections", "descriptor", "section", "body", "tail", "length", "gap", "raw_data", "gaps")


def plain_like(names: tuple[str, ...], value: st.SearchStrategy[Any] = JSON) -> st.SearchStrategy[Any]:
    """JSON objects that use the right names for anything."""
    return st.one_of(JSON, st.dictionaries(st.sampled_from(names), value, max_size=4))
