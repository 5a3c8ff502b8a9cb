"""The state of an SDEI dispatcher as one plain value, and its way to JSON and back (what DEN0054 asks to migrate)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from vmm_ras.arm64 import EL_MODES, PSTATE_M, U64
from vmm_ras.errors import SnapshotError
from vmm_ras.sdei_table import MAX_NESTING, REGISTERED, RM_ANY, RM_PE, RUNNING, SAVED_REGISTERS, STATES

SHARED: Final = -1
"""Stands for the vCPU in the key of a shared event."""
_VERSION: Final = 1


class EventDescription(NamedTuple):
    """An event that the platform offers."""

    number: int
    """1 to 2^31 - 1; 0 is the software-signalled event, which every dispatcher has."""
    shared: bool = False
    """True: one handler for the VM; False: private, one per PE."""
    critical: bool = False
    """Priority: a critical event interrupts the handler of a normal one."""


class Handler(NamedTuple):
    """What the client registered for an event, and the state of it (sdei_table.TABLE)."""

    state: int
    entry: int = 0
    argument: int = 0
    routing: int = RM_ANY
    """RM_ANY or RM_PE; means something for shared events only."""
    affinity: int = 0
    """Affinity fields of the MPIDR, for RM_PE."""


class Context(NamedTuple):
    """A handler that runs, and what it interrupted."""

    event: int
    x: tuple[int, ...]
    """X0 to X17."""
    pc: int
    pstate: int


Key = tuple[int, int]
"""Event number, and vCPU or SHARED."""


@dataclass(slots=True)
class SdeiState:
    """Everything a dispatcher remembers.  A handler that is not registered and not running has no entry."""

    events: tuple[EventDescription, ...]
    """Event 0 included, by number."""
    mpidrs: tuple[int, ...]
    """Affinity fields by vCPU."""
    masked: list[bool]
    contexts: list[tuple[Context, ...]]
    """By vCPU, outermost first."""
    handlers: dict[Key, Handler] = field(default_factory=dict)
    pending: dict[Key, None] = field(default_factory=dict)
    """Events that were signalled and not yet dispatched, oldest first."""

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON-able values."""
        return {
            "version": _VERSION,
            "events": [list(event) for event in self.events],
            "mpidrs": list(self.mpidrs),
            "masked": list(self.masked),
            "handlers": [
                {"event": event, "vcpu": None if vcpu == SHARED else vcpu, **handler._asdict()}
                for (event, vcpu), handler in self.handlers.items()
            ],
            "pending": [[event, None if vcpu == SHARED else vcpu] for event, vcpu in self.pending],
            "contexts": [
                [{"event": c.event, "x": list(c.x), "pc": c.pc, "pstate": c.pstate} for c in stack]
                for stack in self.contexts
            ],
        }

    @classmethod
    def from_dict(cls, value: object, events: Sequence[EventDescription], mpidrs: Sequence[int]) -> SdeiState:
        """The state that ``to_dict`` gave, for a dispatcher of these events and PEs.

        ``value`` may come from anywhere.  Raises SnapshotError, which names the field, for anything that a dispatcher
        could not have got into.
        """
        top = _object(value, "", ("version", "events", "mpidrs", "masked", "handlers", "pending", "contexts"))
        _expect(_integer(top["version"], "version") == _VERSION, "version", f"expected {_VERSION}")
        _expect(top["events"] == [list(event) for event in events], "events", "not the events of this dispatcher")
        _expect(top["mpidrs"] == list(mpidrs), "mpidrs", "not the PEs of this dispatcher")
        pes = len(mpidrs)
        masked = _list(top["masked"], "masked")
        _expect(len(masked) == pes and all(type(bit) is bool for bit in masked), "masked", f"expected {pes} booleans")
        state = cls(tuple(events), tuple(mpidrs), list(masked), [()] * pes)
        shared = {event.number: event.shared for event in events}
        critical = {event.number: event.critical for event in events}

        def key(event: object, vcpu: object, path: str) -> Key:
            number = _integer(event, f"{path}.event")
            _expect(number in shared, f"{path}.event", f"no event {number}")
            if shared[number]:
                _expect(vcpu is None, f"{path}.vcpu", "a shared event has no vCPU: expected null")
                return number, SHARED
            _expect(type(vcpu) is int and 0 <= vcpu < pes, f"{path}.vcpu", f"expected a vCPU below {pes}")
            return number, vcpu  # type: ignore[return-value]  # an int, by the line above

        for i, entry in enumerate(_list(top["handlers"], "handlers")):
            path = f"handlers[{i}]"
            fields = _object(entry, path, ("event", "vcpu", *Handler._fields))
            where = key(fields["event"], fields["vcpu"], path)
            _expect(where not in state.handlers, path, "given twice")
            handler = _handler(fields, path, state.mpidrs)
            _expect(shared[where[0]] or handler.routing == RM_ANY, f"{path}.routing", "a private event is not routed")
            state.handlers[where] = handler
        for i, pair in enumerate(_list(top["pending"], "pending")):
            path = f"pending[{i}]"
            _expect(isinstance(pair, list) and len(pair) == 2, path, "expected [event, vCPU or null]")
            where = key(pair[0], pair[1], path)
            _expect(where not in state.pending, path, "given twice")
            state.pending[where] = None

        stacks = _list(top["contexts"], "contexts")
        _expect(len(stacks) == pes, "contexts", f"expected {pes} lists")
        running: set[Key] = set()
        for vcpu, stack in enumerate(stacks):
            path = f"contexts[{vcpu}]"
            depth = len(_list(stack, path))
            _expect(depth <= MAX_NESTING, path, f"{depth} handlers: at most {MAX_NESTING} nest")
            contexts = tuple(_context(entry, f"{path}[{i}]") for i, entry in enumerate(stack))
            for i, context in enumerate(contexts):
                number = context.event
                _expect(number in shared, f"{path}[{i}].event", f"no event {number}")
                where = number, SHARED if shared[number] else vcpu
                runs = where in state.handlers and state.handlers[where].state & RUNNING
                _expect(bool(runs), f"{path}[{i}].event", f"the handler of event {number} does not run")
                _expect(where not in running, f"{path}[{i}].event", f"event {number} runs twice")
                nests = not i or (critical[number] and not critical[contexts[0].event])
                _expect(nests, f"{path}[{i}].event", "a critical event interrupts a normal one, and nothing else")
                running.add(where)
            state.contexts[vcpu] = contexts
        for i, (where, handler) in enumerate(state.handlers.items()):
            runs = where in running
            _expect(runs == bool(handler.state & RUNNING), f"handlers[{i}].state", "it runs, but on no vCPU")
        return state


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


