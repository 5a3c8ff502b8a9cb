"""A scenario file on the model guest: its own machine for each scenario, and a clock that moves as it is told."""

from __future__ import annotations

from typing import Any

from vmm_ras.effects import InjectSea
from vmm_ras.guests.os import Action
from vmm_ras.guests.processes import NONE, Process
from vmm_ras.profiles import PROFILES, WAYS
from vmm_ras.scenario.bound import event_of, lost_ranges, model_gpas, policy_text, runs_of, source_named
from vmm_ras.scenario.machine import Machine
from vmm_ras.scenario.play import PageSeen, SourceSeen
from vmm_ras.scenario.runner import ModelRunner
from vmm_ras.traces.script import Reset, Script

STEP = 0.05
"""Seconds between looks at whether anything waits."""


class ModelStage:
    """One model guest after the other."""

    def __init__(self, guest: str = "linux") -> None:
        self.guest = PROFILES[guest].name

    def open(self, scenario: Script) -> None:
        """Boot a model for the scenario.  Raises InputError."""
        self._head, self._boots = scenario.head, list(scenario.boots)
        self.pages = {page.name: page for page in scenario.pages}
        self._ended: dict[str, str] = {}
        """What signal the owners of earlier boots had got."""
        self._past: list[str] = []
        self.processes: dict[str, Process] = {}
        self._boot()
        self.gpas = model_gpas(scenario, self.runner.place.slot.gpa)
        self._start()

    def _boot(self) -> None:
        head = self._head
        self.runner = runner = ModelRunner(
            preset=head.preset, guest=self.guest, policy=policy_text(head), vcpus=head.vcpus, ram="512M"
        )
        self.machine, self._profile = Machine(runner), runner.replay.guest.os.profile
        self._runs: dict[int, str] = {}
        self._at, self._vcpu, self._esr = 0, 0, 0
        self._failures = 0
        self._reported: set[str] = set()

    def _start(self) -> None:
        """The processes of the boot that begins."""
        self.processes = {
            page.name: Process(
                self.gpas[page.name], page.owner in {"reader", "unhandled"}, page.owner == "early",
                page.owner != "unhandled",
            )
            for page in self._boots.pop(0)
            if page.owned
        }  # fmt: skip

    def _reset(self, item: Reset) -> None:
        lost = [] if item.replaced else lost_ranges(self.runner.replay.notifier)
        self._past += [self.machine.timeline(), "", "-- reset --"]
        self._ended |= {name: process.signal for name, process in self.processes.items()}
        self._boot()
        self._start()
        for event in lost:
            self.machine.play(event)

    def do(self, item: Any) -> None:
        """Something happens, and all that follows at once."""
        if isinstance(item, Reset):
            self._reset(item)
            self._follow()
            return
        runs = runs_of(item)
        if runs is not None:
            name, el = runs
            vcpu = self.pages[name].vcpu
            self._runs[vcpu] = name
            self.machine.guest.runs(vcpu, el)
        self.machine.play(event_of(item, self.gpas, self.pages, self.runner.place, self.runner.sources))
        self._follow()

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.machine.passes(seconds)
        self._follow()

    def settle(self, seconds: float) -> None:
        """Time passes until nothing waits."""
        core, end = self.runner.replay.notifier, self.machine.now + seconds
        while (core.busy or core.inbox.records or core.aborts) and self.machine.now < end:
            self.runner.replay.wait(STEP)
        self._follow()

    def _follow(self) -> None:
        """Signal the processes that what happened is about."""
        journal = self.runner.journal
        for _, what in journal[self._at :]:
            if isinstance(what, InjectSea):
                self._vcpu, self._esr = what.vcpu, what.esr
            elif isinstance(what, Action):
                self._act(what)
        self._at = len(journal)

    def _act(self, action: Action) -> None:
        source = next((s for s in self.runner.sources if s.source_id == action.source_id), None)
        by_abort = action.outcome in {"oops", "objerr"} or (source is not None and WAYS[source.notification] == "sea")
        if by_abort and self._vcpu in self._runs:
            name = self._runs[self._vcpu]
            lost = action.outcome == "offlined" and self.runner.offlined(self.gpas[name])
            self.processes[name].aborted(action.outcome, lost, self._esr, self._profile)
        self._report(action)
        if action.outcome == "offlined":
            for process in self.processes.values():
                if self.runner.offlined(process.page):
                    process.loses()

    def _report(self, action: Action) -> None:
        """Which named pages the guest reported: of those outside RAM the model keeps a count only."""
        os = self.runner.replay.guest.os
        new, self._failures = os.memory_failures - self._failures, os.memory_failures
        named = [n for n, gpa in self.gpas.items() if gpa.to_bytes(8, "little") in action.raw]
        if action.outcome == "offlined":
            self._reported |= {
                n for n in named if os.memory.is_ram(self.gpas[n]) and self.runner.offlined(self.gpas[n])
            }
        outside = [n for n in named if self.pages[n].owner == "outside"]
        if new > sum(self.pages[n].owner != "outside" for n in named):
            self._reported |= set(outside)

    def source(self, name: str) -> SourceSeen:
        """How a source stands."""
        source, memory = source_named(self.runner.sources, name), self.runner.replay.guest.memory
        acked = source.ack is not None and memory.word(source.ack) & source.ack_write == source.ack_write
        cleared = memory.read(source.block, 4) == bytes(4)
        return SourceSeen(source.notification in self._profile.notifications, acked, cleared)

    def page(self, name: str, wanted: object = None) -> PageSeen:
        """How a page stands."""
        gpa, process = self.gpas[name], self.processes.get(name)
        inside = self.pages[name].owner != "outside"
        told = self.machine.told(gpa=gpa) if inside else None
        return PageSeen(
            inside and self.runner.offlined(gpa), name in self._reported,
            self._ended.get(name, NONE) if process is None else process.signal,
            told.delivery if told else "nothing",
        )  # fmt: skip

    def alive(self) -> bool:
        """Whether the guest has not panicked."""
        return not self.runner.panicked

    def timeline(self) -> str:
        """What happened, in words."""
        return "\n".join([*self._past, self.machine.timeline()])
