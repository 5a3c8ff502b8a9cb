"""The state of an SDEI dispatcher as JSON-able values, and back: nothing that comes back is trusted."""

from __future__ import annotations

from typing import Any, Final

from vmm_ras.arm64 import EL_MODES, PSTATE_M, U64
from vmm_ras.errors import SnapshotError
from vmm_ras.sdei_state import (
    SHARED,
    Context,
    EventDescription,
    Registration,
    SdeiState,
    interrupt_is_shared,
    is_code_address,
)
from vmm_ras.sdei_table import MAX_NESTING, REGISTERED, RM_ANY, RM_PE, RUNNING, SAVED_REGISTERS, STATES

_FORMAT: Final = 1
_TOP: Final = (
    "format", "version", "events", "mpidrs", "unmasked", "absent", "handlers", "pending", "contexts", "bound",
)  # fmt: skip
_HANDLER: Final = ("event", "vcpu", "state", *Registration._fields)
_UNREGISTERED: Final = Registration(0, 0)


def to_plain(state: SdeiState) -> dict[str, Any]:
    """The state as JSON-able values that share nothing with it."""
    pes = range(len(state.mpidrs))
    handlers = [
        {"event": number, "vcpu": _vcpu(place), "state": states[number]}
        | state.registrations[place].get(number, _UNREGISTERED)._asdict()
        for place, states in zip((*pes, SHARED), state.states, strict=True)
        for number in sorted(states)
    ]
    return {
        "format": _FORMAT,
        "version": state.version,
        "events": [list(event) for event in state.events],
        "mpidrs": list(state.mpidrs),
        "unmasked": [vcpu for vcpu in pes if state.unmasked >> vcpu & 1],
        "absent": [vcpu for vcpu in pes if state.absent >> vcpu & 1],
        "handlers": handlers,
        "pending": [{"vcpu": _vcpu(place), "events": list(state.pending[place])} for place in sorted(state.pending)],
        "contexts": [
            {"vcpu": vcpu, **context._asdict(), "x": list(context.x)}
            for vcpu, stack in enumerate(state.contexts)
            for context in stack
        ],
        "bound": [list(pair) for pair in sorted(state.bound.items())],
    }


def from_plain(value: object, version: int, events: tuple[EventDescription, ...], mpidrs: tuple[int, ...]) -> SdeiState:
    """The state that ``to_plain`` gave, for a dispatcher of this version with these events and PEs.

    ``value`` may come from anywhere.  Raises SnapshotError, which names the field, for anything that a dispatcher
    could not have got into.
    """
    top = _object(value, "", _TOP)
    _expect(_integer(top["format"], "format") == _FORMAT, "format", f"expected {_FORMAT}")
    _expect(top["version"] == version, "version", f"expected {version:#x}")
    _expect(top["events"] == [list(event) for event in events], "events", "not the events of this dispatcher")
    _expect(top["mpidrs"] == list(mpidrs), "mpidrs", "not the PEs of this dispatcher")
    state = SdeiState.reset(version, events, mpidrs)
    reader = _Reader({event.number: event for event in events}, state)
    state.unmasked = reader.pes(top["unmasked"], "unmasked")
    state.absent = reader.pes(top["absent"], "absent")
    reader.bound(top["bound"])
    for i, entry in enumerate(_list(top["handlers"], "handlers")):
        reader.handler(entry, f"handlers[{i}]")
    for i, entry in enumerate(_list(top["pending"], "pending")):
        reader.pending(entry, f"pending[{i}]")
    for i, entry in enumerate(_list(top["contexts"], "contexts")):
        reader.context(entry, f"contexts[{i}]")
    running = sum(bool(value & RUNNING) for states in state.states for value in states.values())
    _expect(running == sum(map(len, state.contexts)), "contexts", "a handler runs, but on no vCPU")
    return state


