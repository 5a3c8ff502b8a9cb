"""An Arm virtual machine as its tables describe it: memory, vCPUs, interrupt controller, UART, event device.

What contradicts itself is refused when the machine is made: ranges that overlap, a redistributor range too small for
the vCPUs, an interrupt that two devices have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from acpi.madt import Controller, GicCpuInterface, GicDistributor, GicIts, GicMsiFrame, GicRedistributor

PAGE = 4096
FIRST_SPI, FIRST_SPECIAL = 32, 1020
"""GSIVs 16 to 31 are each CPU's own (PPI), those up to 1019 shared (SPI)."""
MPIDR_AFFINITY = 0xFF_00FF_FFFF
"""Aff3, Aff2, Aff1, Aff0."""
MAX_VCPUS = 4096
"""The DSDT names them C000 to CFFF."""
REDISTRIBUTOR_SIZE = 0x2_0000
"""Bytes per vCPU of a GICv3: two frames of 64 KiB."""


class FirmwareError(ValueError):
    """A description that cannot become firmware: ``what`` is wrong, and ``where``."""

    def __init__(self, what: str, where: str, reason: str) -> None:
        super().__init__(f"{what}: {where}: {reason}" if where else f"{what}: {reason}")
        self.what, self.where, self.reason = what, where, reason


class Range(NamedTuple):
    """Guest physical addresses: the first, and how many bytes."""

    gpa: int
    size: int

    @property
    def end(self) -> int:
        """The address behind the last."""
        return self.gpa + self.size

    def overlaps(self, other: Range) -> bool:
        """Whether the two share a byte."""
        return self.gpa < other.end and other.gpa < self.end

    def within(self, other: Range) -> bool:
        """Whether ``other`` holds all of it."""
        return other.gpa <= self.gpa and self.end <= other.end

    def __str__(self) -> str:
        return f"{self.gpa:#x}..{self.end:#x}"


class MsiFrame(NamedTuple):
    """GICv2m: message-signalled interrupts of a GICv2."""

    address: int
    spi_base: int
    spi_count: int


@dataclass(frozen=True)
class GicV2:
    """A GICv2: at most 8 vCPUs."""

    distributor: int
    cpu_interface: int
    gicv: int = 0
    gich: int = 0
    msi_frame: MsiFrame | None = None

    def controllers(self, mpidrs: Sequence[int], pmu_gsiv: int) -> tuple[Controller, ...]:
        """The MADT's structures."""
        if len(mpidrs) > 8:
            raise FirmwareError("machine", "mpidrs", f"a GICv2 has at most 8 vCPUs, not {len(mpidrs)}")
        found: list[Controller] = [GicDistributor(physical_base_address=self.distributor, gic_version=2)]
        found += [
            GicCpuInterface(
                cpu_interface_number=index, acpi_processor_uid=index, mpidr=mpidr,
                performance_interrupt_gsiv=pmu_gsiv, physical_base_address=self.cpu_interface,
                gicv=self.gicv, gich=self.gich,
            )
            for index, mpidr in enumerate(mpidrs)
        ]  # fmt: skip
        if self.msi_frame is not None:
            frame = self.msi_frame
            found.append(
                GicMsiFrame(
                    physical_base_address=frame.address, spi_select=True, spi_count=frame.spi_count,
                    spi_base=frame.spi_base,
                )
            )  # fmt: skip
        return tuple(found)

    def ranges(self, vcpus: int) -> Iterable[tuple[str, Range]]:
        """Where its registers lie."""
        yield "GIC distributor", Range(self.distributor, 0x1000)
        yield "GIC CPU interface", Range(self.cpu_interface, 0x2000)
        if self.msi_frame is not None:
            yield "GIC MSI frame", Range(self.msi_frame.address, 0x1000)