def _handler(fields: dict[str, Any], path: str, mpidrs: tuple[int, ...]) -> Handler:
    handler = Handler(*(_integer(fields[name], f"{path}.{name}") for name in Handler._fields))
    _expect(handler.state in STATES and handler.state != 0, f"{path}.state", f"no state {handler.state} to be in")
    if not handler.state & REGISTERED:
        _expect(handler[1:] == Handler(0)[1:], path, "a handler that is not registered has no entry or routing")
        return handler
    _expect(is_code_address(handler.entry), f"{path}.entry", "no address of an instruction")
    _expect(handler.routing in (RM_ANY, RM_PE), f"{path}.routing", "expected 0 or 1")
    at = handler.affinity
    _expect(at in mpidrs if handler.routing == RM_PE else at == 0, f"{path}.affinity", "no PE of this dispatcher")
    return handler


def _context(entry: object, path: str) -> Context:
    fields = _object(entry, path, Context._fields)
    x = _list(fields["x"], f"{path}.x")
    _expect(len(x) == SAVED_REGISTERS, f"{path}.x", f"expected {SAVED_REGISTERS} registers")
    pstate = _integer(fields["pstate"], f"{path}.pstate")
    # A guest must not gain an exception level by way of somebody's file.
    _expect(pstate & PSTATE_M in EL_MODES, f"{path}.pstate", "neither EL0 nor EL1")
    registers = tuple(_integer(value, f"{path}.x[{i}]") for i, value in enumerate(x))
    number = _integer(fields["event"], f"{path}.event")
    return Context(number, registers, _integer(fields["pc"], f"{path}.pc"), pstate)


def is_code_address(address: int) -> bool:
    """Whether a client may name ``address`` as an entry point or to resume at: not 0, and aligned to an instruction."""
    return 0 < address <= U64 and address & 3 == 0
