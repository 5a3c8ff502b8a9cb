"""A guest injects errors into itself: its instruction list, our device, the core, and the guest takes the record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from acpi.einj import Einj, EinjAction, EinjStatus, ErrorType
from acpi.einj_device import MEMORY_SIZE, einj_table
from acpi.einj_parameters import SetErrorTypeWithAddress, TargetFlags
from acpi.firmware import build
from acpi.firmware_presets import MIB, describe
from acpi.gas import AddressSpace
from acpi.ghes import StatusBlock
from acpi.hest import NotificationType
from acpi.image import SourceDescription, find_tables
from acpi.ospm import EinjClient
from acpi.register import REGISTERS_SIZE
from cper.common import Severity
from vmm_ras.effects import Acked, Decided, Posted
from vmm_ras.errors import GuestError
from vmm_ras.guests.model import ModelGuest
from vmm_ras.injection import LARGEST, GuestBuffer, Injector
from vmm_ras.memory import ACKED, HEALTHY, MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import load_policy
from vmm_ras.profiles import PROFILES

RAM, SIZE = 0x4000_0000, 512 * MIB
REGISTERS, MEMORY = 0x0B00_0000, 0x5000_0000
PAGE = 0x4800_5000
CORRECTED, FATAL = 0x4A00_0000, 0x4B00_0000
PAGE_MASK = (1 << 64) - 4096
RULES = f"""
version = 1
[[rule]]
name = "corrected"
when = {{ code = "AO", gpa_from = {CORRECTED:#x}, gpa_to = {FATAL:#x} }}
deliver = ["polled"]
severity = "corrected"
[[rule]]
name = "fatal"
when = {{ code = "AO", gpa_from = {FATAL:#x}, gpa_to = {FATAL + MIB:#x} }}
deliver = ["gsiv"]
severity = "fatal"
[[rule]]
name = "quiet"
when = {{ code = "AO", gpa_from = {FATAL + MIB:#x}, gpa_to = {FATAL + 2 * MIB:#x} }}
action = "ignore"
[[rule]]
name = "rest"
deliver = ["WAY"]
"""


class Guest:
    """A model guest that finds the injection table in its own memory; every access to a register comes out to us."""

    def __init__(self, way="polled", policy=RULES):
        base = describe("minimal-vmm", memory=SIZE)
        sdei = SourceDescription(9, NotificationType.SDEI, vector=804)
        table = einj_table(REGISTERS, MEMORY).build()
        image = build(replace(base, sources=(*base.sources, sdei), extra=(table,))).image()
        self.model = ModelGuest(image, PROFILES["linux"])
        self.model.memory.add_region(RAM, SIZE)
        slots = MemoryMap([MemorySlot(0x7F00_0000_0000, RAM, SIZE)])
        self.core = Notifier(image.sources, slots, policy=load_policy(policy.replace("WAY", way)))
        if way == "sdei":
            self.model.start_sdei(self.core, 0.0)
        memory = self.model.memory
        buffer = GuestBuffer(memory.read, memory.write, MEMORY, MEMORY_SIZE)
        self.injector = Injector(self.core, buffer, MEMORY, REGISTERS)
        self.injector.device.reset()
        self.seen, self.now = [], 1.0
        tables = find_tables(memory.read, image.rsdp)
        self.os = EinjClient(Einj.parse(tables["EINJ"][1]), self)

    # what the guest's instructions reach

    def read(self, space, address, size):
        assert space == AddressSpace.SYSTEM_MEMORY
        if REGISTERS <= address < REGISTERS + REGISTERS_SIZE:
            return self.injector.device.read(address - REGISTERS, size)
        return int.from_bytes(self.read_memory(address, size), "little")

    def write(self, space, address, size, value):
        assert space == AddressSpace.SYSTEM_MEMORY
        if not REGISTERS <= address < REGISTERS + REGISTERS_SIZE:
            self.write_memory(address, value.to_bytes(size, "little"))
            return
        self.injector.device.write(address - REGISTERS, size, value)
        for event in self.injector.take():
            self.model.drive(self.core, self.core.receive(event, self.now), self.now, self.seen.extend)

    def read_memory(self, address, size):
        return self.model.memory.read(address, size)

    def write_memory(self, address, data):
        self.model.memory.write(address, data)

    def inject(self, kind, address, mask=PAGE_MASK, **more):
        target = SetErrorTypeWithAddress(
            error_type=ErrorType(kind), flags=TargetFlags.MEMORY, memory_address=address, memory_address_mask=mask
        )
        return self.os.inject(target, **more)

    def wait(self, seconds):
        """Let time pass for guest and core."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.model.os.next_time(self.now), self.core.next_deadline() or end)
            self.model.os.advance(self.now)
            self.model.drive(self.core, self.core.expire(self.now), self.now, self.seen.extend)

    def of(self, kind):
        return [e for e in self.seen if isinstance(e, kind)]

    def state(self, gpa):
        return self.core.poison.state(gpa >> 12)


@pytest.mark.parametrize("way", ["polled", "gsiv", "sdei"])
def test_an_uncorrectable_error_comes_back_as_a_record_and_the_page_is_given_up(way):
    guest = Guest(way)
    assert guest.inject(ErrorType.MEMORY_UNCORRECTABLE, PAGE + 0x123) == EinjStatus.SUCCESS
    guest.wait(5)
    (posted,) = guest.of(Posted)
    assert (posted.delivery, posted.pages) == (way, ((PAGE, 4096),))
    block = StatusBlock.decode(posted.block)
    assert block.header.severity == Severity.RECOVERABLE
    assert block.entries[0].section().physical_address == PAGE
    assert [(a.outcome, a.raw) for a in guest.model.os.drain()] == [("offlined", posted.block)]
    assert PAGE >> 12 in guest.model.os.offlined
    assert [e.pages for e in guest.of(Acked)] == [((PAGE, 4096),)]
    assert guest.state(PAGE) == ACKED


def test_a_corrected_error_is_told_as_one_and_the_guest_keeps_the_page():
    guest = Guest()
    assert guest.inject(ErrorType.MEMORY_CORRECTABLE, CORRECTED) == EinjStatus.SUCCESS
    guest.wait(5)
    (posted,) = guest.of(Posted)
    assert StatusBlock.decode(posted.block).header.severity == Severity.CORRECTED
    assert [a.outcome for a in guest.model.os.drain()] == ["ignored"]
    assert CORRECTED >> 12 not in guest.model.os.offlined
    assert len(guest.of(Acked)) == 1


def test_a_fatal_error_is_told_as_one_and_the_guest_panics():
    guest = Guest()
    guest.inject(ErrorType.MEMORY_FATAL, FATAL)
    (posted,) = guest.of(Posted)
    assert (posted.delivery, StatusBlock.decode(posted.block).header.severity) == ("gsiv", Severity.FATAL)
    assert "fatal" in guest.model.os.panicked


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        (ErrorType.MEMORY_FATAL, PAGE),
        (ErrorType.MEMORY_CORRECTABLE, PAGE),
        (ErrorType.MEMORY_UNCORRECTABLE, CORRECTED),
        (ErrorType.MEMORY_UNCORRECTABLE, FATAL),
        (ErrorType.MEMORY_UNCORRECTABLE, FATAL + MIB),
    ],
)
def test_no_record_tells_another_severity_than_was_asked_for(kind, address):
    guest = Guest()
    assert guest.inject(kind, address) == EinjStatus.INVALID_ACCESS
    assert guest.seen == []
    assert guest.state(address) == HEALTHY


def test_the_guest_is_offered_what_policy_can_tell():
    assert Guest().os.supported() == 0x38
    plain = Guest(policy='version = 1\n[[rule]]\nname = "x"\ndeliver = ["polled"]\n')
    assert plain.os.supported() == ErrorType.MEMORY_UNCORRECTABLE
    assert plain.inject(ErrorType.MEMORY_FATAL, PAGE) == EinjStatus.INVALID_ACCESS
    consumed = 'name = "a"\nwhen = { code = "AR" }\nseverity = "fatal"\ndeliver = ["sea"]\n[[rule]]\n'
    rules = f'version = 1\n[[rule]]\n{consumed}name = "x"\ndeliver = ["polled"]\n'
    assert Guest(policy=rules).os.supported() == ErrorType.MEMORY_UNCORRECTABLE


def test_where_the_severity_depends_nothing_is_injected():
    small = 'version = 1\n[[rule]]\nname = "small"\nwhen = { lsb_max = 12 }\nseverity = "%s"\ndeliver = ["polled"]\n'
    rest = '[[rule]]\nname = "rest"\ndeliver = ["gsiv"]\n'
    guest = Guest(policy=small % "fatal" + rest)
    assert guest.inject(ErrorType.MEMORY_FATAL, PAGE) == EinjStatus.INVALID_ACCESS
    assert guest.inject(ErrorType.MEMORY_UNCORRECTABLE, PAGE) == EinjStatus.INVALID_ACCESS
    guest = Guest(policy=small % "recoverable" + rest)
    assert guest.inject(ErrorType.MEMORY_UNCORRECTABLE, PAGE) == EinjStatus.SUCCESS


@pytest.mark.parametrize(
    ("address", "mask"),
    [
        (RAM - 4096, PAGE_MASK),
        (RAM + SIZE, PAGE_MASK),
        (0, PAGE_MASK),
        ((1 << 64) - 4096, PAGE_MASK),
        (RAM, -SIZE * 2 & (1 << 64) - 1),
        (RAM, -LARGEST * 2 & (1 << 64) - 1),
        (RAM, 1 << 63),
    ],
)
def test_what_is_not_the_guests_memory_or_more_than_a_huge_page_is_refused(address, mask):
    guest = Guest()
    assert guest.inject(ErrorType.MEMORY_UNCORRECTABLE, address, mask) == EinjStatus.INVALID_ACCESS
    assert guest.seen == []


def test_a_huge_page_is_told_whole():
    guest = Guest()
    base = PAGE & -LARGEST
    assert guest.inject(ErrorType.MEMORY_UNCORRECTABLE, PAGE, -LARGEST & (1 << 64) - 1) == EinjStatus.SUCCESS
    guest.wait(60)
    told = sorted(page for e in guest.of(Acked) for page in e.pages)
    assert told == [(base + 4096 * i, 4096) for i in range(512)]


@pytest.mark.parametrize("address", [RAM, RAM + SIZE - 4096])
def test_the_first_and_the_last_page(address):
    guest = Guest()
    assert guest.inject(ErrorType.MEMORY_UNCORRECTABLE, address, 0) == EinjStatus.SUCCESS
    guest.wait(5)
    assert guest.state(address) == ACKED


def test_a_type_without_an_address_hits_nothing():
    guest = Guest()
    assert guest.inject(ErrorType.MEMORY_UNCORRECTABLE, PAGE, with_address=False) == EinjStatus.INVALID_ACCESS
    target = SetErrorTypeWithAddress(error_type=ErrorType.MEMORY_UNCORRECTABLE, memory_address=PAGE)
    assert guest.os.inject(target) == EinjStatus.INVALID_ACCESS
    assert guest.seen == []


def test_nothing_happens_before_the_trigger():
    guest = Guest()
    assert guest.inject(ErrorType.MEMORY_UNCORRECTABLE, PAGE, trigger=False) == EinjStatus.SUCCESS
    guest.wait(5)
    assert guest.seen == []
    assert guest.state(PAGE) == HEALTHY


def test_a_page_that_is_lost_already_is_not_told_again():
    guest = Guest()
    for _ in range(2):
        assert guest.inject(ErrorType.MEMORY_UNCORRECTABLE, PAGE) == EinjStatus.SUCCESS
        guest.wait(5)
    assert [e.what for e in guest.of(Decided)] == ["tell", "known"]
    assert len(guest.of(Posted)) == 1


def test_parameters_in_lost_memory_are_an_invalid_access():
    guest = Guest()
    device = guest.injector.device
    guest.inject(ErrorType.MEMORY_UNCORRECTABLE, PAGE)
    device.act(EinjAction.EXECUTE_OPERATION)
    assert device.state.status == EinjStatus.SUCCESS
    guest.model.memory.poison(MEMORY, 4096)
    device.act(EinjAction.EXECUTE_OPERATION)
    assert device.state.status == EinjStatus.INVALID_ACCESS


def test_guest_memory_as_a_buffer():
    ram = bytearray(range(100))

    def write(gpa, data):
        if gpa < 10:
            raise GuestError("lost")
        ram[gpa : gpa + len(data)] = data

    buffer = GuestBuffer(lambda gpa, size: bytes(ram[gpa : gpa + size]), write, 10, 20)
    assert buffer.read(0, 100) == bytes(range(10, 30))
    assert buffer.read(15, 100) == bytes(range(25, 30))
    assert buffer.read(21, 5) == b""
    buffer.write(18, b"ab")
    assert ram[28:31] == b"ab\x1e"
    for offset in (-1, 19):
        with pytest.raises(OSError, match="do not fit 20"):
            buffer.write(offset, b"ab")
    with pytest.raises(OSError, match="lost"):
        GuestBuffer(bytes, write, 0, 20).write(0, b"a")
