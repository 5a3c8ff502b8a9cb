"""Differentiated System Description Table (ACPI 6.5, 5.2.11.1) of an Arm machine: vCPUs, UART, and how errors are told.

The error device (PNP0C33, 18.3.2.9) is notified with 0x80 by the Generic Event Device (ACPI0013, 5.6.9): then Linux
reads every source whose notification is GSIV, GPIO or SCI.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from acpi import aml
from acpi.machine import EventDevice, Machine, Uart
from acpi.table import TableHeader, seal

ERROR_DEVICE = "GEDD"
EVENT_DEVICE = "GED"
HARDWARE_ERROR = 0x80
"""Notification value of the error device (table 5.173)."""
PLATFORM_CAPABILITIES = UUID("0811b06e-4a27-44f9-8d60-3cbbc22e7b48")
"""What the operating system asks _OSC about (6.2.11.2)."""
APEI_SUPPORT = 0x10
"""The capability that errors are handled by firmware first."""
_UNKNOWN_UUID, _CAPABILITIES_MASKED = 0x04, 0x10
_SYSTEM_MEMORY = 0
_DWORD_WRITE_AS_ZEROS = 3 | 2 << 5


def build_dsdt(machine: Machine, gsivs: Sequence[int], header: TableHeader, *, osc: bool = True) -> bytes:
    """The table.

    ``gsivs``: interrupts by which the error device is told; none, and the table has no error device.  ``osc``: whether
    it agrees to firmware-first errors when asked.
    """
    terms = [capabilities()] if osc else []
    terms += [processor(index) for index in range(len(machine.mpidrs))]
    if machine.uart is not None:
        terms.append(uart(machine.uart))
    if gsivs:
        terms += [event_device(machine.event_device, gsivs), error_device()]
    return seal(header, aml.scope("_SB", *terms))


def capabilities() -> bytes:
    """_OSC of the platform: of everything that the operating system can do, APEI is wanted and granted."""
    status, wanted = aml.name("CDW1"), aml.name("CDW2")
    grant = [
        aml.create_dword_field(aml.argument(3), 4, "CDW2"),
        aml.and_(wanted, aml.integer(APEI_SUPPORT), aml.local(0)),
        aml.if_(
            aml.not_(aml.equal(aml.local(0), wanted)),
            aml.or_(status, aml.integer(_CAPABILITIES_MASKED), status),
            aml.store(aml.local(0), wanted),
        ),
        aml.return_(aml.argument(3)),
    ]
    return aml.method(
        "_OSC", 4,
        aml.create_dword_field(aml.argument(3), 0, "CDW1"),
        aml.if_(aml.equal(aml.argument(0), aml.buffer(PLATFORM_CAPABILITIES.bytes_le)), *grant),
        aml.or_(status, aml.integer(_UNKNOWN_UUID), status),
        aml.return_(aml.argument(3)),
    )  # fmt: skip


def processor(index: int) -> bytes:
    """A processor device; its _UID is that in the MADT."""
    return aml.device(f"C{index:03X}", _hid("ACPI0007"), _uid(index))


def uart(described: Uart) -> bytes:
    """A PL011."""
    registers = aml.memory32_fixed if described.address < 1 << 32 else aml.qword_memory
    return aml.device(
        "COM0",
        _hid("ARMH0011"),
        _uid(0),
        aml.named(
            "_CRS", aml.resources(registers(described.address, 0x1000), aml.interrupt(described.gsiv, edge=False))
        ),
    )


def error_device() -> bytes:
    """The error device."""
    return aml.device(ERROR_DEVICE, _hid("PNP0C33"), _uid(0))


def event_device(described: EventDevice | None, gsivs: Sequence[int]) -> bytes:
    """The Generic Event Device with an edge-triggered interrupt for each of ``gsivs``.

    Linux takes the first interrupt of a descriptor only, so that each has one of its own.
    """
    tell = aml.notify(ERROR_DEVICE, HARDWARE_ERROR)
    crs = aml.named("_CRS", aml.resources(*(aml.interrupt(gsiv, edge=True) for gsiv in gsivs)))
    if described is not None and described.selector is not None:
        bit = aml.integer(described.bit)
        terms = [
            aml.operation_region("EREG", _SYSTEM_MEMORY, described.selector, 4),
            aml.field("EREG", _DWORD_WRITE_AS_ZEROS, [("ESEL", 32)]),
            aml.method(
                "_EVT", 1,
                aml.store(aml.name("ESEL"), aml.local(0)),
                aml.if_(aml.equal(aml.and_(aml.local(0), bit), bit), tell),
            ),
        ]  # fmt: skip
    else:
        asked = [aml.if_(aml.equal(aml.argument(0), aml.integer(gsiv)), tell) for gsiv in gsivs]
        terms = [aml.method("_EVT", 1, *asked)]
    return aml.device(EVENT_DEVICE, _hid("ACPI0013"), aml.named("_UID", aml.string(EVENT_DEVICE)), crs, *terms)


def _hid(value: str) -> bytes:
    return aml.named("_HID", aml.string(value))


def _uid(value: int) -> bytes:
    return aml.named("_UID", aml.integer(value))
