"""/dev/kvm: what the host's KVM can do, and new machines (KVM API 4.1 to 4.5)."""

from __future__ import annotations

import os

from vmm_ras.errors import HostError
from vmm_ras.io.closing import Closing
from vmm_ras.io.kvm.ioctl import call
from vmm_ras.kvm import ioctls

DEVICE = "/dev/kvm"


class Kvm(Closing):
    """The open device.  Use it in a ``with`` block, or close it.  Raises HostError where it cannot be opened."""

    def __init__(self, path: str = DEVICE) -> None:
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}") from None
        try:
            version = call(self.fd, ioctls.GET_API_VERSION)
            if version != ioctls.API_VERSION:
                raise HostError(f"{path}: API version {version}, expected {ioctls.API_VERSION}")
            self.run_size = call(self.fd, ioctls.GET_VCPU_MMAP_SIZE)
        except BaseException:
            self.close()
            raise

    def capability(self, number: int) -> int:
        """KVM_CHECK_EXTENSION: 0 where the host has it not.  Raises KvmError."""
        return call(self.fd, ioctls.CHECK_EXTENSION, number)

    def close(self) -> None:
        """Close the device; machines live on."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
