"""A booted Linux as a scenario needs it: processes that own pages, drivers of error sources, and what the log says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from acpi.image import PlacedSource
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.io.qemu.wait import Deadline
from vmm_ras.lab import kernel_log
from vmm_ras.lab.console import Console
from vmm_ras.lab.kernel_log import Victim
from vmm_ras.scenario.bound import OUTSIDE
from vmm_ras.traces.script import NamedPage

FREE, APART = 0x0A00_0000, 0x1_0000
"""Where in RAM nobody's pages are looked for first, and how far they are from each other."""
LARGEST, SMALLEST = 1024, 64
"""Pages of a free block that nobody's pages are taken from: small ones are the next that a process gets."""
HWPOISON = 1 << 19
"""KPF_HWPOISON (``include/uapi/linux/kernel-page-flags.h``)."""
FLAGS = {"reader": "h", "early": "he", "idle": "hi", "unhandled": ""}
"""What the program ``victim`` is told for each owner."""
KEPT = "k"
"""And for one that an Oops ends: its page is nobody else's then."""
_CODES = {3: "BUS_OBJERR", 4: "BUS_MCEERR_AR", 5: "BUS_MCEERR_AO", 128: "SI_KERNEL"}
_PANIC = re.compile(r"Kernel panic - not syncing[^\n]*")


