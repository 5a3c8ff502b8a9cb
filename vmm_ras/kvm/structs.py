"""What user space hands to KVM's ioctls (``linux/kvm.h`` and ``asm/kvm.h``, arm64)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from cper.wire import U8, U32, U64, Reserved, Struct, array

_Words4 = Annotated[tuple[int, ...], array("Q", 4)]
_Features = Annotated[tuple[int, ...], array("I", 7)]


class UserspaceMemoryRegion(Struct, size=32):
    """struct kvm_userspace_memory_region, of KVM_SET_USER_MEMORY_REGION."""

    slot: U32
    flags: U32 = 0
    guest_phys_addr: U64
    memory_size: U64
    """Bytes; 0 takes the slot away."""
    userspace_addr: U64


class VcpuInit(Struct, size=32):
    """struct kvm_vcpu_init, of KVM_ARM_PREFERRED_TARGET and KVM_ARM_VCPU_INIT."""

    target: U32 = 0
    features: _Features = (0,) * 7


class OneReg(Struct, size=16):
    """struct kvm_one_reg, of KVM_GET_ONE_REG and KVM_SET_ONE_REG."""

    id: U64
    addr: U64
    """Where user space has the value."""


class EnableCap(Struct, size=104):
    """struct kvm_enable_cap, of KVM_ENABLE_CAP."""

    cap: U32
    flags: U32 = 0
    args: _Words4 = (0,) * 4
    pad: ClassVar = Reserved(64)


class CreateDevice(Struct, size=12):
    """struct kvm_create_device, of KVM_CREATE_DEVICE."""

    type: U32
    fd: U32 = 0
    """Comes back: the device."""
    flags: U32 = 0


class DeviceAttr(Struct, size=24):
    """struct kvm_device_attr, of KVM_SET_DEVICE_ATTR and KVM_HAS_DEVICE_ATTR."""

    flags: U32 = 0
    group: U32
    attr: U64
    addr: U64 = 0
    """Where user space has the value."""


class SmcccFilter(Struct, size=24):
    """struct kvm_smccc_filter: what becomes of the calls ``base`` to ``base + nr_functions - 1``."""

    base: U32
    nr_functions: U32
    action: U8
    pad: ClassVar = Reserved(15)


class IrqLevel(Struct, size=8):
    """struct kvm_irq_level, of KVM_IRQ_LINE."""

    irq: U32
    """Type, vCPU and number of the line."""
    level: U32
