"""The guest's serial console: a thread collects what the guest prints, so that it never waits for us."""

from __future__ import annotations

import codecs
import re
import threading
import time

from vmm_ras.io.qemu.wait import Channel
from vmm_ras.lab.errors import Failure

MAX_OUTPUT = 16 << 20
"""Characters kept; a guest that prints more is out of its mind."""


class Console:
    """What the guest printed so far, and a shell to type into."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self._text, self._closed = channel, "", ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._news = threading.Condition()
        self._commands = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._collect, name="console", daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        while not self._stop.is_set():
            try:
                data = self._channel.receive(0.2)
            except (Failure, OSError, ValueError) as error:
                with self._news:
                    self._closed = str(error)
                    self._news.notify_all()
                return
            if data:
                with self._news:
                    self._text += self._decoder.decode(data).replace("\r", "")
                    if len(self._text) > MAX_OUTPUT:
                        self._text = self._text[-MAX_OUTPUT // 2 :]
                    self._news.notify_all()

    @property
    def text(self) -> str:
        """Everything that was printed."""
        with self._news:
            return self._text

    def expect(self, pattern: str, seconds: float, start: int = 0) -> re.Match[str]:
        """The first match behind offset ``start`` of the text.  Raises Failure with the last lines printed."""
        end = time.monotonic() + seconds
        wanted = re.compile(pattern, re.MULTILINE)
        while True:
            with self._news:
                found = wanted.search(self._text, start)
                if found is not None:
                    return found
                left = end - time.monotonic()
                if left <= 0 or self._closed:
                    why = self._closed or f"not printed within {seconds:.0f} s"
                    raise Failure(f"guest: {pattern!r}: {why}", self._text[-3000:])
                self._news.wait(min(left, 0.5))

    def line(self, beginning: str, seconds: float, start: int = 0) -> str:
        """The first whole line that begins so.  Raises Failure."""
        return self.expect(rf"^{beginning}[^\n]*\n", seconds, start).group().rstrip("\n")

    def type(self, line: str) -> None:
        """A line for whoever reads the console."""
        self._channel.send(line.encode() + b"\n")

    def run(self, command: str, seconds: float = 20) -> str:
        """What a shell command prints.  Raises Failure where it does not end, or ends with a status other than 0."""
        self._commands += 1
        start, mark = len(self.text), f"@{self._commands}"
        self.type(f"{command}; echo '{mark}:'$?:")
        found = self.expect(rf"{mark}:(\d+):\n", seconds, start)
        printed = found.string[start : found.start()]
        if found.group(1) != "0":
            raise Failure(f"guest: {command!r} ends with {found.group(1)}", printed)
        return printed

    def close(self) -> None:
        """Stop collecting."""
        self._stop.set()
        self._thread.join(2)
        self._channel.close()
