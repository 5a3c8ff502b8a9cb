"""What an SDEI dispatcher remembers, as one plain value (what DEN0054 asks to migrate), and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from vmm_ras.arm64 import U64
from vmm_ras.events import VcpuState, new
from vmm_ras.sdei_table import RM_ANY

SHARED: Final = -1
"""The place of shared events.  The instances of private events have their vCPU as place."""


class EventDescription(NamedTuple):
    """An event that the platform offers."""

    number: int
    """1 to 2^31 - 1; 0 is the software-signalled event, which every dispatcher has."""
    shared: bool = False
    """True: one handler for the VM; False: private, one per PE."""
    critical: bool = False
    """Priority: a critical event interrupts the handler of a normal one."""
    slot: bool = False
    """A bind slot: it has no source before the client binds an interrupt to it.  Always of normal priority."""


class Registration(NamedTuple):
    """What the client registered for an event."""

    entry: int
    argument: int
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


@dataclass(slots=True)
class SdeiState:
    """Everything a dispatcher remembers; nothing in it grows but with the events and PEs."""

    version: int
    """What VERSION answers."""
    events: tuple[EventDescription, ...]
    """Event 0 included, by number."""
    mpidrs: tuple[int, ...]
    """Affinity fields by vCPU."""
    states: list[dict[int, int]]
    """Place to event to the state of its handler (sdei_table.TABLE); without an entry it is unregistered.  The last
    one is that of ``SHARED``."""
    registrations: list[dict[int, Registration]]
    """Place to event to what was registered; an entry for each registered event."""
    contexts: list[list[Context]]
    """By vCPU, outermost first."""
    unmasked: int = 0
    """PEs that events may enter, a bit for each."""
    absent: int = 0
    """PEs that the platform cannot stop or release at present: nothing is sent there."""
    pending: dict[int, list[int]] = field(default_factory=dict)
    """Place to the events that were signalled and not yet dispatched, oldest first; no entry without one."""
    bound: dict[int, int] = field(default_factory=dict)
    """Bind slot to INTID."""

    @classmethod
    def reset(cls, version: int, events: tuple[EventDescription, ...], mpidrs: tuple[int, ...]) -> SdeiState:
        """Nothing registered, every PE masked."""
        pes = len(mpidrs)
        places = range(pes + 1)
        return cls(version, events, mpidrs, [{} for _ in places], [{} for _ in places], [[] for _ in range(pes)])


class Dispatch(NamedTuple):
    """A handler starts: the vCPU enters the guest with these registers; all others stay."""

    event: int
    x: tuple[int, ...]
    """X0 to X3."""
    pc: int
    pstate: int


class Registers(NamedTuple):
    """Registers to set when a handler completes, as in the effect SetRegisters: None leaves a register alone."""

    x: tuple[int, ...]
    """X0 to X17."""
    pc: int
    pstate: int
    elr: int | None = None
    spsr: int | None = None


class CallResult(NamedTuple):
    """The answer to a call, and what follows from it."""

    x0: int | None
    """Reply in X0, signed; None where ``registers`` take its place (a completion does not return)."""
    registers: Registers | None = None
    wanted: tuple[int, ...] = ()
    """vCPUs on which an event can be dispatched now, because of this call; the calling one may be among them."""
    discarded: tuple[int, ...] = ()
    """Platform events that were pending and are no longer, because the client registered or unregistered them."""
    completed: int | None = None
    """Event whose handler has completed."""
    failed: bool = False
    """The client completed it with EV_FAILED."""

    def after(self, state: VcpuState) -> VcpuState:
        """What the calling vCPU holds when it has its answer: what a dispatch on it interrupts."""
        r, rest = self.registers, state[3:]
        if r is not None:
            return new(VcpuState, (r.pc, r.pstate, r.x, *rest))
        assert self.x0 is not None
        return new(VcpuState, (state.pc, state.pstate, (self.x0 & U64, *state.x[1:]), *rest))


def is_code_address(address: int) -> bool:
    """Whether a client may name ``address`` as an entry point or to resume at: not 0, and aligned to an instruction."""
    return 0 < address <= U64 and address & 3 == 0


def interrupt_is_shared(intid: int) -> bool | None:
    """True for an SPI, False for a PPI (GICv3 2.2, extended ranges included); None for what cannot be bound."""
    if 32 <= intid < 1020 or 4096 <= intid < 5120:
        return True
    return False if 16 <= intid < 32 or 1056 <= intid < 1120 else None
