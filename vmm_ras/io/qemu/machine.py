"""A machine under QEMU, as far as telling its guest errors needs it: RAM, monitor, debugger, qtest."""

from __future__ import annotations

import os

from cper.words import counted
from vmm_ras.errors import GuestError
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.io.qemu.gdb import Debugger
from vmm_ras.io.qemu.qmp import Monitor, Qtest


class SharedRam:
    """Guest RAM that QEMU maps, read and written by calls, never through a mapping of ours."""

    def __init__(self, gpa: int, size: int, fd: int | None = None) -> None:
        """``fd``: the file that QEMU maps; without, one of ours, for a QEMU that is started with it."""
        self.gpa, self.size = gpa, size
        self.fd = os.memfd_create("guest-ram") if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, size)

    def read(self, gpa: int, size: int) -> bytes:
        """Bytes at a guest physical address.  Raises GuestError outside RAM."""
        return os.pread(self.fd, size, self._offset(gpa, size))

    def write(self, gpa: int, data: bytes) -> None:
        """Write at a guest physical address.  Raises GuestError outside RAM."""
        os.pwrite(self.fd, data, self._offset(gpa, len(data)))

    def _offset(self, gpa: int, size: int) -> int:
        offset = gpa - self.gpa
        if not 0 <= offset <= offset + size <= self.size:
            raise GuestError(f"{counted(size, 'byte')} at {gpa:#x}: outside the guest's RAM")
        return offset

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.fd)


class Machine:
    """Who has one sets its four parts."""

    ram: SharedRam
    monitor: Monitor
    debugger: Debugger
    qtest: Qtest

    def interrupt_controller(self) -> str:
        """The GIC's path in QEMU's object tree.  Raises Failure."""
        for item in self.monitor.ask("qom-list", path="/machine/unattached"):
            if item["type"] in {"child<arm_gic>", "child<arm-gicv3>", "child<kvm-arm-gicv3>"}:
                return f"/machine/unattached/{item['name']}"
        raise Failure("monitor: the machine has no GIC")
