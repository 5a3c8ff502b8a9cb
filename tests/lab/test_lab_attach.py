"""Attaching: the guest's own tables are found in its RAM; who does not answer is one line."""

import os

import pytest

from acpi.presets import PRESETS
from vmm_ras.errors import GuestError
from vmm_ras.io.qemu.attach import Attached
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.io.qemu.machine import SharedRam

BASE, SIZE = 0x4000_0000, 32 << 20


@pytest.fixture
def machine():
    machine = Attached.__new__(Attached)
    machine.ram = SharedRam(BASE, SIZE)
    yield machine
    machine.ram.close()


class Said:
    """A monitor that says always the same."""

    def __init__(self, text):
        self.text, self.asked = text, []

    def ask(self, command, **arguments):
        self.asked.append((command, arguments))
        return self.text


@pytest.mark.parametrize("at", [BASE + 0x1000, BASE + (1 << 24) - 8, BASE + (3 << 23)])
def test_the_sources_are_found_by_the_guests_own_tables(machine, at):
    image = PRESETS["conformance"].place(BASE + 0x40_0000)
    image.write(machine.ram.write)
    rsdp = machine.ram.read(image.rsdp, 36)
    machine.ram.write(image.rsdp, bytes(36))
    machine.ram.write(BASE + 0x100, b"RSD PTR " + bytes(28))  # a string in somebody's text, no table
    machine.ram.write(at, rsdp)
    if at % (1 << 24) == (1 << 24) - 8:
        assert os.pread(machine.ram.fd, 8, at - BASE) == b"RSD PTR "
    assert machine.sources() == image.sources


def test_no_tables(machine):
    with pytest.raises(Failure, match="no RSDP in the guest's RAM leads to a HEST"):
        machine.sources()


def test_a_virtual_address(machine):
    machine.monitor = Said("gpa: 0x5c3f0648\r\n")
    assert machine.physical(0x50_0000_0648, 1) == 0x5C3F_0648
    assert machine.monitor.asked == [
        ("human-monitor-command", {"command-line": "gva2gpa 0x5000000648", "cpu-index": 1})
    ]  # fmt: skip
    machine.monitor = Said("Unmapped\r\n")
    with pytest.raises(GuestError, match="vCPU 0 has nothing at 0x10: Unmapped"):
        machine.physical(0x10, 0)
