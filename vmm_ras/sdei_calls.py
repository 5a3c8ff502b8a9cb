"""The client's calls (Arm DEN0054, chapter 5), one function each.

Each takes the dispatcher, the calling vCPU, X1 onwards (at least five), what the vCPU holds, and the interrupts that
are active; it gives X0, or a CallResult where more follows.  Parameters are judged before states, as TF-A does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final

from vmm_ras import sdei_table as t
from vmm_ras.arm64 import U64
from vmm_ras.events import VcpuState, new
from vmm_ras.sdei_state import SHARED, CallResult, Registers, Registration, interrupt_is_shared, is_code_address
from vmm_ras.sdei_table import Action

if TYPE_CHECKING:
    from vmm_ras.sdei import SdeiDispatcher

Args = Sequence[int]
Active = Collection[int]
Call = Callable[["SdeiDispatcher", int, Args, VcpuState, Active], int | CallResult]

MPIDR_AFFINITY: Final = 0xFF_00FF_FFFF
"""Aff3 to Aff0; the other bits of an MPIDR say nothing about which PE it is."""
# Classes as constants: the compiled copy looks any other name up each time.
_CallResult: Final = CallResult
_Registers: Final = Registers
_COMPLETE: Final = int(Action.COMPLETE)
_COMPLETE_AND_RESUME: Final = int(Action.COMPLETE_AND_RESUME)


def _place(d: SdeiDispatcher, vcpu: int, number: int) -> int | None:
    """Where the vCPU's instance of the event is, or None: there is no such event."""
    event = d.events.get(number)
    return None if event is None else SHARED if event.shared else vcpu


def _routable(d: SdeiDispatcher, mode: int, mpidr: int) -> bool:
    return mode == t.RM_ANY or (mode == t.RM_PE and mpidr & MPIDR_AFFINITY in d.by_mpidr)


