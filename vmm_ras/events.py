"""What reaches the core: what the host saw, what the guest did, how effects went.

Events are named tuples: immutable, and the cheapest object that Python can make per event (a frozen dataclass costs
three times as much, and a replay makes several for each error).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

new: Final = tuple.__new__
"""Makes a NamedTuple of a tuple at half of what its own constructor costs: for those that every error takes."""


class Code(IntEnum):
    """``si_code`` of a memory-failure SIGBUS."""

    AR = 4
    """BUS_MCEERR_AR: the poison was consumed; action required before the thread goes on."""
    AO = 5
    """BUS_MCEERR_AO: poison was found, nobody consumed it; action optional."""


class HostSignal(NamedTuple):
    """A SIGBUS: what its siginfo knows, and the thread that got it.  It knows no guest address, and no EL."""

    code: Code
    hva: int
    """``si_addr``: host virtual address."""
    lsb: int
    """``si_addr_lsb``: log2 of the bytes lost."""
    tid: int
    """Thread that got the signal: a trace knows a thread, not a vCPU."""
    time: float | None = None
    """Wall-clock seconds since the Unix epoch, where known: it becomes the record's timestamp."""


class GuestAbort(NamedTuple):
    """KVM_EXIT_ARM_SEA: the vCPU consumed poison and the host relays the syndrome; there is no host address."""

    vcpu: int
    esr: int
    gva: int | None = None
    gpa: int | None = None
    time: float | None = None


class MemoryFault(NamedTuple):
    """A range of guest memory is lost, by guest physical address (KVM_EXIT_MEMORY_FAULT, an orchestrator's word)."""

    gpa: int
    size: int
    time: float | None = None


class VcpuState(NamedTuple):
    """What a stopped vCPU holds, as far as telling it an error depends on it."""

    pc: int
    pstate: int
    x: tuple[int, ...] = (0,) * 18
    """X0 to X17: what an SDEI dispatch saves."""
    serror: int | None = None
    """Syndrome (ISS) of a virtual SError that is pending already, else None."""
    vbar: int = 0
    sctlr: int = 0
    """SCTLR_EL1: SPAN and DSSBS decide what an SDEI dispatch, as an exception, does to PSTATE."""
    far_known: bool = False
    """It stands at the access that failed, and who makes the abort fills FAR (KVM's ext_dabt_pending)."""

    @property
    def el(self) -> int:
        """Exception level: 0 or 1 (PSTATE.M[3:2])."""
        return self.pstate >> 2 & 3


class Stopped(NamedTuple):
    """The answer to the effect Stop: the vCPU is out of the guest and stays out until Release."""

    vcpu: int
    state: VcpuState


class Done(NamedTuple):
    """Every effect up to and including ``effect`` was carried out, except those reported by Failed."""

    effect: int


class Failed(NamedTuple):
    """The effect was not wholly carried out; later effects of the same list for the same source were skipped."""

    effect: int
    reason: str


class AckRead(NamedTuple):
    """The answer to PollAck: what the register held when effect number ``effect`` read it."""

    effect: int
    source_id: int
    value: int


class GuestCall(NamedTuple):
    """The guest's HVC or SMC on a stopped vCPU; it is answered by Reply, and stays out until Release."""

    vcpu: int
    function: int
    """X0: SMCCC function identifier."""
    args: tuple[int, ...]
    """X1, X2, ..."""
    state: VcpuState


class Proceed(NamedTuple):
    """The orchestrator has seen a Report: what waits for it under this rule may be told now."""

    rule: str


class Replaced(NamedTuple):
    """The guest has good memory again in place of what it had lost (a reset, a restore): nothing is left to tell."""

    gpa: int
    size: int


class TellRecord(NamedTuple):
    """An error status block that is to reach the guest as it is: what it is about is not the core's business."""

    block: bytes
    source_id: int | None = None
    """Source that it goes through; None: the first free one of the ways by which found memory is told."""
    vcpu: int = 0
    """vCPU that a source with SEA or SEI notifies."""


class TellSea(NamedTuple):
    """The vCPU is to take a synchronous external abort, without a record.

    ``esr``: a data or instruction abort's ESR_EL1, whose EC becomes that of the exception level it comes from.
    ``far``: FAR_EL1; None leaves that register alone.
    """

    vcpu: int
    esr: int
    far: int | None = None


class TellSerror(NamedTuple):
    """A virtual SError with this syndrome (VSESR: IDS and ISS, 25 bits) is to become pending for the vCPU."""

    vcpu: int
    vsesr: int


class TellSdei(NamedTuple):
    """An SDEI event of the platform, or event 0 as another PE would signal it, is to become pending."""

    number: int
    vcpu: int | None = None
    """Whose instance of a private event; of a shared one, the PE that is preferred.  Event 0 needs it."""


Told = TellRecord | TellSea | TellSerror | TellSdei
"""What a person or a test asks for, and no host saw."""
Event = (
    HostSignal | GuestAbort | MemoryFault | Proceed | Replaced | Stopped | Done | Failed | AckRead | GuestCall | Told
)
