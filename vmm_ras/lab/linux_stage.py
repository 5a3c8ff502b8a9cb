"""A scenario file on a real Linux, whichever machine runs it: what is seen of sources, pages and the guest."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from acpi.hest import NotificationType
from acpi.image import PlacedSource
from vmm_ras.effects import Acked, Effect, Posted
from vmm_ras.errors import InputError
from vmm_ras.io.qemu.wait import Deadline
from vmm_ras.lab import ras_events
from vmm_ras.lab.script_guest import KEPT, ScriptGuest
from vmm_ras.notifier import Notifier
from vmm_ras.profiles import PROFILES
from vmm_ras.scenario import journal
from vmm_ras.scenario.bound import runs_of, source_named
from vmm_ras.scenario.journal import Moment, Place
from vmm_ras.scenario.play import PageSeen, Seen, SourceSeen
from vmm_ras.scenario.reading import tellings
from vmm_ras.traces import script
from vmm_ras.traces.items import PollStop, SdeiRegistered
from vmm_ras.traces.script import NamedPage, Script

PRESET, VCPUS = "conformance", 2
"""Of every boot: scenarios for other error sources, or for more vCPUs, are the model's."""
HOST, FIRST_THREAD = 0x7F00_0000_0000, 1000


class Ram(Protocol):
    """Guest RAM, by guest physical address."""

    def read(self, gpa: int, size: int) -> bytes:
        """Raises GuestError."""

    def write(self, gpa: int, data: bytes) -> None:
        """Raises GuestError."""


