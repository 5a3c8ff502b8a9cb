"""Firmware Error Record References that real arm64 kernels read: against what went in, and what they printed."""

from __future__ import annotations

from uuid import UUID

import pytest

from cper.firmware_error_record import FirmwareErrorRecord, FirmwareErrorRecordType
from cper.section import plain_body
from cper.wire import TruncatedError
from tests.golden.linux import KERNELS
from tests.golden.linux_sections import entries, printed, vectors

TOO_SHORT = {
    "fwref-len15": "FirmwareErrorRecord.head.record_identifier at 0x8: 16 bytes needed, 15 given",
    "risky-fwref-rev2-len16": "FirmwareErrorRecord.head.record_identifier_guid at 0x10: 32 bytes needed, 16 given",
}
VECTORS = [v for v in vectors("firmware_error") if v not in TOO_SHORT]
READ_OTHERWISE = {
    "fwref-rev1": "revision 1: the kernels take all from byte 8 on for data; the text has an identifier and the GUID",
}
WORDS = {
    FirmwareErrorRecordType.IPF_SAL: "IPF SAL Error Record",
    FirmwareErrorRecordType.SOC_TYPE_1: "SOC Firmware Error Record Type1 (Legacy CrashLog Support)",
    FirmwareErrorRecordType.SOC_TYPE_2: "SOC Firmware Error Record Type2",
}


def test_the_vectors_are_all_there():
    assert len(VECTORS) == 7
    assert {entries("firmware_error", v)[0][1]["revision"] for v in VECTORS} == {0, 1, 2, 3}


@pytest.mark.parametrize("vector", VECTORS)
def test_decoding_gives_what_was_put_in(vector):
    [(entry, put)] = entries("firmware_error", vector)
    found = entry.section()
    head = found.head
    assert (head.record_type, head.revision) == (put["record_type"], put["revision"])
    assert head.record_identifier == put["record_identifier"]
    whole = UUID(put["record_identifier_guid"])
    if put["revision"]:
        assert head.record_identifier_guid == whole
        assert found.vendor_data.hex() == put["trailing"]
    else:  # the generator always writes the GUID; in revision 0 there is none
        assert found.vendor_data == (whole.bytes_le + bytes.fromhex(put["trailing"]))[: put["(section length)"] - 16]
    assert found.encode() == entry.body
    assert FirmwareErrorRecord.of_plain(found.plain()) == found


def render(found):
    """The lines that Linux would print: the GUID by revision 2 only."""
    head = found.head
    out = ["section_type: Firmware Error Record Reference"]
    out.append(f"Firmware Error Record Type: {WORDS.get(head.record_type, 'unknown')}")
    out.append(f"Revision: {head.revision}")
    if head.revision == 0:
        out.append(f"Record Identifier: {head.record_identifier:08x}")
    elif head.revision == 2:
        out.append(f"Record Identifier: {head.record_identifier_guid}")
    data = found.vendor_data
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        words = " ".join(row[n : n + 4][::-1].hex() for n in range(0, len(row), 4))
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        out.append(f"{at:08x}: {words:<35}  {text}")
    return out


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("vector", VECTORS)
def test_the_kernels_printed_what_we_read(vector, kernel):
    [(entry, _)] = entries("firmware_error", vector)
    [lines] = printed("firmware_error", vector, kernel)
    if vector in READ_OTHERWISE:
        assert render(entry.section()) != lines, f"no longer different: {READ_OTHERWISE[vector]}"
        assert render(entry.section())[:3] == lines[:3]
    else:
        assert render(entry.section()) == lines


@pytest.mark.parametrize(("vector", "text"), TOO_SHORT.items())
def test_what_is_too_short_for_its_revision_is_refused_by_all(vector, text):
    [(entry, _)] = entries("firmware_error", vector)
    with pytest.raises(TruncatedError) as caught:
        entry.section()
    assert str(caught.value) == text
    assert plain_body(entry.header.section_type, entry.body) == {"body": entry.body.hex(), "error": text}
    for kernel in KERNELS:
        assert "error section length is too small" in printed("firmware_error", vector, kernel)[0][-1]


def test_it_is_made_by_revision():
    guid = UUID("00112233-4455-6677-8899-aabbccddeeff")
    made = FirmwareErrorRecord.of(record_type="soc_type_2", record_identifier_guid=guid, vendor_data=b"log")
    assert made.encode()[:2] == b"\x02\x02"
    assert made.encode()[16:] == guid.bytes_le + b"log"
    assert FirmwareErrorRecord.of_body(made.encode()) == made
    assert FirmwareErrorRecord.of(revision=0, record_type=0, record_identifier=7).encode() == bytes(8) + b"\7" + bytes(
        7
    )
