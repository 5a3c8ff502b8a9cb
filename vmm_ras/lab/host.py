"""An emulated arm64 host: Debian's kernel under QEMU with a working ``/dev/kvm``, hwpoison, Python and our packages.

One run is one boot: the files that it is given lie in ``/t``, ``/t/run.sh`` is executed, and the host is gone when that
ends.  QEMU has no file, socket or process that outlives the run.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import acpi
import cper
import vmm_ras
from vmm_ras.io.qemu.wait import Channel, Deadline
from vmm_ras.lab import cpio
from vmm_ras.lab.errors import Failure, Unavailable
from vmm_ras.lab.host_packages import HostLab
from vmm_ras.lab.pyc import compiled

CPU = "neoverse-n1"
"""It has FEAT_RAS, and its emulation is quick."""
CPUS = 2
UP, DONE = "HOST-UP ", "HOST-DONE "
"""Lines of the host's first program: its kernel's release, and the script's exit code."""
SECONDS = 120.0
MAX_OUTPUT = 64 << 20


class Run(NamedTuple):
    """What a run printed, and how its script ended."""

    code: int
    lines: tuple[str, ...]
    seconds: float
    release: str
    """The kernel's own name."""

    def text(self) -> str:
        """All lines."""
        return "".join(f"{line}\n" for line in self.lines)


