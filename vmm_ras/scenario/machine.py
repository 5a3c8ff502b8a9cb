"""A machine to which things happen, in sentences; what to ask of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from vmm_ras.effects import Acked, Escalate, Posted, Report, TakenBack, Undelivered
from vmm_ras.errors import InputError
from vmm_ras.events import Code, GuestAbort, HostSignal, MemoryFault, Proceed
from vmm_ras.guests.os import Action
from vmm_ras.profiles import WAYS
from vmm_ras.rows import OUTCOMES
from vmm_ras.scenario import journal
from vmm_ras.scenario.journal import Moment
from vmm_ras.scenario.runner import Runner, size
from vmm_ras.scenario.told import Telling, Verdict
from vmm_ras.traces.items import AckDelay, MaskSerror, PollStop, RunAt, SdeiRegistered

_KINDS = tuple(OUTCOMES)
T = TypeVar("T")


class Machine:
    """One VM and its host.  A sentence happens at once, with all that follows; time passes only when it is told to.

    Memory is named by ``page``, counted in guest pages from the start of RAM, or by ``gpa``.  Each sentence returns the
    effects that the core asked for.  Raises InputError for what cannot happen: a vCPU that is held runs nothing.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.guest = Guest(self)

    def __repr__(self) -> str:
        return f"<machine at {self.now:g} s, {len(self.runner.place.threads)} vCPUs>"

    @property
    def now(self) -> float:
        """Seconds since the guest booted."""
        return self.runner.now

    @property
    def journal(self) -> list[Moment]:
        """What happened so far, in order."""
        return self.runner.journal

    def timeline(self) -> str:
        """What happened so far, in words, a line each."""
        return "\n".join(journal.lines(self.journal, self.runner.place))

    # -- what happens ------------------------------------------------------------------

    def loses(
        self, page: int | None = None, *, gpa: int | None = None, size: int | str = 4096, thread_of: int | None = None
    ) -> list[Any]:
        """The host finds poison nobody used yet: BUS_MCEERR_AO for ``size`` bytes, a power of two.

        ``thread_of``: the vCPU in whose thread the signal arrives; without, in a thread that runs none.
        """
        tid = 1 if thread_of is None else self._thread(thread_of)
        return self.play(HostSignal(Code.AO, self._hva(self._gpa(page, gpa)), _lsb(size), tid))

    def consumes(
        self,
        page: int | None = None,
        *,
        vcpu: int = 0,
        gpa: int | None = None,
        el: int | None = None,
        size: int | str = 4096,
        esr: int | None = None,
        gva: int | None = None,
    ) -> list[Any]:
        """A vCPU uses poison: BUS_MCEERR_AR in its thread; with ``esr``, KVM_EXIT_ARM_SEA with that syndrome.

        ``el``: let it run at this exception level from now on (``guest.runs``).  ``gva``: with ``esr``, the guest
        virtual address; with ``esr`` the page may be unknown.
        """
        tid = self._thread(vcpu)
        if vcpu in self.runner.held:
            raise InputError(f"vCPU {vcpu} is held: it consumes nothing")
        if esr is None and gva is not None:
            raise InputError("gva: a SIGBUS knows no guest virtual address; give esr too")
        at = None if esr is not None and page is None and gpa is None else self._gpa(page, gpa)
        start = len(self.journal)
        if el is not None:
            self.guest.runs(vcpu, el)
        if esr is not None:
            self.play(GuestAbort(vcpu, esr, gva, at))
        else:
            assert at is not None
            self.play(HostSignal(Code.AR, self._hva(at), _lsb(size), tid))
        return self._since(start)

    def faults(self, page: int | None = None, *, gpa: int | None = None, size: int | str = 4096) -> list[Any]:
        """Guest memory is lost, by guest physical address, the VMM's own tables included: KVM_EXIT_MEMORY_FAULT."""
        at = gpa if gpa is not None and page is None else self._gpa(page, gpa)
        return self.play(MemoryFault(at, _size(size)))

    def proceeds(self, rule: str) -> list[Any]:
        """The orchestrator has seen the reports of a rule: its guest may be told."""
        return self.play(Proceed(rule))

    def passes(self, seconds: float) -> list[Any]:
        """Time passes, and what is due in it happens."""
        if not 0 <= seconds < 1e9:
            raise InputError(f"seconds {seconds!r}: expected 0 or more")
        start = len(self.journal)
        self.runner.wait(seconds)
        return self._since(start)

    def settles(self) -> list[Any]:
        """Time passes until nothing waits to be told or acknowledged, at most 30 s."""
        start = len(self.journal)
        self.runner.settle()
        return self._since(start)

    def play(self, item: Any) -> list[Any]:
        """Any item of a trace (``vmm_ras.traces.items``) happens now."""
        start = len(self.journal)
        self.runner.play(item)
        return self._since(start)

    # -- what became of it ---------------------------------------------------------------

    def page(self, page: int | None = None, *, gpa: int | None = None) -> Page:
        """A page of the guest."""
        return Page(self, self._gpa(page, gpa))

    def told(self, page: int | None = None, *, gpa: int | None = None) -> Telling:
        """What the guest was told of a page the last time; false where it was told nothing."""
        found = self.tellings(page, gpa=gpa)
        if found:
            return found[-1]
        at = self._gpa(page, gpa)
        reason = next((w.reason for w in reversed(list(self._of(Undelivered)))), "")
        state = self.runner.state(at)
        why = "nothing happened to it" if state == "healthy" else f"it is {state}{'; ' + reason if reason else ''}"
        if any(
            isinstance(m.what, MemoryFault | HostSignal | GuestAbort) and at in _lost(m.what, self)
            for m in self.journal
        ):
            why = "it is to be told nothing" if state == "healthy" else why
        return Telling(self.runner.place.page(at), at, why_not=why)

    def tellings(self, page: int | None = None, *, gpa: int | None = None) -> list[Telling]:
        """Everything that the guest was told of a page, in order."""
        at = self._gpa(page, gpa)
        out: list[Telling] = []
        happened: float | None = None
        latest: dict[int, Telling | None] = {}
        where = self.runner.place.page(at)

        def close(source_id: int) -> None:
            telling = latest.pop(source_id, None)
            if telling is not None:
                out.append(telling)

        for moment, what in self.journal:
            if isinstance(what, HostSignal | GuestAbort | MemoryFault):
                if happened is None and at in _lost(what, self):
                    happened = moment
            elif isinstance(what, Posted):
                close(what.source_id)
                if any(gpa <= at < gpa + size for gpa, size in what.pages):
                    since = moment if happened is None else happened
                    latest[what.source_id] = Telling(where, at, what, "", since, moment)
                    happened = None
            elif isinstance(what, Action | Acked | TakenBack) and what.source_id is not None:
                telling = latest.get(what.source_id)
                if telling is not None:
                    latest[what.source_id] = _followed(telling, moment, what)
                    if isinstance(what, TakenBack):
                        happened = telling.happened_at
        out += [t for t in latest.values() if t is not None]
        return sorted(out, key=lambda t: t.posted.id if t.posted else 0)

    def effects(self, *kinds: type[T]) -> list[T]:
        """The effects of these kinds (``vmm_ras.effects``), or all, in order."""
        return [m.what for m in self.journal if hasattr(m.what, "id") and (not kinds or isinstance(m.what, kinds))]

    def holds(self, vcpu: int) -> Verdict:
        """Whether the vCPU is kept out of the guest now, because its error cannot be told yet."""
        self._thread(vcpu)
        held = vcpu in self.runner.held
        return Verdict(held, f"vCPU {vcpu} is {'' if held else 'not '}held")

    def escalates(self, action: str | None = None) -> Verdict:
        """Whether the orchestrator was asked for something: ``report``, ``stop``, ``reset`` or ``migrate``."""
        asked = [f"{e.action} ({e.reason})" for e in self._of(Escalate)]
        asked += [f"report (rule {e.rule})" for e in self._of(Report)]
        wanted = [a for a in asked if action is None or a.startswith(f"{action} ")]
        what = (
            f"the orchestrator was asked to {'; '.join(asked)}" if asked else "the orchestrator was asked for nothing"
        )
        return Verdict(bool(wanted), what)

    def source(self, way: str) -> Any:
        """The first error source of a way: addresses of its block and registers.  Raises InputError."""
        for placed in self.runner.sources:
            if WAYS.get(placed.notification) == way:
                return placed
        raise InputError(f"the machine has no source for {way!r}")

    # -- private -------------------------------------------------------------------------

    def _of(self, kind: type[T]) -> Iterator[T]:
        return (m.what for m in self.journal if isinstance(m.what, kind))

    def _since(self, start: int) -> list[Any]:
        return [m.what for m in self.journal[start:] if hasattr(m.what, "id")]

    def _gpa(self, page: int | None, gpa: int | None) -> int:
        slot, shift = self.runner.place.slot, self.runner.place.page_shift
        if (page is None) == (gpa is None):
            raise InputError("which memory? give page or gpa, one of them")
        at = slot.gpa + (page << shift) if page is not None else gpa
        assert at is not None
        if not slot.gpa <= at < slot.gpa + slot.size:
            given = f"page {page}" if gpa is None else f"gpa {at:#x}"
            ram = f"{slot.size >> shift} pages, gpa {slot.gpa:#x} to {slot.gpa + slot.size - 1:#x}"
            raise InputError(f"{given}: RAM has {ram}")
        return at

    def _hva(self, gpa: int) -> int:
        return gpa - self.runner.place.slot.gpa + self.runner.place.slot.hva

    def _thread(self, vcpu: int) -> int:
        threads = self.runner.place.threads
        if not 0 <= vcpu < len(threads):
            raise InputError(f"vCPU {vcpu}: the machine has {len(threads)}")
        return threads[vcpu]


