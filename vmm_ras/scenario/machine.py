"""A machine to which things happen, in sentences; what to ask of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from cper.words import counted
from vmm_ras.effects import Escalate, Report, Undelivered
from vmm_ras.errors import InputError
from vmm_ras.events import Code, GuestAbort, HostSignal, MemoryFault, Proceed
from vmm_ras.profiles import WAYS
from vmm_ras.scenario import journal
from vmm_ras.scenario.guest import Guest, Page
from vmm_ras.scenario.journal import Moment
from vmm_ras.scenario.reading import lost, tellings
from vmm_ras.scenario.runner import Runner, bytes_of
from vmm_ras.scenario.told import Telling, Verdict
from vmm_ras.traces.items import Entry, TraceItem, VcpuThread

T = TypeVar("T")
ACTIONS = ("report", "stop", "reset", "migrate")
"""What an orchestrator can be asked for."""


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

    def entries(self) -> Iterator[Entry]:
        """What was said so far, as a trace: ``traces.write`` makes lines of it that ``vmm-ras replay`` plays."""
        place = self.runner.place
        yield 1, None, place.slot
        for vcpu, tid in enumerate(place.threads):
            yield vcpu + 2, None, VcpuThread(vcpu, tid)
        said = [m for m in self.journal if isinstance(m.what, TraceItem)]
        for line, (at, what) in enumerate(said, len(place.threads) + 2):
            yield line, at, what

    # -- what happens ------------------------------------------------------------------

    def loses(
        self, page: int | None = None, *, gpa: int | None = None, size: int | str = 4096, thread_of: int | None = None
    ) -> list[Any]:
        """The host finds poison nobody used yet: BUS_MCEERR_AO for ``size`` bytes, a power of two.

        ``thread_of``: the vCPU in whose thread the signal arrives; without, in a thread that runs none.
        """
        tid = 1 if thread_of is None else self.thread(thread_of)
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
        tid = self.thread(vcpu)
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
        return self.play(MemoryFault(at, bytes_of(size)))

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
        at, place = self._gpa(page, gpa), self.runner.place
        state = self.runner.state(at)
        why = f"it is {state}"
        if state == "healthy":
            said = (m.what for m in self.journal if isinstance(m.what, HostSignal | GuestAbort | MemoryFault))
            why = "the policy does not tell it" if any(at in lost(e, place) for e in said) else "nothing happened to it"
        elif undelivered := list(self._of(Undelivered)):
            why = f"{why}; {undelivered[-1].reason}"
        return Telling(place.page(at), at, why_not=why)

    def tellings(self, page: int | None = None, *, gpa: int | None = None) -> list[Telling]:
        """Everything that the guest was told of a page, in order."""
        return tellings(self.journal, self.runner.place, self._gpa(page, gpa))

    def effects(self, *kinds: type[T]) -> list[T]:
        """The effects of these kinds (``vmm_ras.effects``), or all, in order."""
        return [m.what for m in self.journal if hasattr(m.what, "id") and (not kinds or isinstance(m.what, kinds))]

    def holds(self, vcpu: int) -> Verdict:
        """Whether the vCPU is kept out of the guest now, because its error cannot be told yet."""
        self.thread(vcpu)
        held = vcpu in self.runner.held
        return Verdict(held, f"vCPU {vcpu} is {'' if held else 'not '}held")

    def escalates(self, action: str | None = None) -> Verdict:
        """Whether the orchestrator was asked for something: ``report``, ``stop``, ``reset`` or ``migrate``.

        Raises InputError for another word.
        """
        if action not in {None, *ACTIONS}:
            raise InputError(f"action {action!r}: expected one of {', '.join(ACTIONS)}")
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
            ram = f"{counted(slot.size >> shift, 'page')}, gpa {slot.gpa:#x} to {slot.gpa + slot.size - 1:#x}"
            raise InputError(f"{given}: RAM has {ram}")
        return at

    def _hva(self, gpa: int) -> int:
        return gpa - self.runner.place.slot.gpa + self.runner.place.slot.hva

    def thread(self, vcpu: int) -> int:
        """The host thread of a vCPU.  Raises InputError."""
        threads = self.runner.place.threads
        if not 0 <= vcpu < len(threads):
            raise InputError(f"vCPU {vcpu}: the machine has {len(threads)}")
        return threads[vcpu]


def _lsb(value: int | str) -> int:
    found = bytes_of(value)
    if found & found - 1:
        raise InputError(f"size {value!r}: expected a power of two")
    return found.bit_length() - 1
