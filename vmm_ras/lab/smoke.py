"""The first scenario: an unmodified Linux boots with our tables and takes our records.

Three records are told, each to a process that owns the lost page: one found and polled for, one found and told through
the event device's interrupt, one consumed and told by an SEA.  A fourth process takes an SEA for which there is no
record.  Then the model guest, booted from the bytes that the real firmware placed, gets the same events: the blocks
that both consumed, and what both did about them, must be the same.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace

from acpi.bert import BootErrorRegion
from acpi.firmware import Firmware, build
from acpi.firmware_presets import MIB, describe, virt_machine
from acpi.ghes import StatusBlock
from acpi.image import Image, PlacedSource
from cper.common import Severity
from vmm_ras import arm64
from vmm_ras.effects import Posted
from vmm_ras.events import Code, Event, GuestAbort, HostSignal
from vmm_ras.lab import initrd, kernel_log
from vmm_ras.lab.adapter import QemuGuest
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.guest_tables import compare
from vmm_ras.lab.kernel_log import Victim
from vmm_ras.lab.model_run import play
from vmm_ras.lab.packages import Lab
from vmm_ras.lab.qemu import CPU, Qemu
from vmm_ras.lab.report import Report
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import load_policy
from vmm_ras.record import memory_block

MEMORY = 512 * MIB
VCPUS = 2
GIC = {"6.1": 2, "6.12": 3}
"""Interrupt controller of each kernel's machine, so that both forms of the MADT are booted."""
HOST = 0x7F00_0000_0000
"""Host address that guest RAM is taken to have: a SIGBUS names host addresses."""
FIRST_THREAD = 1000
"""Host thread of the first vCPU."""
PREVIOUS_BOOT = 0x4600_0000
"""Guest physical address that the boot error record names."""
BOOT_SECONDS = 120.0
SECONDS = 20.0
"""For everything else that the guest is waited for."""
_POLICY = """
version = 1
[[rule]]
name = "consumed"
when = {{ code = "AR" }}
deliver = ["sea"]
[[rule]]
name = "polled"
when = {{ code = "AO", gpa_from = {page:#x}, gpa_to = {end:#x} }}
deliver = ["polled"]
[[rule]]
name = "found"
deliver = ["gsiv"]
"""


def run(lab: Lab) -> Report:
    """Boot the kernel and play the scenario.  Raises LabError; nothing of the run is left either way."""
    series = lab.kernel.series
    report = Report(f"Lab: Linux {series}, smoke")
    gic = GIC[series]
    machine = virt_machine(MEMORY, VCPUS, gic=3 if gic == 3 else 2)
    block = memory_block([(PREVIOUS_BOOT, 4096)], severity=Severity.FATAL, error_type=3)
    region = BootErrorRegion.build([StatusBlock.decode(block)], 4096)
    firmware = build(
        replace(describe("minimal-vmm", memory=MEMORY, vcpus=VCPUS), machine=machine, boot_errors=region)
    )  # fmt: skip
    gpa = machine.memory[0].gpa
    start = time.monotonic()
    with Qemu(lab, initrd.build(lab), firmware.files, gpa=gpa, memory=MEMORY, vcpus=VCPUS, gic=gic) as qemu:
        report.facts |= {
            "Kernel package": lab.kernel.version,
            "QEMU": f"{qemu.monitor.version} ({qemu.monitor.package})",
            "Machine": f"virt, acpi=off, {CPU}, {VCPUS} vCPUs, GICv{gic}, {MEMORY >> 20} MiB, emulated",
            "Firmware": "edk2, with our files of fw_cfg",
            "Date": time.strftime("%Y-%m-%d", time.gmtime()),
        }
        _Smoke(qemu, firmware, report).play()
    report.facts["Wall-clock time"] = f"{time.monotonic() - start:.1f} s"
    return report