def _version(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int:
    return d.state.version


def _features(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int:
    if args[0] == t.FEATURE_BIND_SLOTS:
        shared = sum(event.slot and event.shared for event in d.state.events)
        private = sum(event.slot and not event.shared for event in d.state.events)
        return min(shared, 0xFFFF) << 16 | min(private, 0xFFFF)
    if args[0] == t.FEATURE_RELATIVE_MODE and d.state.version >= t.VERSION_1_1:
        return 0
    return t.INVALID_PARAMETERS


def _register(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int | CallResult:
    number, entry, argument, flags, mpidr = args[:5]
    place = _place(d, vcpu, number)
    # An entry point relative to the client's vectors (REL, 1.1) is refused with the other flags.
    if place is None or not is_code_address(entry) or not _routable(d, flags, mpidr):
        return t.INVALID_PARAMETERS
    if d.events[number].slot:
        intid = d.state.bound.get(number)
        if intid is None or intid in active:
            return t.DENIED
    if d.step(place, number, Action.REGISTER) is None:
        return t.DENIED
    if place == SHARED and flags == t.RM_PE:
        registration = Registration(entry, argument & U64, t.RM_PE, mpidr & MPIDR_AFFINITY)
    else:
        registration = Registration(entry, argument & U64)
    d.state.registrations[place][number] = registration
    # What is signalled from now on waits for ENABLE; what was signalled before was not for this handler.
    return _discard(d, place, number, t.SUCCESS)


def _discard(d: SdeiDispatcher, place: int, number: int, code: int) -> int | CallResult:
    # What the client signalled to itself (event 0) is nobody else's loss.
    return CallResult(code, discarded=(number,)) if d.discard(place, number) and number else code


def _enable(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int:
    return _act(d, vcpu, args[0], Action.ENABLE)


def _disable(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int:
    return _act(d, vcpu, args[0], Action.DISABLE)


def _act(d: SdeiDispatcher, vcpu: int, number: int, action: Action) -> int:
    place = _place(d, vcpu, number)
    if place is None:
        return t.INVALID_PARAMETERS
    return t.DENIED if d.step(place, number, action) is None else t.SUCCESS


def _context(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int:
    if not 0 <= args[0] < t.SAVED_REGISTERS:
        return t.INVALID_PARAMETERS
    stack = d.state.contexts[vcpu]
    if not stack:
        return t.DENIED
    value = stack[-1].x[args[0]]
    return value - (1 << 64) if value >> 63 else value


def _complete(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int | CallResult:
    if not d.state.contexts[vcpu]:
        return t.DENIED
    event, x, pc, pstate = d.pop(vcpu, _COMPLETE)
    registers = new(_Registers, (x, pc, pstate, None, None))
    return new(_CallResult, (None, registers, (), (), event, args[0] != t.EV_HANDLED))


def _complete_and_resume(
    d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active
) -> int | CallResult:
    at = args[0]
    if not d.state.contexts[vcpu] or not is_code_address(at):
        return t.DENIED
    event, x, pc, pstate = d.pop(vcpu, _COMPLETE_AND_RESUME)
    # As if the interrupted context had taken an exception to the address given.
    registers = new(_Registers, (x, at, d.entry_pstate(pstate, state.sctlr), pc, pstate))
    return new(_CallResult, (None, registers, (), (), event, False))


def _unregister(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int | CallResult:
    place = _place(d, vcpu, args[0])
    return t.INVALID_PARAMETERS if place is None else _unregister_at(d, place, args[0])


def _unregister_at(d: SdeiDispatcher, place: int, number: int) -> int | CallResult:
    code = t.answer(d.state.states[place].get(number, 0), Action.UNREGISTER)
    if d.step(place, number, Action.UNREGISTER) is None:
        return code
    del d.state.registrations[place][number]
    return _discard(d, place, number, code)


def _status(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int:
    place = _place(d, vcpu, args[0])
    return t.INVALID_PARAMETERS if place is None else d.state.states[place].get(args[0], 0)


def _get_info(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int:
    number, info = args[:2]
    event = d.events.get(number)
    if event is None or not 0 <= info <= t.INFO_EV_ROUTING_AFF:
        return t.INVALID_PARAMETERS
    if info == t.INFO_EV_TYPE:
        return int(event.shared)
    if info == t.INFO_EV_SIGNALED:
        return t.SIGNALED_NO if number else t.SIGNALED_YES
    if info == t.INFO_EV_PRIORITY:
        return int(event.critical)
    if not event.shared:
        return t.INVALID_PARAMETERS
    registration = d.state.registrations[SHARED].get(number)
    if registration is None:
        return t.DENIED
    if info == t.INFO_EV_ROUTING_MODE:
        return registration.routing
    return registration.affinity if registration.routing == t.RM_PE else t.INVALID_PARAMETERS


def _routing_set(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int:
    number, mode, mpidr = args[:3]
    event = d.events.get(number)
    if event is None or not event.shared or not _routable(d, mode, mpidr):
        return t.INVALID_PARAMETERS
    if event.slot and number not in d.state.bound:
        return t.INVALID_PARAMETERS
    if d.step(SHARED, number, Action.ROUTING_SET) is None:
        return t.DENIED
    affinity = mpidr & MPIDR_AFFINITY if mode == t.RM_PE else 0
    registrations = d.state.registrations[SHARED]
    registrations[number] = registrations[number]._replace(routing=mode, affinity=affinity)
    return t.SUCCESS


def _pe_mask(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int:
    was = d.state.unmasked >> vcpu & 1
    d.state.unmasked &= ~(1 << vcpu)
    return was


def _pe_unmask(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int:
    d.state.unmasked |= 1 << vcpu
    return t.SUCCESS


def _interrupt_bind(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int:
    intid, bound = args[0], d.state.bound
    shared = interrupt_is_shared(intid)
    if shared is None:
        return t.INVALID_PARAMETERS
    for event in d.state.events:
        if bound.get(event.number) == intid:
            return event.number
    if intid in d.kept:
        return t.DENIED
    for event in d.state.events:
        if event.slot and event.shared is shared and event.number not in bound:
            bound[event.number] = intid
            return event.number
    return t.OUT_OF_RESOURCE


def _interrupt_release(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int:
    intid = d.state.bound.get(args[0])
    if intid is None:
        return t.INVALID_PARAMETERS
    return t.DENIED if intid in active else _release(d, args[0])


def _release(d: SdeiDispatcher, number: int) -> int:
    """Denied while any PE has registered the event, or runs its handler: the interrupt is one for all."""
    if any(t.TABLE[states[number]][Action.RELEASE] is None for states in d.state.states if number in states):
        return t.DENIED
    del d.state.bound[number]
    return t.SUCCESS


def _event_signal(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> int | CallResult:
    target = d.by_mpidr.get(args[1] & MPIDR_AFFINITY)
    if args[0] != 0 or target is None:
        return t.INVALID_PARAMETERS
    d.mark(target, 0)
    return t.SUCCESS if d.target(target, 0, None) is None else CallResult(t.SUCCESS, wanted=(target,))


def _private_reset(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> CallResult:
    return _reset(d, vcpu)


def _shared_reset(d: SdeiDispatcher, vcpu: int, args: Args, state: VcpuState, active: Active) -> CallResult:
    result = _reset(d, SHARED)
    if result.x0 != t.SUCCESS:
        return result
    # All that can be released is; a private event that some PE has still registered keeps its interrupt.
    codes = [t.DENIED if intid in active else _release(d, number) for number, intid in list(d.state.bound.items())]
    return result._replace(x0=min(codes, default=t.SUCCESS))


def _reset(d: SdeiDispatcher, place: int) -> CallResult:
    """Unregister all events of a place.  Those that run end with their handlers, and make it DENIED."""
    codes: list[int | None] = []
    discarded: list[int] = []
    for number in sorted(d.state.states[place]):
        result = _unregister_at(d, place, number)
        if isinstance(result, CallResult):
            discarded += result.discarded
            codes.append(result.x0)
        else:
            codes.append(result)
    return CallResult(t.DENIED if t.PENDING in codes else t.SUCCESS, discarded=tuple(discarded))


CALLS: Final[dict[int, Call]] = {
    t.VERSION: _version,
    t.EVENT_REGISTER: _register,
    t.EVENT_ENABLE: _enable,
    t.EVENT_DISABLE: _disable,
    t.EVENT_CONTEXT: _context,
    t.EVENT_COMPLETE: _complete,
    t.EVENT_COMPLETE_AND_RESUME: _complete_and_resume,
    t.EVENT_UNREGISTER: _unregister,
    t.EVENT_STATUS: _status,
    t.EVENT_GET_INFO: _get_info,
    t.EVENT_ROUTING_SET: _routing_set,
    t.PE_MASK: _pe_mask,
    t.PE_UNMASK: _pe_unmask,
    t.INTERRUPT_BIND: _interrupt_bind,
    t.INTERRUPT_RELEASE: _interrupt_release,
    t.EVENT_SIGNAL: _event_signal,
    t.FEATURES: _features,
    t.PRIVATE_RESET: _private_reset,
    t.SHARED_RESET: _shared_reset,
}
"""Function identifier to what answers it."""
