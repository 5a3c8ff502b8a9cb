"""The scenario inside an emulated arm64 host: a Linux guest on its KVM loses memory that the host really lost.

``python3 -m vmm_ras.lab.linux_kvm_inner``, with the kernel, the initrd and ``scenario.json`` beside it.  It prints
lines of JSON: moments as they happen (MOMENT), at the end the report (REPORT), or why there is none (FAILED).
"""

from __future__ import annotations

import json
import re
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vmm_ras import arm64
from vmm_ras.effects import Acked, InjectSea, InjectSerror, Posted, RaiseLine
from vmm_ras.errors import HostError, RasError
from vmm_ras.events import Code, GuestCall, HostSignal, Stopped, TellSerror
from vmm_ras.io.qemu.wait import Deadline
from vmm_ras.io.vmm.machine import Ending
from vmm_ras.lab import kernel_log
from vmm_ras.lab.errors import LabError
from vmm_ras.lab.kernel_log import Victim
from vmm_ras.lab.linux_kvm_guest import SECONDS, VCPUS, LosingMachine
from vmm_ras.lab.linux_kvm_live import Live
from vmm_ras.lab.report import Report
from vmm_ras.profiles import WAYS
from vmm_ras.sdei_table import EVENT_COMPLETE, EVENT_COMPLETE_AND_RESUME

SCENARIO = Path("scenario.json")
SURVIVED, FATAL = ("ueo", "ce"), ("uc", "ueu", "uer", "uncategorized", "implementation defined")
"""Asynchronous error types that Linux survives at EL1, and those that it does not."""
SYNDROMES = {name: arm64.serror_iss(name) for name in ("ueo", "ce", "uc", "ueu", "uer")}
SYNDROMES |= {"uncategorized": 0, "implementation defined": arm64.ISS_IDS}


