"""Where a kernel calls SDEI firmware (HVC), so that the debugger can stop there: emulation answers no such call."""

from __future__ import annotations

import struct

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


def sites(image: bytes, base: int) -> tuple[int, ...]:
    """Virtual addresses of the HVCs that carry SDEI calls.  Raises Failure."""
    found = []
    for words, offset in _SITES:
        pattern = struct.pack(f"<{len(words)}I", *words)
        at = image.find(pattern, 0, _TEXT)
        if at < 0:
            raise Failure("the kernel's image has no HVC where SDEI calls are made")
        while at >= 0:
            found.append(base + at + offset)
            at = image.find(pattern, at + 4, _TEXT)
    return tuple(found)
