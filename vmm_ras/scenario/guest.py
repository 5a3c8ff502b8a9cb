"""The guest of a machine: what it does, and how it fares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cper.words import counted
from vmm_ras.errors import InputError
from vmm_ras.guests.os import Action
from vmm_ras.rows import OUTCOMES
from vmm_ras.scenario.told import Verdict
from vmm_ras.traces.items import AckDelay, MaskSerror, PollStop, RunAt, SdeiRegistered

if TYPE_CHECKING:
    from vmm_ras.scenario.machine import Machine


class Guest:
    """What the guest of a machine does, and how it fares."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def __repr__(self) -> str:
        return f"<guest: {self._fate()}, {counted(self.signalled, 'process', 'processes')} signalled>"

    def _fate(self) -> str:
        why = self.machine.runner.panicked
        return f"panicked ({why})" if why else "alive"

    def masks_serror(self, vcpu: int = 0) -> list[Any]:
        """The vCPU sets PSTATE.A: an SError stays pending."""
        return self._on(vcpu, MaskSerror(vcpu, True))

    def unmasks_serror(self, vcpu: int = 0) -> list[Any]:
        """The vCPU clears PSTATE.A: a pending SError is taken."""
        return self._on(vcpu, MaskSerror(vcpu, False))

    def runs(self, vcpu: int = 0, el: int = 0) -> list[Any]:
        """The vCPU runs at EL0 or EL1 from now on, with exceptions unmasked."""
        if el not in {0, 1}:
            raise InputError(f"el {el!r}: expected 0 or 1")
        return self._on(vcpu, RunAt(vcpu, el))

    def never_acks(self, source: int | str | None = None) -> list[Any]:
        """From now on the guest reads but does not acknowledge: one source (id or way), or all."""
        return self.machine.play(AckDelay(None, self._source(source)))

    def acks(self, source: int | str | None = None, *, after: float = 0.0) -> list[Any]:
        """From now on the guest acknowledges what it reads that many seconds after it read it."""
        return self.machine.play(AckDelay(after * 1000, self._source(source)))

    def registers_sdei(self) -> list[Any]:
        """The guest registers and enables its SDEI events, and unmasks its PEs."""
        return self.machine.play(SdeiRegistered(True))

    def unregisters_sdei(self) -> list[Any]:
        """The guest gives its SDEI events up."""
        return self.machine.play(SdeiRegistered(False))

    def stops_polling(self) -> list[Any]:
        """The guest looks at polled sources no more."""
        return self.machine.play(PollStop(True))

    def polls(self) -> list[Any]:
        """The guest looks at polled sources again."""
        return self.machine.play(PollStop(False))

    @property
    def signalled(self) -> int:
        """Processes of the guest that got a SIGBUS."""
        return self.machine.runner.signalled

    def survives(self) -> Verdict:
        """Whether the guest has not panicked."""
        return Verdict(not self.machine.runner.panicked, f"the guest is {self._fate()}")

    def panics(self) -> Verdict:
        """Whether the guest has panicked."""
        return Verdict(bool(self.machine.runner.panicked), f"the guest is {self._fate()}")

    def did(self, outcome: str) -> Verdict:
        """Whether the guest ever did this (``vmm_ras.rows.OUTCOMES``): ``offlined``, ``objerr``, ``oops`` ..."""
        if outcome not in OUTCOMES:
            raise InputError(f"outcome {outcome!r}: expected one of {', '.join(OUTCOMES)}")
        done = [m.what.outcome for m in self.machine.journal if isinstance(m.what, Action)]
        return Verdict(outcome in done, f"the guest did: {', '.join(done) or 'nothing'}")

    def _on(self, vcpu: int, item: Any) -> list[Any]:
        self.machine.thread(vcpu)
        if vcpu in self.machine.runner.held:
            raise InputError(f"vCPU {vcpu} is held: it runs nothing")
        return self.machine.play(item)

    def _source(self, source: int | str | None) -> int | None:
        known = [s.source_id for s in self.machine.runner.sources]
        if isinstance(source, str):
            return int(self.machine.source(source).source_id)
        if source is not None and source not in known:
            raise InputError(f"source {source!r}: the machine has {', '.join(map(str, known))}")
        return source


class Page:
    """A page of guest memory: what the guest was told of it, and what it did."""

    def __init__(self, machine: Machine, gpa: int) -> None:
        self.machine, self.gpa = machine, gpa

    def __repr__(self) -> str:
        return f"{self.machine.runner.place.page(self.gpa)}: {self.state}{', offlined' if self._offlined else ''}"

    @property
    def state(self) -> str:
        """``healthy``, ``unreported``, ``posted`` or ``acked``."""
        return self.machine.runner.state(self.gpa)

    @property
    def _offlined(self) -> bool:
        return self.machine.runner.offlined(self.gpa)

    def is_offlined(self) -> Verdict:
        """Whether the guest took the page out of use."""
        where = self.machine.runner.place.page(self.gpa)
        if self._offlined:
            return Verdict(True, f"{where} is offlined")
        return Verdict(False, f"{where} is not offlined, it is {self.state}")

    def is_healthy(self) -> Verdict:
        """Whether nothing is owed and nothing was told."""
        return self._is("healthy")

    def is_unreported(self) -> Verdict:
        """Whether the page is lost and waits to be told."""
        return self._is("unreported")

    def is_posted(self) -> Verdict:
        """Whether the page stands in a block that is not acknowledged."""
        return self._is("posted")

    def is_acked(self) -> Verdict:
        """Whether the guest acknowledged being told."""
        return self._is("acked")

    def _is(self, state: str) -> Verdict:
        return Verdict(self.state == state, f"{self.machine.runner.place.page(self.gpa)} is {self.state}")
