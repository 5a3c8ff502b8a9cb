"""The union of exits in struct kvm_run (``linux/kvm.h``): those that a VMM answers; ``events`` has lost memory's."""

from __future__ import annotations

from typing import Annotated, Final

from cper.wire import U8, U32, U64, Struct, array, blob

KVMIO: Final = 0xAE
"""Type of KVM's ioctls: bits 15:8 of their numbers."""
IMMEDIATE_EXIT: Final = 1
EXIT_REASON: Final = 8
EXIT_UNION: Final = 32
"""Offsets in struct kvm_run: a byte, a 32-bit word, and where the union of exits begins."""
MMIO_DATA: Final = 40


class MmioExit(Struct, size=24):
    """``mmio`` of struct kvm_run after KVM_EXIT_MMIO."""

    phys_addr: U64
    data: Annotated[bytes, blob(8)]
    """Written by the guest, or for user space to fill."""
    len: U32
    is_write: U8
    padding: Annotated[bytes, blob(3)] = bytes(3)


class HypercallExit(Struct, size=72):
    """``hypercall`` of struct kvm_run after KVM_EXIT_HYPERCALL: on arm64 only these two members mean something.

    The arguments are in the vCPU's registers, and so is the answer.
    """

    nr: U64
    args: Annotated[tuple[int, ...], array("Q", 6)] = (0,) * 6
    ret: U64 = 0
    flags: U64 = 0


class SystemEventExit(Struct, size=136):
    """``system_event`` of struct kvm_run after KVM_EXIT_SYSTEM_EVENT: PSCI's SYSTEM_OFF, SYSTEM_RESET and the like."""

    type: U32
    ndata: U32 = 0
    data: Annotated[tuple[int, ...], array("Q", 16)] = (0,) * 16
