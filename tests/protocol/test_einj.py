"""Errors injected through the injection table: what the device decodes, refuses and passes on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acpi.bus import Bus
from acpi.einj import EinjAction, EinjEntry, EinjInstruction, EinjStatus, Einjv2ErrorType, ErrorType, TriggerTable
from acpi.einj_device import (
    MEMORY_SIZE,
    PARAMETERS_SIZE,
    TRIGGER_AT,
    EinjDevice,
    Injection,
    decode_injection,
    einj_table,
    trigger_table,
)
from acpi.einj_parameters import (
    EINJV2_AT,
    Einjv2Component,
    Einjv2Extension,
    InjectionParameters,
    SetErrorTypeWithAddress,
    TargetFlags,
    VendorErrorTypeExtension,
    encode_components,
)
from acpi.ospm import EinjClient
from cper.wire import DecodeError, TruncatedError

RAM, REGISTERS, MEMORY = 0x8000_0000, 0x900_0000, 0x8000_8000
PAGE_MASK = (1 << 64) - 4096


class Guest:
    """A guest, its table and the device; what was planted and triggered is kept."""

    def __init__(self, answer=EinjStatus.SUCCESS, vendor=b"", **given):
        self.planted, self.triggered = [], []
        self.bus = Bus(RAM, 0x1_0000)

        def plant(injection):
            self.planted.append(injection)
            return answer

        self.device = EinjDevice(
            self.bus.window(MEMORY, MEMORY_SIZE), MEMORY, REGISTERS, self.triggered.append, plant=plant, **given
        )
        self.device.reset(vendor)
        self.bus.attach(REGISTERS, 16, self.device)
        self.os = EinjClient(einj_table(REGISTERS, MEMORY, einjv2=bool(self.device.supported_v2)), self.bus)


def memory_error(address=0x4000_1000, mask=PAGE_MASK, kind=ErrorType.MEMORY_UNCORRECTABLE):
    return SetErrorTypeWithAddress(
        error_type=kind, flags=TargetFlags.MEMORY, memory_address=address, memory_address_mask=mask
    )


def test_what_linux_asks_at_boot():
    guest = Guest()
    assert guest.os.supported() == 0x38
    assert guest.os.parameters == MEMORY
    guest = Guest(supported_v2=Einjv2ErrorType(2))
    assert guest.os.supported() == 0x4000_0038
    assert guest.os._interpreter().run(EinjAction.EINJV2_GET_ERROR_TYPE) == 2
    extension = Einjv2Extension.decode(guest.bus.read_memory(MEMORY + EINJV2_AT, 8))
    assert (extension.length, extension.revision, extension.component_array_count) == (8 + 8 * 32, 1, 0)


def test_a_memory_error_is_planted_and_then_triggered():
    guest = Guest()
    assert guest.os.inject(memory_error()) == EinjStatus.SUCCESS
    expected = Injection(
        ErrorType(ErrorType.MEMORY_UNCORRECTABLE), TargetFlags(2), None, 0x4000_1000, PAGE_MASK
    )  # fmt: skip
    assert guest.planted == guest.triggered == [expected]
    assert expected.is_memory
    assert expected.memory_range == (0x4000_1000, 4096)


def test_without_the_trigger_nothing_happens_yet():
    guest = Guest()
    assert guest.os.inject(memory_error(), trigger=False) == EinjStatus.SUCCESS
    assert (len(guest.planted), guest.triggered) == (1, [])
    guest.device.act(int(EinjAction.TRIGGER_ERROR))
    assert guest.triggered == []  # the operation has ended


def test_an_error_happens_once():
    guest = Guest()
    guest.os.inject(memory_error())
    guest.device.act(int(EinjAction.TRIGGER_ERROR))
    assert len(guest.triggered) == 1


def test_the_platform_may_refuse():
    guest = Guest(answer=EinjStatus.UNKNOWN_FAILURE)
    assert guest.os.inject(memory_error()) == EinjStatus.UNKNOWN_FAILURE
    guest.device.act(int(EinjAction.TRIGGER_ERROR))
    assert guest.triggered == []


def test_every_kind_of_target():
    everything = ErrorType(0x8003_FFFF)
    guest = Guest(supported=everything)
    target = SetErrorTypeWithAddress(
        error_type=ErrorType.PCIE_FATAL, flags=TargetFlags(5), processor_id=0x8001_0203, pcie_segment=0x12,
        pcie_bus=0x34, pcie_device=0x15, pcie_function=6, memory_address=7,
    )  # fmt: skip
    assert target.encode()[32:36] == bytes.fromhex("00ae3412")
    assert guest.os.inject(target) == EinjStatus.SUCCESS
    found = guest.triggered[0]
    assert (found.processor_id, found.pcie_sbdf, found.memory_address) == (0x8001_0203, (0x12, 0x34, 0x15, 6), None)
    assert not found.is_memory
    assert found.memory_range is None


def test_by_type_alone():
    guest = Guest()
    guest.os.inject(memory_error())
    target = SetErrorTypeWithAddress(error_type=ErrorType.MEMORY_CORRECTABLE)
    assert guest.os.inject(target, with_address=False) == EinjStatus.SUCCESS
    assert guest.triggered[1] == Injection(ErrorType(ErrorType.MEMORY_CORRECTABLE))
    assert guest.os.inject(memory_error()) == EinjStatus.SUCCESS
    assert guest.triggered[2].memory_address == 0x4000_1000


@pytest.mark.parametrize("kind", [0, 1, 0x18, 0x4000_0000, 0x8000_0000, 0x8000_0010, 1 << 20])
def test_types_that_are_not_one_supported_bit(kind):
    guest = Guest()
    assert guest.os.inject(memory_error(kind=ErrorType(kind))) == EinjStatus.INVALID_ACCESS
    assert guest.planted == []


def test_vendor_errors_where_the_platform_has_them():
    extension = VendorErrorTypeExtension(length=20, pcie_sbdf=0x12345600, vendor_id=0x8086, device_id=0x1234).encode()
    guest = Guest(supported=ErrorType(0x8000_0010), vendor=extension + b"abcd")
    offset = SetErrorTypeWithAddress.decode(guest.bus.read_memory(MEMORY, 36)).vendor_extension_offset
    target = SetErrorTypeWithAddress(error_type=ErrorType(0x8000_0000), vendor_extension_offset=offset)
    assert guest.os.inject(target) == EinjStatus.SUCCESS
    assert guest.triggered[0].vendor_data == b"abcd"
    parameters = InjectionParameters.decode(guest.bus.read_memory(MEMORY, PARAMETERS_SIZE))
    assert parameters.vendor is not None
    assert (parameters.vendor.vendor_id, parameters.vendor.device_id) == (0x8086, 0x1234)


def test_version_2():
    guest = Guest(supported_v2=Einjv2ErrorType(3))
    components = [
        Einjv2Component(component_id=bytes([i]) * 16, component_syndrome=bytes([i + 1]) * 16) for i in range(3)
    ]
    target = SetErrorTypeWithAddress(
        error_type=ErrorType(2), flags=TargetFlags(10), memory_address=0x1234_5678, memory_address_mask=(1 << 64) - 256
    )
    assert guest.os.inject(target, encode_components(components, 8)) == EinjStatus.SUCCESS
    found = guest.triggered[0]
    assert (found.einjv2_error_type, found.error_type, found.components) == (2, 0, tuple(components))
    assert found.is_memory
    assert found.memory_range == (0x1234_5600, 256)
    for kind in (0, 4, 3):
        wrong = target.model_copy(update={"error_type": ErrorType(kind)})
        assert guest.os.inject(wrong, encode_components(components, 8)) == EinjStatus.INVALID_ACCESS
    assert guest.os.inject(memory_error()) == EinjStatus.SUCCESS  # version 1 still works


@pytest.mark.parametrize(
    ("change", "path", "offset"),
    [
        ({36: 7}, "einjv2.length", 36),
        ({36: 0xFFFF}, "einjv2.length", 36),
        ({42: 99}, "einjv2.component_array_count", 42),
        ({4: 2040}, "vendor", 2040),
        ({4: 44, 44: 15}, "vendor.length", 44),
        ({4: 44, 44: 0xFFFF}, "vendor.length", 44),
    ],
)
def test_extensions_that_reach_too_far(change, path, offset):
    raw = bytearray(InjectionParameters.blank(PARAMETERS_SIZE, 8))
    raw[8] = TargetFlags.EINJV2
    for at, value in change.items():
        raw[at : at + 2] = value.to_bytes(2, "little")
    with pytest.raises((DecodeError, TruncatedError)) as caught:
        InjectionParameters.decode(bytes(raw))
    assert caught.value.path.startswith(path)
    assert caught.value.offset in {offset, offset + 8}
    guest = Guest(supported_v2=Einjv2ErrorType(2))
    guest.bus.write_memory(MEMORY, bytes(raw))
    guest.device.act(int(EinjAction.EXECUTE_OPERATION))
    assert guest.device.state.status == EinjStatus.INVALID_ACCESS


class TestParameters:
    def buffer(self, change=(), components=2, flags=TargetFlags.EINJV2):
        raw = bytearray(InjectionParameters.blank(200, components))
        raw[8] = flags
        for at, value in change:
            raw[at : at + 4] = value.to_bytes(4, "little")
        return bytes(raw)

    def test_what_the_guest_finds_at_boot(self):
        assert InjectionParameters.blank(36) == bytes(36)
        blank = InjectionParameters.blank(80, 1)
        assert blank == bytes(36) + (8 + 32).to_bytes(4, "little") + b"\1\0" + bytes(38)
        vendor = VendorErrorTypeExtension(length=18).encode() + b"ab"
        with_vendor = InjectionParameters.blank(98, 1, vendor)
        assert with_vendor[4] == 36 + 40 + 4  # Linux copies four bytes more than the extension has
        assert with_vendor[80:] == vendor
        assert InjectionParameters.blank(54, 0, vendor)[36:] == vendor
        for size, components, extra in [(35, 0, b""), (79, 1, b""), (97, 1, vendor), (53, 0, vendor)]:
            with pytest.raises(ValueError, match=f"the buffer has {size}"):
                InjectionParameters.blank(size, components, extra)

    def test_extensions_that_just_fit(self):
        full = self.buffer([(36, 200 - 36)])
        assert InjectionParameters.decode(full).components == ()
        with pytest.raises(DecodeError, match=r"einjv2.length at 0x24: 165 bytes is not between 8 and 164"):
            InjectionParameters.decode(self.buffer([(36, 165)]))
        assert InjectionParameters.decode(self.buffer([(36, 8)])).components == ()
        two = self.buffer([(36, 72), (40, 0x0002_0001)])
        assert len(InjectionParameters.decode(two).components) == 2
        with pytest.raises(
            DecodeError, match=r"einjv2.component_array_count at 0x2a: 2 components do not fit 71 bytes"
        ):
            InjectionParameters.decode(self.buffer([(36, 71), (40, 0x0002_0001)]))
        assert InjectionParameters.decode(self.buffer([(36, 0)], flags=0)).components is None

    def test_vendor_extensions_that_just_fit(self):
        fits = self.buffer([(4, 150), (150, 50)], flags=0)
        assert len(InjectionParameters.decode(fits).vendor_data) == 50 - 16
        smallest = self.buffer([(4, 184), (184, 16)], flags=0)
        assert InjectionParameters.decode(smallest).vendor_data == b""
        with pytest.raises(TruncatedError, match=r"vendor.length at 0x96: 51 bytes needed, 50 given"):
            InjectionParameters.decode(self.buffer([(4, 150), (150, 51)], flags=0))
        with pytest.raises(DecodeError, match=r"vendor.length at 0x96: 15 bytes is less than 16"):
            InjectionParameters.decode(self.buffer([(4, 150), (150, 15)], flags=0))

    def test_json(self):
        plain = InjectionParameters.decode(self.buffer([(0, 2), (36, 72), (40, 0x0001_0001)])).plain()
        assert plain["target"]["error_type"] == ["memory"]
        assert [c["component_id"] for c in plain["components"]] == ["00" * 16]
        assert "vendor" not in plain
        plain = InjectionParameters.decode(self.buffer([(0, 8), (4, 150), (150, 18)], flags=0)).plain()
        assert plain["target"]["error_type"] == ["memory_correctable"]
        assert (plain["vendor"]["length"], plain["vendor_data"], "components" in plain) == (18, "0000", False)

    def test_room_for_components(self):
        assert len(encode_components([Einjv2Component()])) == 40
        assert len(encode_components([Einjv2Component()], 1)) == 40
        assert encode_components([Einjv2Component()], 3)[:8] == bytes.fromhex("6800000001000100")
        assert len(encode_components([Einjv2Component()] * 2, 1)) == 72
        assert encode_components([]) == bytes.fromhex("0800000001000000")


@given(st.binary(min_size=36, max_size=300))
def test_any_parameters_are_decoded_or_one_error(raw):
    try:
        decode_injection(raw)
    except DecodeError as error:
        assert str(error).startswith("InjectionParameters.")


@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from([1, 2, 4, 8]), st.integers(0, 300))), st.binary(max_size=64)
)
def test_any_access_to_the_registers(accesses, parameters):
    guest = Guest(supported_v2=Einjv2ErrorType(2))
    guest.bus.write_memory(MEMORY, parameters)
    for offset, size, value in accesses:
        guest.device.write(offset, size, value)
        guest.device.read(offset, size)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_a_memory_range_holds_the_address(address, mask):
    base, size = Injection(ErrorType(8), TargetFlags(2), None, address, mask).memory_range
    assert base <= address < base + size
    assert base % size == 0


class TestTriggerTable:
    def entry(self):
        return trigger_table(REGISTERS).entries[0]

    def test_it_lies_where_the_device_says(self):
        guest = Guest()
        at = guest.os._interpreter().run(EinjAction.GET_TRIGGER_ERROR_ACTION_TABLE)
        assert at == MEMORY + TRIGGER_AT
        table = TriggerTable.decode(guest.bus.read_memory(at, 4096))
        assert (table.head.header_size, table.head.table_size, table.head.entry_count) == (16, 48, 1)
        assert table.entries == (self.entry(),)

    def test_it_uses_no_register_that_the_injection_table_has_not(self):
        """Linux asks for the trigger's registers, less those that it has: others could be refused."""
        mine = {e.register_region.address for e in einj_table(REGISTERS, MEMORY).entries}
        assert {e.register_region.address for e in trigger_table(REGISTERS).entries} <= mine

    def test_round_trip(self):
        table = TriggerTable.of([self.entry(), self.entry()])
        assert TriggerTable.decode(table.encode() + b"behind") == table
        assert TriggerTable.of_plain(table.plain()) == table
        tail = table._replace(head=table.head.model_copy(update={"table_size": 84}), tail=b"abcd")
        assert TriggerTable.decode(tail.encode()) == tail

    @pytest.mark.parametrize(
        ("at", "value", "path"),
        [
            (0, 12, "header_size"),
            (8, 15, "entry_count"),
            (8, 4097, "table_size"),
            (12, 2, "entry_count"),
            (8, 80, "entry_count"),
        ],
    )
    def test_what_linux_refuses(self, at, value, path):
        raw = bytearray(TriggerTable.of([self.entry()]).encode())
        raw[at : at + 4] = value.to_bytes(4, "little")
        with pytest.raises(DecodeError) as caught:
            TriggerTable.decode(bytes(raw))
        assert caught.value.path == f"head.{path}"

    @given(st.binary(max_size=120))
    def test_any_bytes(self, raw):
        try:
            table = TriggerTable.decode(raw)
        except DecodeError:
            return
        assert table.encode() == raw[: table.head.table_size]


