"""Nothing in the lab waits without an end."""

from __future__ import annotations

import select
import socket
import time

from vmm_ras.io.qemu.errors import Failure


class Deadline:
    """A point in time that several waits share."""

    def __init__(self, seconds: float, what: str) -> None:
        self.what, self.seconds = what, seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, not below 0."""
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raises Failure once the time is over."""
        if not self.left:
            raise Failure(f"{self.what}: nothing within {self.seconds:.0f} s")


class Channel:
    """One end of a socket pair whose other end a process has: bytes, with a deadline on every read and write."""

    def __init__(self, end: socket.socket, name: str) -> None:
        self._socket, self.name, self._buffer = end, name, b""
        end.setblocking(False)

    def send(self, data: bytes, seconds: float = 10) -> None:
        """Write all of ``data``.  Raises Failure."""
        deadline, view = Deadline(seconds, f"{self.name} takes no data"), memoryview(data)
        while view:
            select.select([], [self._socket], [], deadline.left)
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                deadline.check()
            except OSError as error:
                raise Failure(f"{self.name}: the other end is gone ({error.strerror})") from None

    def receive(self, seconds: float) -> bytes:
        """What there is within ``seconds``; nothing, and it is empty.  Raises Failure where the other end is gone."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return b""
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise Failure(f"{self.name}: the other end is gone ({error.strerror})") from None
        if not data:
            raise Failure(f"{self.name}: the other end is gone")
        return data

    def line(self, seconds: float = 10) -> bytes:
        """The next line, without its end.  Raises Failure."""
        deadline = Deadline(seconds, f"{self.name} answers nothing")
        while b"\n" not in self._buffer:
            deadline.check()
            self._buffer += self.receive(deadline.left)
        found, _, self._buffer = self._buffer.partition(b"\n")
        return found.rstrip(b"\r")

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
