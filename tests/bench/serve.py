"""Round trips of commands over the service's socket, with the least client there is; QEMU beside it where there is one.

QEMU is stopped while it is measured, and its guest's acknowledgements are written into its RAM in between; the model
guest of the service handles each record, and acknowledges, before the reply comes.
"""

from __future__ import annotations

import mmap
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from acpi.ghes import Entry, StatusBlock
from acpi.image import find_sources
from cper.memory import PlatformMemory
from cper.wire import WireError

RAM_BASE, RAM_SIZE = 0x4000_0000, 512 << 20
BOOT_S = 300.0
TURN = 50
"""Round trips with one server before it is the other's turn."""


class Client:
    """A blocking socket that reads up to the end of a line."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(path))
        self._socket.recv(65536)
        self.ask({"execute": "qmp_capabilities"})

    def ask(self, command: dict[str, Any]) -> tuple[float, Any]:
        """Seconds that it took, and the reply; events before it count."""
        message = orjson.dumps(command)
        start = time.perf_counter()
        self._socket.sendall(message)
        data = b""
        while True:
            data += self._socket.recv(65536)
            if data.endswith(b"\n") and (b'"return"' in data or b'"error"' in data):
                return time.perf_counter() - start, orjson.loads(data.splitlines()[-1])


def inject(number: int) -> dict[str, Any]:
    """One record like no other, 172 bytes."""
    entry = Entry.of(PlatformMemory(node=1), fru_text=f"record {number}")
    cper = b64encode(StatusBlock.of([entry]).encode()).decode()
    return {"execute": "inject-ghes-v2-error", "arguments": {"cper": cper}}


def percentiles(seconds: list[float]) -> str:
    """Least, p50 and p99 in microseconds."""
    ordered = [s * 1e6 for s in sorted(seconds)]
    p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return f"least {ordered[0]:,.0f} us, p50 {p50:,.0f} us, p99 {p99:,.0f} us"


def serve(console: Console, count: int = 2000, qemu: str | None = None, firmware: str | None = None) -> bool:
    """Measure; whether inject-ghes-v2-error is at p50 no slower than QEMU's, or than 1,173 us where there is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ours"
        command = [sys.executable, "-m", "vmm_ras.cli", "serve", "-s", str(path), "--preset", "qemu-11.1"]
        with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE) as service:
            try:
                assert service.stdout is not None
                service.stdout.readline()
                if qemu is None:
                    ours, _ = _measure(console, Client(path), count, None)
                    return ours <= 1173e-6
                with _qemu(Path(folder), qemu, firmware) as (theirs, acknowledge):
                    ours, others = _measure(console, Client(path), count, (theirs, acknowledge))
                    return others is not None and ours <= others
            finally:
                service.terminate()


def _measure(
    console: Console, ours: Client, count: int, other: tuple[Client, Callable[[], None]] | None
) -> tuple[float, float | None]:
    """Median seconds of an injection, ours and QEMU's; in turns."""
    took: dict[str, list[float]] = {}

    def some(
        name: str, client: Client, commands: list[dict[str, Any]], then: Callable[[], None] = lambda: None
    ) -> None:
        for command in commands:
            seconds, reply = client.ask(command)
            assert "return" in reply, reply
            took.setdefault(name, []).append(seconds)
            then()

    for first in range(0, count, TURN):
        status = [{"execute": "query-status"}] * TURN
        records = [inject(number) for number in range(first, first + TURN)]
        some("query-status", ours, status)
        some("inject-ghes-v2-error", ours, records)
        if other is not None:
            some("QEMU query-status", other[0], status)
            some("QEMU inject-ghes-v2-error", other[0], records, other[1])
    known = ours.ask({"execute": "query-ras"})[1]["return"]
    assert known["records"] == {"told": count, "dropped": 0}
    assert known["model"]["outcomes"] == {"ignored": count}
    for name, seconds in took.items():
        console.print(f"{name}: {percentiles(seconds)} ({count} round trips)")
    medians = [sorted(seconds)[count // 2] for name, seconds in took.items() if "inject" in name]
    return medians[0], medians[1] if other is not None else None


@contextmanager
def _qemu(folder: Path, command: str, firmware: str | None) -> Iterator[tuple[Client, Callable[[], None]]]:
    """A stopped QEMU whose firmware has placed its tables, and what acknowledges for its guest."""
    ram, path = folder / "ram", folder / "qemu"
    words = [
        *shlex.split(command), "-machine", "virt,ras=on,gic-version=3,memory-backend=ram", "-cpu", "max", "-m", "512M",
        "-object", f"memory-backend-file,id=ram,size=512M,share=on,mem-path={ram}", "-bios", str(firmware),
        "-qmp", f"unix:{path},server=on,wait=off", "-display", "none", "-nodefaults", "-serial", "null",
    ]  # fmt: skip
    with ram.open("w+b") as file, subprocess.Popen(words) as process:
        file.truncate(RAM_SIZE)
        try:
            with mmap.mmap(file.fileno(), RAM_SIZE) as memory:
                ack = _ack_of_gpio(memory, process)
                client = Client(path)
                client.ask({"execute": "stop"})
                version = client.ask({"execute": "query-version"})[1]["return"]["qemu"]
                print("QEMU {major}.{minor}.{micro}".format(**version), file=sys.stderr)

                def acknowledge() -> None:
                    assert memory[ack] == 0, "the record was not posted"
                    memory[ack] = 1

                yield client, acknowledge
        finally:
            process.kill()


def _ack_of_gpio(memory: mmap.mmap, process: subprocess.Popen[bytes]) -> int:
    """Where in RAM the acknowledgement of the source lies that QEMU's command uses."""

    def read(gpa: int, size: int) -> bytes:
        return memory[gpa - RAM_BASE : gpa - RAM_BASE + size]

    until = time.monotonic() + BOOT_S
    while time.monotonic() < until and process.poll() is None:
        at = memory.find(b"HEST")
        while at >= 0:
            try:
                length = int.from_bytes(memory[at + 4 : at + 8], "little")
                sources = find_sources(read, memory[at : at + min(length, 4096)])
            except WireError:
                sources = ()
            for source in sources:
                if source.source_id == 1 and source.block and source.ack is not None and memory[source.ack - RAM_BASE]:
                    return source.ack - RAM_BASE
            at = memory.find(b"HEST", at + 4)
        time.sleep(1)
    raise SystemExit("QEMU's firmware placed no HEST with two sources")
