"""The other end of the guest's serial line: who types, and where it is shown."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import threading
import tty
from collections.abc import Callable, Iterator

ESCAPE, QUIT = 0x01, ord("x")
"""Ctrl-A, x: the end of the guest.  Ctrl-A twice is one Ctrl-A."""
GATHER_SECONDS = 0.02
"""How long output gathers: a guest writes byte by byte."""
MAX_TYPED = 4096
"""Bytes that wait for the guest to read them; whoever types more waits too."""


class Console:
    """A thread that carries bytes between the guest's UART and two ends here.

    ``output`` is given what the guest prints, ``source`` a file to read what is typed, or None.  ``deliver(data)`` puts
    bytes into the UART and says how many found room.  ``quit`` hears that the user wants the guest to end.
    """

    def __init__(
        self, output: Callable[[bytes], object], source: int | None = None, *,
        escape: bool = False, quit: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self._output, self._source, self._escape, self._quit = output, source, escape, quit
        self.deliver: Callable[[bytes], int] = lambda data: 0
        self._printed = bytearray()
        self._typed = bytearray()
        self._lock = threading.Lock()
        self._wake = self._waker = -1
        self._open = self._escaped = False
        self._thread = threading.Thread(target=self._carry, name="console", daemon=True)

    def start(self) -> None:
        """Begin to carry."""
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._open = True
        self._thread.start()

    def print(self, data: bytes) -> None:
        """The guest prints; any thread may call."""
        with self._lock:
            quiet = not self._printed
            self._printed += data
        if quiet:
            self._nudge()

    def type(self, data: bytes) -> None:
        """Somebody types; any thread may call."""
        with self._lock:
            self._typed += data
        self._nudge()

    def drained(self) -> None:
        """The guest has read something: there is room."""
        if self._typed:
            self._nudge()

    def close(self) -> None:
        """Show what is left, and end the thread; it may be called twice."""
        if self._open:
            self._open = False
            self._nudge()
            if self._thread is not threading.current_thread():
                self._thread.join()
            self._flush()
            wake, waker, self._wake, self._waker = self._wake, self._waker, -1, -1
            os.close(wake)
            os.close(waker)

    def _nudge(self) -> None:
        if self._waker >= 0:
            with contextlib.suppress(OSError):
                os.write(self._waker, b"!")

    def _carry(self) -> None:
        while self._open:
            waited_for = [self._wake]
            if self._source is not None and len(self._typed) < MAX_TYPED:
                waited_for.append(self._source)
            ready, _, _ = select.select(waited_for, [], [], 1.0)
            if self._wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
                if self._printed:
                    threading.Event().wait(GATHER_SECONDS)
            if self._source in ready:
                self._read()
            self._flush()
            self._feed()

    def _read(self) -> None:
        assert self._source is not None
        try:
            data = os.read(self._source, 1024)
        except OSError:
            data = b""
        if not data:
            self._source = None
            return
        with self._lock:
            self._typed += self._unescaped(data) if self._escape else data

    def _unescaped(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if self._escaped:
                self._escaped = False
                if byte == QUIT:
                    self._quit()
                elif byte == ESCAPE:
                    out.append(byte)
            elif byte == ESCAPE:
                self._escaped = True
            else:
                out.append(byte)
        return bytes(out)

    def _flush(self) -> None:
        with self._lock:
            data, self._printed = bytes(self._printed), bytearray()
        if data:
            self._output(data)

    def _feed(self) -> None:
        with self._lock:
            data = bytes(self._typed[:256])
        if data:
            taken = self.deliver(data)  # not under the lock: the UART has one of its own, and prints under it
            with self._lock:
                del self._typed[:taken]


@contextlib.contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """A terminal that hands over every key; its settings are put back at the end."""
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSANOW, before)


def writer(fd: int) -> Callable[[bytes], None]:
    """Writes all of it to a file; what nobody reads any more is dropped."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        with contextlib.suppress(OSError):
            while view:
                view = view[os.write(fd, view) :]

    return write
