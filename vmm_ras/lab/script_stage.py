"""A scenario file on Linux in an unmodified QEMU: one boot that several scenarios share."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from acpi.firmware import Firmware, build
from acpi.firmware_presets import describe, virt_machine, with_sources
from acpi.hest import NotificationType
from acpi.image import PlacedSource, find_sources, find_tables
from acpi.machine import EventDevice
from acpi.presets import PRESETS
from vmm_ras.errors import InputError
from vmm_ras.io.qemu.adapter import QemuGuest
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.io.qemu.wait import Deadline
from vmm_ras.lab import kernel_log
from vmm_ras.lab.guest_firmware import GPIO_GSIV, MEMORY
from vmm_ras.lab.kernel_log import Victim
from vmm_ras.lab.qemu import Qemu
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import load_policy
from vmm_ras.profiles import PROFILES, WAYS
from vmm_ras.scenario import journal
from vmm_ras.scenario.bound import OUTSIDE, event_of, policy_text, runs_of, source_named
from vmm_ras.scenario.journal import Moment, Place
from vmm_ras.scenario.play import PageSeen, Seen, SourceSeen
from vmm_ras.scenario.reading import tellings
from vmm_ras.traces import script
from vmm_ras.traces.items import PollStop, SdeiRegistered
from vmm_ras.traces.script import NamedPage, Script

PRESET, VCPUS = "conformance", 2
"""Of every boot: scenarios for other error sources, or for more vCPUs, are the model's."""
HOST, FIRST_THREAD = 0x7F00_0000_0000, 1000
FREE, APART = 0x0A00_0000, 0x1_0000
"""Where in RAM nobody's pages are taken from, and how far from each other."""
HWPOISON = 1 << 19
"""KPF_HWPOISON (``include/uapi/linux/kernel-page-flags.h``)."""
SYSTEM_CALL = "__arm64_sys_nanosleep"
SECONDS = 40.0
GRACE, PATIENCE = 0.25, 4.0
"""Seconds that the guest has to do what nobody predicts, and what the model predicts."""
_FLAGS = {"reader": "h", "early": "he", "idle": "hi", "unhandled": ""}
_CODES = {3: "BUS_OBJERR", 4: "BUS_MCEERR_AR", 5: "BUS_MCEERR_AO", 128: "SI_KERNEL"}
_PANIC = re.compile(r"Kernel panic - not syncing[^\n]*")


def firmware() -> Firmware:
    """Tables with the error sources of ``PRESET``."""
    base = with_sources(describe("minimal-vmm", memory=MEMORY, vcpus=VCPUS), *PRESETS[PRESET].sources)
    machine = virt_machine(MEMORY, VCPUS, gic=3, event_device=EventDevice(GPIO_GSIV))
    return build(replace(base, machine=machine, sdei=True))


