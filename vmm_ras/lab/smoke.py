"""The first scenario: an unmodified Linux boots with our tables, takes our records, and keeps one of its own.

Five records are told, each to a process that owns the lost page: one found and polled for, two found and told through
the event device's interrupts, one found and told by an SDEI event, one consumed and told by an SEA.  A sixth process
takes an SEA for which there is no record.  Then the model guest, booted from the bytes that the real firmware placed,
gets the same events: the blocks that both consumed, and what both did about them, must be the same.  At last the kernel
is made to crash; what it keeps through the serialization table is there in ``second_boot``, where the initrd brings its
own tables.
"""

from __future__ import annotations

import re
import time
from typing import Literal
from uuid import UUID

from acpi.firmware import Firmware
from acpi.image import Image, PlacedSource
from cper.words import counted
from vmm_ras import arm64
from vmm_ras.effects import Posted
from vmm_ras.events import Code, Event, GuestAbort, HostSignal
from vmm_ras.io.qemu.adapter import QemuGuest
from vmm_ras.io.qemu.calls import KERNEL_BASE, sites
from vmm_ras.lab import fw_cfg, initrd, kernel_log
from vmm_ras.lab.guest_firmware import (
    GPIO_GSIV,
    MEMORY,
    PREVIOUS_BOOT,
    SDEI_EVENT,
    VCPUS,
    WRITABLE_AT,
    WRITABLE_FILE,
    files_of,
    guest_firmware,
)
from vmm_ras.lab.guest_tables import compare
from vmm_ras.lab.kernel_log import Victim
from vmm_ras.lab.model_run import play
from vmm_ras.lab.packages import Lab
from vmm_ras.lab.qemu import CPU, Qemu
from vmm_ras.lab.records import RecordStore
from vmm_ras.lab.report import Report
from vmm_ras.lab.running import SECONDS, RunningGuest
from vmm_ras.lab.second_boot import HOST, SecondBoot
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import default_policy, load_policy

GIC: dict[str, Literal[2, 3]] = {"6.1": 2, "6.12": 3}
"""Interrupt controller of each kernel's machine, so that both forms of the MADT are booted."""
FIRST_THREAD = 1000
"""Host thread of the first vCPU."""
CREATOR = UUID("75a574e3-5052-4b29-8a8e-be2c6490b89d")
"""Whose record it is when Linux keeps its own log (``CPER_CREATOR_PSTORE``)."""
_POLICY = """
version = 1
[[rule]]
name = "consumed"
when = { code = "AR" }
deliver = ["sea"]
WAYS
[[rule]]
name = "found"
deliver = ["gsiv"]
"""
_WAY = """
[[rule]]
name = "{way}"
when = {{ code = "AO", gpa_from = {page:#x}, gpa_to = {end:#x} }}
deliver = ["{way}"]
"""


def run(lab: Lab) -> Report:
    """Boot the kernel twice and play the scenario.  Raises LabError; nothing of the run is left either way."""
    series = lab.kernel.series
    gic, report, store = GIC[series], Report(f"Lab: Linux {series}, smoke"), RecordStore()
    firmware, root = guest_firmware(gic), initrd.build(lab)
    gpa = firmware.description.machine.memory[0].gpa

    def machine(first_archive: bytes) -> Qemu:
        return Qemu(
            lab, first_archive, files_of(firmware), gpa=gpa, memory=MEMORY, vcpus=VCPUS, gic=gic, store=store
        )  # fmt: skip

    start = time.monotonic()
    try:
        with machine(root) as qemu:
            report.facts |= {
                "Kernel package": lab.kernel.version,
                "QEMU": f"{qemu.monitor.version} ({qemu.monitor.package})",
                "Machine": f"virt, acpi=off, {CPU}, {VCPUS} vCPUs, GICv{gic}, {MEMORY >> 20} MiB, emulated",
                "Firmware": "edk2, with our files of fw_cfg",
                "Date": time.strftime("%Y-%m-%d", time.gmtime()),
            }
            first = _FirstBoot(lab, qemu, firmware, report)
            first.play(store)
        tables = SecondBoot.tables_for(gic, first.image)
        with machine(initrd.with_tables(tables, root)) as qemu:
            SecondBoot(qemu, firmware, first.image, tables, report).play(store)
    finally:
        store.close()
    report.facts["Wall-clock time"] = f"{time.monotonic() - start:.1f} s"
    return report


