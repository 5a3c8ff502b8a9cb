"""Whole guests by name: QEMU's arm virt machines, the least that a VMM needs, one SEA source per vCPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from acpi.description import FirmwareDescription, Revisions
from acpi.hest import NotificationType
from acpi.image import SourceDescription
from acpi.machine import EventDevice, FirmwareError, GicV2, GicV3, Machine, MsiFrame, Range, Uart
from acpi.presets import PRESETS, QEMU_WORDS

MIB = 1 << 20
RAM = 0x4000_0000
"""Where RAM begins on QEMU's arm virt machine, and on many that copied it."""
ERROR_GSIV = 0x7A
"""SPI 90: no device of the arm virt machine has it."""
_SECTIONS = 26
"""Memory entries that a block of 4 KiB holds."""


def virt_machine(
    memory: int = 512 * MIB,
    vcpus: int = 1,
    *,
    gic: Literal[2, 3] = 3,
    event_device: EventDevice | None = None,
    uart_access: Literal[8, 16, 32] = 32,
) -> Machine:
    """QEMU's arm virt machine (``hw/arm/virt.c``) with ``memory`` bytes of RAM; PMU on PPI 7, PL011 on SPI 1."""
    cluster = 8 if gic == 2 else 16
    controller: GicV2 | GicV3
    if gic == 2:
        controller = GicV2(0x0800_0000, 0x0801_0000, 0x0804_0000, 0x0803_0000, MsiFrame(0x0802_0000, 80, 64))
    else:
        controller = GicV3(0x0800_0000, (Range(0x080A_0000, 0xF6_0000),))
    return Machine(
        memory=(Range(RAM, memory),),
        gic=controller,
        mpidrs=tuple(index // cluster << 8 | index % cluster for index in range(vcpus)),
        uart=Uart(0x0900_0000, 33, uart_access),
        event_device=event_device,
        pmu_gsiv=23,
    )


@dataclass(frozen=True)
class FirmwarePreset:
    """A description that still lacks the guest's size."""

    doc: str
    describe: Callable[[int, int], FirmwareDescription]
    """(bytes of RAM, vCPUs) to the description."""


def _qemu(
    name: str, revisions: Revisions, write_back: Literal["errors", "hest"], uart_access: Literal[8, 32]
) -> Callable[[int, int], FirmwareDescription]:
    def describe(memory: int, vcpus: int) -> FirmwareDescription:
        device = EventDevice(41, 0x0908_0000) if len(PRESETS[name].sources) > 1 else None
        return FirmwareDescription(
            virt_machine(memory, vcpus, gic=2, event_device=device, uart_access=uart_access),
            PRESETS[name].sources, QEMU_WORDS, revisions, hypervisor="QEMU", osc=False, write_back=write_back,
        )  # fmt: skip

    return describe


def _minimal(memory: int, vcpus: int) -> FirmwareDescription:
    sources = (
        SourceDescription(0, NotificationType.SEA, max_sections=_SECTIONS),
        SourceDescription(1, NotificationType.GSIV, vector=ERROR_GSIV, max_sections=_SECTIONS),
        SourceDescription(2, NotificationType.POLLED, poll_interval_ms=1000, max_sections=_SECTIONS),
    )
    return FirmwareDescription(virt_machine(memory, vcpus), sources)


def _sea_per_vcpu(memory: int, vcpus: int) -> FirmwareDescription:
    sources = [SourceDescription(index, NotificationType.SEA) for index in range(vcpus)]
    sources.append(
        SourceDescription(vcpus, NotificationType.POLLED, poll_interval_ms=1000, max_sections=_SECTIONS)
    )  # fmt: skip
    return FirmwareDescription(virt_machine(memory, vcpus), tuple(sources))


FIRMWARE_PRESETS: dict[str, FirmwarePreset] = {
    "qemu-7.2": FirmwarePreset(
        "QEMU 7.2, arm virt with ras=on: one SEA source; the error region's address is written back.",
        _qemu("qemu-7.2", Revisions(fadt_minor=0, madt=4, gtdt=2, hest=1), "errors", 8),
    ),
    "qemu-10.0": FirmwarePreset(
        "QEMU 10.0, arm virt with ras=on: as 7.2 in everything about errors.",
        _qemu("qemu-10.0", Revisions(madt=4, hest=1), "errors", 32),
    ),
    "qemu-11.1": FirmwarePreset(
        "QEMU 11.1, arm virt with ras=on: SEA, and GPIO through the event device; the HEST's address is written back.",
        _qemu("qemu-11.1", Revisions(madt=4, hest=1), "hest", 32),
    ),
    "minimal-vmm": FirmwarePreset(
        "The least that tells everything: SEA, a GSIV through the event device, and polling.", _minimal
    ),
    "sea-per-vcpu": FirmwarePreset(
        "One SEA source for each vCPU, for guests that read only their own (Linux reads all of them), and polling.",
        _sea_per_vcpu,
    ),
}


def describe(name: str, *, memory: int = 512 * MIB, vcpus: int = 1) -> FirmwareDescription:
    """The description of a preset for a guest of ``memory`` bytes and ``vcpus`` vCPUs.  Raises FirmwareError."""
    preset = FIRMWARE_PRESETS.get(name)
    if preset is None:
        raise FirmwareError("preset", "", f"{name!r} is none of {', '.join(FIRMWARE_PRESETS)}")
    return preset.describe(memory, vcpus)


def with_sources(description: FirmwareDescription, *sources: SourceDescription) -> FirmwareDescription:
    """The same guest with other sources."""
    return replace(description, sources=sources)
