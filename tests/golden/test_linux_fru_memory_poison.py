"""The poison list that no arm64 kernel decodes: against what went in, what they dumped, and a body made by hand."""

from __future__ import annotations

import struct

import pytest

from cper.fru_memory_poison import (
    FruArchitectureType,
    FruIdentifierType,
    FruMemoryPoison,
    FruMemoryPoisonHead,
    FruPoisonDescriptor,
)
from cper.section import body_of_plain, plain_body, read_section
from cper.wire import TruncatedError
from tests.golden.linux import KERNELS
from tests.golden.linux_sections import dumped, entries, printed

GUID = FruMemoryPoison.GUID


def body(*, valid=0x3F, count=2, descriptors=2, tail=b""):
    head = struct.pack("<IQIQIQI", 0x11111111, valid, 0, 0x00A20F12, 0, 0x0123456789ABCDEF, count)
    one = [struct.pack("<QIQIQ", 1_700_000_000 + n, 0, 0x9600050F00 + n, 0, 0x40001000 + n) for n in range(descriptors)]
    return head + b"".join(one) + tail


def test_the_vector_has_no_valid_list():
    """Every byte counts up from 0: of the validation bits 0x04 only that of the identifier type has a field."""
    [(entry, put)] = entries("fru_memory_poison", "frupoison")
    assert entry.body == bytes.fromhex(put["bytes"]) == bytes(range(72))
    found = entry.section()
    assert found.head.checksum == 0x03020100
    assert found.head.fru_identifier_type == FruIdentifierType(0x1B1A1918)
    assert found.head.fru_architecture_type is None
    assert (found.head.poison_list_entries, found.poison_list) == (None, ())
    assert found.trailing == bytes(range(40, 72))


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_the_kernels_dumped_is_what_we_write(kernel):
    [(entry, _)] = entries("fru_memory_poison", "frupoison")
    again = body_of_plain(GUID, plain_body(GUID, entry.body))
    assert dumped(printed("fru_memory_poison", "frupoison", kernel)[0]) == entry.section().encode() == again


def test_a_whole_list():
    found = FruMemoryPoison.of_body(body(tail=b"xy"))
    head = found.head
    assert head == FruMemoryPoisonHead(
        checksum=0x11111111,
        poison_list_valid=True,
        fru_architecture_type=FruArchitectureType.X86_CPUID_1_EAX,
        fru_architecture_value=0x00A20F12,
        fru_identifier_type=FruIdentifierType.X86_PPIN,
        fru_identifier_value=0x0123456789ABCDEF,
        poison_list_entries=2,
    )
    assert found.poison_list == tuple(
        FruPoisonDescriptor(
            poison_timestamp=1_700_000_000 + n, hardware_identifier_value=0x9600050F00 + n, address_value=0x40001000 + n
        )
        for n in range(2)
    )
    assert found.trailing == b"xy"
    assert found.encode() == body(tail=b"xy") == body_of_plain(GUID, plain_body(GUID, body(tail=b"xy")))


@pytest.mark.parametrize("valid", [0x1F, 0x2F])
def test_a_list_that_is_not_valid_is_trailing_bytes(valid):
    found = FruMemoryPoison.of_body(body(valid=valid))
    assert found.poison_list == ()
    assert found.trailing == body()[40:]
    assert found.encode() == body(valid=valid)


@pytest.mark.parametrize("count", [3, 0xFFFFFFFF])
def test_a_count_that_is_too_high_is_one_error(count):
    with pytest.raises(TruncatedError) as caught:
        read_section(GUID, body(count=count))
    text = f"FruMemoryPoison.head.poison_list_entries at 0x24: {count} poison_list need {32 * count} bytes, 64 given"
    assert str(caught.value) == text
    assert plain_body(GUID, body(count=count)) == {"body": body(count=count).hex(), "error": text}


def test_a_head_that_ends_early_is_one_error():
    with pytest.raises(TruncatedError) as caught:
        read_section(GUID, bytes(39))
    assert str(caught.value) == "FruMemoryPoison.head.poison_list_entries at 0x24: 40 bytes needed, 39 given"


def test_it_is_made_with_the_right_checksum():
    made = FruMemoryPoison.of(FruMemoryPoison.of_body(body()).poison_list, fru_identifier_value=7)
    raw = made.encode()
    assert sum(struct.unpack(f"<{len(raw) // 4}I", raw)) % (1 << 32) == 0
    assert made.word_sum() == 0
    assert FruMemoryPoison.of_body(raw) == made
    assert FruMemoryPoison.of_body(body()).word_sum() != 0