class _FirstBoot:
    """One run: what is known of the guest so far."""

    def __init__(self, lab: Lab, qemu: Qemu, firmware: Firmware, report: Report) -> None:
        self.qemu, self.firmware, self.report = qemu, firmware, report
        self.running = RunningGuest(qemu, report)
        self.console, self.ram = qemu.console, qemu.ram
        self.policy = default_policy()
        calls = sites(lab.kernel.image.read_bytes(), KERNEL_BASE[lab.kernel.series])
        # where the firmware will put the sources is not known yet, but which events there are is
        self.guest = QemuGuest(qemu, self._notifier(firmware.image().sources), GPIO_GSIV, calls)
        self.image: Image
        """What the firmware placed, before any event."""
        self.outcomes: list[str] = []
        """What the guest did about each event, in the model's words."""

    def play(self, store: RecordStore) -> None:
        """The whole scenario."""
        step, start = self.report.step, self.running.start
        with step("Boot"):
            self._boot()
        with step("Tables"):
            self._tables()
        polled, gpio, sdei = (start(way, "he") for way in ("polled", "gpio", "sdei"))
        ways = "".join(_WAY.format(way=v.name, page=v.pa, end=v.pa + 4096) for v in (polled, gpio, sdei))
        self.policy = load_policy(_POLICY.replace("WAYS", ways))
        core = self._notifier(self.image.sources)
        core.sdei = self.guest.notifier.sdei  # the guest registered its events with the core that it booted with
        self.guest = QemuGuest(self.qemu, core, GPIO_GSIV, self.guest.sites)
        events: list[Event] = []
        with step("A found page, polled for"):
            events.append(self._found(polled))
        with step("A found page, told by an interrupt (GSIV)"):
            events.append(self._found(start("gsiv", "he")))
        with step("A found page, told by the event device (GPIO)"):
            events.append(self._found(gpio))
        with step("A found page, told by an SDEI event"):
            events.append(self._dispatched(sdei))
        with step("A consumed page, told by an SEA"):
            events.append(self._consumed(start("sea", "h")))
        with step("An SEA without a record"):
            events.append(self._bare(start("bare", "h")))
        with step("The model guest, given the same"):
            self._model(events)
        with step("Afterwards"):
            self._afterwards(5)
        with step("A crash, kept through the serialization table"):
            self._crash(store)

    # -- boot ---------------------------------------------------------------------------

    def _boot(self) -> None:
        report, sources = self.report, self.firmware.description.sources
        report.facts["Kernel"] = self.running.boot(self.guest)
        self.running.check_boot((*kernel_log.BOUND, *kernel_log.ERST, *kernel_log.WITH_SDEI))
        log = self.running.log
        report.line(log, f"physical_address: {PREVIOUS_BOOT:#018x}", "the log names the page of the boot before")
        self.running.check_bound(len(sources))
        core = self.guest.notifier
        report.check(core.sdei.accepts(SDEI_EVENT), "the SDEI event is registered and enabled", f"{SDEI_EVENT}")
        masked = [vcpu for vcpu in range(VCPUS) if core.sdei.masked(vcpu)]
        report.equal(masked, [], "every vCPU takes SDEI events", f"{self.guest.calls} calls answered")
        cpus = self.console.run("nproc").strip()
        report.equal(cpus, str(VCPUS), "every vCPU of the MADT runs", f"nproc: {cpus}")
        interrupts = self.console.run("cat /proc/interrupts")
        for gsiv in (sources[1].vector, GPIO_GSIV):
            report.line(interrupts, rf"\b{gsiv} Edge +ACPI:Ged", f"the event device has interrupt {gsiv}")

    def _tables(self) -> None:
        self.image = compare(
            qemu=self.qemu, firmware=self.firmware, rsdp=self.running.rsdp(), report=self.report
        )  # fmt: skip
        written = fw_cfg.read_file(self.qemu.qtest, WRITABLE_FILE, WRITABLE_AT + 8)[WRITABLE_AT:]
        errors, _ = self.image.region("hardware_errors")
        self.report.equal(
            int.from_bytes(written, "little"), errors, "edk2 wrote the error region's address back to the VMM",
            f"{errors:#x}",
        )  # fmt: skip

    # -- events -------------------------------------------------------------------------

    def _notifier(self, sources: tuple[PlacedSource, ...]) -> Notifier:
        memory = MemoryMap([MemorySlot(HOST, self.ram.gpa, self.ram.size)])
        threads = {FIRST_THREAD + index: index for index in range(VCPUS)}
        return Notifier(sources, memory, policy=self.policy, vcpus=VCPUS, threads=threads)

    def _signal(self, code: Code, gpa: int, vcpu: int = 0) -> HostSignal:
        return HostSignal(code, HOST + gpa - self.ram.gpa, 12, FIRST_THREAD + vcpu, float(int(time.time())))

    def _found(self, victim: Victim) -> Event:
        event = self._signal(Code.AO, victim.pa)
        count = self._posted()
        self.guest.receive(event)
        posted = self.guest.settle(count + 1, SECONDS)[-1]
        self.report.equal(posted.delivery, victim.name, "the core chose the way", f"rule {posted.rule}")
        self._told(posted, victim, Code.AO)
        if not count:  # Linux prints two records in five seconds: of the first it tells what it read
            log = self.running.log
            self.report.line(log, f"physical_address: {victim.pa:#018x}", "the log names the page of the record")
        return event

    def _dispatched(self, victim: Victim) -> Event:
        self._watch(True)
        event = self._found(victim)
        self._watch(False)
        return event

    def _watch(self, on: bool) -> None:
        self.qemu.debugger.interrupt()
        self.guest.watch_calls(on)
        self.qemu.debugger.resume()

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
        log = self.running.kernel_log()
        failures = [f for f in kernel_log.memory_failures(log) if f.pfn == victim.pa >> 12]
        self.report.check(not failures, "memory_failure() was not called for the page")
        self.outcomes.append("objerr")
        return event

    def _posted(self) -> int:
        return sum(isinstance(e, Posted) for e in self.guest.seen)

    def _told(self, posted: Posted, victim: Victim, code: Code) -> str:
        source = next(s for s in self.image.sources if s.source_id == posted.source_id)
        self.outcomes.append("offlined")
        return self.running.told(posted, source, victim, code)

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
        self.running.check_complaints("still no other complaint about our tables")

    def _crash(self, store: RecordStore) -> None:
        report, start = self.report, len(self.console.text)
        report.equal(len(store.records()), 0, "the device keeps nothing yet", "no records")
        self.console.type("echo c > /proc/sysrq-trigger")
        panic = self.console.expect("end Kernel panic[^\n]*\n", SECONDS, start)
        report.check(bool(panic), "the kernel crashes", panic.group())
        kept = store.records()
        report.check(bool(kept), "the device keeps what Linux wrote through our table", counted(len(kept), "record"))
        for record in kept:
            report.equal(record.header.creator_id, CREATOR, f"record {record.header.record_id:#x} is Linux's log")
