"""A QEMU that somebody else started: its monitor, debugger stub, qtest and the file behind its RAM, by name."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from pathlib import Path

from acpi.image import PlacedSource, find_sources, find_tables
from acpi.table import Rsdp
from cper.wire import WireError
from vmm_ras.errors import GuestError
from vmm_ras.io.closing import Closing
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.io.qemu.gdb import Debugger
from vmm_ras.io.qemu.machine import Machine, SharedRam
from vmm_ras.io.qemu.qmp import Monitor, Qtest
from vmm_ras.io.qemu.wait import Channel

SIGNATURE = b"RSD PTR "
_CHUNK = 1 << 24
"""Bytes of RAM that are searched at a time."""
_GPA = re.compile(r"gpa: (0x[0-9a-f]+)|^(0x[0-9a-f]+)\s*$", re.MULTILINE)


class Attached(Machine, Closing):
    """A machine under emulation (TCG).  Use it in a ``with`` block: at its end the guest goes on without us.

    The debugger stops the guest while it connects.  Raises Failure where somebody does not answer.
    """

    def __init__(self, monitor: str, debugger: str, ram: Path, *, qtest: str | None = None, base: int) -> None:
        """``monitor``, ``debugger``, ``qtest``: a socket's path, or HOST:PORT.  ``base``: where RAM begins."""
        self._channels: list[Channel] = []
        try:
            fd = os.open(ram, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise Failure(f"{ram}: {error.strerror}") from None
        self.ram = SharedRam(base, os.fstat(fd).st_size, fd)
        try:
            self.monitor = Monitor(self._connect(monitor, "monitor"))
            if qtest is not None:
                self.qtest = Qtest(self._connect(qtest, "qtest"))
            self.debugger = Debugger(self._connect(debugger, "debugger"))
            self.debugger.resume()
        except BaseException:
            self._hang_up()
            raise

    def _connect(self, where: str, name: str) -> Channel:
        host, _, port = where.rpartition(":")
        by_name = bool(host) and port.isdigit()
        end = socket.socket(socket.AF_INET if by_name else socket.AF_UNIX)
        end.settimeout(10)
        try:
            end.connect((host, int(port)) if by_name else where)
        except OSError as error:
            end.close()
            raise Failure(f"{name} {where}: {error.strerror or error}") from None
        channel = Channel(end, name)
        self._channels.append(channel)
        return channel

    def sources(self) -> tuple[PlacedSource, ...]:
        """The guest's error sources, by its own tables: the RSDP is searched for in its RAM.  Raises Failure."""
        for at in self._signatures():
            try:
                Rsdp.decode(self.ram.read(at, Rsdp.SIZE))
                tables = find_tables(self.ram.read, at)
                if "HEST" in tables:
                    return find_sources(self.ram.read, tables["HEST"][1])
            except (WireError, GuestError):
                continue
        raise Failure("no RSDP in the guest's RAM leads to a HEST")

    def _signatures(self) -> list[int]:
        found: list[int] = []
        for start in range(0, self.ram.size, _CHUNK):
            data = os.pread(self.ram.fd, _CHUNK, start)
            at = data.find(SIGNATURE)
            while at >= 0:
                if not at % 8:  # a firmware that is no PC's puts it anywhere
                    found.append(self.ram.gpa + start + at)
                at = data.find(SIGNATURE, at + 1)
        return found

    def physical(self, va: int, vcpu: int) -> int:
        """Guest physical address of what the vCPU sees at ``va``.  Raises GuestError."""
        said = self.monitor.ask("human-monitor-command", **{"command-line": f"gva2gpa {va:#x}", "cpu-index": vcpu})
        match = _GPA.search(said)
        if match is None:
            raise GuestError(f"vCPU {vcpu} has nothing at {va:#x}: {said.strip()}")
        return int(match.group(1) or match.group(2), 16)

    def _hang_up(self) -> None:
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        self.ram.close()

    def close(self) -> None:
        """Let the guest go on, and hang up."""
        if self._channels:
            with suppress(Failure):  # it may be gone
                self.debugger.detach()
            self._hang_up()
