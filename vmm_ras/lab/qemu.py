"""One QEMU process, everything of which is a file descriptor: RAM, console, monitor, debugger, qtest, firmware files.

So nothing is left behind however the run ends: memory files and sockets go with the processes, and QEMU goes with us
(its parent-death signal is SIGKILL).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence

from vmm_ras.io.closing import Closing
from vmm_ras.io.qemu.gdb import Debugger
from vmm_ras.io.qemu.machine import Machine, SharedRam
from vmm_ras.io.qemu.qmp import Monitor, Qtest
from vmm_ras.io.qemu.wait import Channel
from vmm_ras.lab.console import Console
from vmm_ras.lab.errors import Failure, Unavailable
from vmm_ras.lab.packages import Lab
from vmm_ras.lab.records import RecordStore

CPU = "neoverse-n1"


class Qemu(Machine, Closing):
    """A running machine: ``virt`` without ACPI of its own, our firmware files instead.  Use it in a ``with`` block."""

    def __init__(
        self, lab: Lab, initrd: bytes, files: Mapping[str, bytes], *, gpa: int, memory: int, vcpus: int, gic: int,
        store: RecordStore | None = None, append: str = "nokaslr", options: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._fds: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._channels: list[Channel] = []
        self._console: Console | None = None
        self._complaints = os.memfd_create("qemu-complaints")
        self.ram = SharedRam(gpa, memory)
        try:
            self._start(lab, initrd, files, vcpus, gic, store, append, options)
        except BaseException:
            self.close()
            raise

    def _start(
        self, lab: Lab, initrd: bytes, files: Mapping[str, bytes], vcpus: int, gic: int, store: RecordStore | None,
        append: str, options: Sequence[str],
    ) -> None:  # fmt: skip
        ends = {name: socket.socketpair() for name in ("console", "monitor", "debugger", "qtest")}
        command = [
            *lab.prefix, str(lab.qemu),
            "-machine", f"virt,acpi=off,gic-version={gic},memory-backend=ram",
            "-object", f"memory-backend-file,id=ram,size={self.ram.size},share=on,mem-path={self._path(self.ram.fd)}",
            "-m", f"size={self.ram.size >> 20}M", "-cpu", CPU, "-smp", str(vcpus),
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S", "-bios", str(lab.edk2),
            "-kernel", str(lab.kernel.image), "-initrd", self._memory_file("initrd", initrd),
            "-append", f"console=ttyAMA0 rdinit=/init {append}",
        ]  # fmt: skip
        for name, (_, theirs) in ends.items():
            command += ["-chardev", f"socket,id={name},fd={theirs.fileno()}"]
        command += ["-serial", "chardev:console", "-mon", "chardev=monitor,mode=control", "-gdb", "chardev:debugger"]
        command += ["-object", "qtest,id=lines,chardev=qtest,log=/dev/null"]
        command += ["-device", "vmcoreinfo", *options, *([] if store is None else store.options(self._path(store.fd)))]
        for name, data in files.items():
            command += ["-fw_cfg", f"name={name},file={self._memory_file(name, data)}"]
        inherited = [
            self.ram.fd,
            *([] if store is None else [store.fd]),
            *self._fds,
            *(theirs.fileno() for _, theirs in ends.values()),
        ]
        try:
            self._process = subprocess.Popen(
                command, pass_fds=inherited, env=lab.environment, stdin=subprocess.DEVNULL,
                stdout=self._complaints, stderr=self._complaints, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise Unavailable(f"QEMU cannot be started: {error}") from None
        finally:
            for _, theirs in ends.values():
                theirs.close()
            for fd in self._fds:
                os.close(fd)
            self._fds.clear()
        channels = {name: Channel(ours, name) for name, (ours, _) in ends.items()}
        self._channels += channels.values()
        try:
            self._console = Console(channels["console"])
            self.monitor = Monitor(channels["monitor"])
            self.debugger = Debugger(channels["debugger"])
            self.qtest = Qtest(channels["qtest"])
        except Failure as error:
            raise Failure(f"QEMU does not start: {self.complaints() or error}") from None

    @property
    def console(self) -> Console:
        """The serial console."""
        assert self._console is not None
        return self._console

    def complaints(self) -> str:
        """The last line that QEMU printed about itself, but for its warnings."""
        text = os.pread(self._complaints, 1 << 16, 0).decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip() and "warning:" not in line]
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End the process and give everything back; it may be called twice."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        if self._console is not None:
            self._console.close()
            self._console = None
        for channel in self._channels:
            channel.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self._channels.clear()
        if self._complaints >= 0:
            os.close(self._complaints)
            self._complaints = -1
            self.ram.close()

    def _memory_file(self, name: str, data: bytes) -> str:
        fd = os.memfd_create(name.replace("/", "-"))
        self._fds.append(fd)
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(data)
        return self._path(fd)

    @staticmethod
    def _path(fd: int) -> str:
        return f"/proc/self/fd/{fd}"


def end_on_signals(signals: Sequence[int] = (signal.SIGTERM, signal.SIGHUP)) -> None:
    """Let these signals end the program as Ctrl-C does: through every ``with`` block."""

    def leave(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, leave)
