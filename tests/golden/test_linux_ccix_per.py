"""The CCIX section that no arm64 kernel decodes: our reading against what went in, our writing against the dump."""

from __future__ import annotations

import construct as c
import pytest

from cper.ccix_per import CcixPer, CcixPerHead
from cper.section import body_of_plain, plain_body, read_section
from cper.wire import DecodeError, TruncatedError
from tests.golden.linux import KERNELS
from tests.golden.linux_sections import dumped, entries, printed

VALUE = CcixPer.of(bytes(range(20)), source_id=0x11, port_id=0x12)
"""The values of the generator, field by field."""


def test_what_went_in_is_what_we_read():
    [(entry, put)] = entries("ccix_per", "ccix")
    assert entry.section() == VALUE
    assert VALUE.encode() == entry.body == bytes.fromhex(put["bytes"])
    assert VALUE.head == CcixPerHead(length=36, per_log_valid=True, source_id=0x11, port_id=0x12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_the_kernels_dumped_is_what_we_write(kernel):
    [(entry, _)] = entries("ccix_per", "ccix")
    again = body_of_plain(CcixPer.GUID, plain_body(CcixPer.GUID, entry.body))
    assert dumped(printed("ccix_per", "ccix", kernel)[0]) == VALUE.encode() == again


def body(length, size, valid=7):
    return length.to_bytes(4, "little") + valid.to_bytes(8, "little") + bytes(range(1, 1 + size - 12))


def test_bytes_behind_the_length_are_trailing_and_what_is_not_valid_is_kept():
    found = CcixPer.of_body(body(20, 30, valid=0xF0))
    assert (found.head.source_id, found.head.port_id, found.head.per_log_valid) == (None, None, False)
    assert found.per_log == bytes(range(5, 9))
    assert found.trailing == bytes(range(9, 19))
    assert found.encode() == body(20, 30, valid=0xF0)
    assert body_of_plain(CcixPer.GUID, plain_body(CcixPer.GUID, found.encode())) == found.encode()


@pytest.mark.parametrize(
    ("length", "size", "kind", "reason"),
    [
        (15, 36, DecodeError, "15 bytes, but the head alone has 16"),
        (37, 36, TruncatedError, "37 bytes needed, 36 given"),
        (0xFFFFFFFF, 16, TruncatedError, "4294967295 bytes needed, 16 given"),
    ],
)
def test_a_length_that_the_body_contradicts_is_one_error(length, size, kind, reason):
    with pytest.raises(kind) as caught:
        read_section(CcixPer.GUID, body(length, size))
    assert str(caught.value) == f"CcixPer.head.length at 0x0: {reason}"
    plain = plain_body(CcixPer.GUID, body(length, size))
    assert plain == {"body": body(length, size).hex(), "error": str(caught.value)}


def test_a_head_that_ends_early_is_one_error():
    with pytest.raises(TruncatedError) as caught:
        read_section(CcixPer.GUID, bytes(13))
    assert str(caught.value) == "CcixPer.head.port_id at 0xd: 16 bytes needed, 13 given"


def test_the_frame_may_be_part_of_another_declaration():
    both = c.Struct("before" / c.Int16ul, "section" / CcixPer.FRAME)
    found = both.parse(b"\x07\x00" + body(20, 30))
    assert (found.before, found.section.head.length, found.section.per_log) == (7, 20, bytes(range(5, 9)))
    assert both.build(found) == b"\x07\x00" + body(20, 30)
