"""An SDEI dispatcher, sans-I/O (Arm DEN0054, 1.0): the guest's calls go in, replies and registers to set come out.

Whoever owns the vCPUs hands over each call with the registers of the calling vCPU (``call``), marks platform events
pending (``signal``), stops the vCPUs that are ``wanted`` and lets ``dispatch`` say what they run next.  Nothing the
guest passes raises: it gets a return code.  The handler states are in ``sdei_table``, what is remembered in
``sdei_state``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from vmm_ras import sdei_table as t
from vmm_ras.arm64 import EL1H, EL1T, NEOVERSE_N1, PSTATE_M, U64, Features, entry_bits
from vmm_ras.errors import InputError, StateError
from vmm_ras.events import VcpuState
from vmm_ras.sdei_state import SHARED, Context, EventDescription, Handler, Key, SdeiState, is_code_address

MPIDR_AFFINITY: Final = 0xFF_00FF_FFFF
"""Aff3 to Aff0; the other bits of an MPIDR say nothing about which PE it is."""
_READY: Final = t.REGISTERED | t.ENABLED
_NO_ARGS: Final = (0,) * 5
_NO_REGISTERS: Final = (0,) * t.SAVED_REGISTERS
_UNREGISTERED: Final = Handler(0)


class Registers(NamedTuple):
    """Registers to set, as in the effect SetRegisters: ``x`` starts at X0, None leaves a register alone."""

    x: tuple[int, ...]
    pc: int
    pstate: int
    elr: int | None = None
    spsr: int | None = None


class Dispatch(NamedTuple):
    """A handler starts: the vCPU enters the guest with these registers."""

    event: int
    registers: Registers


class CallResult(NamedTuple):
    """The answer to a call, and what follows from it."""

    x0: int | None
    """Reply in X0, signed; None where ``registers`` take its place (a completion does not return)."""
    registers: Registers | None = None
    wanted: tuple[int, ...] = ()
    """vCPUs on which a pending event can be dispatched now; the calling one may be among them."""
    discarded: tuple[int, ...] = ()
    """Platform events that were pending and are no longer, because the client registered or unregistered them."""
    completed: int | None = None
    """Event whose handler has completed."""
    failed: bool = False
    """The client completed it with EV_FAILED."""

    def after(self, state: VcpuState) -> VcpuState:
        """What the calling vCPU holds when it has its answer: what a dispatch on it interrupts."""
        if self.registers is not None:
            regs = self.registers
            return state._replace(pc=regs.pc, pstate=regs.pstate, x=regs.x)
        assert self.x0 is not None
        return state._replace(x=(self.x0 & U64, *state.x[1:]))


class SdeiDispatcher:
    """The dispatcher of one VM.

    ``events`` are what the platform offers besides event 0, ``mpidrs`` the MPIDR_EL1 of each vCPU.  vCPUs go by their
    index in ``mpidrs``; an index outside it, and an event that was not described, are the caller's mistakes
    (StateError).  Every PE starts masked.
    """

    __slots__ = ("_by_mpidr", "_calls", "_entry", "_events", "_features", "_s")

    def __init__(
        self, events: Sequence[EventDescription], mpidrs: Sequence[int], features: Features = NEOVERSE_N1
    ) -> None:
        described = (EventDescription(0), *sorted(EventDescription(*event) for event in events))
        self._events = {event.number: event for event in described}
        if any(not 0 < event.number < 1 << 31 for event in described[1:]) or len(self._events) != len(described):
            raise InputError("SDEI events: expected different numbers from 1 to 2^31 - 1")
        affinities = tuple(mpidr & MPIDR_AFFINITY for mpidr in mpidrs)
        self._by_mpidr = {mpidr: vcpu for vcpu, mpidr in enumerate(affinities)}
        if not affinities or len(self._by_mpidr) != len(affinities):
            raise InputError("SDEI PEs: expected at least one MPIDR, and all different")
        self._features = features
        self._entry = entry_bits(features, 0)
        self._s = SdeiState(described, affinities, [True] * len(affinities), [()] * len(affinities))
        self._calls: Mapping[int, Callable[[int, Sequence[int]], int | CallResult]] = {
            t.VERSION: lambda vcpu, args: t.VERSION_1_0,
            t.EVENT_REGISTER: self._register,
            t.EVENT_ENABLE: self._enable,
            t.EVENT_DISABLE: self._disable,
            t.EVENT_CONTEXT: self._context,
            t.EVENT_UNREGISTER: self._unregister,
            t.EVENT_STATUS: self._status,
            t.EVENT_GET_INFO: self._get_info,
            t.EVENT_ROUTING_SET: self._routing_set,
            t.PE_MASK: self._pe_mask,
            t.PE_UNMASK: self._pe_unmask,
            t.INTERRUPT_BIND: self._interrupt_bind,
            # No event of this dispatcher is bound to an interrupt, so there is none to release.
            t.INTERRUPT_RELEASE: lambda vcpu, args: t.INVALID_PARAMETERS,
            t.EVENT_SIGNAL: self._event_signal,
            t.FEATURES: lambda vcpu, args: 0 if args[0] == t.FEATURE_BIND_SLOTS else t.INVALID_PARAMETERS,
            t.PRIVATE_RESET: lambda vcpu, args: self._reset(vcpu),
            t.SHARED_RESET: lambda vcpu, args: self._reset(SHARED),
        }

    # -- the state as a value

    def snapshot(self) -> dict[str, Any]:
        """All that the dispatcher remembers, as JSON-able values."""
        return self._s.to_dict()

    @classmethod
    def restore(
        cls,
        snapshot: object,
        events: Sequence[EventDescription],
        mpidrs: Sequence[int],
        features: Features = NEOVERSE_N1,
    ) -> SdeiDispatcher:
        """The dispatcher that gave this snapshot, with the same events and PEs: a guest cannot lose them on its way.

        The snapshot may come from anywhere; SnapshotError names the field that is wrong.
        """
        new = cls(events, mpidrs, features)
        new._s = SdeiState.from_dict(snapshot, new._s.events, new._s.mpidrs)
        return new

    # -- for the platform

    def accepts(self, event: int) -> bool:
        """Whether the client has registered and enabled the event (a private one: on some PE)."""
        description = self._known(event)
        handlers = self._s.handlers
        if description.shared:
            handler = handlers.get((event, SHARED))
            return handler is not None and handler.state & _READY == _READY
        instances = self._instances(description)
        return any(handlers.get(key, _UNREGISTERED).state & _READY == _READY for key in instances)

    def pending(self, event: int) -> bool:
        """Whether the event was signalled and has not been dispatched."""
        return any(key in self._s.pending for key in self._instances(self._known(event)))

    @property
    def idle(self) -> bool:
        """Whether no event waits for its dispatch."""
        return not self._s.pending

    def running(self, vcpu: int) -> tuple[int, ...]:
        """Events whose handlers run on the vCPU, outermost first: at most two."""
        return tuple(context.event for context in self._s.contexts[self._pe(vcpu)])

    def masked(self, vcpu: int) -> bool:
        """Whether the client keeps events away from the vCPU."""
        return self._s.masked[self._pe(vcpu)]

    def signal(self, event: int, vcpu: int | None = None) -> int | None:
        """Mark a platform event pending; returns the vCPU to stop and ``dispatch`` on, or None: it stays pending.

        ``vcpu`` is whose instance of a private event is meant (None: one where it can run, and a signal that still
        waits moves there), and for a shared event the PE that is preferred among those that may take it.  Signalling
        twice before a dispatch is signalling once.  An event that the client has not registered is pending until it
        does, and then ``discarded``: ask ``accepts``.
        """
        description = self._known(event)
        if event == 0:
            raise StateError("SDEI event 0 is the client's own: the platform does not signal it")
        if vcpu is not None:
            self._pe(vcpu)
        if not description.shared and vcpu is None:
            self.withdraw(event)
            vcpu = self._best_instance(description)
        key = event, SHARED if description.shared or vcpu is None else vcpu
        self._s.pending[key] = None
        return self._target(key, vcpu)

    def withdraw(self, event: int) -> bool:
        """Take back a signal, on all PEs; True if the event was pending.  A handler that runs goes on."""
        found = False
        for key in self._instances(self._known(event)):
            if key in self._s.pending:
                del self._s.pending[key]
                found = True
        return found

    def wanted(self, prefer: int | None = None) -> tuple[int, ...]:
        """vCPUs on which a pending event can be dispatched now, ``prefer`` first for events that may run anywhere."""
        targets = {self._target(key, prefer) for key in self._s.pending}
        return tuple(sorted(target for target in targets if target is not None))

    def dispatch(self, vcpu: int, state: VcpuState, sctlr: int = 0) -> Dispatch | None:
        """Start the handler of a pending event on this stopped vCPU, or None where none may run on it (6.2, 6.3).

        ``state`` is what the vCPU holds; it is saved inside.  Critical events go before normal ones, then the oldest.
        ``sctlr`` is SCTLR_EL1: PSTATE changes as for an exception, but ELR, SPSR and ESR stay as they are.
        """
        self._pe(vcpu)
        best: Key | None = None
        for key in self._s.pending:
            critical = self._events[key[0]].critical
            if (best is None or critical) and self._target(key, vcpu) == vcpu:
                best = key
                if critical:
                    break
        if best is None:
            return None
        del self._s.pending[best]
        event = best[0]
        handler = self._s.handlers[best]
        self._step(best, handler, t.Action.DISPATCH)
        saved = state.x if len(state.x) == t.SAVED_REGISTERS else (*state.x, *_NO_REGISTERS)[: t.SAVED_REGISTERS]
        self._s.contexts[vcpu] = (*self._s.contexts[vcpu], Context(event, saved, state.pc, state.pstate))
        x = event, handler.argument, state.pc, state.pstate
        return Dispatch(event, Registers(x, handler.entry, self._entry_pstate(state.pstate, sctlr)))

    def reset_pe(self, vcpu: int) -> tuple[int, ...]:
        """The PE is switched on (PSCI CPU_ON): masked, private events unregistered, handlers on it gone.

        Returns the platform events that were pending for it and are no longer.  A shared event that ran on it stays
        registered as it was.
        """
        self._pe(vcpu)
        for context in reversed(self._s.contexts[vcpu]):
            key = self._key(self._events[context.event], vcpu)
            self._step(key, self._s.handlers[key], t.Action.COMPLETE)
        self._s.contexts[vcpu] = ()
        self._s.masked[vcpu] = True
        discarded = tuple(number for number, pe in self._s.pending if pe == vcpu and number)
        for number in self._events:
            self._s.handlers.pop((number, vcpu), None)
            self._s.pending.pop((number, vcpu), None)
        return discarded

    # -- for the client

    def call(self, vcpu: int, function: int, args: Sequence[int], state: VcpuState, sctlr: int = 0) -> CallResult:
        """Answer an HVC or SMC of the vCPU: ``function`` is X0, ``args`` are X1 onwards, ``state`` what it holds.

        The PC in ``state`` is already past the call.  Any values are answered; a function that SDEI does not have, and
        any call that does not come from EL1, get NOT_SUPPORTED.  ``sctlr`` as in ``dispatch``.
        """
        self._pe(vcpu)
        if state.pstate & PSTATE_M not in (EL1H, EL1T):
            return CallResult(t.NOT_SUPPORTED)
        args = (*args, *_NO_ARGS)
        function &= 0xFFFF_FFFF  # the function identifier is W0 (SMCCC, 2.5)
        result: int | CallResult
        if function in (t.EVENT_COMPLETE, t.EVENT_COMPLETE_AND_RESUME):
            result = self._complete(vcpu, args[0], function == t.EVENT_COMPLETE_AND_RESUME, sctlr)
        elif function in self._calls:
            result = self._calls[function](vcpu, args)
        else:
            return CallResult(t.NOT_SUPPORTED)
        if isinstance(result, int):
            result = CallResult(result)
        return result._replace(wanted=self.wanted(vcpu)) if self._s.pending else result

    def _register(self, vcpu: int, args: Sequence[int]) -> int | CallResult:
        number, entry, argument, flags, mpidr = args[:5]
        event = self._events.get(number)
        if event is None or not is_code_address(entry) or not self._routable(flags, mpidr):
            return t.INVALID_PARAMETERS
        key = self._key(event, vcpu)
        handler = self._s.handlers.get(key, _UNREGISTERED)
        if t.TABLE[handler.state][t.Action.REGISTER] is None:
            return t.DENIED
        handler = Handler(0, entry, argument & U64)
        if event.shared and flags == t.RM_PE:
            handler = handler._replace(routing=t.RM_PE, affinity=mpidr & MPIDR_AFFINITY)
        self._step(key, handler, t.Action.REGISTER)
        # What is signalled from now on waits for ENABLE; what was signalled before was not for this handler.
        return CallResult(t.SUCCESS, discarded=self._discard(key))

    def _enable(self, vcpu: int, args: Sequence[int]) -> int:
        return self._act(vcpu, args[0], t.Action.ENABLE)

    def _disable(self, vcpu: int, args: Sequence[int]) -> int:
        return self._act(vcpu, args[0], t.Action.DISABLE)

    def _unregister(self, vcpu: int, args: Sequence[int]) -> int | CallResult:
        event = self._events.get(args[0])
        return t.INVALID_PARAMETERS if event is None else self._unregister_one(self._key(event, vcpu))

    def _unregister_one(self, key: Key) -> int | CallResult:
        handler = self._s.handlers.get(key, _UNREGISTERED)
        code = t.answer(handler.state, t.Action.UNREGISTER)
        if t.TABLE[handler.state][t.Action.UNREGISTER] is None:
            return code
        self._step(key, Handler(handler.state), t.Action.UNREGISTER)
        return CallResult(code, discarded=self._discard(key))

    def _status(self, vcpu: int, args: Sequence[int]) -> int:
        event = self._events.get(args[0])
        if event is None:
            return t.INVALID_PARAMETERS
        return self._s.handlers.get(self._key(event, vcpu), _UNREGISTERED).state

    def _get_info(self, vcpu: int, args: Sequence[int]) -> int:
        event = self._events.get(args[0])
        info = args[1]
        if event is None or not 0 <= info <= t.INFO_EV_ROUTING_AFF:
            return t.INVALID_PARAMETERS
        if info == t.INFO_EV_TYPE:
            return int(event.shared)
        if info == t.INFO_EV_SIGNALED:
            return t.SIGNALED_NO if event.number else t.SIGNALED_YES
        if info == t.INFO_EV_PRIORITY:
            return int(event.critical)
        if not event.shared:
            return t.INVALID_PARAMETERS
        handler = self._s.handlers.get((event.number, SHARED), _UNREGISTERED)
        if not handler.state & t.REGISTERED:
            return t.DENIED
        if info == t.INFO_EV_ROUTING_MODE:
            return handler.routing
        return handler.affinity if handler.routing == t.RM_PE else t.INVALID_PARAMETERS

    def _routing_set(self, vcpu: int, args: Sequence[int]) -> int:
        number, mode, mpidr = args[:3]
        event = self._events.get(number)
        if event is None or not event.shared or not self._routable(mode, mpidr):
            return t.INVALID_PARAMETERS
        code = self._act(vcpu, number, t.Action.ROUTING_SET)
        if code == t.SUCCESS:
            key = number, SHARED
            affinity = mpidr & MPIDR_AFFINITY if mode == t.RM_PE else 0
            self._s.handlers[key] = self._s.handlers[key]._replace(routing=mode, affinity=affinity)
        return code

    def _context(self, vcpu: int, args: Sequence[int]) -> int:
        if not 0 <= args[0] < t.SAVED_REGISTERS:
            return t.INVALID_PARAMETERS
        stack = self._s.contexts[vcpu]
        if not stack:
            return t.DENIED
        value = stack[-1].x[args[0]]
        return value - (1 << 64) if value >> 63 else value

    def _complete(self, vcpu: int, argument: int, resume: bool, sctlr: int) -> int | CallResult:
        stack = self._s.contexts[vcpu]
        if not stack or (resume and not is_code_address(argument)):
            return t.DENIED
        done = stack[-1]
        key = self._key(self._events[done.event], vcpu)
        self._step(key, self._s.handlers[key], t.Action.COMPLETE_AND_RESUME if resume else t.Action.COMPLETE)
        self._s.contexts[vcpu] = stack[:-1]
        registers = Registers(done.x, done.pc, done.pstate)
        if resume:
            # As if the interrupted context had taken an exception to the address given.
            pstate = self._entry_pstate(done.pstate, sctlr)
            registers = Registers(done.x, argument, pstate, done.pc, done.pstate)
        failed = not resume and argument != t.EV_HANDLED
        return CallResult(None, registers, (), (), done.event, failed)

    def _pe_mask(self, vcpu: int, args: Sequence[int]) -> int:
        was = self._s.masked[vcpu]
        self._s.masked[vcpu] = True
        return int(not was)

    def _pe_unmask(self, vcpu: int, args: Sequence[int]) -> int:
        self._s.masked[vcpu] = False
        return t.SUCCESS

    def _interrupt_bind(self, vcpu: int, args: Sequence[int]) -> int:
        # PPIs, SPIs, and their extended ranges (GICv3 2.2); there are no bind slots, as FEATURES says
        intid = args[0]
        bindable = 16 <= intid < 1020 or 1056 <= intid < 1120 or 4096 <= intid < 5120
        return t.OUT_OF_RESOURCE if bindable else t.INVALID_PARAMETERS

    def _event_signal(self, vcpu: int, args: Sequence[int]) -> int:
        target = self._by_mpidr.get(args[1] & MPIDR_AFFINITY)
        if args[0] != 0 or target is None:
            return t.INVALID_PARAMETERS
        self._s.pending[0, target] = None
        return t.SUCCESS

    def _reset(self, vcpu: int) -> CallResult:
        """Unregister all private events of a PE, or all SHARED ones.  Running ones end later, and make it DENIED."""
        code = t.SUCCESS
        discarded: list[int] = []
        for event in self._s.events:
            if event.shared == (vcpu == SHARED):
                result = self._unregister_one((event.number, vcpu))
                if isinstance(result, CallResult):
                    discarded += result.discarded
                    result = result.x0 or 0
                if result == t.PENDING:
                    code = t.DENIED
        return CallResult(code, discarded=tuple(discarded))

    # -- within

    def _pe(self, vcpu: int) -> int:
        if not 0 <= vcpu < len(self._s.mpidrs):
            raise StateError(f"vCPU {vcpu}: the SDEI dispatcher has {len(self._s.mpidrs)}")
        return vcpu

    def _known(self, event: int) -> EventDescription:
        try:
            return self._events[event]
        except KeyError:
            raise StateError(f"SDEI event {event} was not described") from None

    def _key(self, event: EventDescription, vcpu: int) -> Key:
        return event.number, SHARED if event.shared else vcpu

    def _instances(self, event: EventDescription) -> Iterator[Key]:
        pes = (SHARED,) if event.shared else range(len(self._s.mpidrs))
        return ((event.number, pe) for pe in pes)

    def _routable(self, mode: int, mpidr: int) -> bool:
        return mode == t.RM_ANY or (mode == t.RM_PE and mpidr & MPIDR_AFFINITY in self._by_mpidr)

    def _act(self, vcpu: int, number: int, action: t.Action) -> int:
        event = self._events.get(number)
        if event is None:
            return t.INVALID_PARAMETERS
        key = self._key(event, vcpu)
        handler = self._s.handlers.get(key, _UNREGISTERED)
        code = t.answer(handler.state, action)
        if code == t.SUCCESS:
            self._step(key, handler, action)
        return code

    def _step(self, key: Key, handler: Handler, action: t.Action) -> None:
        """The one place where a handler's state changes."""
        after = t.TABLE[handler.state][action]
        assert after is not None, (handler.state, action)
        if after:
            self._s.handlers[key] = Handler(after, *handler[1:])
        else:
            self._s.handlers.pop(key, None)

    def _entry_pstate(self, pstate: int, sctlr: int) -> int:
        keep, new = self._entry if sctlr == 0 else entry_bits(self._features, sctlr)
        return pstate & keep | new

    def _discard(self, key: Key) -> tuple[int, ...]:
        if key not in self._s.pending:
            return ()
        del self._s.pending[key]
        return (key[0],) if key[0] else ()

    def _open(self, vcpu: int, critical: bool) -> bool:
        """Whether a handler of this priority may start on the PE (6.3)."""
        if self._s.masked[vcpu]:
            return False
        stack = self._s.contexts[vcpu]
        return not stack or (critical and not self._events[stack[-1].event].critical)

    def _target(self, key: Key, prefer: int | None) -> int | None:
        """The PE on which a pending event can run now, or None."""
        handler = self._s.handlers.get(key)
        if handler is None or handler.state != _READY:
            return None
        number, vcpu = key
        critical = self._events[number].critical
        if vcpu == SHARED and handler.routing == t.RM_PE:
            vcpu = self._by_mpidr[handler.affinity]
        if vcpu != SHARED:
            return vcpu if self._open(vcpu, critical) else None
        if prefer is not None and self._open(prefer, critical):
            return prefer
        busy: int | None = None
        for vcpu, masked in enumerate(self._s.masked):
            if not masked:
                if not self._s.contexts[vcpu]:
                    return vcpu
                if busy is None and self._open(vcpu, critical):
                    busy = vcpu
        return busy

    def _best_instance(self, event: EventDescription) -> int:
        """The PE whose instance of a private event is nearest to running."""

        def nearness(vcpu: int) -> int:
            state = self._s.handlers.get((event.number, vcpu), _UNREGISTERED).state
            if state == _READY and self._open(vcpu, event.critical):
                return 3
            return 2 if state & t.ENABLED else state & t.REGISTERED

        return max(range(len(self._s.mpidrs)), key=nearness)


def is_sdei(function: int) -> bool:
    """Whether an SMCCC function identifier (X0 of a call) is in the range of SDEI."""
    return 0 <= (function & 0xFFFF_FFFF) - t.FUNCTION_BASE < t.FUNCTION_COUNT
