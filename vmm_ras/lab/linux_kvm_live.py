"""`vmm-ras run` on huge pages with a client on its socket: what a user's guest prints, and what a killed VMM leaves."""

from __future__ import annotations

import re
import stat
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from acpi.firmware_presets import RAM
from acpi.presets import DEFAULT_SDEI_EVENT
from cper.common import Severity
from cper.memory import PlatformMemory
from cper.record import Record
from cper.record_header import SectionDescriptor
from vmm_ras import arm64
from vmm_ras.io.closing import Closing
from vmm_ras.io.qemu.wait import Deadline
from vmm_ras.lab.booted import BootedGuest
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.kernel_log import Victim
from vmm_ras.lab.linux_kvm_guest import BOOT_SECONDS, INITRD, KERNEL, SECONDS, Moment
from vmm_ras.lab.linux_kvm_guest import COMMAND_LINE as QUIET
from vmm_ras.lab.linux_kvm_tool import HUGE_PAGE, RamOf, Terminal, Tool, connected, huge_pages, inject, processes
from vmm_ras.lab.report import Report

MEMORY, VCPUS, NAME = 256 << 20, 2, "tool"
SOCKET, RECORD = Path("/tmp/tool.sock"), Path("/tmp/record.cper")
USER_CPU = 1
"""The vCPU on which nothing but user code runs once a process spins there, not even a clock tick."""
COMMAND_LINE = f"{QUIET} nohz_full={USER_CPU}"
LOG = "dmesg -c | grep -E 'Memory fai|unhandled e|sdei: ev'; true"
"""Of the kernel log what is asserted of: the console is slow, each byte is an exit of two machines."""
AT_ONCE, SETTLED = 16, 3.0
"""Memory failures that Linux keeps for a CPU: further ones are lost if it has not handled these when they come, and no
pause is long enough for every emulated host.  Seconds without another one: it has handled those that it has."""
LOST_HUGE_PAGES = 1
"""The kernel keeps one that is lost, and counts it as in use."""
AET_UER = arm64.serror_iss("uer")


class LiveGuest(BootedGuest):
    """A guest of a VMM that is another program."""

    def kernel_log(self) -> str:
        """What of it is asserted of."""
        self.log += self.console.run(LOG, self.seconds)
        return self.log


