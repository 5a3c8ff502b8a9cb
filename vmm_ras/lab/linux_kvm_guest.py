"""A guest of our VMM on a KVM whose host really loses memory, and all that is seen of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from vmm_ras.deciding import Hook, Lost, View
from vmm_ras.effects import Acked, Decided, Effect, InjectSea, InjectSerror, Posted, RaiseLine, Stop
from vmm_ras.events import Code, Event, HostSignal, Stopped
from vmm_ras.io.qemu.wait import Channel, Deadline
from vmm_ras.io.vmm.console import Console, writer
from vmm_ras.io.vmm.machine import Configuration, VirtualMachine
from vmm_ras.kvm.one_reg import SYSREGS
from vmm_ras.lab import console as shell
from vmm_ras.lab import kernel_log
from vmm_ras.lab.booted import BootedGuest
from vmm_ras.lab.hwpoison import lose
from vmm_ras.lab.kernel_log import Victim
from vmm_ras.lab.report import Report
from vmm_ras.policy import load_policy

KERNEL, INITRD = Path("Image"), Path("root.cpio.gz")
COMMAND_LINE = "loglevel=1 panic=-1 nowatchdog rcupdate.rcu_cpu_stall_suppress=1"
"""Silent but for what is asserted, also where the host is so busy that the guest believes its CPUs stuck."""
MEMORY, VCPUS = 512 << 20, 2
SECONDS, BOOT_SECONDS = 180.0, 400.0
"""For an answer of the guest, and for its boot: both are emulated, and other programs may be busy."""
POLICY = (
    """
version = 1
[[rule]]
name = "bare"
when = { code = "AR", gpa_to = 0x1 }
action = "bare"
[[rule]]
name = "sea"
when = { code = "AR" }
deliver = ["sea"]
hold_ms = 30000
unacked = { after_ms = 20000, tries = 1 }
"""
    + "".join(
        f'[[rule]]\nname = "{way}"\nwhen = {{ code = "AO", gpa_to = 0x1 }}\ndeliver = ["{way}"]\n'
        f"unacked = {{ after_ms = 20000, tries = 1 }}\n"
        for way in ("sdei", "gsiv", "gpio", "polled")
    )
    + """
