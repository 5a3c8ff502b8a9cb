"""Where a kernel calls SDEI firmware (HVC), so that the debugger can stop there: emulation answers no such call."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from vmm_ras.io.qemu.errors import Failure

KERNEL_BASE = {"6.1": 0xFFFF_8000_0800_0000, "6.12": 0xFFFF_8000_8000_0000}
"""Virtual address of the first byte of a kernel's image, without KASLR."""
_BTI_C, _HVC, _SMC, _B_SELF, _B_NE = 0xD503_245F, 0xD400_0002, 0xD400_0003, 0x1400_0000, 0x5400_0061
_LDR_X4_SP, _STP_X0_X1_X4 = 0xF940_03E4, 0xA900_0480
_SITES = (
    ((_BTI_C, _HVC, _LDR_X4_SP, _STP_X0_X1_X4), 4),  # __arm_smccc_hvc
    ((_B_NE, _SMC, _B_SELF, _HVC, _B_SELF), 12),  # sdei_handler_exit
)
"""Instructions around a call, and the bytes up to it."""
_TEXT = 1 << 20
"""Both are at the start of the text; behind it is a copy that only runs where the kernel hides from user space."""


_ALIGNED = 1 << 16
"""Kernels are placed at multiples of this (``arch/arm64/include/asm/kernel-pgtable.h``)."""
_TRAMPOLINE = 2048
"""Bytes behind an SDEI entry point in which the way back out of the kernel's other page tables lies."""


def _places(data: bytes, words: tuple[int, ...], end: int) -> Iterator[int]:
    pattern = struct.pack(f"<{len(words)}I", *words)
    at = data.find(pattern, 0, end)
    while at >= 0:
        yield at
        at = data.find(pattern, at + 4, end)


def base_of(image: bytes, pc: int, read: Callable[[int, int], bytes]) -> int | None:
    """Virtual address of the first byte of a kernel that runs at ``pc``, wherever KASLR put it; None: it does not.

    ``read``: memory at a virtual address, which may raise Failure.
    """
    words, _ = _SITES[0]
    at = next(_places(image, words, _TEXT), None)
    if at is None or not pc >> 63:
        return None
    wanted = image[at : at + 4 * len(words)]
    for base in range(pc & -_ALIGNED, (pc & -_ALIGNED) - len(image) - _ALIGNED, -_ALIGNED):
        try:
            if read(base + at, len(wanted)) == wanted:
                return base
        except Failure:  # nothing is mapped there
            continue
    return None


def trampoline(entry: int, read: Callable[[int, int], bytes]) -> tuple[int, ...]:
    """Virtual addresses of the HVCs behind an SDEI entry point that lies outside the kernel's image (KPTI)."""
    words, offset = _SITES[1]
    return tuple(entry + at + offset for at in _places(read(entry, _TRAMPOLINE), words, _TRAMPOLINE))


def sites(image: bytes, base: int) -> tuple[int, ...]:
    """Virtual addresses of the HVCs that carry SDEI calls.  Raises Failure."""
    found = []
    for words, offset in _SITES:
        places = list(_places(image, words, _TEXT))
        if not places:
            raise Failure("the kernel's image has no HVC where SDEI calls are made")
        found += [base + at + offset for at in places]
    return tuple(found)