class Live(Closing):
    """The steps; ``moment`` is told when each begins.  Every method raises Failure."""

    def __init__(self, report: Report, moment: Moment = lambda what, values: None) -> None:
        self.report, self._moment, self.events = report, moment, list[dict[str, Any]]()
        _reserve(MEMORY // HUGE_PAGE)
        self.options = (
            "--kernel", str(KERNEL), "--initrd", str(INITRD), "--append", COMMAND_LINE, "--memory", str(MEMORY),
            "--vcpus", str(VCPUS), "--name", NAME, "--huge", "--socket", str(SOCKET),
        )  # fmt: skip
        self.tool = Tool(*self.options)
        self._open = ExitStack()
        self._open.callback(_reserve, 0)
        self._open.enter_context(self.tool)

    def close(self) -> None:
        """End the programs."""
        self._open.close()

    def _count(self, name: str) -> int:
        """A line of the guest's /proc/meminfo: KiB."""
        return int(self.tool.console.run(f"grep {name} /proc/meminfo", SECONDS).split()[-2])

    def _logged(self, pattern: str, what: str) -> None:
        """The guest's kernel comes to say this."""
        end = time.monotonic() + SECONDS
        while not re.search(pattern, self.guest.kernel_log()) and time.monotonic() < end:
            time.sleep(0.1)
        self.report.line(self.guest.log, pattern, what)

    # -- steps ----------------------------------------------------------------------------

    def connect(self) -> None:
        """The guest boots, and a client finds the VM."""
        report, console = self.report, self.tool.console
        self.client = connected(SOCKET, self.tool.check, BOOT_SECONDS, self.events.append)
        mode = SOCKET.lstat().st_mode
        report.equal((stat.S_ISSOCK(mode), stat.S_IMODE(mode)), (True, 0o600), "the socket is its owner's", "mode 0600")
        report.equal(self.client.greeting["QMP"]["capabilities"], [], "it greets as QMP does")
        console.line("LAB-UP ", BOOT_SECONDS)
        state = self.client.ask("query-status")
        report.equal(state, {"running": True, "status": "running"}, "query-status: it runs")
        known = self.client.ask("query-ras")
        self.ram = self._open.enter_context(RamOf(self.tool.process.pid, RAM, MEMORY))
        report.equal((known["vm"], known["vcpus"]), (NAME, VCPUS), "query-ras: the VM and its vCPUs")
        free = {source["delivery"] for source in known["sources"] if source["state"] == "free"}
        self.sdei = "sdei" in free
        report.check(
            {"sea", "gsiv", "gpio", "polled"} <= free, "query-ras: every source is free", " ".join(sorted(free))
        )
        shown = console.run(f"cat /sys/devices/system/cpu/cpu{USER_CPU}/regs/identification/midr_el1", SECONDS)
        told = self.client.ask("qom-get", path=f"/machine/unattached/device[{USER_CPU}]", property="midr")
        report.equal(told, int(shown, 16), "qom-get: a vCPU's midr is what the guest reads", f"{told:#x}")
        self.guest = LiveGuest(console, self.ram, report, SECONDS)

    def inject_record(self) -> None:
        """`vmm-ras inject` of a CPER record: the guest takes the page that it names away."""
        victim = self.guest.start("record", "he")
        section = PlatformMemory(physical_address=victim.pa & -4096, physical_address_mask=-4096 & arm64.U64)
        descriptor = SectionDescriptor.blank(PlatformMemory.GUID).model_copy(update={"severity": Severity.RECOVERABLE})
        RECORD.write_bytes(Record.of([(section, descriptor)]).encode())
        done = inject(SOCKET, str(RECORD), "--wait", str(SECONDS), seconds=2 * SECONDS)
        self.report.equal(done["did"][0]["outcome"], "posted", "inject RECORD: posted", done["did"][0]["delivery"])
        self.report.equal(done["status"]["owed"], [], "and acknowledged", f"told {done['status']['records']['told']}")
        self._killed(victim, 5)
        failure = self.guest.memory_failure(victim.pa >> 12)
        self.report.equal(failure.outcome, "Recovered", "memory_failure() took the page away", failure.line)

    def _killed(self, victim: Victim, code: int) -> None:
        line = self.tool.console.line(f"SIGBUS {victim.name} ", SECONDS)
        name = {4: "BUS_MCEERR_AR", 5: "BUS_MCEERR_AO"}[code]
        self.report.check(
            f"code={code} addr={victim.va:#x} " in line, f"the process gets {name} with its own address", line
        )

    def inject_exceptions(self) -> None:
        """An SEA and an SError with a chosen syndrome, and an SDEI event on a chosen vCPU."""
        report, console = self.report, self.tool.console
        console.run("echo 1 > /proc/sys/debug/exception-trace", SECONDS)
        self.guest.kernel_log()
        self.guest.log = ""  # from here on
        victim = self.guest.start("spins", f"s{USER_CPU}")
        far = 0x7654_3210_1238
        options = ["--sea", "--ea", "--set", "uc", "--far", hex(far), "--sei", "--aet", "ce", "--cpu", str(USER_CPU)]
        if self.sdei:
            options += ["--sdei", str(DEFAULT_SDEI_EVENT)]
        done = inject(SOCKET, *options, seconds=2 * SECONDS)
        esr = arm64.sea_esr(0, far, ea=1, set_=arm64.SET_UC)
        report.equal(done["did"][0]["esr"], esr, "inject --sea --ea --set uc --far", f"ESR {esr:#x}")
        pattern = rf"victim\[{victim.pid}\]: unhandled exception: .*ESR 0x0*{esr:x}, synchronous external abort"
        self._logged(pattern, "the guest's process takes it, and ends")
        alive = console.run("echo alive; nproc", SECONDS).split()
        report.equal(alive, ["alive", str(VCPUS)], "inject --sei --aet ce: Linux goes on")
        if self.sdei:
            report.equal((done["did"][2]["enabled"]), True, f"inject --sdei {DEFAULT_SDEI_EVENT} --cpu {USER_CPU}")
            self._logged(rf"sdei: event {DEFAULT_SDEI_EVENT} on CPU {USER_CPU} failed with error: -2",
                         f"Linux' handler runs on CPU {USER_CPU}, and finds no record (ENOENT)")  # fmt: skip

    def lose_huge_page(self) -> None:
        """A 4 KiB piece of a huge page is lost; all of it is."""
        report, pages = self.report, HUGE_PAGE >> 12
        victim = self.guest.start("huge", "hebw")
        report.equal(victim.pa % HUGE_PAGE, 0, "a process has all of a huge page of the host", f"{victim.pa:#x}")
        before, counted = self.client.ask("query-ras")["pages"], self._count("HardwareCorrupted")
        since = len(self.tool.rows)
        self.ram.lose(victim.pa + 0x5000)
        signal_ = self.tool.wait("host-signal", SECONDS, since)
        report.equal((signal_["code"], signal_["lsb"]), ("AO", 21), "the host says AO, and the granule", "lsb 21")
        deadline = Deadline(4 * SECONDS, "every 4 KiB of it is acknowledged")
        while self.client.ask("query-ras")["pages"]["acked"] < before["acked"] + pages:
            deadline.check()
            time.sleep(0.2)
        failures = [e["data"] for e in self.events if e["event"] == "MEMORY_FAILURE"]
        report.equal([(f["gpa"], f["size"], f["recipient"], f["action"]) for f in failures],
                     [(victim.pa, HUGE_PAGE, "guest", "inject")], "the client hears MEMORY_FAILURE",
                     f"gpa {victim.pa:#x}, size {HUGE_PAGE}")  # fmt: skip
        posted = [row for row in self.tool.rows[since:] if row["kind"] == "posted"]
        told = sorted(gpa for row in posted for gpa, _ in row["pages"])
        report.equal(told, [victim.pa + 4096 * n for n in range(pages)], f"{pages} pages are told, each once",
                     f"{len(posted)} records by {posted[0]['delivery']}")  # fmt: skip
        self._killed(victim, 5)
        taken, still = -1, time.monotonic()
        while taken < pages and time.monotonic() < still + SETTLED:
            found = (self._count("HardwareCorrupted") - counted) // 4
            if found != taken:
                taken, still = found, time.monotonic()
        report.check(taken >= AT_ONCE, "Linux takes them away, unless its queue is full", f"{taken} of {pages} pages")

    def panic(self) -> None:
        """An SError that Linux does not survive, with the syndrome that was chosen."""
        start = len(self.tool.console.text)
        self.client.ask("inject-serror", vsesr=AET_UER)
        esr = arm64.EC_SERROR << arm64.ESR_EC_SHIFT | arm64.ESR_IL | AET_UER
        pattern = rf"SError Interrupt on CPU\d, code 0x0*{esr:x}"
        self.tool.console.expect(pattern, SECONDS, start)
        self.report.line(self.tool.console.text[start:], pattern, "Linux panics, and says the syndrome")

    def killed(self) -> None:
        """kill -9: the socket file is left, and nothing else."""
        report = self.report
        self.client.close()
        self.ram.close()
        total, _ = huge_pages()
        self.tool.kill()
        report.equal(processes("run", str(SOCKET)), [], "killed, vmm-ras run leaves no process")
        deadline = Deadline(SECONDS, "its memory is given back")
        while (free := huge_pages()[1]) < total - LOST_HUGE_PAGES:
            deadline.check()
            time.sleep(0.05)
        report.check(True, "all of the guest's memory is given back, but for the page that is lost",
                     f"{free} of {total} huge pages are free")  # fmt: skip
        report.check(SOCKET.is_socket(), "its socket file stays")

    def again(self) -> None:
        """The next one takes the socket over; Ctrl-A x ends it, and the terminal is as before."""
        report = self.report
        with Terminal(*(option for option in self.options if option != "--huge")) as terminal:
            client = connected(SOCKET, terminal.check, BOOT_SECONDS, self.events.append)
            client.close()
            report.check(True, "the next one takes its socket over")
            terminal.until(lambda: terminal.settings() != terminal.before, SECONDS, "the terminal is the guest's")
            terminal.type(b"\x01x")
            terminal.until(lambda: terminal.process.poll() is not None, SECONDS, "Ctrl-A x ends the guest")
            report.equal(terminal.process.returncode, 0, "Ctrl-A x ends it", "exit code 0")
            report.equal(terminal.settings(), terminal.before, "the terminal's settings are what they were", "termios")
        report.check(not SOCKET.exists(), "the socket is gone")
        report.equal(processes("run", str(SOCKET)), [], "and no process is left")

    def play(self) -> None:
        """In order."""
        for name, step in (
            ("vmm-ras run --huge --socket: a client connects", self.connect),
            ("vmm-ras inject: a record", self.inject_record),
            ("vmm-ras inject: an SEA, an SError, an SDEI event", self.inject_exceptions),
            ("A huge page is lost", self.lose_huge_page),
            ("inject-serror: one that Linux does not survive", self.panic),
            ("vmm-ras run is killed", self.killed),
            ("vmm-ras run on a terminal", self.again),
        ):
            self._moment("step", {"name": name})
            with self.report.step(name):
                step()


def _reserve(pages: int) -> None:
    """Let the host have so many huge pages.  Raises Failure."""
    Path("/proc/sys/vm/nr_hugepages").write_text(str(pages))
    if pages and huge_pages() != (pages, pages):
        raise Failure(f"the host has {huge_pages()[0]} huge pages, {huge_pages()[1]} free, and needs {pages}")
