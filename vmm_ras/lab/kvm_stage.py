"""A scenario file on a Linux guest of our VMM, on a KVM whose host really loses the memory."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any

from acpi.description import FirmwareDescription
from acpi.firmware_presets import with_sources
from acpi.hest import NotificationType
from acpi.presets import PRESETS
from vmm_ras.deciding import Hook, Lost, View
from vmm_ras.effects import Effect
from vmm_ras.events import Code, Event, GuestAbort, HostSignal
from vmm_ras.io.qemu.wait import Channel, Deadline
from vmm_ras.io.vmm import platform
from vmm_ras.io.vmm.console import Console, writer
from vmm_ras.io.vmm.machine import Configuration, VirtualMachine
from vmm_ras.lab import console as shell
from vmm_ras.lab import hwpoison, ras_events
from vmm_ras.lab.linux_kvm_guest import BOOT_SECONDS, COMMAND_LINE, INITRD, KERNEL, LOG, MEMORY, SECONDS
from vmm_ras.lab.linux_stage import PRESET, VCPUS, LinuxStage
from vmm_ras.lab.script_guest import ScriptGuest
from vmm_ras.notifier import Notifier
from vmm_ras.policy import Policy, default_policy, load_policy
from vmm_ras.profiles import PROFILES
from vmm_ras.scenario.bound import event_of, policy_text
from vmm_ras.scenario.journal import Moment, Place
from vmm_ras.traces import script
from vmm_ras.traces.script import Script

UNHEARD = load_policy(
    'version = 1\n[[rule]]\nname = "unheard"\nwhen = { code = "AO", gpa_to = 0x1 }\naction = "ignore"\n'
    '[[rule]]\nname = "all"\ndeliver = ["polled"]\n'
).rule[0]
"""Of a page that is to be used: that the host found it lost is not told."""
PAGE, LOOK = 4096, 0.2
"""Bytes of what the host loses; seconds between looks at the console: they are at the guest's expense."""


def refusal(scenario: Script) -> str:
    """Why a scenario cannot be played on KVM; empty: it can."""
    if scenario.head.model_only:
        return scenario.head.model_only
    owners = {page.name: page.owner for page in scenario.pages}
    for _, item in scenario.steps:
        if isinstance(item, script.Sea | script.Abort) or (isinstance(item, script.Record) and item.page is not None):
            return "nothing stops a vCPU of KVM where a process of the guest is to take an exception"
        if isinstance(item, script.Signal | script.Serror) and item.el:
            return "nothing makes a guest's kernel use a page for a process at a moment of our choice"
        if isinstance(item, script.Signal):
            if item.lsb != 12:
                return "the host loses 4 KiB pages"
            if item.code == Code.AO and owners[item.page] in {"reader", "unhandled"}:
                return "a page that is really lost is used by who reads it, before anybody tells that it was found"
            if item.code == Code.AO and owners[item.page] == "outside":
                return "an address that is not RAM cannot be lost"
        if isinstance(item, script.Reset) and not item.replaced:
            return "our VMM replaces what was lost before the guest boots again"
    return ""


def _describe(memory: int, vcpus: int, *, sdei: bool = True) -> FirmwareDescription:
    sources = [s for s in PRESETS[PRESET].sources if sdei or s.notification != NotificationType.SDEI]
    return with_sources(platform.describe(memory, vcpus, sdei=sdei), *sources)


