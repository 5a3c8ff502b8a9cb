"""The lab guest's firmware: every way of telling that emulation allows, and every table that Linux lists on arm64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from acpi.aest import Aest, AestNode
from acpi.aest_interface import AestGroupFormat, AestInterface, AestInterfaceType
from acpi.aest_parts import AestProcessor, AestProcessorGeneric, AestResourceType
from acpi.bert import BootErrorRegion
from acpi.einj_device import einj_table
from acpi.erst_device import erst_table
from acpi.firmware import Firmware, build
from acpi.firmware_presets import MIB, describe, virt_machine
from acpi.ghes import StatusBlock
from acpi.hest import NotificationType
from acpi.image import SourceDescription, TableWords
from acpi.linking import (
    BOOT_ERRORS_FILE,
    ERRORS_ADDRESS_FILE,
    ERRORS_FILE,
    RSDP_FILE,
    SCRIPT_FILE,
    TABLES_FILE,
    Placed,
)
from acpi.loader import LoaderScript, WritePointer
from acpi.machine import EventDevice
from acpi.ras2 import Ras2, Ras2PccDescriptor
from acpi.rasf import Rasf
from cper.common import Severity
from vmm_ras.lab.records import REGISTERS
from vmm_ras.record import memory_block

MEMORY = 512 * MIB
VCPUS = 2
PREVIOUS_BOOT = 0x4600_0000
"""Guest physical address that the boot error record names."""
GPIO_GSIV = 0x7B
"""SPI 91: the event device's own interrupt, by which GPIO sources are told."""
SDEI_SOURCE, SDEI_EVENT = 3, 804
INJECTION = 0x0B00_0000
"""Where the injection table says that its device is: Debian's driver for it is a module, which the initrd lacks."""
WRITABLE_FILE, WRITABLE_AT = "etc/vmcoreinfo", 8
"""A file of fw_cfg that the guest may write, of a device that does nothing else with it: QEMU's user files are not."""
UPGRADABLE = ("APIC", "AEST", "BERT", "EINJ", "ERST", "HEST", "SPCR")
"""What Linux takes from an initrd and holds no address of edk2's choice; it refuses GTDT, RAS2, RASF and SDEI."""
POLL_MS = 500


def guest_firmware(gic: Literal[2, 3], *, upgrade: bool = False) -> Firmware:
    """Built, not placed.  ``upgrade``: what the initrd gives instead: a higher OEM revision, and no SDEI source."""
    words = TableWords(oem_revision=2 if upgrade else 1)
    base = describe("minimal-vmm", memory=MEMORY, vcpus=VCPUS)
    last = SourceDescription(SDEI_SOURCE, NotificationType.SDEI, vector=SDEI_EVENT)
    if upgrade:
        last = replace(last, notification=NotificationType.POLLED, vector=0, poll_interval_ms=POLL_MS)
    sources = (*base.sources, last, SourceDescription(SDEI_SOURCE + 1, NotificationType.GPIO_SIGNAL))
    block = memory_block([(PREVIOUS_BOOT, 4096)], severity=Severity.FATAL, error_type=3)
    node = AestNode.of(
        AestProcessor(processor_id=0, resource_type=AestResourceType.GENERIC),
        AestInterface(type=AestInterfaceType.SYSTEM_REGISTER, group_format=AestGroupFormat.FORMAT_4K),
        resource=AestProcessorGeneric(resource=0),
    )
    extra = (
        einj_table(INJECTION, INJECTION + 0x1000, header=words.header("EINJ", 2)),
        erst_table(REGISTERS, words.header("ERST", 1)),
        Aest((node,), words.header("AEST", 1)),
        Rasf.of(words.header("RASF", 1)),
        Ras2.of([Ras2PccDescriptor(pcc_subspace_id=0)], words.header("RAS2", 1)),
    )
    return build(
        replace(
            base, machine=virt_machine(MEMORY, VCPUS, gic=gic, event_device=EventDevice(GPIO_GSIV)), words=words,
            sources=sources, sdei=True, boot_errors=BootErrorRegion.build([StatusBlock.decode(block)], 4096),
            write_back="errors", extra=tuple(table.build() for table in extra),
        )
    )  # fmt: skip


def files_of(firmware: Firmware) -> dict[str, bytes]:
    """The files for QEMU: the error region's address is written back into one that QEMU lets the guest write."""
    script = LoaderScript.parse(firmware.files[SCRIPT_FILE])
    there = {"pointer_file": WRITABLE_FILE, "pointer_offset": WRITABLE_AT}
    commands = tuple(c.model_copy(update=there) if isinstance(c, WritePointer) else c for c in script.commands)
    files = {name: data for name, data in firmware.files.items() if name != ERRORS_ADDRESS_FILE}
    return files | {SCRIPT_FILE: LoaderScript(commands).build()}


def link(firmware: Firmware, errors: int, boot_errors: int) -> Placed:
    """The tables as edk2 links them: it copies them, so that where the files of RSDP and tables were is not seen."""
    at = {RSDP_FILE: 0x1000, TABLES_FILE: 0x1_0000, ERRORS_FILE: errors, BOOT_ERRORS_FILE: boot_errors}
    return firmware.link(at)


def upgrades(gic: Literal[2, 3], errors: int, boot_errors: int) -> Mapping[str, bytes]:
    """File to table, for the initrd of a guest whose firmware put its error regions at these addresses."""
    firmware = guest_firmware(gic, upgrade=True)
    found = firmware.aml(firmware.image_of(link(firmware, errors, boot_errors)))
    return {name: data for name, data in found.items() if data[:4].decode() in UPGRADABLE}
