"""PCI sections that no arm64 kernel decodes: our reading against what went in, our writing against what it dumped."""

from __future__ import annotations

import pytest

from cper.error_status import ErrorStatus, ErrorStatusType
from cper.pci_bus import PciBus, PciBusCommand, PciBusErrorType, PciBusId
from cper.pci_component import PciComponent, PciComponentHead, PciDeviceId, PciRegister
from cper.section import body_of_plain, plain_body, read_section
from cper.wire import TruncatedError
from tests.golden.linux import KERNELS
from tests.golden.linux_sections import dumped, entries, printed

BUS = PciBus(
    error_status=ErrorStatus(type=ErrorStatusType.PARITY),
    error_type=PciBusErrorType.DATA_PARITY_ERROR,
    bus_id=PciBusId(bus=3, segment=2),
    bus_address=0x1111111122222222,
    bus_data=0x3333333344444444,
    bus_command=PciBusCommand(command=7, pci_x=True),
    requestor_id=0x5555,
    completer_id=0x6666,
    target_id=0x7777,
)
"""The values of the generator, field by field."""
DEVICE = PciComponent.of(
    memory=[PciRegister(address=0xF000, value=0x11)],
    io=[PciRegister(address=0x3F8, value=0x22)],
    error_status=ErrorStatus(type=ErrorStatusType.MEMORY),
    id_info=PciDeviceId(vendor_id=0x8086, device_id=0x1234, class_code=0x020000, function=1, device=2, bus=3),
)


@pytest.mark.parametrize(("vector", "value"), [("pcibus", BUS), ("pcidev", DEVICE)])
def test_what_went_in_is_what_we_read_and_what_the_kernels_dumped_is_what_we_write(vector, value):
    [(entry, put)] = entries("pci", vector)
    assert entry.section() == value
    assert value.encode() == entry.body == bytes.fromhex(put["bytes"])
    for kernel in KERNELS:
        assert dumped(printed("pci", vector, kernel)[0]) == value.encode()


class TestTheRegisterDataPairs:
    """Counts in the input and what they count."""

    def body(self, *, pairs=2, memory=1, io=1, valid=0x1F, tail=b""):
        head = valid.to_bytes(8, "little") + bytes(24) + memory.to_bytes(4, "little") + io.to_bytes(4, "little")
        return head + b"".join(bytes([n + 1]) * 16 for n in range(pairs)) + tail

    def test_memory_comes_first(self):
        found = PciComponent.of_body(self.body(pairs=3, memory=1, io=2, tail=b"xy"))
        assert [r.address for r in found.memory_registers] == [0x0101010101010101]
        assert [r.value for r in found.io_registers] == [0x0202020202020202, 0x0303030303030303]
        assert found.trailing == b"xy"
        assert [(path, at) for path, at, _ in found.parts()] == [
            ("head", 0),
            ("memory_registers[0]", 40),
            ("io_registers[0]", 56),
            ("io_registers[1]", 72),
            ("trailing", 88),
        ]

    @pytest.mark.parametrize(
        ("valid", "memory", "io"), [(0x1F, 1, 1), (0x0F, 0, 0), (0x1B, 0, 1), (0x17, 1, 0), (0x10, 0, 0)]
    )
    def test_what_no_valid_count_counts_is_trailing(self, valid, memory, io):
        body = self.body(valid=valid)
        found = PciComponent.of_body(body)
        assert (len(found.memory_registers), len(found.io_registers)) == (memory, io)
        assert len(found.trailing) == 16 * (2 - memory - io)
        assert found.encode() == body
        assert PciComponent.of_plain(found.plain()) == found

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            ({"pairs": 1}, "PciComponent.head.io_number at 0x24: 1 io_registers need 16 bytes, 0 given"),
            (
                {"memory": 0xFFFFFFFF},
                "PciComponent.head.memory_number at 0x20: 4294967295 memory_registers need 68719476720 bytes, 32 given",
            ),
        ],
    )
    def test_a_count_past_the_end_is_one_error(self, body, text):
        with pytest.raises(TruncatedError) as caught:
            PciComponent.of_body(self.body(**body))
        assert str(caught.value) == text

    def test_such_a_body_stays_bytes(self):
        body = self.body(pairs=0)
        plain = plain_body(PciComponent.GUID, body)
        assert plain.keys() == {"body", "error"}
        assert body_of_plain(PciComponent.GUID, plain) == body

    def test_a_short_head_says_where(self):
        with pytest.raises(TruncatedError, match=r"PciComponent\.head\.io_number at 0x24: 40 bytes needed, 39 given"):
            read_section(PciComponent.GUID, bytes(39))

    def test_json_whose_counts_contradict_it_is_refused(self):
        plain = DEVICE.plain()
        plain["head"] |= {"memory_number": 2, "io_number": 0}
        with pytest.raises(ValueError, match="PciComponent: the counts and lengths"):
            PciComponent.of_plain(plain)
        plain["head"]["memory_number"] = 3
        with pytest.raises(TruncatedError):
            PciComponent.of_plain(plain)
        with pytest.raises(ValueError, match="PciComponent has no 'registers"):
            PciComponent.of_plain({"head": {}, "registers": []})

    def test_without_registers(self):
        assert PciComponent.of(id_info=None).head == PciComponentHead(memory_number=0, io_number=0)