class _Reader:
    """Puts a state together, field by field."""

    def __init__(self, events: dict[int, EventDescription], state: SdeiState) -> None:
        self.events, self.state = events, state
        self.running: set[tuple[int, int]] = set()

    def vcpu(self, value: object, path: str) -> int:
        count = len(self.state.mpidrs)
        _expect(type(value) is int and 0 <= value < count, path, f"expected a vCPU below {count}")
        return value  # type: ignore[return-value]  # an int, by the line above

    def pes(self, value: object, path: str) -> int:
        """A list of vCPUs, in order, as a bit for each."""
        last, bits = -1, 0
        for i, entry in enumerate(_list(value, path)):
            vcpu = self.vcpu(entry, f"{path}[{i}]")
            _expect(vcpu > last, f"{path}[{i}]", "expected vCPUs in order, each once")
            last, bits = vcpu, bits | 1 << vcpu
        return bits

    def event(self, value: object, path: str) -> EventDescription:
        number = _integer(value, path)
        _expect(number in self.events, path, f"no event {number}")
        return self.events[number]

    def place(self, event: EventDescription, vcpu: object, path: str) -> int:
        if event.shared:
            _expect(vcpu is None, path, "a shared event has no vCPU: expected null")
            return SHARED
        return self.vcpu(vcpu, path)

    def bound(self, value: object) -> None:
        for i, pair in enumerate(_list(value, "bound")):
            path = f"bound[{i}]"
            _expect(isinstance(pair, list) and len(pair) == 2, path, "expected [event, INTID]")
            event, intid = self.event(pair[0], path), _integer(pair[1], path)
            shared = interrupt_is_shared(intid)
            _expect(event.slot and shared is event.shared, path, f"interrupt {intid} cannot be bound to it")
            taken = self.state.bound
            _expect(event.number not in taken and intid not in taken.values(), path, "bound twice")
            taken[event.number] = intid

    def handler(self, value: object, path: str) -> None:
        fields = _object(value, path, _HANDLER)
        event = self.event(fields["event"], f"{path}.event")
        place = self.place(event, fields["vcpu"], f"{path}.vcpu")
        states = self.state.states[place]
        _expect(event.number not in states, path, "given twice")
        state = _integer(fields["state"], f"{path}.state")
        _expect(state in STATES and state != 0, f"{path}.state", f"no state {state} to be in")
        _expect(not event.slot or event.number in self.state.bound, path, "nothing is bound to the event")
        states[event.number] = state
        r = Registration(*(_integer(fields[name], f"{path}.{name}") for name in Registration._fields))
        if not state & REGISTERED:
            _expect(r == _UNREGISTERED, path, "a handler that is not registered has no entry or routing")
            return
        _expect(is_code_address(r.entry), f"{path}.entry", "no address of an instruction")
        _expect(r.routing in (RM_ANY, RM_PE), f"{path}.routing", "expected 0 or 1")
        _expect(event.shared or r.routing == RM_ANY, f"{path}.routing", "a private event is not routed")
        known = r.affinity in self.state.mpidrs if r.routing == RM_PE else r.affinity == 0
        _expect(known, f"{path}.affinity", "no PE of this dispatcher")
        self.state.registrations[place][event.number] = r

    def pending(self, value: object, path: str) -> None:
        fields = _object(value, path, ("vcpu", "events"))
        place = SHARED if fields["vcpu"] is None else self.vcpu(fields["vcpu"], f"{path}.vcpu")
        numbers = _list(fields["events"], f"{path}.events")
        _expect(place not in self.state.pending and bool(numbers), path, "expected each vCPU once, with its events")
        waiting = self.state.pending[place] = []
        for i, number in enumerate(numbers):
            event = self.event(number, f"{path}.events[{i}]")
            _expect(event.shared == (place == SHARED), f"{path}.events[{i}]", "null is for shared events, only")
            _expect(event.number not in waiting, f"{path}.events[{i}]", "given twice")
            waiting.append(event.number)

    def context(self, value: object, path: str) -> None:
        fields = _object(value, path, ("vcpu", *Context._fields))
        vcpu, event = self.vcpu(fields["vcpu"], f"{path}.vcpu"), self.event(fields["event"], f"{path}.event")
        place, number = SHARED if event.shared else vcpu, event.number
        runs = self.state.states[place].get(number, 0) & RUNNING
        _expect(bool(runs), f"{path}.event", f"the handler of event {number} does not run")
        _expect((place, number) not in self.running, f"{path}.event", f"event {number} runs twice")
        self.running.add((place, number))
        r = self.state.registrations[place].get(number, _UNREGISTERED)
        there = r.routing == RM_ANY or r.affinity == self.state.mpidrs[vcpu]
        _expect(there, f"{path}.vcpu", f"event {number} is routed to another PE")
        stack = self.state.contexts[vcpu]
        _expect(len(stack) < MAX_NESTING, path, f"more than {MAX_NESTING} handlers on vCPU {vcpu}")
        nests = not stack or (event.critical and not self.events[stack[-1].event].critical)
        _expect(nests, f"{path}.event", "a critical event interrupts a normal one, and nothing else")
        x = _list(fields["x"], f"{path}.x")
        _expect(len(x) == SAVED_REGISTERS, f"{path}.x", f"expected {SAVED_REGISTERS} registers")
        pc, pstate = _integer(fields["pc"], f"{path}.pc"), _integer(fields["pstate"], f"{path}.pstate")
        # A guest must not gain an exception level by way of somebody's file.
        _expect(pstate & PSTATE_M in EL_MODES, f"{path}.pstate", "neither EL0 nor EL1")
        registers = tuple(_integer(word, f"{path}.x[{j}]") for j, word in enumerate(x))
        stack.append(Context(number, registers, pc, pstate))


def _vcpu(place: int) -> int | None:
    return None if place == SHARED else place


def _expect(ok: bool, path: str, what: str) -> None:
    if not ok:
        raise SnapshotError(f"sdei snapshot: {path or 'top'}: {what}")


def _object(value: object, path: str, names: tuple[str, ...]) -> dict[str, Any]:
    _expect(isinstance(value, dict), path, "expected an object")
    assert isinstance(value, dict)
    for name in names:
        _expect(name in value, f"{path}.{name}".lstrip("."), "missing")
    _expect(len(value) == len(names), path, f"expected no other fields than {', '.join(names)}")
    return value


def _list(value: object, path: str) -> list[Any]:
    _expect(isinstance(value, list), path, "expected a list")
    assert isinstance(value, list)
    return value


def _integer(value: object, path: str) -> int:
    _expect(type(value) is int and 0 <= value <= U64, path, "expected an unsigned 64-bit number")
    assert isinstance(value, int)
    return value
