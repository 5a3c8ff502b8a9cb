"""Executed on the emulated host: a Linux guest leaves, or arrives, through the memory of a PCI device.

``python3 -m vmm_ras.lab.moves_linux_inner describe|leave|arrive``, with kernel, initrd and ``carried.json`` beside it.
Prints lines of JSON behind a mark: steps with their assertions, and what those on the other host have to know.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from vmm_ras.compat.host import Description
from vmm_ras.effects import Acked, InjectSea, Posted
from vmm_ras.errors import RasError
from vmm_ras.events import Code
from vmm_ras.io import host
from vmm_ras.io.holes import Way
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.vmm.moving import PARTS
from vmm_ras.lab.errors import Failure, LabError
from vmm_ras.lab.kernel_log import Victim
from vmm_ras.lab.linux_kvm_guest import SECONDS, VCPUS, LosingMachine
from vmm_ras.lab.report import Report
from vmm_ras.lab.tiny_matrix import MARK
from vmm_ras.snapshot import read_snapshot, stream

CARRIED = Path("carried.json")
SHARED = 512 << 20
"""Bytes of the device's memory, a power of two: the stream, behind its length in the first 8 bytes."""
FIRST = 4096
DEVICES = Path("/sys/bus/pci/devices")
COUNTER = "/count"
TICKS = r"arch_timer"


class Wire:
    """The device's memory as a stream: ``write`` fills it, ``read`` reads what was there before."""

    def __init__(self) -> None:
        (path,) = DEVICES.glob("*/resource2_wc")
        (path.parent / "enable").write_text("1")
        fd = os.open(path, os.O_RDWR | os.O_SYNC)
        self._memory = mmap.mmap(fd, SHARED)
        os.close(fd)
        self._at = FIRST
        self._end = FIRST + int.from_bytes(self._memory[:8], "little")

    def read(self, size: int) -> bytes:
        """At most so many bytes of what came."""
        data = self._memory[self._at : min(self._at + size, self._end)]
        self._at += len(data)
        return data

    def write(self, data: bytes) -> None:
        """All of it; its length counts at once.  Raises Failure."""
        if self._at + len(data) > SHARED:
            raise Failure(f"the device's memory of {SHARED >> 20} MiB holds no more")
        self._memory[self._at : self._at + len(data)] = data
        self._at += len(data)
        self._memory[:8] = (self._at - FIRST).to_bytes(8, "little")


def _count(machine: LosingMachine) -> int:
    return int(machine.console.run(f"cat {COUNTER}", SECONDS).split()[-1])


def _ticks(machine: LosingMachine) -> list[int]:
    """Timer interrupts of each vCPU."""
    line = next(text for text in machine.console.run("cat /proc/interrupts", SECONDS).splitlines() if TICKS in text)
    return [int(number) for number in re.findall(r"\s(\d+)(?=\s)", line)[:VCPUS]]


def describe(report: Report, say: Callable[[dict[str, Any]], None]) -> None:
    """How this host describes itself, for the one from which a guest is to come."""
    with report.step("The host describes itself"), Kvm() as kvm:
        found = host.describe(kvm, frozenset())
        report.check(True, "the host describes itself", f"{len(found.registers)} registers")
    say({"carried": {"host": found.plain()}})


def leave(report: Report, say: Callable[[dict[str, Any]], None]) -> None:
    """A guest boots, and leaves in the middle of everything."""
    carried = orjson.loads(CARRIED.read_bytes())
    machine = LosingMachine(report)
    if "host" in carried:
        there = Description.parse(orjson.dumps(carried["host"]))
        machine.machine.configuration = replace(machine.machine.configuration, hosts=(there,))
    try:
        with machine.step("Linux boots, and leaves"):
            report.facts["Guest kernel"] = machine.boot()
            machine.console.type(f"(i=0; while true; do i=$((i+1)); echo $i >{COUNTER}; sleep 1; done) &")
            told, moved = machine.victim("told", "h", "sea"), machine.victim("moved", "hk", "sea")
            machine.lose(told.pa)
            machine.wait(Acked)
            machine.console.line("SIGBUS told ", SECONDS)
            report.check(True, "a process used lost memory, and was told", f"{told.pa:#x}")
            saved = machine.machine.save()
            lost = read_snapshot(saved, PARTS).parts["poison"]["poison"]
            report.equal(
                [run[0] << 12 for run in lost], [told.pa & -4096], "it is saved while it runs", f"{len(saved)} bytes"
            )
            count = _count(machine)
            with machine.machine.lock:
                machine.lose(moved.pa)
                machine.machine.guest.frozen = True
            leaving = machine.machine.depart()
            size = stream.send(Wire().write, leaving.snapshot, leaving.memory())
            report.check(True, "another page is lost; the guest is frozen, and sent", f"{size} bytes")
        say(
            {
                "carried": {
                    "victim": list(moved),
                    "told": told.pa,
                    "count": count,
                    "kernel": report.facts["Guest kernel"],
                }
            }
        )
    finally:
        machine.close()


