"""DMAr sections that no arm64 kernel decodes: our reading against what went in, our writing against what it dumped."""

from __future__ import annotations

import pytest

from cper.dmar import DmarAccessType, DmarAddressType, DmarArchitectureType, DmarFaultReason, DmarGeneric
from cper.dmar_iommu import DmarIommu
from cper.dmar_vtd import DmarVtd, VtdFaultRecord
from cper.section import body_of_plain, plain_body, read_section
from cper.wire import TruncatedError
from tests.golden.linux import KERNELS
from tests.golden.linux_sections import dumped, entries, printed

GENERIC = DmarGeneric(
    requester_id=0x0108,
    segment_number=1,
    fault_reason=DmarFaultReason.INVALID_ACCESS,
    access_type=DmarAccessType.DMA_READ,
    address_type=DmarAddressType.UNTRANSLATED,
    architecture_type=DmarArchitectureType.IOMMU,
    device_address=0x123456789000,
)
"""The values of the generator, field by field."""
VTD = {
    "version": 1,
    "revision": 2,
    "oem_id": "OEMVTD",
    "capability": 0x0706050403020100,
    "extended_capability": 0x0F0E0D0C0B0A0908,
    "global_command": 0x13121110,
    "global_status": 0x17161514,
    "fault_status": 0x1B1A1918,
    "root_entry": (0x3F3E3D3C3B3A3938, 0x4746454443424140),
    "context_entry": (0x4F4E4D4C4B4A4948, 0x5756555453525150),
    "level_6_page_table_entry": 0x5F5E5D5C5B5A5958,
    "level_5_page_table_entry": 0x6766656463626160,
    "level_4_page_table_entry": 0x6F6E6D6C6B6A6968,
    "level_3_page_table_entry": 0x7776757473727170,
    "level_2_page_table_entry": 0x7F7E7D7C7B7A7978,
    "level_1_page_table_entry": 0x8786858483828180,
}
IOMMU = {
    "revision": 1,
    "control": 0x0706050403020100,
    "status": 0x0F0E0D0C0B0A0908,
    "event_log_entry": (0x1F1E1D1C1B1A1918, 0x2726252423222120),
    "device_table_entry": (0x3F3E3D3C3B3A3938, 0x4746454443424140, 0x4F4E4D4C4B4A4948, 0x5756555453525150),
    **{name: value for name, value in VTD.items() if name.startswith("level_")},
}


def test_the_generic_section():
    [(entry, put)] = entries("dmar", "dmar")
    assert entry.section() == GENERIC
    assert GENERIC.encode() == entry.body == bytes.fromhex(put["bytes"])


@pytest.mark.parametrize(("vector", "values"), [("dmar-vtd", VTD), ("dmar-iommu", IOMMU)])
def test_every_register_and_table_entry(vector, values):
    [(entry, put)] = entries("dmar", vector)
    found = entry.section()
    assert {name: getattr(found, name) for name in values} == values
    assert set(type(found).model_fields) - set(values) <= {"residue", "fault_record"}
    assert found.encode() == entry.body == bytes.fromhex(put["bytes"])


def test_the_fault_record():
    """Bytes 48 to 63 count from 0x28: low word 0x2f2e2d2c2b2a2928, high word 0x3736353433323130."""
    [(entry, _)] = entries("dmar", "dmar-vtd")
    record = entry.section().fault_record
    assert record.fault_information == 0x2F2E2D2C2B2A2
    assert record.source_identifier == 0x3130
    assert (record.privilege_mode_requested, record.execute_permission_requested) == (True, False)
    assert record.pasid_present is False
    assert record.fault_reason == 0x34
    assert record.pasid_value == 0x73635
    assert (record.address_type, record.type) == (3, 0)


def test_a_fault_record_is_made():
    made = VtdFaultRecord(
        fault_information=0xABCDE, source_identifier=0x0108, pasid_present=True, fault_reason=6, pasid_value=5, type=1
    )
    low, high = made.encode()[:8], made.encode()[8:]
    assert int.from_bytes(low, "little") == 0xABCDE000
    assert int.from_bytes(high, "little") == 1 << 62 | 5 << 40 | 6 << 32 | 1 << 31 | 0x0108


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("vector", ["dmar", "dmar-vtd", "dmar-iommu"])
def test_what_the_kernels_dumped_is_what_we_write(vector, kernel):
    [(entry, _)] = entries("dmar", vector)
    again = body_of_plain(entry.header.section_type, plain_body(entry.header.section_type, entry.body))
    assert dumped(printed("dmar", vector, kernel)[0]) == entry.section().encode() == again


@pytest.mark.parametrize(
    ("cls", "path", "at"),
    [(DmarGeneric, "reserved", 16), (DmarVtd, "level_1_page_table_entry", 136), (DmarIommu, "device_table_entry", 64)],
)
def test_a_body_that_ends_early_is_one_error(cls, path, at):
    with pytest.raises(TruncatedError) as caught:
        read_section(cls.GUID, bytes(at + 1))
    assert str(caught.value).startswith(cls.__name__)
    assert caught.value.offset == at + 1
    with pytest.raises(TruncatedError) as caught:
        cls.decode(bytes(at + 1))
    assert (caught.value.path, caught.value.offset) == (path, at)
