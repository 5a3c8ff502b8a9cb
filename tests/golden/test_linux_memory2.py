"""Platform Memory 2, which no kernel decodes: our reading against what went in, our writing against what was dumped."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cper.memory2 import MemoryStatus, PlatformMemory2
from cper.wire import TruncatedError
from tests.golden.linux import KERNELS
from tests.golden.linux_sections import dumped, entries, printed
from tests.laws import mutants

[(ENTRY, PUT)] = entries("memory2", "mem2-all")
NAMES = {"error_type": "memory_error_type", "chip_id": "chip_identification"}
"""Ours to the generator's, where they differ."""


def holds_what_was_put_in(section):
    """All 20 fields; the words that are structures are compared as words."""
    for row in PlatformMemory2.layout:
        if row.valid is None or row.bits:
            continue
        value = getattr(section, row.path)
        number = int.from_bytes(value.encode(), "little") if hasattr(value, "encode") else value
        assert number == PUT[NAMES.get(row.path, row.path)], row.path


def test_what_went_in_is_what_we_read():
    assert PUT["validation_bits"] == (1 << 20) - 1
    section = ENTRY.section()
    holds_what_was_put_in(section)
    assert section.status == MemoryStatus(uncorrected=True)
    assert (section.bank_group, section.bank_address) == (None, None)
    values = [PUT[NAMES.get(r.path, r.path)] for r in PlatformMemory2.layout if r.valid is not None and not r.bits]
    assert len(set(values)) == len(values) == 20


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_the_kernels_dumped_is_what_we_write(kernel):
    assert dumped(printed("memory2", "mem2-all", kernel)[0]) == ENTRY.section().encode()


@pytest.mark.parametrize("kernel", KERNELS)
def test_built_from_values_it_is_what_the_kernels_dumped(kernel):
    plain = {NAMES.get(k, k): v for k, v in PUT.items()}
    given = {
        name: plain[NAMES.get(name, name)] for name in PlatformMemory2.model_fields if NAMES.get(name, name) in PUT
    }
    given |= {"error_status": {"type": "poisoned"}, "status": {"uncorrected": True}}
    built = PlatformMemory2.of_plain(given)
    assert dumped(printed("memory2", "mem2-all", kernel)[0]) == built.encode()


def test_no_two_words_can_be_exchanged():
    """Of the validation bits all are set in the vector: those the headers tell apart (tests/laws/test_mutation.py)."""
    survivors = []
    for mutant in mutants.words(PlatformMemory2):
        try:
            holds_what_was_put_in(mutant.codec(PlatformMemory2)["decode"](ENTRY.body))
        except (AssertionError, AttributeError, ValueError, TypeError):
            continue
        survivors.append((mutant.first, mutant.second))
    assert survivors == []


def test_a_bank_is_named_one_way():
    assert PlatformMemory2(bank_group=1, bank_address=2).encode()[38:40] == b"\2\1"
    with pytest.raises(ValidationError, match="bank excludes"):
        PlatformMemory2(bank=1, bank_group=1)
    with pytest.raises(TruncatedError, match="96 bytes needed, 95 given"):
        PlatformMemory2.of_body(bytes(95))