def arrive(report: Report, say: Callable[[dict[str, Any]], None]) -> None:
    """The guest goes on, with its interrupts, timers, processes and holes."""
    carried = orjson.loads(CARRIED.read_bytes())
    victim, page = Victim(*carried["victim"]), carried["told"] & -4096
    machine = LosingMachine(report)
    machine.rules[victim.pa >> 12] = "sea"
    try:
        with machine.step("Linux arrives, and goes on"):
            coming = machine.machine.arrive(Wire().read)
            arriving = coming.arriving
            lost = victim.pa & -4096
            report.equal(arriving.untold, [(lost, 4096)], "the page that nobody had heard of is known", f"{lost:#x}")
            ways = sorted(arriving.ways)
            report.equal(ways, sorted({(page, 4096), (lost, 4096)}), "both lost pages are holes",
                         ", ".join(way.value for way in arriving.ways.values()))  # fmt: skip
            report.check(Way.UNMAPPED not in arriving.ways.values(), "made by the host's own poison")
            kernel = machine.console.run("uname -r", SECONDS).split()[-1]
            report.equal(kernel, carried["kernel"], "its shell answers: the UART's interrupt comes", kernel)
            before = _count(machine)
            report.check(before >= carried["count"], "its processes are there", f"{carried['count']}, then {before}")
            ticks, end = _ticks(machine), time.monotonic() + SECONDS
            while _count(machine) < before + 3 and time.monotonic() < end:
                time.sleep(0.5)
            later = _ticks(machine)
            report.check(
                _count(machine) >= before + 3, "and count on: timers fire", f"{before}, then {_count(machine)}"
            )
            report.check(all(a < b for a, b in zip(ticks, later, strict=True)), "timer interrupts come on each vCPU",
                         f"{ticks}, then {later}")  # fmt: skip
        with machine.step("Lost memory is told there"):
            machine.wait(InjectSea)
            (posted,) = machine.wait(Posted)
            report.equal(posted.pages, ((lost, 4096),), "the process touches the hole: an SEA with a record")
            line = machine.console.line("SIGBUS moved ", SECONDS)
            report.check(f"code={int(Code.AR)} addr={victim.va:#x} " in line, "it gets SIGBUS with its address", line)
            machine.wait(Acked)
            report.check(True, "and Linux acknowledged")
            for way in ("gsiv", *(("sdei",) if machine.machine.running.sdei else ())):
                other = machine.victim(way, "eh", way)
                since = len(machine.seen)
                machine.lose(other.pa)
                (posted,) = machine.wait(Posted, 1, since)
                machine.wait(Acked, 1, since)
                report.equal(
                    posted.delivery, way, f"a page that is lost here is told by {way}", f"{other.pa & -4096:#x}"
                )
                line = machine.console.line(f"SIGBUS {way} ", SECONDS)
                report.check(f"code={int(Code.AO)} " in line, "and reaches the process", line)
            machine.console.type("poweroff -f")
            ending = machine.machine.wait(SECONDS)
            report.equal(ending and ending.how, "powered off", "the guest powers off")
    finally:
        machine.close()


def main(what: str) -> int:
    """One of both; 0 where everything held."""
    sys.setswitchinterval(0.0005)
    report = Report("moves")

    def say(value: dict[str, Any]) -> None:
        os.write(1, MARK.encode() + orjson.dumps(value) + b"\n")

    try:
        {"arrive": arrive, "describe": describe, "leave": leave}[what](report, say)
    except (LabError, RasError, OSError) as error:
        say({"failure": f"{report.section}: {error}", "detail": getattr(error, "detail", "")})
        return 1
    for step, seconds in report.times:
        rows = [row for row in report.rows if row[0] == step]
        say({"step": step, "seconds": seconds, "rows": rows})
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    os._exit(code)
