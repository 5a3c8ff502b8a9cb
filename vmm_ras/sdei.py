"""An SDEI dispatcher, sans-I/O (Arm DEN0054, 1.0 and 1.1): the guest's calls go in, replies and registers come out.

Whoever owns the vCPUs hands over each call with the registers of the calling vCPU (``call``), marks platform events
pending (``signal``), stops the vCPUs that are ``wanted`` and lets ``dispatch`` say what they run next.  Nothing the
guest passes raises: it gets a return code.  The calls are in ``sdei_calls``, the handlers in ``sdei_handlers``, the
table of their states in ``sdei_table``, what is remembered in ``sdei_state``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NoReturn

from vmm_ras.arm64 import EL1H, EL1T, NEOVERSE_N1, PSTATE_M, Features
from vmm_ras.errors import InputError, StateError
from vmm_ras.events import VcpuState, new
from vmm_ras.sdei_calls import CALLS, MPIDR_AFFINITY
from vmm_ras.sdei_handlers import Handlers
from vmm_ras.sdei_snapshot import from_plain, to_plain
from vmm_ras.sdei_state import SHARED, CallResult, Context, Dispatch, EventDescription, Registers, SdeiState
from vmm_ras.sdei_table import (
    FUNCTION_BASE,
    FUNCTION_COUNT,
    NOT_SUPPORTED,
    READY,
    REGISTERED,
    RUNNING,
    SAVED_REGISTERS,
    VERSION_1_0,
    VERSION_1_1,
    Action,
)

__all__ = ["CallResult", "Dispatch", "EventDescription", "Registers", "SdeiDispatcher", "is_sdei"]

_DISPATCH: Final = int(Action.DISPATCH)
_COMPLETE: Final = int(Action.COMPLETE)
_CLIENT: Final = frozenset({EL1H, EL1T})
# Classes as constants: the compiled copy looks any other name up each time.
_CallResult: Final = CallResult
_Context: Final = Context
_Dispatch: Final = Dispatch
_NO_ARGS: Final[tuple[int, ...]] = (0,) * 5
_NO_REGISTERS: Final[tuple[int, ...]] = (0,) * SAVED_REGISTERS
_UNKNOWN: Final = CallResult(NOT_SUPPORTED)
_NOTHING: Final[tuple[int, ...]] = ()


class SdeiDispatcher(Handlers):
    """The dispatcher of one VM.

    ``events`` are what the platform offers besides event 0, ``mpidrs`` the MPIDR_EL1 of each vCPU, ``version`` what
    VERSION answers (the vendor's 32 bits are free), ``kept`` the interrupts that are not the client's to bind.  vCPUs
    go by their index in ``mpidrs``; an index outside it, and an event that was not described, are the caller's mistakes
    (StateError).  Every PE starts masked.
    """

    __slots__ = ("kept",)

    def __init__(
        self,
        events: Sequence[EventDescription],
        mpidrs: Sequence[int],
        features: Features = NEOVERSE_N1,
        *,
        version: int = VERSION_1_1,
        kept: Collection[int] = (),
    ) -> None:
        described = (EventDescription(0), *sorted(EventDescription(*event) for event in events))
        numbers = {event.number for event in described}
        if any(not 0 < event.number < 1 << 31 for event in described[1:]) or len(numbers) != len(described):
            raise InputError("SDEI events: expected different numbers from 1 to 2^31 - 1")
        if any(event.slot and event.critical for event in described):
            raise InputError("SDEI events: a bind slot has normal priority")
        affinities = tuple(mpidr & MPIDR_AFFINITY for mpidr in mpidrs)
        if not affinities or len(set(affinities)) != len(affinities):
            raise InputError("SDEI PEs: expected at least one MPIDR, and all different")
        if version & ~0xFFFF_FFFF not in (VERSION_1_0, VERSION_1_1):
            raise InputError(f"SDEI version {version:#x}: expected 1.0 or 1.1")
        self.kept = frozenset(kept)
        super().__init__(SdeiState.reset(version, described, affinities), features)

    # -- the state as a value ----------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """All that the dispatcher remembers, as JSON-able values."""
        return to_plain(self.state)

    @classmethod
    def restore(
        cls,
        snapshot: object,
        events: Sequence[EventDescription],
        mpidrs: Sequence[int],
        features: Features = NEOVERSE_N1,
        *,
        version: int = VERSION_1_1,
        kept: Collection[int] = (),
    ) -> SdeiDispatcher:
        """The dispatcher that gave this snapshot, with the same events and PEs: a guest cannot lose them on its way.

        The snapshot may come from anywhere; SnapshotError names the field that is wrong.
        """
        new = cls(events, mpidrs, features, version=version, kept=kept)
        new.adopt(from_plain(snapshot, new.state.version, new.state.events, new.state.mpidrs))
        return new

    # -- for the platform --------------------------------------------------------------

    def accepts(self, event: int) -> bool:
        """Whether the client has registered and enabled the event (a private one: on some PE)."""
        known = self.state.states[SHARED].get(event)
        if known is not None and known & READY == READY:
            return True
        description = self.events.get(event) or self._unknown(event)
        return not description.shared and bool(self.where[event][READY] | self.where[event][READY | RUNNING])

    def pending(self, event: int) -> bool:
        """Whether the event was signalled and has not been dispatched."""
        if event not in self.events:
            self._unknown(event)
        return any(event in waiting for waiting in self.state.pending.values())

    def can_run(self, event: int, vcpu: int) -> bool:
        """Whether the event is pending and can be dispatched on the vCPU now."""
        description = self.events.get(event) or self._unknown(event)
        pe = self._pe(vcpu)
        place = SHARED if description.shared else pe
        return event in self.state.pending.get(place, _NOTHING) and self.target(place, event, vcpu) == vcpu

    @property
    def idle(self) -> bool:
        """Whether no event waits for its dispatch."""
        return not self.state.pending

    def running(self, vcpu: int) -> tuple[int, ...]:
        """Events whose handlers run on the vCPU, outermost first: at most two."""
        return tuple(context.event for context in self.state.contexts[self._pe(vcpu)])

    def masked(self, vcpu: int) -> bool:
        """Whether the client keeps events away from the vCPU."""
        return not self.state.unmasked >> self._pe(vcpu) & 1

    def signal(self, event: int, vcpu: int | None = None) -> int | None:
        """Mark a platform event pending; returns the vCPU to stop and ``dispatch`` on, or None: it stays pending.

        ``vcpu`` is whose instance of a private event is meant (None: one where it can run, and a signal that still
        waits moves there), and for a shared event the PE that is preferred among those that may take it.  Signalling
        twice before a dispatch is signalling once.  An event that the client has not registered is pending until it
        does, and then ``discarded``: ask ``accepts``.
        """
        if event == 0:
            raise StateError("SDEI event 0 is the client's own: the platform does not signal it")
        if vcpu is not None:
            self._pe(vcpu)
        place = SHARED
        _, shared, _, _ = self.events.get(event) or self._unknown(event)
        if not shared:
            if vcpu is None:
                self.withdraw(event)
                vcpu = self.nearest(event)
            place = vcpu
        self.mark(place, event)
        return self.target(place, event, vcpu)

    def withdraw(self, event: int) -> bool:
        """Take back a signal, on all PEs; True if the event was pending.  A handler that runs goes on."""
        if event not in self.events:
            self._unknown(event)
        return sum(self.discard(place, event) for place in list(self.state.pending)) > 0

    def wanted(self, prefer: int | None = None) -> tuple[int, ...]:
        """vCPUs on which a pending event can be dispatched now, ``prefer`` first for events that may run anywhere."""
        return self.targets(self.state.pending, prefer)

    def dispatch(self, vcpu: int, state: VcpuState) -> Dispatch | None:
        """Start the handler of a pending event on this stopped vCPU, or None where none may run on it (6.2, 6.3).

        ``state`` is what the vCPU holds; it is saved inside.  Critical events go before normal ones; then those of the
        PE before shared ones, and the oldest first.  PSTATE changes as for an exception, but ELR, SPSR and ESR stay as
        they are.  Other events may now be ``wanted`` elsewhere, because the PE is busy.
        """
        s = self.state
        if not 0 <= vcpu < len(s.mpidrs):
            self._pe(vcpu)
        if not s.pending:
            return None
        found = self.first_for(vcpu)
        if found is None:
            return None
        place, number, critical, registration = found
        waiting = s.pending[place]
        if len(waiting) > 1:
            waiting.remove(number)
        else:
            del s.pending[place]
        self.step(place, number, _DISPATCH)
        entry, argument, _, _ = registration
        pc, pstate, x, _, _, sctlr, _ = state
        if len(x) != SAVED_REGISTERS:
            x = (*x, *_NO_REGISTERS)[:SAVED_REGISTERS]
        s.contexts[vcpu].append(new(_Context, (number, x, pc, pstate)))
        self.busy |= 1 << vcpu
        if critical:
            self.critical |= 1 << vcpu
        x = number, argument, pc, pstate
        return new(_Dispatch, (number, x, entry, self.entry_pstate(pstate, sctlr)))

    def abandon(self, vcpu: int) -> tuple[int, ...]:
        """The registers of the last dispatch on the vCPU could not be set: its handler does not run after all.

        The signal is spent.  Returns the vCPUs on which an event can be dispatched now that this handler kept waiting.
        """
        if self.state.contexts[self._pe(vcpu)]:
            self.pop(vcpu, _COMPLETE)
        return self.targets((vcpu, SHARED), vcpu)

    def set_absent(self, vcpu: int, absent: bool = True) -> tuple[int, ...]:
        """The platform cannot stop the vCPU, or keeps it out (or no longer so): nothing is sent there meanwhile.

        Returns the vCPUs on which an event can be dispatched now that waited for this one.
        """
        bit = 1 << self._pe(vcpu)
        self.state.absent = self.state.absent & ~bit | bit * absent
        return self.targets((vcpu, SHARED), vcpu) if self.state.pending else ()

    def reset_pe(self, vcpu: int) -> tuple[int, ...]:
        """The PE is switched on (PSCI CPU_ON): masked, private events unregistered, handlers on it gone.

        Returns the platform events that were pending for it and are no longer.  A shared event that ran on it stays
        registered as it was; it, and what was pending for any PE, may be ``wanted`` elsewhere.
        """
        self.wake_pe(vcpu)
        s = self.state
        while s.contexts[vcpu]:
            self.pop(vcpu, _COMPLETE)
        for number, state in s.states[vcpu].items():
            self.where[number][state] &= ~(1 << vcpu)
        s.states[vcpu].clear()
        s.registrations[vcpu].clear()
        return tuple(number for number in s.pending.pop(vcpu, ()) if number)

    def wake_pe(self, vcpu: int) -> None:
        """The PE wakes from a suspend that lost its context (PSCI CPU_SUSPEND): it is masked, all else as it was."""
        self.state.unmasked &= ~(1 << self._pe(vcpu))

    def event_of_interrupt(self, intid: int, vcpu: int) -> int | None:
        """Event to ``signal`` for an interrupt raised for the vCPU; None: it goes the ordinary way.

        A bound interrupt is SDEI's from EVENT_REGISTER to EVENT_UNREGISTER, and the client's own otherwise (5.1.14).
        """
        self._pe(vcpu)
        for number, bound in self.state.bound.items():
            if bound == intid:
                place = SHARED if self.events[number].shared else vcpu
                return number if self.state.states[place].get(number, 0) & REGISTERED else None
        return None

    # -- for the client ----------------------------------------------------------------

    def call(
        self, vcpu: int, function: int, args: Sequence[int], state: VcpuState, active: Collection[int] = ()
    ) -> CallResult:
        """Answer an HVC or SMC of the vCPU: ``function`` is X0, ``args`` are X1 onwards, ``state`` what it holds.

        The PC in ``state`` is already past the call.  Any values are answered; a function that SDEI does not have, and
        any call that does not come from EL1, get NOT_SUPPORTED.  ``active``: INTIDs that the client is handling as
        interrupts at this moment, which only matters for those that it has bound.
        """
        if not 0 <= vcpu < len(self.state.mpidrs):
            self._pe(vcpu)
        call = CALLS.get(function & 0xFFFF_FFFF)  # the function identifier is W0 (SMCCC, 2.5)
        if call is None or state.pstate & PSTATE_M not in _CLIENT:
            return _UNKNOWN
        answer = call(self, vcpu, tuple(args) + _NO_ARGS, state, active)
        result = answer if isinstance(answer, CallResult) else new(_CallResult, (answer, None, (), (), None, False))
        if self.state.pending:
            # A call changes what can run on its own PE, where shared events can run, and SIGNAL names one more PE.
            wanted = self.targets((vcpu, SHARED), vcpu)
            if result.wanted:
                wanted = tuple(sorted({*wanted, *result.wanted}))
            if wanted:
                return result._replace(wanted=wanted)
        return result

    def _pe(self, vcpu: int) -> int:
        if not 0 <= vcpu < len(self.state.mpidrs):
            raise StateError(f"vCPU {vcpu}: the SDEI dispatcher has {len(self.state.mpidrs)}")
        return vcpu

    def _unknown(self, event: int) -> NoReturn:
        raise StateError(f"SDEI event {event} was not described")


def is_sdei(function: int) -> bool:
    """Whether an SMCCC function identifier (X0 of a call) is in the range of SDEI."""
    return 0 <= (function & 0xFFFF_FFFF) - FUNCTION_BASE < FUNCTION_COUNT
