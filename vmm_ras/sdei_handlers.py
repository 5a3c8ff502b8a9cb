"""The handlers of SDEI events: the one place where their states change, and where each can run (DEN0054, 6.1 to 6.3).

Sets of PEs are integers with a bit for each vCPU: what an event costs does not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from vmm_ras.arm64 import Features, entry_bits
from vmm_ras.sdei_state import SHARED, Context, Registration, SdeiState
from vmm_ras.sdei_table import READY, REGISTERED, RM_ANY, RUNNING, STATES, TABLE

_NOTHING: Final[tuple[int, ...]] = ()
_SHARED_ONLY: Final[tuple[int, ...]] = (SHARED,)
_ROWS: Final = [TABLE.get(state, ()) for state in range(max(TABLE) + 1)]
"""The table by state: a list is looked into more quickly."""


class Handlers:
    """What is registered, pending and running, and which PEs can take what."""

    __slots__ = ("_entry", "_sctlr", "busy", "by_mpidr", "critical", "events", "features", "state", "where")

    def __init__(self, state: SdeiState, features: Features) -> None:
        self.events = {event.number: event for event in state.events}
        self.by_mpidr = {mpidr: vcpu for vcpu, mpidr in enumerate(state.mpidrs)}
        self.use(features)
        self.adopt(state)

    def use(self, features: Features) -> None:
        """The PEs implement these: they decide what entering a handler does to PSTATE."""
        self.features = features
        self._entry, self._sctlr = entry_bits(features, 0), 0

    def adopt(self, state: SdeiState) -> None:
        """Go on from this state."""
        self.state = state
        self.busy = self.critical = 0
        """PEs on which a handler runs; on which a critical one does."""
        for vcpu, stack in enumerate(state.contexts):
            if stack:
                self.busy |= 1 << vcpu
                self.critical |= self.events[stack[-1].event].critical << vcpu
        self.where = {event.number: dict.fromkeys(STATES, 0) for event in state.events if not event.shared}
        """Private event to state of a handler to the PEs whose instance is in it; nobody asks for the unregistered."""
        for vcpu, states in enumerate(state.states[:SHARED]):
            for number, value in states.items():
                self.where[number][value] |= 1 << vcpu

    def step(self, place: int, number: int, action: int) -> int | None:
        """Take the action's cell of the table; the new state, or None: denied.  The one place where states change."""
        states = self.state.states[place]
        known = states.get(number)
        before = 0 if known is None else known
        after = _ROWS[before][action]
        if after:
            states[number] = after
        elif after is None or not before:
            return after
        else:
            del states[number]
        if place != SHARED:
            where = self.where[number]
            where[before] &= ~(1 << place)
            where[after] |= 1 << place
        return after

    def mark(self, place: int, number: int) -> None:
        """The event is pending there."""
        waiting = self.state.pending.get(place)
        if waiting is None:
            self.state.pending[place] = [number]
        elif number not in waiting:
            waiting.append(number)

    def discard(self, place: int, number: int) -> bool:
        """The event is not pending there any more; whether it was."""
        pending = self.state.pending
        waiting = pending.get(place, _NOTHING)
        if number not in waiting:
            return False
        if len(waiting) == 1:
            del pending[place]
        else:
            pending[place].remove(number)
        return True

    def pop(self, vcpu: int, action: int) -> Context:
        """End the innermost handler on the vCPU."""
        stack = self.state.contexts[vcpu]
        done = stack.pop()
        number = done[0]
        _, shared, critical, _ = self.events[number]
        self.step(SHARED if shared else vcpu, number, action)
        if not stack:
            self.busy &= ~(1 << vcpu)
        if critical:
            self.critical &= ~(1 << vcpu)
        return done

    def entry_pstate(self, pstate: int, sctlr: int) -> int:
        """PSTATE as an exception to EL1 leaves it."""
        if sctlr != self._sctlr:
            self._entry, self._sctlr = entry_bits(self.features, sctlr), sctlr
        keep, new = self._entry
        return pstate & keep | new

    def target(self, place: int, number: int, prefer: int | None) -> int | None:
        """The PE on which a pending event can run now (6.3), or None."""
        s = self.state
        state = s.states[place].get(number)
        if state is None or state != READY:
            return None
        able = s.unmasked & ~s.absent
        if self.busy:
            able &= ~(self.critical if self.events[number].critical else self.busy)
        if place == SHARED:
            _, _, routing, affinity = s.registrations[SHARED][number]
            if routing == RM_ANY:
                if prefer is not None and able >> prefer & 1:
                    return prefer
                able = able & ~self.busy or able  # rather an idle PE than one to interrupt
                return (able & -able).bit_length() - 1 if able else None
            place = self.by_mpidr[affinity]
        return place if able >> place & 1 else None

    def targets(self, places: Iterable[int], prefer: int | None) -> tuple[int, ...]:
        """The PEs on which what is pending in these places can run now."""
        pending = self.state.pending
        found = {self.target(place, number, prefer) for place in places for number in pending.get(place, _NOTHING)}
        return tuple(sorted(pe for pe in found if pe is not None))

    def first_for(self, vcpu: int) -> tuple[int, int, bool, Registration] | None:
        """Place, number, priority and registration of the event that goes first on the PE: all of 6.3 holds for it."""
        s, bit = self.state, 1 << vcpu
        if not s.unmasked & ~s.absent & ~self.critical & bit:
            return None
        best: tuple[int, int, bool, Registration] | None = None
        taken, pending = self.busy & bit, s.pending
        places = (vcpu, SHARED) if vcpu in pending else _SHARED_ONLY
        for place in places:
            waiting = pending.get(place)
            if waiting is None:
                continue
            for number in waiting:
                _, _, critical, _ = self.events[number]
                if critical or not taken:
                    known = s.states[place].get(number)
                    if known is None or known != READY:
                        continue
                    registration = s.registrations[place][number]
                    _, _, routing, affinity = registration
                    if routing == RM_ANY or affinity == s.mpidrs[vcpu]:
                        best = place, number, critical, registration
                        if critical:
                            return best
                        taken = 1
        return best

    def nearest(self, number: int) -> int:
        """The PE whose instance of a private event is nearest to running."""
        where, s = self.where[number], self.state
        able = s.unmasked & ~s.absent & ~(self.critical if self.events[number].critical else self.busy)
        enabled = where[READY] | where[READY | RUNNING]
        registered = where[REGISTERED] | where[REGISTERED | RUNNING]
        pes = where[READY] & able or enabled & ~s.absent or enabled or registered
        return (pes & -pes).bit_length() - 1 if pes else 0
