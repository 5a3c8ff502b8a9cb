"""QEMU's real migration files, made by ``migrate`` and read: with and without ``ras=on``, with an un-acked error.

No guest code runs: firmware's part is done through fw_cfg, and the error comes from QEMU itself where it can make one.
"""

from __future__ import annotations

import base64
import os
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from acpi.image import PlacedSource, find_sources, find_tables
from vmm_ras.io.closing import Closing
from vmm_ras.io.qemu.errors import Failure as Refused
from vmm_ras.io.qemu.machine import SharedRam
from vmm_ras.io.qemu.qmp import Monitor, Qtest
from vmm_ras.io.qemu.wait import Channel
from vmm_ras.lab.errors import Failure, Unavailable
from vmm_ras.lab.firmware_run import Firmware
from vmm_ras.lab.newer_qemu import QemuProgram
from vmm_ras.lab.report import Report
from vmm_ras.qemu_migration.state import RasState, ras_state
from vmm_ras.qemu_migration.stream import VIRT_RAM, MigrationFile, read_migration
from vmm_ras.record import memory_block

CPU = "neoverse-n1"
MEMORY = 64 << 20
SCRATCH, TABLES = VIRT_RAM + (16 << 20), VIRT_RAM + (48 << 20)
SECONDS = 60.0
_STEP = 1 << 20


class PausedQemu(Closing):
    """A machine that never runs.  Use it in a ``with`` block."""

    def __init__(self, program: QemuProgram, folder: Path, ras: bool) -> None:
        self.folder, self.ram = folder, SharedRam(VIRT_RAM, MEMORY)
        (folder / "firmware").write_bytes(bytes(4096))
        ends = {name: socket.socketpair() for name in ("monitor", "qtest")}
        command = [
            *program.command, "-machine", f"virt,gic-version=3,memory-backend=ram{',ras=on' if ras else ''}",
            "-accel", "tcg", "-S", "-cpu", CPU, "-m", f"size={MEMORY >> 20}M",
            "-object", f"memory-backend-file,id=ram,size={MEMORY},share=on,mem-path=/proc/self/fd/{self.ram.fd}",
            "-nodefaults", "-no-user-config", "-display", "none", "-bios", str(folder / "firmware"),
        ]  # fmt: skip
        for name, (_, theirs) in ends.items():
            command += ["-chardev", f"socket,id={name},fd={theirs.fileno()}"]
        command += ["-mon", "chardev=monitor,mode=control", "-object", "qtest,id=lines,chardev=qtest,log=/dev/null"]
        try:
            self._process = subprocess.Popen(
                command, pass_fds=[self.ram.fd, *(theirs.fileno() for _, theirs in ends.values())],
                env=program.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise Unavailable(f"QEMU cannot be started: {error}") from None
        finally:
            for _, theirs in ends.values():
                theirs.close()
        self._channels = {name: Channel(ours, name) for name, (ours, _) in ends.items()}
        try:
            self.monitor, self.qtest = Monitor(self._channels["monitor"]), Qtest(self._channels["qtest"])
        except BaseException:
            self.close()
            raise

    def migrate(self) -> bytes:
        """The stream of a migration into a file.  Raises Failure."""
        target = self.folder / "stream"
        self.monitor.ask("migrate", uri=f"exec:cat > {shlex.quote(str(target))}")
        end = time.monotonic() + SECONDS
        while (status := self.monitor.ask("query-migrate").get("status")) != "completed":
            if status == "failed" or time.monotonic() > end:
                raise Failure(f"QEMU's migration into a file: {status}")
            time.sleep(0.05)
        return target.read_bytes()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for channel in self._channels.values():
            channel.close()
        os.close(self.ram.fd)


def run(program: QemuProgram, series: str, keep: Callable[[str, bytes], object] = lambda name, data: None) -> Report:
    """Make the files and read them; ``keep`` is given each.  Raises Failure, Unavailable."""
    report = Report(f"Migration files of QEMU {series}", {"CPU": CPU, "RAM": f"{MEMORY >> 20} MiB"})
    for kind in ("off", "no-firmware", "ready", "unacked"):
        with report.step(kind), tempfile.TemporaryDirectory() as folder:
            with PausedQemu(program, Path(folder), ras=kind != "off") as qemu:
                report.facts["QEMU"] = f"{qemu.monitor.version} ({qemu.monitor.package})"
                sources = _firmware(qemu) if kind in ("ready", "unacked") else ()
                block = _inject(qemu, sources) if kind == "unacked" else b""
                stream = qemu.migrate()
                keep(kind, stream)
                file = read_migration(stream)
                _same_memory(report, qemu, file)
            _judge(report, file, kind, sources, block)
    return report


def _firmware(qemu: PausedQemu) -> tuple[PlacedSource, ...]:
    placed = Firmware(qemu.qtest, qemu.ram, SCRATCH, TABLES).run()
    return find_sources(qemu.ram.read, find_tables(qemu.ram.read, placed.rsdp)["HEST"][1])


def _inject(qemu: PausedQemu, sources: tuple[PlacedSource, ...]) -> bytes:
    """An error that nobody acknowledges: by QEMU where it can (10.2), else as QEMU writes one for a SIGBUS."""
    block = memory_block([(VIRT_RAM + 0x5000, 4096)], number=1)
    try:
        qemu.monitor.ask("inject-ghes-v2-error", cper=base64.b64encode(block).decode())
    except Refused:
        source = sources[0]
        assert source.ack is not None
        qemu.ram.write(source.ack, bytes(8))
        qemu.ram.write(source.block, block)
    return block


def _same_memory(report: Report, qemu: PausedQemu, file: MigrationFile) -> None:
    for gpa in range(VIRT_RAM, VIRT_RAM + MEMORY // 2, _STEP):
        if file.ram.read(gpa, _STEP) != qemu.ram.read(gpa, _STEP):
            raise Failure(f"guest memory at {gpa:#x} is not what QEMU has")
    at = TABLES & -_STEP
    same = file.ram.read(at, _STEP) == qemu.ram.read(at, _STEP)
    report.check(same, "guest memory read from the file is QEMU's own", f"{file.pages} pages in the file")


def _judge(report: Report, file: MigrationFile, kind: str, sources: tuple[PlacedSource, ...], block: bytes) -> None:
    state: RasState = ras_state(file)
    report.check(file.machine.startswith("virt-"), "the machine is named", file.machine)
    report.equal(len(state.cpus), 1, "one vCPU", f"{len(state.cpus[0].registers)} registers")
    report.equal(tuple(s.source for s in state.sources), sources, "the sources are those that firmware placed",
                 f"{state.origin or 'none'} {state.address:#x}")  # fmt: skip
    waiting = [s for s in state.sources if s.block is not None]
    report.equal(len(waiting), int(kind == "unacked"), "blocks that wait")
    for s in waiting:
        assert s.block is not None
        report.equal(s.block.encode(), block, "the block is the one that was written", f"{len(block)} bytes")
        report.check(s.unacked, "it was not acknowledged", f"ack register {s.ack}")
    said = {"off": "ras=off", "no-firmware": "no firmware has told QEMU"}.get(kind)
    if said:
        report.check(any(said in note for note in state.notes), f"what lacks is said: {said}")
