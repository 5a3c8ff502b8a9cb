"""The in-kernel GICv3 (KVM devices/arm-vgic-v3)."""

from __future__ import annotations

import os

from vmm_ras.io.kvm.ioctl import Value, fetch, put
from vmm_ras.io.kvm.vm import Vm
from vmm_ras.kvm import ioctls
from vmm_ras.kvm.structs import CreateDevice, DeviceAttr


class GicV3:
    """The machine's interrupt controller; make it behind the vCPUs.  Raises KvmError."""

    def __init__(self, vm: Vm, distributor: int, redistributors: int, interrupts: int = 96) -> None:
        """Guest addresses; ``interrupts``: how many there are, SGIs and PPIs included (a multiple of 32)."""
        made = fetch(vm.fd, ioctls.CREATE_DEVICE, CreateDevice.SIZE, CreateDevice(
            type=ioctls.DEV_TYPE_ARM_VGIC_V3).encode())  # fmt: skip
        self.interrupts = interrupts
        self.fd = CreateDevice.decode(made).fd
        self._set(ioctls.DEV_ARM_VGIC_GRP_ADDR, ioctls.VGIC_V3_ADDR_TYPE_DIST, distributor.to_bytes(8, "little"))
        self._set(ioctls.DEV_ARM_VGIC_GRP_ADDR, ioctls.VGIC_V3_ADDR_TYPE_REDIST, redistributors.to_bytes(8, "little"))
        self._set(ioctls.DEV_ARM_VGIC_GRP_NR_IRQS, 0, interrupts.to_bytes(4, "little"))
        put(self.fd, ioctls.SET_DEVICE_ATTR, DeviceAttr(
            group=ioctls.DEV_ARM_VGIC_GRP_CTRL, attr=ioctls.DEV_ARM_VGIC_CTRL_INIT))  # fmt: skip

    def _set(self, group: int, attribute: int, data: bytes) -> None:
        value = Value(data)
        put(self.fd, ioctls.SET_DEVICE_ATTR, DeviceAttr(group=group, attr=attribute, addr=value.address))

    def get(self, group: int, attribute: int, size: int = 4) -> int:
        """A register of ``size`` bytes (KVM_GET_DEVICE_ATTR)."""
        value = Value(size)
        put(self.fd, ioctls.GET_DEVICE_ATTR, DeviceAttr(group=group, attr=attribute, addr=value.address))
        return int.from_bytes(value.data, "little")

    def set(self, group: int, attribute: int, number: int, size: int = 4) -> None:
        """Write a register of ``size`` bytes (KVM_SET_DEVICE_ATTR)."""
        self._set(group, attribute, number.to_bytes(size, "little"))

    def close(self) -> None:
        """Close the device; it may be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
