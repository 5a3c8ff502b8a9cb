"""A scenario file on Linux in an unmodified QEMU: one boot that several scenarios share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from acpi.firmware import Firmware, build
from acpi.firmware_presets import describe, virt_machine, with_sources
from acpi.image import PlacedSource, find_sources, find_tables
from acpi.machine import EventDevice
from acpi.presets import PRESETS
from vmm_ras.effects import Effect
from vmm_ras.io.qemu.adapter import QemuGuest
from vmm_ras.io.qemu.calls import base_of, sites, trampoline
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.io.qemu.wait import Deadline
from vmm_ras.lab import ras_events
from vmm_ras.lab.console import Console
from vmm_ras.lab.guest_firmware import GPIO_GSIV, MEMORY
from vmm_ras.lab.linux_stage import FIRST_THREAD, HOST, PRESET, VCPUS, LinuxStage
from vmm_ras.lab.qemu import Qemu
from vmm_ras.lab.script_guest import ScriptGuest
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import load_policy
from vmm_ras.profiles import PROFILES, WAYS
from vmm_ras.scenario.bound import event_of, lost_ranges, policy_text, runs_of
from vmm_ras.scenario.journal import Moment, Place
from vmm_ras.traces import script
from vmm_ras.traces.script import Script

SYSTEM_CALL = "__arm64_sys_nanosleep"
SECONDS, BOOT_SECONDS = 40.0, 180.0


def firmware() -> Firmware:
    """Tables with the error sources of ``PRESET``."""
    base = with_sources(describe("minimal-vmm", memory=MEMORY, vcpus=VCPUS), *PRESETS[PRESET].sources)
    machine = virt_machine(MEMORY, VCPUS, gic=3, event_device=EventDevice(GPIO_GSIV))
    return build(replace(base, machine=machine, sdei=True))


class QemuStage(LinuxStage):
    """A booted guest; its machine is what it boots from."""

    def __init__(self, qemu: Qemu, guest: str, image: bytes, base: int | None, built: Firmware) -> None:
        """``guest``: the profile of its kernel.  ``base``: where the image runs; None: wherever KASLR puts it."""
        super().__init__()
        self.qemu, self.guest, self.image, self.base, self.ram, self._built = qemu, guest, image, base, qemu.ram, built
        self.place = Place(
            MemorySlot(HOST, qemu.ram.gpa, qemu.ram.size), 12, tuple(range(FIRST_THREAD, FIRST_THREAD + VCPUS))
        )
        self.linux = ScriptGuest(qemu.console, qemu.ram.gpa, self.turn, SECONDS)
        self._random = base is None
        self._scenario: Script | None = None

    @property
    def console(self) -> Console:
        """The guest's."""
        return self.qemu.console

    @property
    def log(self) -> str:
        """What the kernel said."""
        return self.linux.log

    @property
    def seen(self) -> Sequence[Effect]:
        """Every effect since the scenario, or its boot, began."""
        return self.adapter.seen

    def boot(self, seconds: float = BOOT_SECONDS) -> str:
        """Let it boot, and answer its SDEI calls; what the kernel calls itself.  Raises Failure."""
        self.core = self._notifier(self._built.image().sources, None)
        self.adapter = QemuGuest(self.qemu, self.core, GPIO_GSIV)
        if self._random:
            self.qemu.debugger.resume()
            self.base = self._find(seconds)
        assert self.base is not None
        self.adapter.sites = sites(self.image, self.base)
        self.adapter.watch_calls(True)
        self.qemu.debugger.resume()
        start = len(self.linux.log)
        release = self.linux.boots(seconds)
        self._trampoline()
        said = self.linux.log[start:]
        found = re.search(r"ACPI: RSDP (0x[0-9A-F]+)", said)
        if found is None:
            raise Failure("the log does not say where the RSDP is", said[-3000:])
        tables = find_tables(self.ram.read, int(found.group(1), 16))
        self.sources = find_sources(self.ram.read, tables["HEST"][1])
        self.linux.run(ras_events.START)
        symbol = self.linux.run(f"grep -m 1 -w {SYSTEM_CALL} /proc/kallsyms")
        self._system_call = int(symbol.split()[0], 16)
        return release

    def _find(self, seconds: float) -> int:
        """Where the kernel runs, before it makes its first SDEI call; the guest stands still then."""
        debugger, deadline = self.qemu.debugger, Deadline(seconds, "the kernel runs")
        while True:
            deadline.check()
            self.turn(0.05)
            debugger.interrupt()
            base = base_of(self.image, debugger.read("pc"), debugger.read_memory)
            if base is not None:
                return base
            debugger.resume()

    def _trampoline(self) -> None:
        """With KPTI, handlers are entered and left in page tables of their own: calls are made there too."""
        assert self.base is not None
        registered = {r.entry for place in self.core.sdei.state.registrations for r in place.values()}
        apart = [e for e in registered if not self.base <= e < self.base + 2 * len(self.image)]
        if apart:
            self.adapter.stand_still()
            found = {site for entry in apart for site in trampoline(entry, self.qemu.debugger.read_memory)}
            for site in found.difference(self.adapter.sites):
                self.qemu.debugger.add_breakpoint(site)
            self.adapter.sites = tuple({*self.adapter.sites, *found})
            self.qemu.debugger.resume()

    # -- what happens --------------------------------------------------------------------------

    def renew(self, scenario: Script) -> None:
        """A core of its own, whose SDEI state is that of the boot."""
        self._scenario = scenario
        core = self._notifier(self.sources, policy_text(scenario.head))
        core.sdei, self.core = self.core.sdei, core
        self.adapter = QemuGuest(self.qemu, core, GPIO_GSIV, self.adapter.sites)

    def reset(self, item: script.Reset) -> None:
        """``system_reset`` of the monitor, and a boot; what is still lost is told to the guest that has booted."""
        assert self._scenario is not None
        lost = [] if item.replaced else lost_ranges(self.core)
        self.adapter.let_go()
        self.adapter.stand_still()
        self.adapter.watch_calls(False)
        self.qemu.monitor.ask("set-action", reboot="reset")
        self.qemu.monitor.ask("system_reset")
        self.boot()
        self.renew(self._scenario)
        self.journal, self._noted = [], 0
        for event in lost:
            self.journal.append(Moment(self.now(), event))
            self.adapter.receive(event)

    def happen(self, item: Any) -> None:
        """The vCPU that takes it is stopped where the scenario says."""
        runs = runs_of(item)
        if isinstance(item, script.Record) and not item.source.startswith(("sea", "sei")):
            runs = None
        event = event_of(item, self.gpas, self.pages, self.place, self.sources, self.linux.gvas())
        if runs is not None:
            victim = self.linux.victims[runs[0]]
            if runs[1]:
                vcpu = self.adapter.trap_in_kernel(self._system_call, victim.va, SECONDS)
            else:
                vcpu = self.adapter.trap(victim.pc, victim.text, victim.va, SECONDS)
            if vcpu != self.pages[runs[0]].vcpu:
                self.adapter.let_go()
                raise Failure(f"the owner of page {runs[0]} runs on vCPU {vcpu}, not on {self.pages[runs[0]].vcpu}")
        self.journal.append(Moment(self.now(), event))
        self.adapter.receive(event)
        if runs is not None:
            self.adapter.let_go()
            if runs[1] and not self.linux.panicked():
                self.linux.run("dmesg -n 1")  # an Oops makes the console loud

    def turn(self, seconds: float) -> None:
        """Answer calls for a while, and let the core look at acknowledgements."""
        self.adapter.pump(seconds)
        self.adapter.expire()
        self.note()

    def _notifier(self, sources: tuple[PlacedSource, ...], policy: str | None) -> Notifier:
        threads = {tid: vcpu for vcpu, tid in enumerate(self.place.threads)}
        return Notifier(
            sources, MemoryMap([self.place.slot]), policy=None if policy is None else load_policy(policy),
            guest=PROFILES[self.guest], vcpus=VCPUS, threads=threads,
        )  # fmt: skip


__all__ = ["PRESET", "VCPUS", "WAYS", "QemuStage", "firmware"]