class ScriptGuest:
    """The guest at its console.  Whoever waits for it lets time pass by ``turn``.  Every method raises Failure."""

    def __init__(
        self, console: Console, ram: int, turn: Callable[[float], None], seconds: float, log: str = "dmesg -c"
    ) -> None:
        """``ram``: where its RAM begins.  ``seconds``: for an answer.  ``log``: prints what the kernel said anew."""
        self.console, self.ram, self.turn, self.seconds, self._log_command = console, ram, turn, seconds, log
        self.log = ""
        """What the kernel said until now."""
        self.victims: dict[str, Victim] = {}
        self.bound: set[int] = set()
        self.unbound: set[int] = set()
        """Sources without a driver because a scenario wants it so."""
        self._scenario, self._booted, self._start_log = 0, 0, 0
        self._free, self._number, self._commands = 0, 0, 0
        """``_free``: the pages behind ``FREE`` from which on none was taken yet."""

    # -- its life ---------------------------------------------------------------------------

    def boots(self, seconds: float) -> str:
        """Wait until it is up; what the kernel calls itself."""
        line = re.compile(r"^LAB-UP ([^\n]*)\n", re.MULTILINE)
        found = self.until(lambda: line.search(self.console.text, self._booted), seconds, "it boots")
        self.dmesg()
        return str(found.group(1))

    def reset(self) -> None:
        """It begins anew: drivers and log are those of the next boot."""
        self._booted, self._start_log = len(self.console.text), len(self.log)
        self._free = 0
        self.unbound.clear()

    def panicked(self) -> bool:
        """Whether its console says so."""
        return _PANIC.search(self.console.text, self._booted) is not None

    def run(self, command: str, seconds: float | None = None) -> str:
        """What a shell command prints."""
        self._commands += 1
        start, mark = len(self.console.text), f"@s{self._commands}"
        self.console.type(f"{command}; echo '{mark}:'$?:")
        end = re.compile(rf"{mark}:(\d+):\n")
        found = self.until(lambda: end.search(self.console.text, start), seconds or self.seconds, command)
        printed = found.string[start : found.start()]
        if found.group(1) != "0":
            raise Failure(f"guest: {command!r} ends with {found.group(1)}", printed)
        return str(printed)

    def until(self, found: Callable[[], Any], seconds: float, what: str) -> Any:
        """What ``found`` finds, as soon as it finds something."""
        deadline = Deadline(seconds, f"guest: {what}")
        while True:
            value = found()
            if value is not None:
                return value
            if self.panicked():
                raise Failure(f"guest: {what}: it panicked", self.console.text[-3000:])
            deadline.check()
            self.turn(0.01)

    # -- before a scenario --------------------------------------------------------------------

    def begin(self, sources: tuple[PlacedSource, ...]) -> None:
        """Nothing is left of the scenario before: no process, no unbound driver."""
        for source in sources:
            if source.source_id in self.unbound:
                self.bind(source.source_id, True)
        self.look()
        if self.victims:
            self.run(f"kill -9 {' '.join(str(v.pid) for v in self.victims.values())} 2>/dev/null; true")
        self.victims.clear()
        self._number += 1
        self._scenario, self._start_log = len(self.console.text), len(self.log)
        self._booted = self._scenario

    def look(self) -> None:
        """Which sources have a driver."""
        bound = self.run("ask bound")
        self.bound = {int(number) for number in re.findall(r"\bGHES\.(\d+)\b", bound)}

    def take(self, page: NamedPage, flags: str = "") -> int:
        """Guest physical address of a page, its owner started; ``flags``: more for it."""
        if page.owner == "outside":
            return OUTSIDE + self._number * APART
        if not page.owned:
            return self._nobodys()
        name = f"s{self._number}{page.name}"
        start = len(self.console.text)
        self.console.type(f'(victim {name} {FLAGS[page.owner]}{flags}{page.vcpu}; echo "EXIT {name} $?") &')
        line = re.compile(rf"^VICTIM {name} [^\n]*\n", re.MULTILINE)
        found = self.until(lambda: line.search(self.console.text, start), self.seconds, f"victim {name}").group()
        self.victims[page.name] = kernel_log.victim(found)
        return self.victims[page.name].pa

    def _nobodys(self) -> int:
        """A free page, the first of 16, in the largest free block that is near."""
        base, step = self.ram + FREE >> 12, APART >> 12
        first = self._free // LARGEST
        for smallest in (LARGEST, SMALLEST):
            for block in range(first, first + 64):
                free = self.free_pages(base + block * LARGEST)
                for at in range(max(self._free - block * LARGEST, 0), LARGEST, step):
                    if free_around(free, at) >= smallest:
                        self._free = block * LARGEST + at + step
                        return base + self._free - step << 12
        raise Failure("guest: no free block of memory for a page that nobody owns")

    def page_flags(self, pfn: int) -> int:
        """/proc/kpageflags of a page."""
        said = self.run(f"ask flags {pfn}")
        found = re.search(r"^ *([0-9a-f]{16})$", said, re.MULTILINE)
        if found is None:
            raise Failure(f"guest: /proc/kpageflags of page {pfn:#x}: {said.strip()!r}")
        return int(found.group(1), 16)

    def free_pages(self, pfn: int) -> list[bool]:
        """Whether each of ``LARGEST`` pages is free; ``pfn`` is a multiple of that.

        The guest says how many are not, how many then are, and so on.
        """
        said = self.run(f"ask free {pfn // LARGEST}")
        found = re.search(r"^((?:\d+ )+)$", said, re.MULTILINE)
        free = list[bool]()
        for index, count in enumerate(found.group().split() if found is not None else ()):
            free += [index % 2 == 1] * int(count)
        if len(free) != LARGEST:
            raise Failure(f"guest: /proc/kpageflags from page {pfn:#x} on: {said.strip()!r}")
        return free

    def gvas(self) -> Mapping[str, int]:
        """Where owners see their pages."""
        return {name: victim.va for name, victim in self.victims.items()}

    def bind(self, source_id: int, on: bool) -> None:
        """Give a source its driver, or take it away."""
        self.run(f"ask {'bind' if on else 'unbind'} {source_id}")
        (self.unbound.discard if on else self.unbound.add)(source_id)

    # -- after it -----------------------------------------------------------------------------

    def offlined(self, gpa: int) -> bool:
        """Whether a page of RAM is out of use, by /proc/kpageflags."""
        if self.panicked():
            return False
        return bool(self.page_flags(gpa >> 12) & HWPOISON)

    def reported(self, gpa: int) -> bool:
        """Whether the kernel reported a memory failure there."""
        said = f"Memory failure: {gpa >> 12:#x}:"
        if said not in self.log[self._start_log :] and not self.panicked():
            self.dmesg()
        return said in self.log[self._start_log :]

    def signal(self, name: str) -> str:
        """What became of a page's owner: the code of its SIGBUS, ``killed``, ``none``."""
        if name not in self.victims:
            return "none"
        victim = self.victims[name].name
        text = self.console.text[self._scenario :]
        told = re.search(rf"^SIGBUS {victim} code=(\d+) ", text, re.MULTILINE)
        if told is not None:
            return _CODES.get(int(told.group(1)), f"code {told.group(1)}")
        return "killed" if re.search(rf"^EXIT {victim} \d+$", text, re.MULTILINE) else "none"

    def dmesg(self) -> None:
        """Take what the kernel said into the log."""
        self.log += self.run(self._log_command)

    def said(self) -> list[str]:
        """The log's lines since the scenario, or the boot, began."""
        return self.log[self._start_log :].splitlines()


def free_around(free: list[bool], at: int) -> int:
    """Pages of the largest aligned and wholly free block around one of ``LARGEST`` pages; 0: it is not free."""
    size = LARGEST
    while size:
        first = at & -size
        if all(free[first : first + size]):
            return size
        size >>= 1
    return 0