class Host:
    """``lab``: what ``HostPackages.prepare_host`` found.  ``memory`` in MiB.

    ``stream``: the other end of the host's second serial line, /dev/ttyS0; it is closed here once a run has it.
    ``shared``: a memory file that is the memory of a PCI device too, which the host can map, and its bytes.
    """

    def __init__(
        self, lab: HostLab, *, memory: int = 2048, cpus: int = CPUS, stream: socket.socket | None = None,
        shared: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        self.lab, self.memory, self.cpus, self.stream, self.shared = lab, memory, cpus, stream, shared

    def run(
        self, files: Mapping[str, bytes], script: str, *, seconds: float = SECONDS,
        heard: Callable[[str], object] = lambda line: None,
    ) -> Run:  # fmt: skip
        """Boot, execute the shell script ``script`` in ``/t``, which holds ``files`` by name; what it printed.

        ``heard`` is told every line at once.  A script's own failure is its exit code.  Raises Failure where the host
        does not come to the end within ``seconds``: its log is kept, and the text says where.
        """
        with closing(self.lines(files, script, seconds=seconds)) as lines:
            while True:
                try:
                    heard(next(lines))
                except StopIteration as end:
                    done: Run = end.value
                    return done

    def lines(self, files: Mapping[str, bytes], script: str, *, seconds: float = SECONDS) -> Generator[str, None, Run]:
        """As :meth:`run`: every line as it comes.  Close it: the host ends with it."""
        ours, theirs = socket.socketpair()
        channel, start = Channel(ours, "host"), time.monotonic()
        initrd = os.memfd_create("initrd")
        process: subprocess.Popen[bytes] | None = None
        output = _Output()
        try:
            with self.lab.root.open("rb") as base:
                while os.sendfile(initrd, base.fileno(), None, 1 << 30):
                    pass
            with os.fdopen(initrd, "wb", closefd=False) as file:
                file.write(cpio.archive([*_overlay(files, script), *self._modules()]))
            process = self._start(initrd, theirs)
            theirs.close()
            deadline = Deadline(seconds, "the emulated host comes to its end")
            try:
                while output.code is None:
                    deadline.check()
                    yield from output.take(channel.receive(deadline.left))
            except Failure as error:
                kept = self._keep(output)
                raise Failure(f"{error}; {kept}", "\n".join(output.lines[-60:])) from None
        finally:
            if process is not None:
                process.kill()
                process.wait()
            theirs.close()
            channel.close()
            os.close(initrd)
        return Run(output.code, tuple(output.lines), time.monotonic() - start, output.release)

    def keep(self, run: Run) -> str:
        """Keep the log of a run that did not do what was asserted of it; where it is, for people."""
        path = self.lab.folder / "logs" / f"host-{self.lab.kernel.series}.log"
        path.parent.mkdir(exist_ok=True)
        path.write_text(run.text())
        return f"the log is {path}"

    def _keep(self, output: _Output) -> str:
        return self.keep(Run(-1, (*output.lines, output.rest()), 0, output.release))

    def _start(self, initrd: int, serial: socket.socket) -> subprocess.Popen[bytes]:
        command = [
            *self.lab.prefix, str(self.lab.qemu), "-machine", "virt,virtualization=on,gic-version=3", "-cpu", CPU,
            "-accel", "tcg,thread=multi", "-smp", str(self.cpus), "-m", f"size={self.memory}M",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-chardev", f"socket,id=console,fd={serial.fileno()}", "-serial", "chardev:console",
            "-kernel", str(self.lab.kernel.image), "-initrd", f"/proc/self/fd/{initrd}",
            "-append", "console=ttyAMA0 quiet loglevel=1 panic=-1",
        ]  # fmt: skip
        inherited = [initrd, serial.fileno()]
        if self.stream is not None:
            inherited.append(self.stream.fileno())
            command += ["-chardev", f"socket,id=stream,fd={inherited[-1]}", "-device", "pci-serial,chardev=stream"]
        if self.shared is not None:
            fd, size = self.shared
            inherited.append(fd)
            command += ["-object", f"memory-backend-file,id=shared,size={size},share=on,mem-path=/proc/self/fd/{fd}"]
            command += ["-device", "ivshmem-plain,memdev=shared"]
        try:
            return subprocess.Popen(
                command, pass_fds=inherited, env=self.lab.environment, stdin=subprocess.DEVNULL,
                stdout=serial.fileno(), stderr=serial.fileno(), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise Unavailable(f"QEMU cannot be started: {error}") from None
        finally:
            if self.stream is not None:
                self.stream.close()

    def _modules(self) -> list[cpio.Node]:
        return [cpio.plain_file(f"mods/{path.name}", path.read_bytes()) for path in self.lab.kernel.modules]


class _Output:
    """What the host prints, line by line."""

    def __init__(self) -> None:
        self._buffer, self._size = b"", 0
        self.lines: list[str] = []
        self.release = ""
        self.code: int | None = None

    def take(self, data: bytes) -> list[str]:
        """The lines that are whole now."""
        before = len(self.lines)
        self._size += len(data)
        if self._size > MAX_OUTPUT:
            raise Failure(f"the emulated host prints more than {MAX_OUTPUT >> 20} MiB")
        *whole, self._buffer = (self._buffer + data).split(b"\n")
        for raw in whole:
            line = raw.decode(errors="replace").rstrip("\r")
            if line.startswith(UP):
                self.release = line.removeprefix(UP)
            elif line.startswith(DONE):
                self.code = int(line.removeprefix(DONE))
            else:
                self.lines.append(line)
        return self.lines[before:]

    def rest(self) -> str:
        return self._buffer.decode(errors="replace")


def _overlay(files: Mapping[str, bytes], script: str) -> list[cpio.Node]:
    """``/t``: the files of the run, its script, and our packages as they are here."""
    nodes = [cpio.program("t/run.sh", script.encode())]
    folders: set[str] = set()
    for package in (cper, acpi, vmm_ras):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                _put(f"t/{root.name}/{path.relative_to(root)}", path.read_bytes(), nodes, folders)
                if path.suffix == ".py":
                    for node in compiled(f"t/{root.name}/{path.relative_to(root)}", path):
                        _put(node.path, node.data, nodes, folders)
    for name, data in files.items():
        _put(f"t/{name}", data, nodes, folders)
    return nodes


def _put(path: str, data: bytes, nodes: list[cpio.Node], folders: set[str]) -> None:
    """A file, behind the folders that it lies in."""
    for parent in reversed([str(p) for p in Path(path).parents][:-2]):
        if parent not in folders:
            folders.add(parent)
            nodes.append(cpio.directory(parent))
    nodes.append(cpio.plain_file(path, data))
