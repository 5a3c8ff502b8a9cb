"""No two fields of any declaration can be exchanged unnoticed: what comes from outside turns red for every mutant.

The evidence is ``tests/golden/evidence.py`` (other people's headers) for every structure, and what Linux printed and an
independent generator put in (``fixtures/linux``) for those that stand in the vectors.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, ClassVar, get_type_hints

import pytest
from pydantic import ConfigDict

from acpi.ghes import StatusBlock
from cper.memory import PlatformMemory
from cper.section import Section
from cper.wire import U16, Bits, LayoutError, Struct, Valid, ValidationBits, WireError
from tests.golden.evidence import complaints, find_complaints, table
from tests.golden.linux import (
    LINUX,
    Part,
    check_block_header,
    check_descriptor,
    check_entry,
    check_memory,
    check_record_header,
    comparable,
    log,
    parts,
    raw,
    render,
    report,
    vectors,
)
from tests.laws import mutants
from tests.strategies import declared

STRUCTS = declared()
NO_EVIDENCE = table("no_evidence")
every_struct = pytest.mark.parametrize("cls", STRUCTS, ids=lambda c: c.__name__)


@every_struct
def test_every_exchange_is_noticed_by_the_headers(cls, record_property):
    name = cls.__name__
    real = complaints(name, cls.SIZE, cls.layout)
    count: Counter[str] = Counter()
    survivors = []
    for mutant in mutants.all_of(cls):
        count["mutants"] += 1
        if mutant.layout is None:
            count["mutants refused by the layout kernel"] += 1
        elif name in NO_EVIDENCE:
            count["mutants of structures without evidence"] += 1
        elif any(find_complaints(name, cls.SIZE, mutant.rows)):
            count["mutants killed by headers"] += 1
        else:
            survivors.append(f"{mutant.kind}: {mutant.first} <-> {mutant.second}")
    for key, value in count.items():
        record_property(key, value)
    assert name in NO_EVIDENCE or real == [], "the evidence must be green before it can turn red"
    assert survivors == []


@every_struct
def test_a_mutant_is_what_the_class_would_be_if_it_were_declared_so(cls):
    """The computed layouts against classes that really are declared in the other order."""
    for kind in (mutants.words, mutants.slices, mutants.validation_bits):
        mutant = next(kind(cls), None)
        if mutant is not None and mutant.layout is not None:
            assert _place(_declare(cls, mutant).layout) == _place(mutant.rows)


def _place(rows):
    return {(r.path, r.offset, r.size, r.bits, r.valid) for r in rows}


def _declare(cls, mutant):
    """A class with the annotations of ``cls``, two of them exchanged."""
    hints = get_type_hints(cls, include_extras=True)
    order = [n for n, _, _ in cls.words.words] + [s.name for s in cls.words.slots if s.mask]
    if mutant.kind == "words":
        i, j = order.index(mutant.first), order.index(mutant.second)
        order[i], order[j] = order[j], order[i]
    else:
        mark = Bits if mutant.kind == "slices" else Valid
        a, b = hints[mutant.first], hints[mutant.second]
        hints[mutant.first], hints[mutant.second] = _with(a, b, mark), _with(b, a, mark)
    namespace: dict[str, Any] = {
        "__module__": "mutants",
        "__doc__": "A mutant.",
        "__annotations__": {n: hints[n] for n in order},
        "model_config": ConfigDict(use_attribute_docstrings=False),
    }
    for name in order:
        if name in cls.model_fields:
            if not cls.model_fields[name].is_required():
                namespace[name] = cls.model_fields[name].default
        else:
            namespace[name] = getattr(cls, name)
    return type(cls)("Mutant", (Struct,), namespace, size=cls.SIZE)


def _with(hint, other, mark):
    theirs = next(m for m in other.__metadata__ if isinstance(m, mark))
    return Annotated[(hint.__origin__, *[theirs if isinstance(m, mark) else m for m in hint.__metadata__])]


# -- foreign vectors --------------------------------------------------------------------------


def memory_holds(decode):
    """Whether memory sections, decoded so, say what went in and what Linux printed of them."""
    for name in MEMORY_VECTORS:
        block = StatusBlock.decode(raw(name))
        put = vectors()[name]["fields"]["entries"]
        found = []
        for part, entry, values in zip(parts(block), block.entries, put, strict=True):
            section = decode(entry.body.ljust(PlatformMemory.SIZE, b"\0"))
            check_memory(section, values["section"])
            found.append(Part(part.header, section, True))
        assert comparable(render(block.header, found)) == comparable(report(log("7.2", name)))


def entry_holds(decode, size):
    """Whether entry headers, decoded so, say what went in and what Linux printed of them."""
    for name in ENTRY_VECTORS:
        data = raw(name)
        put = vectors()[name]["fields"]["entries"]
        if any(e["entry_header_size"] != size for e in put):
            continue
        block, found, at = StatusBlock.decode(data), [], 20
        for part, values in zip(parts(block), put, strict=True):
            head = decode(data, at)
            at += size + values["error_data_length"]
            check_entry(head, values)
            found.append(Part(head, part.memory, part.is_memory))
        assert comparable(render(block.header, found)) == comparable(report(log("7.2", name)))


def status_holds(decode):
    """Whether block headers, decoded so, say what went in."""
    for name in STATUS_VECTORS:
        check_block_header(decode(raw(name)), vectors()[name]["fields"])


def timestamp_holds(decode):
    """Whether timestamps, decoded so, are those that Linux printed."""
    for name in [n for n in ENTRY_VECTORS if n.startswith("ent-ts-")]:
        put = vectors()[name]["fields"]["entries"][0]
        stamp = decode(bytes.fromhex(put["timestamp"]))
        line = next(line for line in report(log("7.2", name)) if "tstamp" in line)
        assert line == f" {'precise' if stamp.precise else 'imprecise'} tstamp: {stamp}"


def record_holds(decode):
    """Whether record headers, decoded so, say what went in."""
    for name in RECORD_VECTORS:
        check_record_header(decode((LINUX / vectors()[name]["record"]["file"]).read_bytes()), vectors()[name])


def descriptor_holds(decode):
    """Whether section descriptors, decoded so, say what went in."""
    for name in RECORD_VECTORS:
        data = (LINUX / vectors()[name]["record"]["file"]).read_bytes()
        put = vectors()[name]["fields"]["entries"]
        at = 128 + 72 * len(put)
        for index, values in enumerate(put):
            check_descriptor(decode(data, 128 + 72 * index), values, at, values["error_data_length"])
            at += values["error_data_length"]


MEMORY_VECTORS = ["mem-all", "mem-all-bankgroup", *[f"mem-bit{n:02}" for n in range(22)], "mem-types"]
ENTRY_VECTORS = [
    *("ent-fru", "ent-fruid-only", "ent-frutext-only", "ent-ts-imprecise", "ent-ts-flagsff", "ent-ts-notbcd"),
    *("ent-flag10", "ent-sev4", "ent-rev0400", "ent-rev201", "ent-rev201-tsbit", "ent-rev02ff", "blk-multi"),
]
STATUS_VECTORS = ["mem-all", "blk-multi", "blk-raw", "blk-status-all", "mem-recoverable-ram", "mem-len76-all"]
RECORD_VECTORS = ["ent-fru", "ent-fruid-only", "ent-frutext-only", "ent-ts-imprecise", "ent-flag10", "blk-multi"]

FOREIGN = {
    "PlatformMemory": memory_holds,
    "DataEntry300": lambda decode: entry_holds(decode, 72),
    "DataEntry201": lambda decode: entry_holds(decode, 64),
    "ErrorStatusHeader": status_holds,
    "Timestamp": timestamp_holds,
    "RecordHeader": record_holds,
    "SectionDescriptor": descriptor_holds,
}
BLIND = {
    "RecordHeader": {
        ("words", "platform_id", "partition_id"): "neither is valid in any vector, both are zero",
        ("bits", "platform_id", "partition_id"): "neither is valid in any vector",
    },
    "DataEntry201": {("bits", "fru_id", "fru_text"): "neither is valid in any vector before revision 3"},
}
"""Exchanges that no vector can see; the headers see them all."""
RED = (AssertionError, WireError, ValueError, AttributeError, TypeError, KeyError, IndexError)


@pytest.mark.parametrize("name", FOREIGN)
def test_every_exchange_is_noticed_by_foreign_vectors(name, record_property):
    cls = next(c for c in STRUCTS if c.__name__ == name)
    holds, count, survivors = FOREIGN[name], Counter(), []
    holds(cls.decode)
    for mutant in mutants.all_of(cls):
        if mutant.layout is None:
            continue
        count["mutants tried on foreign vectors"] += 1
        try:
            holds(mutant.codec(cls)["decode"])
        except RED:
            count["mutants killed by foreign vectors"] += 1
        else:
            survivors.append((mutant.kind, mutant.first, mutant.second))
    for key, value in count.items():
        record_property(key, value)
    assert set(survivors) == set(BLIND.get(name, {}))


# -- the test itself ----------------------------------------------------------------------------


def test_mutants_are_made():
    """Against counting by hand: 7 words of 8 bytes, 11 of 2, 2 of 1; one pair of 8-bit slices; 22 bits."""
    kinds = Counter(m.kind for m in mutants.all_of(PlatformMemory))
    assert kinds == {"words": 21 + 55 + 1, "slices": 1, "bits": 22 * 21 // 2}


def test_the_mistake_that_property_tests_do_not_see():
    """Card and module exchanged: every law holds, and only evidence from outside says that it is wrong."""

    class Wrong(Section, size=16, guid="a5bc1114-6f64-4ede-b863-3e83ed7c83b1"):
        """Wrong."""

        validation_bits: ClassVar = ValidationBits("Q")
        module: Annotated[U16 | None, Valid(5)] = None
        card: Annotated[U16 | None, Valid(4)] = None
        rest: Annotated[U16 | None, Valid(6)] = None
        more: Annotated[U16 | None, Valid(7)] = None

    data = bytes(range(16))
    assert Wrong.decode(data).encode() == data
    swapped = [m for m in mutants.words(PlatformMemory) if {m.first, m.second} == {"card", "module"}]
    assert len(swapped) == 1
    found = complaints("PlatformMemory", 80, swapped[0].rows)
    assert len(found) == 8  # two fields, four headers
    assert all(".card" in c or ".module" in c for c in found)


def test_a_refused_mutant_is_refused_by_a_class_too():
    with pytest.raises(LayoutError):

        class Wrong(Struct, size=2):
            """Wrong."""

            part: Annotated[int, Bits("word", 0, 4)] = 0
            word: U16 = 0
