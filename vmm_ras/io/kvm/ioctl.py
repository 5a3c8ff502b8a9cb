"""One way to make an ioctl of KVM, and how one fails (KVM API, "The Definitive KVM API Documentation")."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os

from cper.wire import Struct
from vmm_ras.errors import HostError
from vmm_ras.kvm import events, exits, ioctls

_NAMES = {
    value: name
    for module, names in ((ioctls, vars(ioctls)), (events, ("GET_VCPU_EVENTS", "SET_VCPU_EVENTS")))
    for name in names
    if isinstance(value := getattr(module, name), int) and value & 0xFF00 == exits.KVMIO << 8
}


class KvmError(HostError):
    """An ioctl failed with ``errno``."""

    def __init__(self, request: int, number: int) -> None:
        what = _NAMES.get(request)
        super().__init__(f"{f'KVM_{what}' if what else f'ioctl {request:#x}'}: {os.strerror(number)}")
        self.errno = number


def call(fd: int, request: int, argument: int | bytes = 0) -> int:
    """What the ioctl returns.  Raises KvmError."""
    try:
        return int(fcntl.ioctl(fd, request, argument)) if isinstance(argument, int) else _send(fd, request, argument)
    except OSError as error:
        raise KvmError(request, error.errno or errno.EIO) from None


def _send(fd: int, request: int, argument: bytes) -> int:
    buffer = bytearray(argument)
    return int(fcntl.ioctl(fd, request, buffer, True))


def put(fd: int, request: int, argument: Struct) -> int:
    """Hand a structure over.  Raises KvmError."""
    return call(fd, request, argument.encode())


def fetch(fd: int, request: int, size: int, argument: bytes = b"") -> bytes:
    """What the ioctl leaves in the structure of ``size`` bytes that it is handed.  Raises KvmError."""
    buffer = bytearray(argument.ljust(size, b"\0"))
    try:
        fcntl.ioctl(fd, request, buffer, True)
    except OSError as error:
        raise KvmError(request, error.errno or errno.EIO) from None
    return bytes(buffer)


class Value:
    """Room for bytes that an ioctl reads or writes by address."""

    def __init__(self, data: bytes | int) -> None:
        """``data``: what it holds at first, or how many bytes it is."""
        size = data if isinstance(data, int) else len(data)
        self._buffer = ctypes.create_string_buffer(b"" if isinstance(data, int) else data, size)
        self.address = ctypes.addressof(self._buffer)

    def fill(self, data: bytes) -> None:
        """Put these bytes at its begin."""
        ctypes.memmove(self.address, data, len(data))

    @property
    def data(self) -> bytes:
        """What it holds now."""
        return self._buffer.raw
