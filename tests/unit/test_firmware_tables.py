"""FADT, MADT, GTDT and SPCR as bytes that nobody vouches for: read, or one error with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acpi.fadt import Fadt, FadtHeader
from acpi.gas import GenericAddress
from acpi.gtdt import Gtdt
from acpi.madt import GicCpuInterface, GicIts, GicRedistributor, Madt, OtherController
from acpi.spcr import Spcr
from acpi.table import TableHeader, checksum, seal
from cper.wire import DecodeError, TruncatedError, WireError


def sealed(signature, body, revision=1):
    return seal(TableHeader(signature=signature, length=0, revision=revision), body)


class TestMadt:
    def table(self, *controllers):
        return Madt(controllers).build()

    def test_every_kind_comes_back(self):
        given = (
            GicCpuInterface(cpu_interface_number=1, acpi_processor_uid=2, mpidr=0x100),
            GicRedistributor(discovery_range_base_address=0x80A_0000, discovery_range_length=0x4_0000),
            GicIts(physical_base_address=0x808_0000),
            OtherController(bytes([0x0B, 8]) + b"123456"),  # a known type in another length
            OtherController(bytes([0x7F, 2])),
        )
        raw = self.table(*given)
        assert not checksum(raw)
        assert Madt.parse(raw).controllers == given

    def test_a_structure_with_no_length(self):
        raw = sealed("APIC", bytes(8) + bytes([11, 1]) + bytes(78))
        with pytest.raises(DecodeError) as caught:
            Madt.parse(raw)
        assert (caught.value.path, caught.value.offset) == ("controllers[0].length", 45)

    @pytest.mark.parametrize("body", [bytes([11]), bytes([11, 80]) + bytes(77), bytes([99, 200]) + bytes(5)])
    def test_a_structure_that_is_cut_off(self, body):
        with pytest.raises(TruncatedError) as caught:
            Madt.parse(sealed("APIC", bytes(8) + self.table(GicIts(physical_base_address=0))[44:] + body))
        assert caught.value.path.startswith("controllers[1]")
        assert caught.value.offset >= 64

    def test_a_table_without_its_fixed_part(self):
        with pytest.raises(TruncatedError) as caught:
            Madt.parse(sealed("APIC", bytes(7)))
        assert caught.value.offset == 36

    @given(st.binary(max_size=400))
    def test_any_body_is_read_or_refused(self, body):
        raw = sealed("APIC", body)
        try:
            assert Madt.parse(raw).build() == raw
        except WireError as error:
            assert error.offset is not None
            assert 36 <= error.offset <= len(raw)


class TestFadt:
    @pytest.mark.parametrize("size", [44, 116, 132, 244, 268, 276, 300])
    def test_every_revision_comes_back_as_long_as_it_was(self, size):
        raw = sealed("FACP", bytes(i * 7 & 0xFF for i in range(size - 36)), 6)
        table = Fadt.parse(raw)
        assert table.build() == raw
        assert table.trailing == raw[276:]
        if size < 276:
            assert table.head.hypervisor_vendor_identity == ""

    def test_the_conduit(self):
        for hvc, word in ((True, 3), (False, 1)):
            raw = Fadt.of(psci_use_hvc=hvc).build()
            at = FadtHeader.at("arm_boot_arch").offset
            assert raw[at : at + 2] == bytes([word, 0])
            assert len(raw) == 276


class TestGtdt:
    def test_the_form_follows_the_revision(self):
        for revision, size in ((2, 96), (3, 104), (4, 104)):
            header = TableHeader(signature="GTDT", length=0, revision=revision)
            raw = Gtdt.of(header, virtual_el1_gsiv=27).build()
            assert len(raw) == size
            assert Gtdt.parse(raw).head.virtual_el1_gsiv == 27

    def test_platform_timers(self):
        timer = bytes([1]) + (28).to_bytes(2, "little") + bytes(25)
        plain = Gtdt.of(platform_timer_count=2, platform_timer_offset=104)
        table = Gtdt.parse(Gtdt(plain.head, timer * 2).build())
        assert table.timers == (timer, timer)

    @pytest.mark.parametrize(
        ("count", "offset", "trailing"),
        [
            (1, 104, b""),
            (1, 104, b"\1\3\0\0"),
            (2, 104, b"\1\4\0\0"),
            (1, 0xFFFF_FFFF, b""),
            (0xFFFF_FFFF, 104, b"\1\4\0\0"),
        ],
    )
    def test_platform_timers_that_are_not_there(self, count, offset, trailing):
        plain = Gtdt.of(platform_timer_count=count, platform_timer_offset=offset)
        with pytest.raises(DecodeError):
            _ = Gtdt(plain.head, trailing).timers

    @pytest.mark.parametrize(("revision", "size"), [(2, 95), (3, 96), (3, 103)])
    def test_a_table_that_is_too_short(self, revision, size):
        with pytest.raises(TruncatedError):
            Gtdt.parse(sealed("GTDT", bytes(size - 36), revision))


def test_spcr_keeps_what_newer_revisions_add():
    raw = Spcr.of(base_address=GenericAddress(address=0x900_0000)).build()
    longer = sealed("SPCR", raw[36:] + b"behind", 4)
    assert Spcr.parse(longer).trailing == b"behind"
    assert Spcr.parse(longer).build() == longer