class QemuStage:
    """A booted guest; its machine is what it boots from."""

    def __init__(self, qemu: Qemu, guest: str, sites: tuple[int, ...], built: Firmware) -> None:
        """``guest``: the profile of its kernel.  ``sites``: where the kernel makes SDEI calls."""
        self.qemu, self.guest, self.console, self.ram = qemu, guest, qemu.console, qemu.ram
        self.place = Place(
            MemorySlot(HOST, self.ram.gpa, self.ram.size), 12, tuple(range(FIRST_THREAD, FIRST_THREAD + VCPUS))
        )
        self._core = self._notifier(built.image().sources, None)
        self.adapter = QemuGuest(qemu, self._core, GPIO_GSIV, sites)
        self.journal: list[Moment] = []
        self.log = ""
        self.predicted: Seen | None = None
        """What the model says of the end: it is waited for, for a while."""
        self._seen, self._free, self._number, self._begin, self._start_log = 0, 0, 0, 0, 0
        self.pages: dict[str, NamedPage] = {}
        self._victims: dict[str, Victim] = {}
        self.gpas: dict[str, int] = {}
        self._bound: set[int] = set()
        self._unbound: set[int] = set()
        self._commands = 0

    def boot(self, seconds: float = 180) -> str:
        """Let it boot, and answer its SDEI calls; what the kernel calls itself.  Raises Failure."""
        deadline, debugger = Deadline(seconds, "the guest boots"), self.qemu.debugger
        self.adapter.watch_calls(True)
        debugger.resume()
        while "\nLAB-UP " not in self.console.text:
            deadline.check()
            self.adapter.pump(0.1)
        release = self.console.line("LAB-UP ", SECONDS).removeprefix("LAB-UP ")
        self._dmesg()
        found = re.search(r"ACPI: RSDP (0x[0-9A-F]+)", self.log)
        if found is None:
            raise Failure("the log does not say where the RSDP is", self.log[-3000:])
        tables = find_tables(self.ram.read, int(found.group(1), 16))
        self.sources = find_sources(self.ram.read, tables["HEST"][1])
        symbol = self.run(f"grep -m 1 -w {SYSTEM_CALL} /proc/kallsyms")
        self._system_call = int(symbol.split()[0], 16)
        return release

    # -- the stage ---------------------------------------------------------------------------

    def open(self, scenario: Script) -> None:
        """A core of its own for the scenario, and a process for each owner.  Raises InputError, Failure."""
        head = scenario.head
        if head.model_only:
            raise InputError(f"not on a real guest: {head.model_only}")
        if head.preset not in {PRESET, "all"} or head.vcpus > VCPUS:
            raise InputError(f"the real guest has preset {PRESET} and {VCPUS} vCPUs")
        self._number += 1
        self._clean()
        text = policy_text(head)
        core = self._notifier(self.sources, text)
        core.sdei, self._core = self._core.sdei, core
        self.adapter = QemuGuest(self.qemu, core, GPIO_GSIV, self.adapter.sites)
        self.journal, self._seen, self._begin = [], 0, len(self.console.text)
        self._start_log = len(self.log)
        self.pages = {page.name: page for page in scenario.pages}
        self._victims, self.gpas = {}, {}
        for page in scenario.pages:
            self.gpas[page.name] = self._take(page)

    def do(self, item: Any) -> None:
        """Something happens; the vCPU that takes it is stopped where the scenario says."""
        if isinstance(item, SdeiRegistered | PollStop):
            self.journal.append(Moment(self._now(), item))
            on = item.registered if isinstance(item, SdeiRegistered) else not item.stopped
            kind = NotificationType.SDEI if isinstance(item, SdeiRegistered) else NotificationType.POLLED
            for source in self.sources:
                if source.notification == kind:
                    self._bind(source, on)
            return
        if not isinstance(
            item,
            script.Signal | script.Fault | script.Abort | script.Record | script.Sea | script.Serror | script.SdeiEvent,
        ):
            raise InputError("a real guest does that when it does")
        runs = runs_of(item)
        if isinstance(item, script.Record) and not item.source.startswith(("sea", "sei")):
            runs = None
        gvas = {name: victim.va for name, victim in self._victims.items()}
        event = event_of(item, self.gpas, self.pages, self.place, self.sources, gvas)
        if runs is not None:
            victim = self._victims[runs[0]]
            if runs[1]:
                vcpu = self.adapter.trap_in_kernel(self._system_call, victim.va, SECONDS)
            else:
                vcpu = self.adapter.trap(victim.pc, victim.text, victim.va, SECONDS)
            if vcpu != self.pages[runs[0]].vcpu:
                self.adapter.let_go()
                raise Failure(f"the owner of page {runs[0]} runs on vCPU {vcpu}, not on {self.pages[runs[0]].vcpu}")
        self.journal.append(Moment(self._now(), event))
        self.adapter.receive(event)
        if runs is not None:
            self.adapter.let_go()
            if runs[1] and not self._panic():
                self.run("dmesg -n 1")  # an Oops makes the console loud
        self._note()

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.journal.append(Moment(self._now(), journal.Wait(seconds)))
        deadline = Deadline(seconds, "wait")
        while deadline.left:
            self._turn(min(0.05, deadline.left))

    def settle(self, seconds: float) -> None:
        """Until nothing waits, and a little longer, for what the guest does after it acknowledged."""
        deadline = Deadline(seconds, "settle")
        while deadline.left and self._busy() and not self._panic():
            self._turn(0.02)
        self.wait(GRACE)

    def source(self, name: str) -> SourceSeen:
        """How a source stands, in guest memory and in sysfs."""
        placed = source_named(self.sources, name)
        assert placed.ack is not None
        ack = int.from_bytes(self.ram.read(placed.ack, 8), "little")
        acked, cleared = ack & placed.ack_write == placed.ack_write, self.ram.read(placed.block, 4) == bytes(4)
        bound = placed.source_id in self._bound and placed.source_id not in self._unbound
        return SourceSeen(bound, acked, cleared)

    def page(self, name: str) -> PageSeen:
        """How a page stands, by /proc/kpageflags, and what its owner said; the model's word is waited for."""
        expected = self.predicted.pages.get(name) if self.predicted is not None else None
        deadline = Deadline(PATIENCE, "page")
        while True:
            seen = PageSeen(self._offlined(name), self._reported(name), self._signal(name), self._told(name))
            if expected is None or seen == expected or not deadline.left:
                return seen
            self.wait(0.1)

    def alive(self) -> bool:
        """Whether the guest still answers; it panicked if its console says so."""
        expected = self.predicted is None or self.predicted.alive
        deadline = Deadline(PATIENCE, "alive")
        while not self._panic() and not expected and deadline.left:
            self.wait(0.1)
        if self._panic():
            return False
        self.run("true")
        return True

    def timeline(self) -> str:
        """What happened, in words, and the kernel's own."""
        if not self._panic():
            self._dmesg()
        return "\n".join([self.words(), *self.log[self._start_log :].splitlines()[-60:]])

    def words(self) -> str:
        """What happened, without asking the guest."""
        self._note()
        return "\n".join(journal.lines(self.journal, self.place))

    # -- the guest ------------------------------------------------------------------------------

    def run(self, command: str, seconds: float = SECONDS) -> str:
        """What a shell command prints, while SDEI calls are answered.  Raises Failure."""
        self._commands += 1
        start, mark = len(self.console.text), f"@s{self._commands}"
        self.console.type(f"{command}; echo '{mark}:'$?:")
        found = self._until(lambda: re.compile(rf"{mark}:(\d+):\n").search(self.console.text, start), seconds, command)
        printed = found.string[start : found.start()]
        if found.group(1) != "0":
            raise Failure(f"guest: {command!r} ends with {found.group(1)}", printed)
        return str(printed)

    def _until(self, found: Callable[[], Any], seconds: float, what: str) -> Any:
        deadline = Deadline(seconds, f"guest: {what}")
        while True:
            value = found()
            if value is not None:
                return value
            if self._panic():
                raise Failure(f"guest: {what}: it panicked", self.console.text[-3000:])
            deadline.check()
            self._turn(0.01)

    def _turn(self, seconds: float) -> None:
        """Answer calls for a while, and let the core look at acknowledgements."""
        self.adapter.pump(seconds)
        self.adapter.expire()
        self._note()

    def _busy(self) -> bool:
        core = self._core
        handling = any(core.sdei.running(vcpu) for vcpu in range(core.vcpus))
        return bool(core.busy or core.inbox.records or core.aborts or handling)

    def _panic(self) -> bool:
        return _PANIC.search(self.console.text, self._begin) is not None

    def _now(self) -> float:
        return time.monotonic()

    def _note(self) -> None:
        now, seen = self._now(), self.adapter.seen
        self.journal += [Moment(now, effect) for effect in seen[self._seen :]]
        self._seen = len(seen)

    def _notifier(self, sources: tuple[PlacedSource, ...], policy: str | None) -> Notifier:
        threads = {tid: vcpu for vcpu, tid in enumerate(self.place.threads)}
        return Notifier(
            sources, MemoryMap([self.place.slot]), policy=None if policy is None else load_policy(policy),
            guest=PROFILES[self.guest], vcpus=VCPUS, threads=threads,
        )  # fmt: skip

    def _take(self, page: NamedPage) -> int:
        """Guest physical address of a page, its owner started."""
        if page.owner == "outside":
            return OUTSIDE + self._number * APART
        if not page.owned:
            self._free += 1
            return self.ram.gpa + FREE + self._free * APART
        name = f"s{self._number}{page.name}"
        start = len(self.console.text)
        self.console.type(f'(victim {name} {_FLAGS[page.owner]}{page.vcpu}; echo "EXIT {name} $?") &')
        pattern = re.compile(rf"^VICTIM {name} [^\n]*\n", re.MULTILINE)
        line = self._until(lambda: pattern.search(self.console.text, start), SECONDS, f"victim {name}").group()
        self._victims[page.name] = kernel_log.victim(line)
        return self._victims[page.name].pa

    def _clean(self) -> None:
        """Nothing is left of the scenario before: no process, no block, no unbound driver."""
        for source in self.sources:
            if source.source_id in self._unbound:
                self._bind(source, True)
        bound = self.run("dmesg -n 1; ls -d /sys/bus/platform/drivers/GHES/GHES.*")
        self._bound = {int(number) for number in re.findall(r"drivers/GHES/GHES\.(\d+)\b", bound)}
        if self._victims:
            self.run(f"kill -9 {' '.join(str(v.pid) for v in self._victims.values())} 2>/dev/null; true")
        for source in self.sources:
            assert source.ack is not None
            if self.ram.read(source.block, 4) != bytes(4):
                self.ram.write(source.block, bytes(4))
            self.ram.write(source.ack, source.ack_write.to_bytes(8, "little"))

    def _bind(self, source: PlacedSource, on: bool) -> None:
        device = f"GHES.{source.source_id}"
        self.run(f"echo {device} > /sys/bus/platform/drivers/GHES/{'bind' if on else 'unbind'}")
        (self._unbound.discard if on else self._unbound.add)(source.source_id)

    def _offlined(self, name: str) -> bool:
        page = self.pages[name]
        if page.owner == "outside" or self._panic():
            return False
        pfn = self.gpas[name] >> 12
        flags = self.run(f"dd if=/proc/kpageflags bs=8 skip={pfn} count=1 2>/dev/null | od -An -t x8; echo")
        found = re.findall(r"\b[0-9a-f]{16}\b", flags)
        if not found:
            raise Failure(f"guest: /proc/kpageflags of page {pfn:#x}: {flags.strip()!r}")
        return bool(int(found[-1], 16) & HWPOISON)

    def _reported(self, name: str) -> bool:
        if not self._panic():
            self._dmesg()
        return f"Memory failure: {self.gpas[name] >> 12:#x}:" in self.log[self._start_log :]

    def _signal(self, name: str) -> str:
        if name not in self._victims:
            return "none"
        victim = self._victims[name].name
        text = self.console.text[self._begin :]
        told = re.search(rf"^SIGBUS {victim} code=(\d+) ", text, re.MULTILINE)
        if told is not None:
            return _CODES.get(int(told.group(1)), f"code {told.group(1)}")
        return "killed" if re.search(rf"^EXIT {victim} \d+$", text, re.MULTILINE) else "none"

    def _told(self, name: str) -> str:
        if self.pages[name].owner == "outside":
            return "nothing"
        self._note()
        found = tellings(self.journal, self.place, self.gpas[name])
        return found[-1].delivery if found and found[-1] else "nothing"

    def _dmesg(self) -> None:
        self.log += self.run("dmesg -c")


__all__ = ["PRESET", "VCPUS", "WAYS", "QemuStage", "firmware"]