class Scenario(LosingMachine):
    """What is asked of the guest, and asserted."""

    # -- steps --------------------------------------------------------------------------

    def first_boot(self) -> None:
        """The guest boots with our tables, and binds everything."""
        report, guest = self.report, self.guest
        report.facts["Guest kernel"] = self.boot()
        now = self.machine.running
        patterns = (*kernel_log.BOUND[:2], r"efi: EFI v2\.\d+ by vmm-ras", *(kernel_log.WITH_SDEI if now.sdei else ()))
        guest.check_boot(patterns)
        sources = now.boot.image.sources
        guest.check_bound(len(sources))
        cpus = self.console.run("nproc", SECONDS).strip()
        report.equal(cpus, str(VCPUS), "every vCPU runs", f"nproc: {cpus}")
        interrupts = self.console.run("grep Ged /proc/interrupts", SECONDS)
        for gsiv in {s.vector or 123 for s in sources if WAYS[s.notification] in {"gsiv", "gpio"}}:
            report.line(interrupts, rf"\b{gsiv} Edge +ACPI:Ged", f"the event device has interrupt {gsiv}")
        if now.sdei:
            with self.machine.lock:
                core = self.machine.notifier
                event = core.ways["sdei"][0].placed.vector
                accepts, masked = core.sdei.accepts(event), [v for v in range(VCPUS) if core.sdei.masked(v)]
            calls = sum(isinstance(e, GuestCall) for e in self.seen)
            report.check(accepts, "the SDEI event is registered and enabled", f"event {event}, {calls} calls answered")
            report.equal(masked, [], "every vCPU takes SDEI events")
        report.facts["SDEI"] = "calls reach user space" if now.sdei else "not on this host: no SMCCC filter (Linux 6.4)"

    def consumed(self, name: str = "sea", flags: str = "h") -> None:
        """A guest process uses a page that the host has lost."""
        report = self.report
        victim = self.victim(name, flags, "sea")
        since = len(self.seen)
        self.lose(victim.pa)
        signal = self._consumed_signal(since, victim)
        (posted,) = self.wait(Posted, 1, since)
        (injected,) = self.wait(InjectSea, 1, since)
        self.wait(Acked, 1, since)
        thread = self.machine.guest.vcpus[injected.vcpu]
        report.equal(signal.tid, thread.native_id, "it came in the thread of the vCPU that used it", thread.name)
        report.equal(posted.delivery, "sea", "the core chose the way", f"rule {posted.rule}, {len(posted.block)} bytes")
        self._check_syndrome(injected, victim)
        line = self._told(posted, victim, Code.AR)
        report.check(f"pc={victim.pc:#x}" in line, "it stands at the very instruction", f"pc={victim.pc:#x}")

    def _consumed_signal(self, since: int, victim: Victim) -> HostSignal:
        deadline = Deadline(SECONDS, "BUS_MCEERR_AR for the guest's access")
        while True:
            found = [e for e in self.wait(HostSignal, 1, since) if e.code == Code.AR]
            found = [e for e in self.seen[since:] if isinstance(e, HostSignal) and e.code == Code.AR]
            if found:
                break
            deadline.check()
            time.sleep(0.01)
        ram = self.machine.ram
        hva = ram.hva + (victim.pa & -4096) - ram.gpa
        self.report.equal(
            found[0].hva & -4096, hva, "the host sends BUS_MCEERR_AR for the page", f"hva {hva:#x}, lsb {found[0].lsb}"
        )
        return found[0]

    def _check_syndrome(self, injected: InjectSea, victim: Victim) -> None:
        esr, far = self.syndromes[injected.id]
        expected = arm64.sea_esr(0, victim.va)
        self.report.equal(esr & 0xFFFF_FFFF, expected, "ESR_EL1 is that of a data abort from EL0", f"{esr:#x}")
        self.report.equal(far, victim.va, "FAR_EL1 is the process' own address", f"{far:#x}")

    def _told(self, posted: Posted, victim: Victim, code: Code) -> str:
        source = next(s for s in self.machine.running.boot.image.sources if s.source_id == posted.source_id)
        return self.guest.told(posted, source, victim, code)

    def two_at_once(self) -> None:
        """Both vCPUs use lost memory: one source tells one after the other."""
        victims = [self.victim(f"cpu{cpu}", f"h{cpu}", "sea") for cpu in range(VCPUS)]
        since = len(self.seen)
        for victim in victims:
            self.lose(victim.pa)
        injected = self.wait(InjectSea, VCPUS, since)
        posted = self.wait(Posted, VCPUS, since)
        acked = self.wait(Acked, VCPUS, since)
        self.report.equal({e.vcpu for e in injected}, set(range(VCPUS)), "each vCPU takes an SEA of its own")
        order = [type(e).__name__ for e in self.seen[since:] if isinstance(e, Posted | Acked)]
        self.report.equal(order, ["Posted", "Acked"] * VCPUS, "the second record waits for the first's acknowledgement")
        told = {page for e in acked for page, _ in e.pages}
        pages = {victim.pa & -4096 for victim in victims}
        self.report.equal(told, pages, "no record is lost", " ".join(f"{page:#x}" for page in sorted(pages)))
        for victim in victims:
            e = next(p for p in posted if p.pages[0][0] == victim.pa & -4096)
            line = self.console.line(f"SIGBUS {victim.name} ", SECONDS)
            self.report.check(
                f"code=4 addr={victim.va:#x} " in line, f"the process on vCPU {e.vcpu} gets its own", line
            )
            failure = self.guest.memory_failure(victim.pa >> 12)
            self.report.equal(failure.outcome, "Recovered", "memory_failure() took the page away", failure.line)

    def found(self, way: str) -> None:
        """A page is lost that nobody uses, and the guest is told by ``way``."""
        victim = self.victim(way, "he", way)
        since = len(self.seen)
        self.lose(victim.pa)
        signal = self.wait(HostSignal, 1, since)[0]
        self.report.equal(
            signal.code, Code.AO, "the host sends BUS_MCEERR_AO", f"hva {signal.hva:#x}, lsb {signal.lsb}"
        )
        (posted,) = self.wait(Posted, 1, since)
        self.wait(Acked, 1, since)
        self.report.equal(posted.delivery, way, "the core chose the way", f"rule {posted.rule}")
        if way in {"gsiv", "gpio"}:
            (line,) = self.wait(RaiseLine, 1, since)
            self.report.equal(line.kind, way, "an interrupt was raised for the event device", f"number {line.number}")
        if way == "sdei":
            deadline = Deadline(SECONDS, "the SDEI handler completes")
            while any(self.machine.notifier.sdei.running(vcpu) for vcpu in range(VCPUS)):
                deadline.check()
                time.sleep(0.01)
            calls = [e.function & 0xFFFF_FFFF for e in self.seen[since:] if isinstance(e, GuestCall)]
            completed = {EVENT_COMPLETE, EVENT_COMPLETE_AND_RESUME} & set(calls)
            self.report.equal(len(completed), 1, "the handler completed", f"SDEI call {max(calls):#x}")
        self._told(posted, victim, Code.AO)

    def without_record(self) -> None:
        """The negative control: a real access to lost memory, a right SEA, but no record."""
        victim = self.victim("bare", "h", "bare")
        since = len(self.seen)
        self.replace_after = victim.pa >> 12  # the process ends, and its page would be the next one's
        self.lose(victim.pa)
        self._consumed_signal(since, victim)
        (injected,) = self.wait(InjectSea, 1, since)
        self._check_syndrome(injected, victim)
        line = self.console.line("SIGBUS bare ", SECONDS)
        self.report.check(" code=3 " in f"{line} ", "the process gets BUS_OBJERR, not BUS_MCEERR_AR", line)
        posted = [e for e in self.seen[since:] if isinstance(e, Posted)]
        self.report.equal(posted, [], "no record was posted")
        failures = [f for f in kernel_log.memory_failures(self.guest.kernel_log()) if f.pfn == victim.pa >> 12]
        self.report.check(not failures, "memory_failure() was not called for the page")

    def survived(self) -> None:
        """SErrors that Linux goes on after: the second time shows that the first was taken."""
        for index, name in enumerate((*SURVIVED, *SURVIVED)):
            vcpu, since = index // 2 % VCPUS, len(self.seen)
            self.machine.submit(TellSerror(vcpu, SYNDROMES[name]))
            self.wait(InjectSerror, 1, since)
            state = next(e.state for e in self.wait(Stopped, 1, since) if e.vcpu == vcpu)
            self.report.equal(state.serror, None, f"vCPU {vcpu} has no SError pending", f"PSTATE {state.pstate:#x}")
            alive = self.console.run("echo alive; nproc", SECONDS).split()
            self.report.equal(alive, ["alive", str(VCPUS)], f"AET {name}: Linux goes on", f"{SYNDROMES[name]:#x}")

    def afterwards(self, lost: int) -> None:
        """What the guest counts, and that nothing was dropped."""
        shown = self.console.run("grep Corrupted /proc/meminfo", SECONDS)
        corrupted = re.search(r"HardwareCorrupted: +(\d+) kB", shown)
        assert corrupted is not None
        self.report.equal(int(corrupted.group(1)), 4 * lost, f"Linux counts {lost} lost pages", corrupted.group())
        with self.machine.lock:
            core = self.machine.notifier
            open_ = sorted(core.busy)
        self.report.equal(open_, [], "no record is open")
        self.guest.check_complaints("still no complaint about our tables")

    def panic(self, name: str) -> Ending:
        """An SError that Linux does not survive: it panics, and reboots."""
        start = len(self.console.text)
        self.machine.submit(TellSerror(0, SYNDROMES[name]))
        self.console.expect("Kernel panic - not syncing: Asynchronous SError Interrupt", SECONDS, start)
        text = self.console.text[start:]
        ending = self.machine.wait(SECONDS)
        shown = next(line for line in text.splitlines() if "Kernel panic" in line)
        self.report.check(ending is not None, f"AET {name}: Linux panics, and asks for a reset", shown)
        assert ending is not None
        self.report.equal(ending.how, "reset", "the machine is reset", ending.why)
        return ending

    def reset(self) -> None:
        """A reset replaces what was lost."""
        ram, pages = self.machine.ram, [page for page, rule in self.rules.items() if rule != "bare"]
        lost = sorted(page << 12 for page in pages if ram.is_lost(page << 12))
        self.report.equal(len(lost), len(pages), "the host has lost every page until now", f"{len(lost)} pages")
        replaced = self.machine.halt()
        done = sorted(page for gpa, size in replaced for page in range(gpa, gpa + size, 4096))
        self.report.equal(done, lost, "every lost page was replaced", f"{len(done)} pages")
        self.report.equal([page for page in done if ram.is_lost(page)], [], "no page is lost any more")
        self.rules.clear()

    def second_boot(self) -> None:
        """The guest boots again, and has all of its memory."""
        self.boot()
        corrupted = self.console.run("grep Corrupted /proc/meminfo", SECONDS).strip()
        self.report.check(corrupted.endswith(" 0 kB"), "Linux knows of no lost page", corrupted)
        since = len(self.seen)
        self.console.run("dd if=/dev/zero of=/tmp/all bs=1M count=64 2>/dev/null && rm /tmp/all", 2 * SECONDS)
        signals = [e for e in self.seen[since:] if isinstance(e, HostSignal)]
        self.report.equal(signals, [], "the guest fills 64 MiB of its memory without an error")

    def power_off(self) -> None:
        """The guest ends itself."""
        self.console.type("poweroff -f")
        ending = self.machine.wait(SECONDS)
        self.report.equal(None if ending is None else ending.how, "powered off", "the guest powers itself off")

    # -- in order -----------------------------------------------------------------------

    def play(self, *, whole: bool = False) -> None:
        """The scenario; ``whole``: with the boots after it."""
        step = self.step
        with step("Boot"):
            self.first_boot()
        with step("A consumed page, told by an SEA"):
            self.consumed()
        with step("Two vCPUs consume lost pages at the same time"):
            self.two_at_once()
        ways = ("sdei", "gsiv", "gpio", "polled") if self.machine.running.sdei else ("gsiv", "gpio", "polled")
        names = {"sdei": "an SDEI event", "gsiv": "an interrupt (GSIV)", "gpio": "the event device (GPIO)"}
        for way in ways:
            with step(f"A found page, {f'told by {names[way]}' if way in names else 'polled for'}"):
                self.found(way)
        with step("An SEA without a record"):
            self.without_record()
        with step("SErrors that Linux survives"):
            self.survived()
        with step("Afterwards"):
            self.afterwards(1 + VCPUS + len(ways))
        with step(f"An SError that Linux does not survive ({FATAL[0]}), and a reset"):
            self.panic(FATAL[0])
            self.reset()
        if not whole:
            return
        with step("The boot after the reset"):
            self.second_boot()
        for name in FATAL[1:]:
            with step(f"An SError that Linux does not survive ({name})"):
                self.panic(name)
                self.machine.halt()
                self.boot()
        with step("The end"):
            self.power_off()

    def demo(self) -> None:
        """One page, from madvise to the process."""
        with self.step("Boot"):
            self.report.facts["Guest kernel"] = self.boot()
            self.moment("booted", kernel=self.report.facts["Guest kernel"])
        with self.step("A consumed page, told by an SEA"):
            victim = self.victim("sea", "h", "sea")
            self.moment("victim", **victim._asdict())
            since = len(self.seen)
            self.lose(victim.pa)
            (posted,) = self.wait(Posted, 1, since)
            self.wait(Acked, 1, since)
            self.moment("process", line=self.console.line("SIGBUS sea ", SECONDS))
            self._told(posted, victim, Code.AR)
            self.moment("kernel", line=self.guest.memory_failure(victim.pa >> 12).line)