[[rule]]
name = "unheard"
doc = "What nobody used yet is not told, so that it will be used."
when = { code = "AO" }
action = "ignore"
"""
)
LOG = "klog"
"""A program of the guest: the kernel log since the last time, but only the lines that something is asserted of."""
_BOOT_LINES = (r"HEST: Table", r"GHES: APEI", r"efi: EFI v", r"sdei: SDEIv", r"Memory failure")
T = TypeVar("T")
Moment = Callable[[str, dict[str, Any]], None]
"""Is told what happened, and its details."""
SHOWN = (HostSignal, Decided, Stop, Posted, InjectSea, InjectSerror, RaiseLine, Acked)
"""Of events and effects: those that are moments."""


def programs() -> dict[str, bytes]:
    """What the guest has besides busybox and the victim.  Its console is slow: each byte is an exit of two machines."""
    complaints = kernel_log.COMPLAINTS.pattern.replace("(?:", "(").replace(r"\d", "[0-9]").replace("'", ".")
    wanted = "|".join([*_BOOT_LINES, complaints])
    return {LOG: f"#!/bin/busybox sh\ndmesg -c | grep -E '{wanted}'; true\n".encode()}


class NestedGuest(BootedGuest):
    """A guest whose console is slow."""

    def kernel_log(self) -> str:
        """What of it is asserted of."""
        self.log += self.console.run(LOG, self.seconds)
        return self.log


class LosingMachine:
    """One machine whose memory is lost as a test wants it, what was seen of it, and the report on it."""

    def __init__(
        self, report: Report, moment: Callable[[str, dict[str, Any]], None] = lambda what, values: None
    ) -> None:
        self.report, self._moment = report, moment
        self.rules: dict[int, str] = {}
        """Guest page to the rule that tells it."""
        self.seen: list[object] = []
        self.syndromes: dict[int, tuple[int, int]] = {}
        """InjectSea's id to (ESR_EL1, FAR_EL1) of the vCPU after it."""
        self.replace_after: int | None = None
        """Guest page for which there is to be good memory as soon as its SEA is on the way."""
        self._news = threading.Condition()
        ours, theirs = socket.socketpair()
        self._theirs = theirs
        self.console = shell.Console(Channel(ours, "guest"))
        configuration = Configuration(
            KERNEL, INITRD, COMMAND_LINE, MEMORY, VCPUS, policy=load_policy(POLICY), hook=Hook(self._decide, "lab")
        )
        self.machine = VirtualMachine(configuration, Console(writer(theirs.fileno()), theirs.fileno()), self._hear)
        self.guest = NestedGuest(self.console, self.machine.ram, report, SECONDS)

    def close(self) -> None:
        """End the machine."""
        self.machine.close()
        self.console.close()
        self._theirs.close()

    # -- what happens -------------------------------------------------------------------

    def _decide(self, lost: Lost, view: View) -> str | None:
        rule = self.rules.get(lost.gpa >> 12)
        return rule if rule is not None and (rule in {"sea", "bare"}) == (lost.code == Code.AR) else None

    def _hear(self, item: Event | Effect) -> None:
        """Under the machine's lock."""
        values = item._asdict()
        if isinstance(item, InjectSea):
            thread = self.machine.guest.vcpus[item.vcpu]
            if threading.current_thread() is thread:
                found = thread.vcpu.get(SYSREGS["ESR_EL1"]), thread.vcpu.get(SYSREGS["FAR_EL1"])
                self.syndromes[item.id] = found
                values |= {"esr": found[0], "far": found[1]}
            if self.replace_after is not None:
                self.machine.ram.replace(self.replace_after << 12, 4096)
                self.replace_after = None
        if isinstance(
            item, HostSignal | Decided | Stop | Stopped | Posted | InjectSea | InjectSerror | RaiseLine | Acked
        ):
            for key in ("block", "state", "x"):
                values.pop(key, None)
            self._moment(type(item).__name__, values)
        with self._news:
            self.seen.append(item)
            self._news.notify_all()

    def wait(self, kind: type[T], count: int = 1, since: int = 0, seconds: float = SECONDS) -> list[T]:
        """The first ``count`` of a kind behind index ``since`` of what was seen.  Raises Failure."""
        deadline = Deadline(seconds, f"{count} times {kind.__name__}")
        with self._news:
            while True:
                found: list[T] = [item for item in self.seen[since:] if isinstance(item, kind)]
                if len(found) >= count:
                    return found[:count]
                deadline.check()
                self._news.wait(min(1.0, deadline.left))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step of the report, which is told when it begins."""
        self._moment("step", {"name": name})
        with self.report.step(name):
            yield

    def moment(self, what: str, **values: Any) -> None:
        """Something that happened outside the machine."""
        self._moment(what, values)

    # -- asking for it ------------------------------------------------------------------

    def boot(self) -> str:
        """Start the machine; what the guest's kernel calls itself."""
        start = len(self.console.text)
        self.machine.start()
        line = self.console.line("LAB-UP ", BOOT_SECONDS, start)
        return line.removeprefix("LAB-UP ")

    def lose(self, gpa: int) -> None:
        """The host loses the page.  Raises Failure where it does not."""
        ram = self.machine.ram
        address = ram.hva + (gpa & -4096) - ram.gpa
        self.moment("madvise", hva=address, gpa=gpa & -4096)
        lose(address, 4096)

    def victim(self, name: str, flags: str, rule: str) -> Victim:
        """A process with a page, which ``rule`` tells when it is lost."""
        found = self.guest.start(name, flags)
        self.rules[found.pa >> 12] = rule
        return found