class _Smoke:
    """One run: what is known of the guest so far."""

    def __init__(self, qemu: Qemu, firmware: Firmware, report: Report) -> None:
        self.qemu, self.firmware, self.report = qemu, firmware, report
        self.console, self.ram = qemu.console, qemu.ram
        self.log = ""
        """The kernel log so far."""
        self.rsdp = 0
        self.image: Image
        """What the firmware placed, before any event."""
        self.outcomes: list[str] = []
        """What the guest did about each event, in the model's words."""

    def play(self) -> None:
        """The whole scenario."""
        with self.report.step("Boot"):
            self._boot()
        with self.report.step("Tables"):
            self.image = compare(qemu=self.qemu, firmware=self.firmware, rsdp=self.rsdp, report=self.report)
        polled = self._start("polled", "he")
        self.policy = load_policy(_POLICY.format(page=polled.pa, end=polled.pa + 4096))
        self.guest = QemuGuest(self.qemu, self._notifier(self.image.sources))
        events: list[Event] = []
        with self.report.step("A found page, polled for"):
            events.append(self._found(polled))
        with self.report.step("A found page, told by the event device's interrupt"):
            events.append(self._found(self._start("gsiv", "he")))
        with self.report.step("A consumed page, told by an SEA"):
            events.append(self._consumed(self._start("sea", "h")))
        with self.report.step("An SEA without a record"):
            events.append(self._bare(self._start("bare", "h")))
        with self.report.step("The model guest, given the same"):
            self._model(events)
        with self.report.step("Afterwards"):
            self._afterwards(3)

    # -- boot ---------------------------------------------------------------------------

    def _boot(self) -> None:
        report, sources = self.report, self.firmware.description.sources
        self.qemu.debugger.resume()
        report.facts["Kernel"] = self.console.line("LAB-UP ", BOOT_SECONDS).removeprefix("LAB-UP ")
        log = self._kernel_log()
        self.rsdp = int(report.line(log, r"ACPI: RSDP (0x[0-9A-F]+)", "the log says where the RSDP is").group(1), 16)
        for pattern in kernel_log.BOUND:
            report.line(log, pattern, f"the log says: {pattern}")
        report.line(log, f"physical_address: {PREVIOUS_BOOT:#018x}", "the log names the page of the boot before")
        complaints = kernel_log.complaints(log)
        report.check(not complaints, "no complaint about our tables in the log", "; ".join(complaints), log)
        bound = self.console.run("ls -d /sys/bus/platform/drivers/GHES/GHES.*").split()
        names = " ".join(path.rpartition("/")[2] for path in bound)
        report.equal(len(bound), len(sources), f"all {len(sources)} sources are bound", names)
        cpus = self.console.run("nproc").strip()
        report.equal(cpus, str(VCPUS), "every vCPU of the MADT runs", f"nproc: {cpus}")
        interrupts = self.console.run("cat /proc/interrupts")
        report.line(interrupts, rf"\b{sources[1].vector} Edge +ACPI:Ged", "the event device has its interrupt")

    # -- events -------------------------------------------------------------------------

    def _notifier(self, sources: tuple[PlacedSource, ...]) -> Notifier:
        memory = MemoryMap([MemorySlot(HOST, self.ram.gpa, self.ram.size)])
        threads = {FIRST_THREAD + index: index for index in range(VCPUS)}
        return Notifier(sources, memory, policy=self.policy, vcpus=VCPUS, threads=threads)

    def _signal(self, code: Code, gpa: int, vcpu: int = 0) -> HostSignal:
        return HostSignal(code, HOST + gpa - self.ram.gpa, 12, FIRST_THREAD + vcpu, float(int(time.time())))

    def _start(self, name: str, flags: str) -> Victim:
        start = len(self.console.text)
        self.console.type(f"victim {name} {flags} &")
        return kernel_log.victim(self.console.line(f"VICTIM {name} ", SECONDS, start))

    def _found(self, victim: Victim) -> Event:
        event = self._signal(Code.AO, victim.pa)
        count = self._posted()
        self.guest.receive(event)
        posted = self.guest.settle(count + 1, SECONDS)[-1]
        self.report.equal(posted.delivery, victim.name, "the core chose the way", f"rule {posted.rule}")
        self._told(posted, victim, Code.AO)
        if not count:  # Linux prints two records in five seconds: of the first it tells what it read
            self.report.line(self.log, f"physical_address: {victim.pa:#018x}", "the log names the page of the record")
        return event

    def _consumed(self, victim: Victim) -> Event:
        vcpu = self.guest.trap(victim.pc, victim.text, victim.va, SECONDS)
        event = self._signal(Code.AR, victim.pa, vcpu)
        count = self._posted()
        self.guest.receive(event)
        posted = self.guest.settle(count + 1, SECONDS)[-1]
        self.report.equal(posted.delivery, "sea", "the core chose the way", f"vCPU {vcpu}, ESR {posted.esr:#x}")
        line = self._told(posted, victim, Code.AR)
        self.report.check(f"pc={victim.pc:#x}" in line, "it stands at the very instruction", f"pc={victim.pc:#x}")
        return event

    def _bare(self, victim: Victim) -> Event:
        """The negative control: no record, so Linux cannot know the page."""
        vcpu = self.guest.trap(victim.pc, victim.text, victim.va, SECONDS)
        event = GuestAbort(vcpu, arm64.sea_esr(0, victim.va), victim.va)
        count, start = self._posted(), len(self.console.text)
        self.guest.receive(event)
        line = self.console.line(f"SIGBUS {victim.name} ", SECONDS, start)
        self.report.check(" code=3 " in f"{line} ", "the process gets SIGBUS with BUS_OBJERR, not BUS_MCEERR_AR", line)
        self.report.equal(self._posted(), count, "no record was posted", f"still {count} blocks in all")
        failures = [f for f in kernel_log.memory_failures(self._kernel_log()) if f.pfn == victim.pa >> 12]
        self.report.check(not failures, "memory_failure() was not called for the page")
        self.outcomes.append("objerr")
        return event

    def _posted(self) -> int:
        return sum(isinstance(e, Posted) for e in self.guest.seen)

    def _told(self, posted: Posted, victim: Victim, code: Code) -> str:
        """One record was consumed: what that must have left behind.  The line that the process printed."""
        report, source = self.report, next(s for s in self.image.sources if s.source_id == posted.source_id)
        left = self.ram.read(source.block, len(posted.block))
        report.equal(
            left[4:], posted.block[4:], "the block in guest memory is the one that the core built", f"{len(left)} bytes"
        )
        report.equal(left[:4], bytes(4), "the guest cleared the block status")
        assert source.ack is not None
        ack = int.from_bytes(self.ram.read(source.ack, 8), "little")
        report.equal(ack & source.ack_write, source.ack_write, "the guest acknowledged", f"ack register {ack:#x}")
        line = self.console.line(f"SIGBUS {victim.name} ", SECONDS)
        name = "BUS_MCEERR_AR" if code == Code.AR else "BUS_MCEERR_AO"
        expected = f"code={int(code)} addr={victim.va:#x} "
        report.check(expected in line, f"the process gets SIGBUS with {name} and the address", line)
        failure = self._memory_failure(victim.pa >> 12)
        report.equal(failure.outcome, "Recovered", "memory_failure() took the page away", failure.line)
        self.outcomes.append("offlined")
        return line

    def _memory_failure(self, pfn: int) -> kernel_log.MemoryFailure:
        """Linux queues the work after the acknowledgement: ask until it is done."""
        end = time.monotonic() + SECONDS
        while True:
            log = self._kernel_log()
            for failure in kernel_log.memory_failures(log):
                if failure.pfn == pfn:
                    return failure
            if time.monotonic() > end:
                raise Failure(f"the log says nothing of page {pfn:#x} within {SECONDS:.0f} s", log[-3000:])
            time.sleep(0.1)

    def _kernel_log(self) -> str:
        self.log += self.console.run("dmesg -c")
        return self.log

    # -- afterwards ---------------------------------------------------------------------

    def _model(self, events: list[Event]) -> None:
        report, model = self.report, play(self.image, VCPUS, self._notifier, events)
        real = [e for e in self.guest.seen if isinstance(e, Posted)]
        blocks, ways = [e.block for e in real], [(e.source_id, e.delivery, e.esr) for e in real]
        report.equal([e.block for e in model.posted], blocks, "the same blocks were posted", f"{len(real)} blocks")
        report.equal(model.consumed, blocks, "the model consumed what the real guest consumed", "byte for byte")
        found = [(e.source_id, e.delivery, e.esr) for e in model.posted]
        shown = ", ".join(f"{way} {esr:#x}" if esr else way for _, way, esr in ways)
        report.equal(found, ways, "by the same ways, with the same syndromes", shown)
        report.equal(model.outcomes, self.outcomes, "the model did what Linux did", ", ".join(model.outcomes))

    def _afterwards(self, pages: int) -> None:
        corrupted = re.search(r"HardwareCorrupted: +(\d+) kB", self.console.run("cat /proc/meminfo"))
        assert corrupted is not None
        self.report.equal(int(corrupted.group(1)), 4 * pages, f"Linux counts {pages} lost pages", corrupted.group())
        complaints = kernel_log.complaints(self._kernel_log())
        self.report.check(not complaints, "still no complaint about our tables", "; ".join(complaints))