def test_the_table_entry_by_entry():
    """Action, instruction, register, bits, value, mask: counted by hand."""
    wide, narrow = (1 << 64) - 1, (1 << 32) - 1
    act, val = REGISTERS, REGISTERS + 8

    def row(e):
        region = e.register_region
        assert (region.address_space, region.bit_offset) == (0, 0)
        assert 1 << region.access_size + 2 == region.bit_width
        return (int(e.action), int(e.instruction), region.address, region.bit_width, e.value, e.mask)

    assert [row(e) for e in einj_table(REGISTERS, MEMORY, einjv2=True).entries] == [
        (0, 3, act, 32, 0, narrow),
        (1, 3, act, 32, 1, narrow), (1, 0, val, 64, 0, wide),
        (2, 2, val, 32, 0, narrow), (2, 3, act, 32, 2, narrow),
        (3, 3, act, 32, 3, narrow), (3, 0, val, 32, 0, narrow),
        (4, 3, act, 32, 4, narrow),
        (5, 3, act, 32, 5, narrow),
        (6, 3, act, 32, 6, narrow), (6, 1, val, 32, 1, narrow),
        (7, 3, act, 32, 7, narrow), (7, 0, val, 32, 0, narrow),
        (8, 2, MEMORY, 32, 0, narrow),
        (9, 3, act, 32, 9, narrow), (9, 0, val, 64, 0, wide),
        (17, 3, act, 32, 17, narrow), (17, 0, val, 32, 0, narrow),
    ]  # fmt: skip
    assert [row(e) for e in trigger_table(REGISTERS).entries] == [(255, 3, act, 32, 255, narrow)]


