"""The socket that the service listens on: its owner's alone, taken over when its service is gone, taken away again."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from vmm_ras.errors import HostError
from vmm_ras.io.closing import Closing

BACKLOG = 64


class UnixListener(Closing):
    """A listening UNIX socket with mode 0600.  Raises HostError."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            with _directory(self.path.parent):
                self._bind()
                os.chmod(self.path, 0o600)  # before listen: nobody can connect yet
                self.socket.listen(BACKLOG)
            self.socket.setblocking(False)
            self._known = _identity(self.path)
        except OSError as error:
            self.socket.close()
            reason = "a path of at most 107 bytes expected" if error.errno is None else error.strerror
            raise HostError(f"{self.path}: {reason}") from None
        except HostError:
            self.socket.close()
            raise

    def _bind(self) -> None:
        try:
            self.socket.bind(str(self.path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise HostError(f"{self.path}: there is something else that is no socket") from None
            if _answers(self.path):
                raise HostError(f"{self.path}: another service listens there") from None
            self.path.unlink()  # its service ended without taking it away
            self.socket.bind(str(self.path))

    def close(self) -> None:
        """Stop listening, and take the socket away if it is still this one."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._known:
                self.path.unlink()


def tcp_listener(port: int) -> socket.socket:
    """A socket on the loopback interface, which every user of the host can reach.  Raises HostError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise HostError(f"127.0.0.1:{port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[None]:
    """Hold the directory, so that of two services that take over a socket one comes second."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _answers(path: Path) -> bool:
    """Whether somebody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True  # its backlog is full
        return True


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
