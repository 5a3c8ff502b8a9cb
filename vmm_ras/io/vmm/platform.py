"""The machine that the small VMM gives its guests: QEMU's arm virt, as far as KVM and our devices make it."""

from __future__ import annotations

from dataclasses import replace

from acpi.description import FirmwareDescription
from acpi.firmware_presets import ERROR_GSIV, virt_machine
from acpi.hest import NotificationType
from acpi.image import SourceDescription
from acpi.machine import REDISTRIBUTOR_SIZE, EventDevice, GicV3, Machine, Range, Uart
from acpi.presets import DEFAULT_SDEI_EVENT

GICD, GICR = 0x0800_0000, 0x080A_0000
"""Where the GIC's distributor is, and the redistributors."""
UART, UART_GSIV = Range(0x0900_0000, 0x1000), 33
GPIO_GSIV = 0x7B
"""SPI 91: the event device's own interrupt, by which GPIO sources are told."""
INTERRUPTS = 128
"""Of the GIC, with SGIs and PPIs: enough for the UART and the event device."""
ENTRIES = 26
"""Memory entries that a block of 4 KiB holds."""
MAX_VCPUS = 123
"""For which the machine has redistributors."""
POLL_MS = 1000
SDEI_WAY, GPIO_WAY = NotificationType.SDEI, NotificationType.GPIO_SIGNAL


def machine(memory: int, vcpus: int) -> Machine:
    """``memory`` bytes of RAM.  KVM's vCPUs have no PMU unless asked, so there is none."""
    return replace(
        virt_machine(memory, vcpus, event_device=EventDevice(GPIO_GSIV)), pmu_gsiv=0, uart=Uart(UART.gpa, UART_GSIV),
        gic=GicV3(GICD, (Range(GICR, MAX_VCPUS * REDISTRIBUTOR_SIZE),)),
    )  # fmt: skip


def sources(*, sdei: bool = True) -> tuple[SourceDescription, ...]:
    """One for each way that Linux knows.  ``sdei``: whether the host lets its calls come to us."""
    ways = [
        SourceDescription(0, NotificationType.SEA, max_sections=ENTRIES),
        SourceDescription(1, SDEI_WAY, vector=DEFAULT_SDEI_EVENT, max_sections=ENTRIES),
        SourceDescription(2, NotificationType.GSIV, vector=ERROR_GSIV, max_sections=ENTRIES),
        SourceDescription(3, GPIO_WAY, max_sections=ENTRIES),
        SourceDescription(4, NotificationType.POLLED, poll_interval_ms=POLL_MS, max_sections=ENTRIES),
    ]
    return tuple(s for s in ways if sdei or s.notification != SDEI_WAY)


def describe(memory: int, vcpus: int, *, sdei: bool = True) -> FirmwareDescription:
    """All that the tables say.  Raises FirmwareError."""
    return FirmwareDescription(machine(memory, vcpus), sources(sdei=sdei), hypervisor="vmm-ras")
