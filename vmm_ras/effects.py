"""What the core asks for, in order.  Every effect has an ``id``: its place in the VM-wide order.

An adapter carries out a list of effects in that order and answers with ``Done(last id)``, and with
``Failed(id, reason)`` for one that did not work, skipping later effects of the list that have its ``source_id``.
``Stop`` and ``PollAck`` have answers of their own.  Notices ask for nothing: they say what was decided, for journals
and people.
"""

from __future__ import annotations

from typing import NamedTuple

from vmm_ras.events import Code


class Stop(NamedTuple):
    """Take the vCPU out of the guest (in its own thread) and answer Stopped; it stays out until Release."""

    id: int
    vcpu: int


class Hold(NamedTuple):
    """The vCPU is out and stays out: its error cannot be told yet.  ``until`` is on the core's clock."""

    id: int
    vcpu: int
    reason: str
    until: float


class Release(NamedTuple):
    """The vCPU may enter the guest again."""

    id: int
    vcpu: int


class ArmAck(NamedTuple):
    """Clear exactly the bits ``mask`` of the 64-bit Read Ack Register; the other bits are the guest's."""

    id: int
    source_id: int
    gpa: int
    mask: int


class WriteGuest(NamedTuple):
    """Write ``data`` to guest memory; nothing later of the list may become visible before it."""

    id: int
    source_id: int
    gpa: int
    data: bytes


class PollAck(NamedTuple):
    """Read ``size`` bytes at ``gpa`` and answer AckRead: nobody traps an acknowledgement in RAM."""

    id: int
    source_id: int
    gpa: int
    size: int


class InjectSea(NamedTuple):
    """Make the vCPU take a synchronous external abort with this ESR.

    Where ``far`` is None, FAR stays untouched, or gets the address of the access if its state said ``far_known``.
    """

    id: int
    source_id: int | None
    """Source whose record the guest will find, or None: there is none."""
    vcpu: int
    esr: int
    far: int | None


class InjectSerror(NamedTuple):
    """Make a virtual SError pending with this syndrome (VSESR: IDS and ISS, 25 bits)."""

    id: int
    source_id: int | None
    vcpu: int
    vsesr: int


class SetRegisters(NamedTuple):
    """Set registers of a stopped vCPU (SDEI dispatch or completion).  ``x`` starts at X0; None leaves one alone."""

    id: int
    source_id: int | None
    vcpu: int
    x: tuple[int, ...]
    pc: int
    pstate: int
    elr: int | None = None
    spsr: int | None = None


class Reply(NamedTuple):
    """Answer a GuestCall: X0 of the vCPU, a signed 64-bit number."""

    id: int
    vcpu: int
    x0: int


class RaiseLine(NamedTuple):
    """Pulse a line of the guest's error device: ``kind`` is ``gsiv`` (``number`` is the GSIV) or ``gpio`` (a pin)."""

    id: int
    source_id: int
    kind: str
    number: int


class Decided(NamedTuple):
    """Notice: which rule took a notification, and the guest range that it is about."""

    id: int
    code: Code
    gpa: int
    """-1: not known."""
    size: int
    rule: str
    what: str
    """``tell``, ``known`` (the guest was told already, or is being told), ``on-touch`` (each page is told when it is
    touched), ``ignored``, ``bare`` (told without a record), or the action that the orchestrator is asked for."""


class Posted(NamedTuple):
    """Notice: a block was published; ``pages`` are the (gpa, size) of its entries, none where it is not the core's."""

    id: int
    source_id: int
    delivery: str
    vcpu: int | None
    esr: int | None
    """ESR of the SEA or SError, where there is one."""
    pages: tuple[tuple[int, int], ...]
    block: bytes
    rule: str


class Acked(NamedTuple):
    """Notice: the guest acknowledged the source's block."""

    id: int
    source_id: int
    pages: tuple[tuple[int, int], ...]


class TakenBack(NamedTuple):
    """Notice: the source's block was withdrawn, because telling the guest failed; its pages are unreported again."""

    id: int
    source_id: int
    pages: tuple[tuple[int, int], ...]
    reason: str


class Undelivered(NamedTuple):
    """Notice: no way of the rule is open at present (``reason`` per way); its pages wait, and are not forgotten."""

    id: int
    rule: str
    reason: str


class OwnMemory(NamedTuple):
    """Notice: the address is in no guest memory slot, so it is the VMM's own memory; the guest is told nothing."""

    id: int
    code: Code
    hva: int
    lsb: int
    tid: int


class Escalate(NamedTuple):
    """The policy is at its end with a source: ``action`` is ``report``, ``stop``, ``reset`` or ``migrate``."""

    id: int
    source_id: int | None
    action: str
    reason: str


class Report(NamedTuple):
    """Tell the orchestrator what was lost.  ``until``: when the guest will be told, unless Proceed comes before; None:
    it is told at once, or not at all."""

    id: int
    code: Code
    gpa: int
    """-1: not known."""
    size: int
    rule: str
    until: float | None


class HookFailed(NamedTuple):
    """Notice: the policy's hook gave no usable answer, and the rules decided."""

    id: int
    reason: str


class Queued(NamedTuple):
    """Notice: a record waits for a source; ``waiting``: how many do."""

    id: int
    waiting: int


class Dropped(NamedTuple):
    """Notice: what was to be told is not told, and will not be; it is counted."""

    id: int
    what: str
    """``record``, ``sea``, ``serror``, or ``injection`` for one of these two that the host refused."""
    reason: str


Notice = Decided | Posted | Acked | TakenBack | Undelivered | OwnMemory | HookFailed | Queued | Dropped
Effect = (
    Stop
    | Hold
    | Release
    | ArmAck
    | WriteGuest
    | PollAck
    | InjectSea
    | InjectSerror
    | SetRegisters
    | Reply
    | RaiseLine
    | Escalate
    | Report
    | Notice
)