class Guest:
    """What the guest of a machine does, and how it fares."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def __repr__(self) -> str:
        return f"<guest: {self._fate()}, {self.signalled} processes signalled>"

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
        if outcome not in _KINDS:
            raise InputError(f"outcome {outcome!r}: expected one of {', '.join(_KINDS)}")
        done = [m.what.outcome for m in self.machine.journal if isinstance(m.what, Action)]
        return Verdict(outcome in done, f"the guest did: {', '.join(done) or 'nothing'}")

    def _on(self, vcpu: int, item: Any) -> list[Any]:
        self.machine._thread(vcpu)
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


def _size(value: int | str) -> int:
    return size(value)


def _lsb(value: int | str) -> int:
    found = size(value)
    if found & found - 1:
        raise InputError(f"size {value!r}: expected a power of two")
    return found.bit_length() - 1


def _lost(event: HostSignal | GuestAbort | MemoryFault, machine: Machine) -> range:
    """The guest physical addresses that an event is about, whole pages of the guest."""
    place = machine.runner.place
    page = 1 << place.page_shift
    if isinstance(event, HostSignal):
        low, bytes_ = place.gpa(event.hva & -(1 << event.lsb)), 1 << event.lsb
    elif isinstance(event, GuestAbort):
        low, bytes_ = (0, 0) if event.gpa is None else (event.gpa & -page, page)
    else:
        low, bytes_ = event.gpa, event.size
    return range(low & -page, low + bytes_ + page - 1 & -page)


def _followed(telling: Telling, moment: float, what: Action | Acked | TakenBack) -> Telling:
    """The telling, after this happened to its source."""
    from dataclasses import replace

    assert telling.posted is not None
    if isinstance(what, Acked):
        return replace(telling, acked_at=moment) if telling.acked_at is None else telling
    if isinstance(what, TakenBack):
        return replace(telling, taken_back=what.reason)
    read = what.raw
    return replace(telling, outcome=what.outcome if not read or read == telling.posted.block else "garbled")
