"""A vCPU uses lost memory: the guest learns of it at that instruction, and only the process that did so is killed."""

from acpi.ghes import Entry, StatusBlock
from cper.memory import PlatformMemory


def test_the_process_is_killed_and_the_guest_lives(machine, guest):
    machine.consumes(page=3, vcpu=1)

    assert machine.told(page=3).by("sea")
    assert machine.told(page=3).within(seconds=0.1)
    assert machine.page(3).is_offlined()
    assert guest.survives()
    assert guest.signalled == 1


def test_the_record_says_which_page(machine):
    machine.consumes(page=3)

    assert machine.told(page=3).says(
        severity="recoverable", physical_address=0x4000_3000, physical_address_mask=0xFFFF_FFFF_FFFF_F000
    )


def test_the_block_byte_by_byte(machine):
    machine.consumes(page=3)

    section = PlatformMemory(physical_address=0x4000_3000, physical_address_mask=0xFFFF_FFFF_FFFF_F000)
    expected = StatusBlock.of([Entry.of(section, fru_text="vmm memory #00000001")])
    assert machine.told(page=3).block == expected.encode()
