"""`vmm-ras run` as its user starts it: a program of the emulated host, its console, its terminal, its guest's RAM."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from vmm_ras.errors import HostError
from vmm_ras.io import libc
from vmm_ras.io.closing import Closing
from vmm_ras.io.qemu.wait import Channel, Deadline
from vmm_ras.io.qmp_client import QmpClient
from vmm_ras.lab import console as shell
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.hwpoison import lose

PROGRAM = (sys.executable, "-m", "vmm_ras.cli")
HUGE_PAGE = 2 << 20
"""Bytes."""


def inject(path: Path, *options: str, seconds: float) -> dict[str, Any]:
    """What ``vmm-ras inject --json`` says.  Raises Failure where it is refused."""
    command = [*PROGRAM, "inject", "--socket", str(path), "--json", *options]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise Failure(f"vmm-ras inject: nothing within {seconds:.0f} s") from None
    if done.returncode:
        raise Failure(f"vmm-ras inject ends with {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
    found: dict[str, Any] = orjson.loads(done.stdout)
    return found


class Tool(Closing):
    """`vmm-ras run --json`, and a shell of its guest."""

    def __init__(self, *options: str) -> None:
        self.rows: list[dict[str, Any]] = []
        """What it printed of errors, in order."""
        self._news = threading.Condition()
        ours, self._theirs = socket.socketpair()
        self.console = shell.Console(Channel(ours, "the guest of vmm-ras run"))
        self.process = subprocess.Popen(
            [*PROGRAM, "run", "--json", *options], stdin=self._theirs.fileno(), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, name="tool", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            row = orjson.loads(line)
            if row["kind"] == "console":
                self._theirs.sendall(row["line"].encode() + b"\n")
            with self._news:
                if row["kind"] != "console":
                    self.rows.append(row)
                self._news.notify_all()
        self.process.wait()
        with self._news:
            self._news.notify_all()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def wait(self, kind: str, seconds: float, since: int = 0) -> dict[str, Any]:
        """The first row of a kind behind the first ``since``.  Raises Failure."""
        deadline = Deadline(seconds, f"vmm-ras run says {kind!r}")
        with self._news:
            while True:
                found = next((row for row in self.rows[since:] if row["kind"] == kind), None)
                if found is not None:
                    return found
                self.check()
                deadline.check()
                self._news.wait(min(1.0, deadline.left))

    def check(self) -> None:
        """Raises Failure where it has ended."""
        if not self.runs:
            assert self.process.stderr is not None
            said = self.process.stderr.read().decode(errors="replace").strip()[-300:]
            raise Failure(f"vmm-ras run ends with {self.process.returncode}: {said}")

    def kill(self) -> None:
        """As one whom the host has no memory left for."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it, however it is; it may be called twice."""
        self.kill()
        self._reader.join()
        for file in (self.process.stdout, self.process.stderr):
            assert file is not None
            file.close()
        self.console.close()
        self._theirs.close()


class Terminal(Closing):
    """`vmm-ras run` on a terminal."""

    def __init__(self, *options: str) -> None:
        self._master, self._slave = os.openpty()
        self.before = self.settings()
        self.process = subprocess.Popen(
            [*PROGRAM, "run", *options], stdin=self._slave, stdout=self._slave, stderr=self._slave
        )

    def settings(self) -> list[Any]:
        """Of the terminal: flags, speeds, keys."""
        return termios.tcgetattr(self._slave)

    def until(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait, and look at what is shown meanwhile.  Raises Failure."""
        deadline = Deadline(seconds, what)
        while not holds():
            deadline.check()
            if select.select([self._master], [], [], 0.1)[0]:
                os.read(self._master, 65536)

    def check(self) -> None:
        """Raises Failure where it has ended."""
        if self.process.poll() is not None:
            raise Failure(f"vmm-ras run on a terminal ends with {self.process.returncode}")

    def type(self, keys: bytes) -> None:
        """Somebody presses keys."""
        os.write(self._master, keys)

    def close(self) -> None:
        """End it, however it is; it may be called twice."""
        self.process.kill()
        self.process.wait()
        if self._master >= 0:
            os.close(self._master)
            os.close(self._slave)
            self._master = -1


class RamOf(Closing):
    """The guest RAM of another process: a memory file, of huge pages, that it has open.  Raises Failure."""

    def __init__(self, process: int, gpa: int, size: int) -> None:
        self.gpa, self.size, self._fd = gpa, size, -1
        for entry in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(entry).startswith("/memfd:guest-ram"):
                    self._fd = os.open(entry, os.O_RDWR | os.O_CLOEXEC)
        if self._fd < 0:
            raise Failure(f"process {process} has no guest RAM")

    def read(self, gpa: int, size: int) -> bytes:
        """Raises OSError on a lost page."""
        return os.pread(self._fd, size, gpa - self.gpa)

    def lose(self, gpa: int) -> None:
        """The host loses the memory at ``gpa``, through a mapping of our own.  Raises Failure."""
        offset = gpa - self.gpa
        address = libc.mmap(HUGE_PAGE, self._fd, offset & -HUGE_PAGE)
        try:
            lose(address + offset % HUGE_PAGE, 4096)
        finally:
            libc.munmap(address, HUGE_PAGE)

    def close(self) -> None:
        """Let go of it; it may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def connected(
    path: Path, check: Callable[[], object], seconds: float, heard: Callable[[dict[str, Any]], object]
) -> QmpClient:
    """A client of the socket, as soon as somebody listens; ``check`` meanwhile.  Raises Failure."""
    deadline = Deadline(seconds, f"a service at {path}")
    while True:
        try:
            return QmpClient(path, seconds, heard)
        except HostError:
            check()
            deadline.check()
            time.sleep(0.1)


def huge_pages() -> tuple[int, int]:
    """How many the host has, and how many of them are free."""
    words = Path("/proc/meminfo").read_text().split()
    return int(words[words.index("HugePages_Total:") + 1]), int(words[words.index("HugePages_Free:") + 1])


def processes(*words: str) -> list[int]:
    """Those of the host whose command line has all these words."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                given = (folder / "cmdline").read_bytes().split(b"\0")
                if all(word.encode() in given for word in words):
                    found.append(int(folder.name))
    return found
