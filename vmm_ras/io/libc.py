"""Calls of the C library that Python has no name for: mapping at an address, reading through one, signalfd, prctl."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import platform
import sys
from typing import Any, Final

from vmm_ras.kvm.siginfo import PR_MCE_KILL, PR_MCE_KILL_EARLY, PR_MCE_KILL_SET, SFD_CLOEXEC, SFD_NONBLOCK

PROT_READ_WRITE: Final = 3
MAP_SHARED: Final = 1
MAP_PRIVATE: Final = 2
MAP_FIXED: Final = 0x10
MAP_ANONYMOUS: Final = 0x20
FALLOC_FL_PUNCH_HOLE_KEEP_SIZE: Final = 3
SIGNALFD_MASK_SIZE: Final = 8
PROT_NONE: Final = 0
_USERFAULTFD: Final = {"x86_64": 323, "aarch64": 282}
"""Number of the system call userfaultfd(2)."""
UFFD_USER_MODE_ONLY: Final = 1
_FAILED = ctypes.c_void_p(-1).value
_POINTER, _SIZE, _INT, _LONG = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_long
_library = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _function(name: str, result: Any, *arguments: Any) -> Any:
    found = getattr(_library, name)
    found.restype, found.argtypes = result, arguments
    return found


def _fail(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


_mmap = _function("mmap", _POINTER, _POINTER, _SIZE, _INT, _INT, _INT, _LONG)
_munmap = _function("munmap", _INT, _POINTER, _SIZE)
_madvise = _function("madvise", _INT, _POINTER, _SIZE, _INT)
_fallocate = _function("fallocate", _INT, _INT, _INT, _LONG, _LONG)
_prctl = _function("prctl", _INT, _INT, *[ctypes.c_ulong] * 4)
_syscall = _function("syscall", _LONG, _LONG, _LONG)
_mprotect = _function("mprotect", _INT, _POINTER, _SIZE, _INT)
_signalfd = _function("signalfd", _INT, _INT, _POINTER, _INT)


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", _POINTER), ("length", _SIZE))


_COPY = (_INT, ctypes.POINTER(_Vector), ctypes.c_ulong, ctypes.POINTER(_Vector), ctypes.c_ulong, ctypes.c_ulong)
_process_vm_readv = _function("process_vm_readv", ctypes.c_ssize_t, *_COPY)
_process_vm_writev = _function("process_vm_writev", ctypes.c_ssize_t, *_COPY)


def _copy(call: Any, buffer: Any, address: int, size: int) -> int:
    ours, theirs = _Vector(ctypes.addressof(buffer), size), _Vector(address, size)
    done = int(call(os.getpid(), ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0))
    if done < 0:
        raise _fail("process_vm_readv or writev")
    return done


def read_mapped(address: int, size: int) -> bytes:
    """Memory of this process, by a call: at most ``size`` bytes.  Raises OSError with EFAULT where none is good."""
    buffer = ctypes.create_string_buffer(size)
    done = _copy(_process_vm_readv, buffer, address, size)
    return buffer.raw[:done]


def write_mapped(address: int, data: bytes) -> int:
    """Write memory of this process, by a call; how many bytes.  Raises OSError with EFAULT where none is good."""
    return _copy(_process_vm_writev, ctypes.create_string_buffer(data, len(data)), address, len(data))


def mmap(size: int, fd: int, offset: int = 0, at: int = 0) -> int:
    """Map a shared file; ``at`` replaces what is mapped there.  The address.  Raises OSError."""
    flags = MAP_SHARED | (MAP_FIXED if at else 0)
    address = _mmap(at or None, size, PROT_READ_WRITE, flags, fd, offset)
    if address is None or address == _FAILED:
        raise _fail("mmap")
    return int(address)


def munmap(address: int, size: int) -> None:
    """Take a mapping away.  Raises OSError."""
    if _munmap(address, size):
        raise _fail("munmap")


def madvise(address: int, size: int, advice: int) -> None:
    """Raises OSError; EPERM for MADV_HWPOISON without CAP_SYS_ADMIN."""
    if _madvise(address, size, advice):
        raise _fail("madvise")


def close_mapping(address: int, size: int) -> None:
    """Let no access through a mapping succeed.  Raises OSError."""
    if _mprotect(address, size, PROT_NONE):
        raise _fail("mprotect")


def userfaultfd() -> int:
    """A file for the faults of this process in user mode.  Raises OSError."""
    number = _USERFAULTFD.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, "userfaultfd: its number is not known here")
    fd = _syscall(number, UFFD_USER_MODE_ONLY | os.O_CLOEXEC)
    if fd < 0:
        raise _fail("userfaultfd")
    return int(fd)


def punch_hole(fd: int, offset: int, size: int) -> None:
    """Give the pages of a part of a file back.  Raises OSError."""
    if _fallocate(fd, FALLOC_FL_PUNCH_HOLE_KEEP_SIZE, offset, size):
        raise _fail("fallocate")


def prefer_early_kill() -> None:
    """Let the calling thread be the one that hears of poison which nobody consumed.  Raises OSError."""
    if _prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0):
        raise _fail("prctl(PR_MCE_KILL)")


def signal_mask(signals: frozenset[int]) -> bytes:
    """The kernel's sigset of these signals."""
    return sum(1 << number - 1 for number in signals).to_bytes(SIGNALFD_MASK_SIZE, "little")


def signalfd(signals: frozenset[int]) -> int:
    """A file of which the pending ones of these signals are read: of the thread that reads.  Raises OSError."""
    mask = ctypes.create_string_buffer(signal_mask(signals).ljust(128, b"\0"), 128)
    fd = _signalfd(-1, mask, SFD_NONBLOCK | SFD_CLOEXEC)
    if fd < 0:
        raise _fail("signalfd")
    return int(fd)