class KvmStage(LinuxStage):
    """One machine of ours."""

    grace, patience = 1.0, 60.0

    def __init__(self, guest: str) -> None:
        """``guest``: the profile of its kernel."""
        super().__init__()
        self.guest = guest
        self._heard: list[Any] = []
        self._used: set[int] = set()
        """Pages that are to be used, and not found."""
        self._lost: set[int] = set()
        ours, theirs = socket.socketpair()
        self._theirs = theirs
        self.console = shell.Console(Channel(ours, "guest"))
        configuration = Configuration(
            KERNEL, INITRD, COMMAND_LINE, MEMORY, VCPUS, profile=PROFILES[guest], describe=_describe
        )  # fmt: skip
        self.machine = VirtualMachine(configuration, Console(writer(theirs.fileno()), theirs.fileno()), self._hear)
        self.ram = self.machine.ram
        self.linux = ScriptGuest(self.console, self.machine.ram.gpa, self.turn, SECONDS, LOG)
        self._scenario: Script | None = None

    def close(self) -> None:
        """End the machine."""
        self.machine.close()
        self.console.close()
        self._theirs.close()

    @property
    def log(self) -> str:
        """What the kernel said, as far as somebody asks for it."""
        return self.linux.log

    @property
    def core(self) -> Notifier:  # type: ignore[override]
        """The machine's."""
        return self.machine.notifier

    @property
    def seen(self) -> Sequence[Any]:
        """What the host told, and every effect."""
        return self._heard

    def boot(self) -> str:
        """Let it boot; what the kernel calls itself."""
        self._lost.clear()  # whoever ended the boot before has replaced it
        self.machine.start()
        release = self.linux.boots(BOOT_SECONDS)
        self.linux.run(ras_events.START)
        self.sources = self.machine.running.boot.image.sources
        threads = sorted((index, tid) for tid, index in self.core.threads.items())
        self.place = Place(self.machine.ram.slot, 12, tuple(tid for _, tid in threads))
        return release

    def turn(self, seconds: float) -> None:
        """Let time pass: the machine's threads do the rest."""
        time.sleep(max(seconds, LOOK))
        self.note()

    def busy(self) -> bool:
        """Whether anything waits to be told or acknowledged."""
        with self.machine.lock:
            return super().busy()

    def _hear(self, item: Event | Effect) -> None:
        if isinstance(item, HostSignal | GuestAbort) or hasattr(item, "id"):
            self._heard.append(item)

    def renew(self, scenario: Script) -> None:
        """Another core for the machine that runs; memory that the guest has still in use is good again."""
        self._scenario = scenario
        for gpa in self._lost:
            if not self.linux.offlined(gpa):
                self.machine.ram.replace(gpa, PAGE)
        self._lost.clear()
        self._used.clear()
        text = policy_text(scenario.head)
        policy = default_policy() if text is None else load_policy(text)
        with self.machine.lock:
            old = self.core
            core = Notifier(
                self.sources, old.memory, policy=_with_unheard(policy), hook=Hook(self._decide, "scenario"),
                guest=PROFILES[self.guest], vcpus=VCPUS, threads=old.threads,
            )  # fmt: skip
            core.sdei, core.pool = old.sdei, old.pool
            self.machine.running.guest.core = core
            self._heard = []

    def _decide(self, lost: Lost, view: View) -> str | None:
        return UNHEARD.name if lost.code == Code.AO and lost.gpa >> 12 in self._used else None

    def reset(self, item: script.Reset) -> None:
        """All lost memory is replaced, and the guest boots again."""
        assert self._scenario is not None
        self.machine.halt()
        self.boot()
        self.renew(self._scenario)
        self.journal, self._noted = [], 0

    def happen(self, item: Any) -> None:
        """What a host can lose is lost; the rest is asked of the core."""
        if isinstance(item, script.Signal):
            self._lose(item)
            return
        event = event_of(item, self.gpas, self.pages, self.place, self.sources, self.linux.gvas())
        self.journal.append(Moment(self.now(), event))
        self.machine.submit(event)

    def _lose(self, item: script.Signal) -> None:
        gpa, ram = self.gpas[item.page] & -PAGE, self.machine.ram
        self._lost.add(gpa)
        if item.code == Code.AR:
            self._used.add(gpa >> 12)
        start, address = len(self._heard), ram.hva + gpa - ram.gpa
        if not ram.is_lost(gpa):
            hwpoison.use(address, PAGE)
        hwpoison.lose(address, PAGE)
        deadline = Deadline(SECONDS, f"the host tells that page {gpa:#x} is lost ({item.code.name})")
        while not any(
            isinstance(e, HostSignal) and e.code == item.code and self.place.gpa(e.hva) & -PAGE == gpa
            for e in self._heard[start:]
        ):
            deadline.check()
            self.turn(0.02)


def _with_unheard(policy: Policy) -> Policy:
    return policy.model_copy(update={"rule": (*policy.rule, UNHEARD)})


__all__ = ["KvmStage", "refusal"]