def test_timings():
    run = Guest().os._interpreter()
    assert run.run(EinjAction.GET_EXECUTE_OPERATION_TIMINGS) == 1000 << 32 | 10


def test_without_version_2_there_is_no_room_for_it():
    assert Guest().bus.read_memory(MEMORY, PARAMETERS_SIZE) == bytes(PARAMETERS_SIZE)


def test_a_memory_range_by_hand():
    def of(address, mask):
        return Injection(ErrorType(8), TargetFlags(2), None, address, mask).memory_range

    assert of(0x1234_5678, 0xFFFF_FFFF_FFFF_F000) == (0x1234_5000, 0x1000)
    assert of(0x1234_5678, 0xFFFF_FFFF_FFFF_FFC0) == (0x1234_5640, 0x40)
    assert of(0x1234_5678, 0) == (0x1234_5678, 1)


def test_the_table_says_what_the_device_does():
    table = einj_table(REGISTERS, MEMORY, einjv2=True)
    by_action = {}
    for entry in table.entries:
        by_action.setdefault(entry.action, []).append(entry)
    assert EinjAction.TRIGGER_ERROR not in by_action
    address = by_action[EinjAction.SET_ERROR_TYPE_WITH_ADDRESS]
    assert [(e.instruction, e.register_region.address) for e in address] == [(EinjInstruction.WRITE_REGISTER, MEMORY)]
    assert all(isinstance(e, EinjEntry) for e in table.entries)
    assert EinjAction.EINJV2_GET_ERROR_TYPE not in {e.action for e in einj_table(REGISTERS, MEMORY).entries}