def main() -> int:
    """Play the scenario that ``scenario.json`` asks for."""
    start = time.monotonic()

    def say(kind: str, value: object) -> None:
        sys.stdout.write(f"{kind} {json.dumps(value)}\n")
        sys.stdout.flush()

    def moment(what: str, values: dict[str, Any]) -> None:
        say("MOMENT", {"moment": what, "at": time.monotonic() - start} | values)

    def steps(what: str, values: dict[str, Any]) -> None:
        if what == "step":
            moment(what, values)

    sys.setswitchinterval(0.0005)  # a vCPU that leaves the guest shall not wait for who only looks at the console
    wanted = json.loads(SCENARIO.read_text())
    report = Report(wanted["title"])
    try:
        with ExitStack() as stack:
            live = None if wanted["demo"] else stack.enter_context(Live(report, steps))  # it boots beside the other
            scenario = Scenario(report, moment if wanted["demo"] else steps)
            stack.callback(scenario.close)
            if live is None:
                scenario.demo()
            else:
                scenario.play(whole=wanted["all"])
                scenario.machine.halt()
                live.play()
    except (RasError, OSError) as error:
        detail = getattr(error, "detail", "")
        say(
            "FAILED",
            {
                "error": str(error),
                "detail": detail,
                "host": isinstance(error, HostError) and not isinstance(error, LabError),
            },
        )
        return 1
    say("REPORT", asdict(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