class LinuxStage(ABC):
    """A booted guest that several scenarios share.  Raises Failure where it does not do what it is asked."""

    grace, patience = 0.25, 4.0
    """Seconds that the guest has to do what nobody predicts, and what the model predicts."""
    guest: str
    """Profile of its kernel."""
    place: Place
    ram: Ram
    linux: ScriptGuest
    core: Notifier
    """Of the scenario that is played."""
    sources: tuple[PlacedSource, ...]

    def __init__(self) -> None:
        self.journal: list[Moment] = []
        """Of this boot."""
        self.predicted: Seen | None = None
        """What the model says of the end: it is waited for, for a while."""
        self.pages: dict[str, NamedPage] = {}
        self.gpas: dict[str, int] = {}
        self._noted, self._past = 0, list[str]()
        self._looked = dict[str, PageSeen]()
        self._boots: list[tuple[NamedPage, ...]] = []
        self._kept: set[str] = set()

    @property
    @abstractmethod
    def seen(self) -> Sequence[Effect]:
        """Every effect since the scenario, or its boot, began."""

    @abstractmethod
    def turn(self, seconds: float) -> None:
        """Let time pass: answer the guest's calls, and let the core do what is due."""

    @abstractmethod
    def renew(self, scenario: Script) -> None:
        """A core of its own for the scenario, whose SDEI state is that of the boot."""

    @abstractmethod
    def happen(self, item: Any) -> None:
        """A line that is neither an action of a driver nor a reset.  Raises InputError for what cannot be done here."""

    @abstractmethod
    def reset(self, item: script.Reset) -> None:
        """The machine begins anew, with a core of its own.  Raises InputError where it cannot be done here."""

    # -- the stage ---------------------------------------------------------------------------

    def open(self, scenario: Script) -> None:
        """A core of its own for the scenario, and a process for each owner.  Raises InputError."""
        head = scenario.head
        if head.model_only:
            raise InputError(f"not on a real guest: {head.model_only}")
        if head.preset not in {PRESET, "all"} or head.vcpus > VCPUS:
            raise InputError(f"the real guest has preset {PRESET} and {VCPUS} vCPUs")
        self.linux.begin(self.sources)
        for source in self.sources:
            assert source.ack is not None
            if self.ram.read(source.block, 4) != bytes(4):
                self.ram.write(source.block, bytes(4))
            self.ram.write(source.ack, source.ack_write.to_bytes(8, "little"))
        self.renew(scenario)
        self.journal, self._noted, self._past = [], 0, []
        self._looked.clear()
        self.pages = {page.name: page for page in scenario.pages}
        self.gpas = {}
        uses = [runs_of(item) for _, item in scenario.steps if not isinstance(item, NamedPage)]
        self._kept = {use[0] for use in uses if use is not None and use[1]}
        self._boots = list(scenario.boots)
        self._take()

    def _take(self) -> None:
        """The pages of the boot that begins; those whose owner the kernel ends are nobody else's afterwards."""
        for page in sorted(self._boots.pop(0), key=lambda page: not page.owned):  # what is free then stays free
            self.gpas[page.name] = self.linux.take(page, KEPT if page.name in self._kept else "")

    def do(self, item: Any) -> None:
        """Something happens."""
        self._looked.clear()
        if isinstance(item, SdeiRegistered | PollStop):
            self.journal.append(Moment(self.now(), item))
            on = item.registered if isinstance(item, SdeiRegistered) else not item.stopped
            kind = NotificationType.SDEI if isinstance(item, SdeiRegistered) else NotificationType.POLLED
            for source in self.sources:
                if source.notification == kind:
                    self.linux.bind(source.source_id, on)
        elif isinstance(item, script.Reset):
            if not self.linux.panicked() and not self.core.aborts:  # a guest whose vCPU is held answers nothing
                self.linux.dmesg()
            self._past += [*self.lines(), "", "-- reset --"]
            self.journal, self._noted = [], 0
            self.linux.reset()
            self.reset(item)
            self.linux.look()
            self._take()
        elif isinstance(item, script.TOLD):
            self.happen(item)
            self.note()
        else:
            raise InputError("a real guest does that when it does")

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self._looked.clear()
        self.journal.append(Moment(self.now(), journal.Wait(seconds)))
        self._pass(seconds)

    def _pass(self, seconds: float) -> None:
        deadline = Deadline(seconds, "wait")
        while deadline.left:
            self.turn(min(0.05, deadline.left))

    def settle(self, seconds: float) -> None:
        """Until nothing waits, and a little longer, for what the guest does after it acknowledged.

        A busy machine has longer where the model says that nothing waits in the end.
        """
        quiet = self.predicted is not None and all(s.acked and s.cleared for s in self.predicted.sources.values())
        deadline = Deadline(max(seconds, self.patience) if quiet else seconds, "settle")
        while deadline.left and self.busy() and not self.linux.panicked():
            self.turn(0.02)
        self.wait(self.grace)

    def source(self, name: str) -> SourceSeen:
        """How a source stands, in guest memory and in sysfs."""
        placed = source_named(self.sources, name)
        assert placed.ack is not None
        ack = int.from_bytes(self.ram.read(placed.ack, 8), "little")
        acked, cleared = ack & placed.ack_write == placed.ack_write, self.ram.read(placed.block, 4) == bytes(4)
        bound = placed.source_id in self.linux.bound and placed.source_id not in self.linux.unbound
        return SourceSeen(bound, acked, cleared)

    def page(self, name: str, wanted: Mapping[str, Any] | None = None) -> PageSeen:
        """How a page stands, by /proc/kpageflags, and what its owner said.

        What is ``wanted`` is waited for, else what the model says of the end.  It is looked at once as long as nothing
        happens: some consoles are slow.
        """
        expected = self.predicted.pages.get(name) if self.predicted is not None else None
        if wanted is None:
            wanted = {} if expected is None else expected._asdict()
        deadline = Deadline(self.patience, "page")
        while True:
            seen = self._looked.get(name) or self._page(name)
            if all(getattr(seen, key) == value for key, value in wanted.items()) or not deadline.left:
                self._looked[name] = seen
                return seen
            self._looked.pop(name, None)
            self._pass(0.1)

    def _page(self, name: str) -> PageSeen:
        gpa, outside = self.gpas[name], self.pages[name].owner == "outside"
        told = "nothing"
        if not outside:
            self.note()
            found = tellings(self.journal, self.place, gpa)
            told = found[-1].delivery if found and found[-1] else told
        return PageSeen(
            not outside and self.linux.offlined(gpa), self.linux.reported(gpa), self.linux.signal(name), told
        )  # fmt: skip

    def alive(self) -> bool:
        """Whether the guest still answers; it panicked if its console says so."""
        expected = self.predicted is None or self.predicted.alive
        deadline = Deadline(self.patience, "alive")
        while not self.linux.panicked() and not expected and deadline.left:
            self._pass(0.1)
        if self.linux.panicked():
            return False
        self.linux.run("true")
        return True

    def timeline(self) -> str:
        """What happened, in words, and the kernel's own."""
        if not self.linux.panicked():
            self.linux.dmesg()
        return "\n".join([self.words(), *self.linux.said()[-60:]])

    def words(self) -> str:
        """What happened, without asking the guest."""
        return "\n".join([*self._past, *self.lines()])

    def lines(self) -> list[str]:
        """What happened in this boot, in words."""
        self.note()
        return list(journal.lines(self.journal, self.place))

    def traced(self) -> list[str]:
        """Where what the guest traced is not what it must have, by the blocks that it read and by its log."""
        self.note()
        posted: dict[int, bytes] = {}
        read: list[bytes] = []
        for _, what in self.journal:
            if isinstance(what, Posted):
                posted[what.source_id] = what.block
            elif isinstance(what, Acked) and what.source_id in posted:
                read.append(posted.pop(what.source_id))
        deadline, text = Deadline(self.patience, "the trace"), ""
        while True:
            self.linux.dmesg()
            text, log = text + self.linux.run(ras_events.TAKE), "\n".join(self.linux.said())
            found = ras_events.differences(
                ras_events.traced(text), ras_events.expected(read, log, PROFILES[self.guest]),
                stopped=ras_events.stopped(log),
            )  # fmt: skip
            if not found or not deadline.left:
                return found
            self._pass(0.1)

    # -- for those who have a machine ------------------------------------------------------------

    def busy(self) -> bool:
        """Whether anything waits to be told or acknowledged."""
        core = self.core
        handling = any(core.sdei.running(vcpu) for vcpu in range(core.vcpus))
        return bool(core.busy or core.ready or core.inbox.records or core.aborts or handling)

    def now(self) -> float:
        """Seconds on the clock of the journal."""
        return time.monotonic()

    def note(self) -> None:
        """Take what the core asked for into the journal."""
        now, seen = self.now(), self.seen
        self.journal += [Moment(now, effect) for effect in seen[self._noted :]]
        self._noted = len(seen)