@dataclass(frozen=True)
class GicV3:
    """A GICv3 or GICv4."""

    distributor: int
    redistributors: tuple[Range, ...]
    its: int | None = None
    """Interrupt Translation Service, where there is one."""

    def controllers(self, mpidrs: Sequence[int], pmu_gsiv: int) -> tuple[Controller, ...]:
        """The MADT's structures."""
        room = sum(r.size // REDISTRIBUTOR_SIZE for r in self.redistributors)
        if room < len(mpidrs):
            where = ", ".join(map(str, self.redistributors))
            raise FirmwareError("machine", "gic.redistributors", f"{where} holds {room} of {len(mpidrs)} vCPUs")
        found: list[Controller] = [GicDistributor(physical_base_address=self.distributor, gic_version=3)]
        found += [
            GicCpuInterface(
                cpu_interface_number=index, acpi_processor_uid=index, mpidr=mpidr, performance_interrupt_gsiv=pmu_gsiv
            )
            for index, mpidr in enumerate(mpidrs)
        ]
        found += [
            GicRedistributor(discovery_range_base_address=r.gpa, discovery_range_length=r.size)
            for r in self.redistributors
        ]
        if self.its is not None:
            found.append(GicIts(physical_base_address=self.its))
        return tuple(found)

    def ranges(self, vcpus: int) -> Iterable[tuple[str, Range]]:
        """Where its registers lie."""
        yield "GIC distributor", Range(self.distributor, 0x1_0000)
        for index, r in enumerate(self.redistributors):
            yield f"GIC redistributors {index}", r
        if self.its is not None:
            yield "GIC ITS", Range(self.its, 0x2_0000)


class Uart(NamedTuple):
    """A PL011."""

    address: int
    gsiv: int
    access_bits: Literal[8, 16, 32] = 32
    """How wide its registers are accessed."""


class EventDevice(NamedTuple):
    """The Generic Event Device that tells the guest of the error device (ACPI 6.5, 5.6.9)."""

    gsiv: int
    selector: int | None = None
    """Address of a 32-bit register that says what happened, as QEMU's device has it; None: the interrupt alone says."""
    bit: int = 0x20
    """The register's bit for an error (QEMU: ACPI_GED_ERROR_EVT)."""


class Timers(NamedTuple):
    """GSIVs of the architected timers; 0: the machine lacks it."""

    secure_el1: int = 29
    non_secure_el1: int = 30
    virtual_el1: int = 27
    el2: int = 26


DEFAULT_TIMERS = Timers()


@dataclass(frozen=True)
class Machine:
    """Everything of the machine that its tables say.  Raises FirmwareError where it contradicts itself."""

    memory: tuple[Range, ...]
    """RAM."""
    gic: GicV2 | GicV3
    mpidrs: tuple[int, ...] = (0,)
    """Affinity fields of each vCPU's MPIDR_EL1."""
    conduit: Literal["hvc", "smc"] = "hvc"
    """Of PSCI, and of SDEI."""
    uart: Uart | None = None
    event_device: EventDevice | None = None
    pmu_gsiv: int = 0
    """The PMU's interrupt; 0: there is none."""
    timers: Timers = DEFAULT_TIMERS
    reserved: tuple[Range, ...] = ()
    """RAM that is taken already: the kernel, a device tree, other firmware."""

    def __post_init__(self) -> None:
        self._check_memory()
        self._check_words()
        if not 1 <= len(self.mpidrs) <= MAX_VCPUS:
            raise FirmwareError("machine", "mpidrs", f"{len(self.mpidrs)} vCPUs, not 1 to {MAX_VCPUS}")
        for index, mpidr in enumerate(self.mpidrs):
            if mpidr & ~MPIDR_AFFINITY:
                raise FirmwareError("machine", f"mpidrs[{index}]", f"{mpidr:#x} has bits outside Aff3 to Aff0")
        if len(set(self.mpidrs)) != len(self.mpidrs):
            raise FirmwareError("machine", "mpidrs", "two vCPUs have the same MPIDR")
        self.gic.controllers(self.mpidrs, self.pmu_gsiv)
        interrupts: dict[int, str] = {}
        for what, gsiv in self._interrupts():
            check_gsiv("machine", what, gsiv)
            if gsiv in interrupts:
                raise FirmwareError("machine", what, f"GSIV {gsiv} is that of {interrupts[gsiv]} already")
            interrupts[gsiv] = what

    def _check_words(self) -> None:
        if self.conduit not in {"hvc", "smc"}:
            raise FirmwareError("machine", "conduit", f"{self.conduit!r} is neither 'hvc' nor 'smc'")
        if self.uart is not None and self.uart.access_bits not in {8, 16, 32}:
            raise FirmwareError("machine", "uart", f"an access of {self.uart.access_bits} bits is none of 8, 16, 32")
        device = self.event_device
        if device is not None and not 0 < device.bit < 1 << 32:
            raise FirmwareError("machine", "event_device", f"{device.bit:#x} is no bit of a 32-bit register")
        for what, gsiv in (*self.timers._asdict().items(), ("pmu_gsiv", self.pmu_gsiv)):
            if gsiv and not 16 <= gsiv < FIRST_SPECIAL:
                raise FirmwareError("machine", what, f"GSIV {gsiv} is neither a PPI nor an SPI (16 to 1019)")

    def _interrupts(self) -> Iterable[tuple[str, int]]:
        if self.uart is not None:
            yield "uart", self.uart.gsiv
        if self.event_device is not None:
            yield "event_device", self.event_device.gsiv

    def devices(self) -> Iterable[tuple[str, Range]]:
        """Where registers lie."""
        yield from self.gic.ranges(len(self.mpidrs))
        if self.uart is not None:
            yield "UART", Range(self.uart.address, 0x1000)
        if self.event_device is not None and self.event_device.selector is not None:
            yield "event device", Range(self.event_device.selector, 4)

    def _check_memory(self) -> None:
        if not self.memory:
            raise FirmwareError("machine", "memory", "there is none")
        seen: list[tuple[str, Range]] = []
        regions = [(f"memory[{i}]", r) for i, r in enumerate(self.memory)]
        for what, r in [*regions, *self.devices()]:
            if r.gpa < 0 or r.size <= 0 or r.end > 1 << 52:
                raise FirmwareError("machine", what, f"{r} is no range of guest physical addresses")
            if what.startswith("memory") and (r.gpa % PAGE or r.size % PAGE):
                raise FirmwareError("machine", what, f"{r} is not made of whole {PAGE}-byte pages")
            check_free(what, r, seen)
            seen.append((what, r))


def check_free(what: str, r: Range, taken: Iterable[tuple[str, Range]]) -> None:
    """Raises FirmwareError where ``r`` overlaps something."""
    for other, o in taken:
        if r.overlaps(o):
            raise FirmwareError(what, str(r), f"overlaps {other} at {o}")


def check_gsiv(what: str, where: str, gsiv: int) -> None:
    """Raises FirmwareError unless the interrupt is an SPI, or an extended SPI of a GICv3."""
    if not (FIRST_SPI <= gsiv < FIRST_SPECIAL or 4096 <= gsiv < 5120):
        raise FirmwareError(what, where, f"GSIV {gsiv} is no SPI (32 to 1019, 4096 to 5119)")
