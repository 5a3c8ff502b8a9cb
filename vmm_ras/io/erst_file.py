"""A file that keeps error records (ACPI 6.5, 18.5): the medium below ``acpi.erst_store``.

A write is acknowledged when ``fdatasync`` has returned.  One process at a time has the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from pathlib import Path
from typing import Self

from acpi.erst_store import SlotStore
from cper.wire import DecodeError
from vmm_ras.errors import HostError, InputError
from vmm_ras.io.closing import Closing


class FileMedium:
    """A file as a medium."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, offset: int, size: int) -> bytes:
        """Read ``size`` bytes; fewer at the end of the file.  Raises OSError."""
        parts = []
        while size > 0 and (part := os.pread(self.fd, size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data``.  Raises OSError."""
        view = memoryview(data)
        while view:
            done = os.pwrite(self.fd, view, offset)
            offset, view = offset + done, view[done:]

    def flush(self) -> None:
        """Return when everything written before is on the disk.  Raises OSError."""
        os.fdatasync(self.fd)


class ErstFile(Closing):
    """An open file of records; ``store`` is what the device keeps its records in."""

    def __init__(self, fd: int, store: SlotStore) -> None:
        self.fd, self.store = fd, store

    @classmethod
    def open(cls, path: str | Path, records: int = 64, record_size: int = 8192) -> Self:
        """Open the file; where there is none it is made, whole or not at all, for ``records`` of ``record_size`` bytes.

        Raises HostError where it cannot be had, or another process has it; InputError where it is no record store.
        """
        path = Path(path)
        try:
            fd = _have(path, records, record_size)
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cls(fd, SlotStore.open(FileMedium(fd)))
        except OSError as error:
            os.close(fd)
            busy = error.errno in {errno.EACCES, errno.EAGAIN}
            raise HostError(f"{path}: {'another process has it' if busy else error.strerror}") from None
        except DecodeError as error:
            os.close(fd)
            raise InputError(f"{path}: {error}") from None

    def close(self) -> None:
        """Let the file go."""
        os.close(self.fd)


def _have(path: Path, records: int, record_size: int) -> int:
    """A descriptor of the file, made where it is not there.  Raises OSError, ValueError."""
    flags = os.O_RDWR | os.O_CLOEXEC
    if not path.exists():
        fd, name = tempfile.mkstemp(prefix=path.name + ".", dir=path.parent)
        try:
            SlotStore.format(FileMedium(fd), records, record_size)
            os.fsync(fd)
            with contextlib.suppress(FileExistsError):  # another process was quicker: its file counts
                os.link(name, path)
        finally:
            os.close(fd)
            os.unlink(name)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    return os.open(path, flags)


__all__ = ["ErstFile", "FileMedium"]
