"""A guest that has booted: what is asked of it on its console, and asserted of each record that it took."""

from __future__ import annotations

import time
from typing import Protocol

from acpi.image import PlacedSource
from vmm_ras.effects import Posted
from vmm_ras.events import Code
from vmm_ras.lab import kernel_log
from vmm_ras.lab.console import Console
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.kernel_log import MemoryFailure, Victim
from vmm_ras.lab.report import Report

SECONDS = 20.0
"""For what the guest is waited for, once it has booted."""


class Ram(Protocol):
    """Guest RAM, read by guest physical address."""

    gpa: int
    size: int

    def read(self, gpa: int, size: int) -> bytes:
        """Raises GuestError."""


class BootedGuest:
    """A guest that has our shell on its console, and the report on it.  Every method raises Failure."""

    def __init__(self, console: Console, ram: Ram, report: Report, seconds: float = SECONDS) -> None:
        """``seconds``: how long it is waited for."""
        self.console, self.ram, self.report, self.seconds = console, ram, report, seconds
        self.log = ""
        """The kernel log so far."""

    def kernel_log(self) -> str:
        """All of it."""
        self.log += self.console.run("dmesg -c", self.seconds)
        return self.log

    def check_boot(self, patterns: tuple[str, ...]) -> None:
        """Assert that the log says all this, and nothing else against the tables."""
        log = self.kernel_log()
        for pattern in patterns:
            self.report.line(log, pattern, f"the log says: {pattern}")
        self.check_complaints("no other complaint about our tables in the log", patterns)

    def check_complaints(self, what: str, expected: tuple[str, ...] = ()) -> None:
        """Assert that the kernel objects to nothing else."""
        complaints = kernel_log.complaints(self.kernel_log(), expected)
        self.report.check(not complaints, what, "; ".join(complaints), self.log)

    def check_bound(self, count: int) -> None:
        """Assert how many sources have a driver."""
        bound = self.console.run("ls -d /sys/bus/platform/drivers/GHES/GHES.*", self.seconds).split()
        names = " ".join(sorted(path.rpartition("/")[2] for path in bound))
        self.report.equal(len(bound), count, f"{count} sources are bound", names)

    def rsdp(self) -> int:
        """Where it is; the log must say so."""
        found = self.report.line(self.log, r"ACPI: RSDP (0x[0-9A-F]+)", "the log says where the RSDP is")
        return int(found.group(1), 16)

    def start(self, name: str, flags: str) -> Victim:
        """Start a process that owns a page."""
        start = len(self.console.text)
        self.console.type(f"victim {name} {flags} &")
        return kernel_log.victim(self.console.line(f"VICTIM {name} ", self.seconds, start))

    def told(self, posted: Posted, source: PlacedSource, victim: Victim, code: Code) -> str:
        """One record was consumed: what that must have left behind.  The line that the process printed."""
        report = self.report
        left = self.ram.read(source.block, len(posted.block))
        report.equal(
            left[4:], posted.block[4:], "the block in guest memory is the one that the core built", f"{len(left)} bytes"
        )
        report.equal(left[:4], bytes(4), "the guest cleared the block status")
        assert source.ack is not None
        ack = int.from_bytes(self.ram.read(source.ack, 8), "little")
        report.equal(ack & source.ack_write, source.ack_write, "the guest acknowledged", f"ack register {ack:#x}")
        line = self.console.line(f"SIGBUS {victim.name} ", self.seconds)
        name = "BUS_MCEERR_AR" if code == Code.AR else "BUS_MCEERR_AO"
        expected = f"code={int(code)} addr={victim.va:#x} "
        report.check(expected in line, f"the process gets SIGBUS with {name} and the address", line)
        failure = self.memory_failure(victim.pa >> 12)
        report.equal(failure.outcome, "Recovered", "memory_failure() took the page away", failure.line)
        return line

    def memory_failure(self, pfn: int) -> MemoryFailure:
        """Linux queues the work after the acknowledgement: ask until it is done."""
        end = time.monotonic() + self.seconds
        while True:
            log = self.kernel_log()
            for failure in kernel_log.memory_failures(log):
                if failure.pfn == pfn:
                    return failure
            if time.monotonic() > end:
                raise Failure(f"the log says nothing of page {pfn:#x} within {self.seconds:.0f} s", log[-3000:])
            time.sleep(0.1)
