"""Where everything of a guest lies when it starts, and what its device tree, its EFI tables and its ACPI tables say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from acpi.firmware import GUEST_PAGE, Firmware, Reserved
from acpi.image import Image
from acpi.linking import align_up
from acpi.machine import FirmwareError, Range
from vmm_ras.boot import device_tree, efi
from vmm_ras.boot.device_tree import cells
from vmm_ras.boot.kernel_image import ALIGNMENT, Kernel
from vmm_ras.errors import InputError

SECURE_BOOT_DISABLED = 2
"""Linux 6.1 refuses an EFI memory map without this word; since 6.2 it may be missing."""
MAX_COMMAND_LINE = 2047
"""Bytes that arm64 Linux takes (COMMAND_LINE_SIZE, with its NUL)."""
BOOT_PSTATE = 0x3C5
"""EL1h with D, A, I and F masked, as the boot protocol wants it."""


@dataclass(frozen=True)
class Boot:
    """A guest that is ready to start, but for the contents of kernel and initrd."""

    kernel_at: int
    initrd_at: int
    device_tree_at: int
    """X0 of the first vCPU; X1 to X3 are 0."""
    image: Image
    """ACPI tables and error region."""
    regions: tuple[tuple[str, int, bytes], ...]
    """(name, guest physical address, bytes) of all that is to be written, the tables among it."""
    page_shift: int
    """log2 of the guest's page size in bytes."""

    @property
    def entry(self) -> int:
        """PC of the first vCPU."""
        return self.kernel_at


def lay_out(firmware: Firmware, kernel: Kernel, initrd_size: int, command_line: str, seed: bytes = b"") -> Boot:
    """Kernel and initrd at the bottom of the lowest RAM, everything else at its top.

    ``seed``: random bytes for the guest's first random numbers.  Raises InputError where the RAM is too small.
    """
    line = command_line.encode()
    if len(line) > MAX_COMMAND_LINE:
        raise InputError(f"command line: {len(line)} bytes, more than {MAX_COMMAND_LINE}")
    machine = firmware.description.machine
    ram = min(machine.memory)
    kernel_at = align_up(ram.gpa, ALIGNMENT) + kernel.text_offset
    initrd_at = align_up(kernel_at + kernel.size, GUEST_PAGE)
    at = firmware.place()
    tables_at = min(at.values())
    efi_at = (tables_at & -GUEST_PAGE) - GUEST_PAGE
    tree_at = efi_at - GUEST_PAGE
    if initrd_at + initrd_size > tree_at:
        needed = align_up(initrd_at + initrd_size + ram.end - tree_at - ram.gpa, 1 << 20)
        raise InputError(
            f"memory: {ram.size >> 20} MiB hold no kernel of {kernel.size >> 20} MiB and initrd of "
            f"{initrd_size / (1 << 20):.0f} MiB; at least {needed >> 20} MiB are needed"
        )
    try:
        image = firmware.image()
    except FirmwareError as error:
        raise InputError(str(error)) from None
    descriptors = efi.memory_map(
        machine.memory, [*_merged(firmware.reserved(at)), efi.Used(_page(efi_at), "ACPI reclaim")]
    )
    tables = efi.place(efi_at, GUEST_PAGE, image.rsdp, descriptors)
    chosen: dict[str, device_tree.Value] = {"bootargs": command_line}
    if initrd_size:
        chosen |= {
            "linux,initrd-start": cells(initrd_at),
            "linux,initrd-end": cells(initrd_at + initrd_size),
        }
    chosen |= {
        "linux,uefi-system-table": cells(tables.system_table),
        "linux,uefi-mmap-start": cells(tables.memory_map),
        "linux,uefi-mmap-size": tables.memory_map_size,
        "linux,uefi-mmap-desc-size": efi.MemoryDescriptor.SIZE,
        "linux,uefi-mmap-desc-ver": efi.DESCRIPTOR_VERSION,
        "linux,uefi-secure-boot": SECURE_BOOT_DISABLED,
    }
    if seed:
        chosen["rng-seed"] = seed
    tree = device_tree.blob({"#address-cells": 2, "#size-cells": 2}, {"chosen": chosen})
    regions = (*image.regions, *tables.regions, ("device_tree", tree_at, tree))
    return Boot(kernel_at, initrd_at, tree_at, image, regions, kernel.page_shift)


def _page(gpa: int) -> Range:
    return Range(gpa, GUEST_PAGE)


def _merged(reserved: Iterable[Reserved]) -> list[efi.Used]:
    """RSDP and tables may share a page, and the tables of one kind lie side by side."""
    out: list[efi.Used] = []
    for _, r, kind in sorted(reserved, key=lambda item: item.range):
        if out and out[-1].kind == kind and r.gpa <= out[-1].range.end:
            last = out[-1].range
            out[-1] = efi.Used(Range(last.gpa, max(last.end, r.end) - last.gpa), kind)
        else:
            out.append(efi.Used(r, kind))
    return out
