"""What a trace tells beside our events: the guest's memory and vCPUs, what the guest did, lines that make no sense."""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

from vmm_ras.errors import InputError
from vmm_ras.events import Code, GuestAbort, HostSignal, MemoryFault
from vmm_ras.memory import MemorySlot

Addresses = Literal["hva", "hpa"]
"""What ``HostSignal.hva`` holds: a host virtual address, or the host physical one that stands in for it."""


class Header(NamedTuple):
    """What a JSONL trace says of itself."""

    version: int
    wall: bool
    """True if the trace's times are seconds since the Unix epoch; False if only their differences mean anything."""
    addresses: Addresses = "hva"


class VcpuThread(NamedTuple):
    """The host thread ``tid`` runs the vCPU ``vcpu``."""

    vcpu: int
    tid: int


class AckDelay(NamedTuple):
    """From now on the guest writes read-acks ``ms`` milliseconds late; None: never again."""

    ms: float | None
    source_id: int | None
    """The HEST error source that is meant, or None for all."""


class MaskSerror(NamedTuple):
    """The guest sets (``masked``) or clears PSTATE.A on the vCPU."""

    vcpu: int
    masked: bool


class SdeiRegistered(NamedTuple):
    """The guest registers and enables its SDEI events, or unregisters them."""

    registered: bool


class RunAt(NamedTuple):
    """The vCPU runs at this exception level from now on: 0 or 1."""

    vcpu: int
    el: int


class PollStop(NamedTuple):
    """The guest stops looking at polled error sources, or starts again."""

    stopped: bool


class Unlocated(NamedTuple):
    """The host told of an error, but the trace does not say which memory of the guest it hit."""

    code: Code | None
    tid: int
    """Thread that was told; 0 if unknown."""
    what: str
    """One line of printable ASCII: what the trace does say."""
    time: float | None = None


class BadLine(NamedTuple):
    """A line that the trace's format does not allow; it is skipped and counted."""

    reason: str
    """One line of printable ASCII: what is wrong, and what was expected."""


TraceItem = (
    HostSignal
    | GuestAbort
    | MemoryFault
    | Header
    | MemorySlot
    | VcpuThread
    | AckDelay
    | MaskSerror
    | SdeiRegistered
    | RunAt
    | PollStop
    | Unlocated
    | BadLine
)

Entry = tuple[int, float | None, TraceItem]
"""Line number (from 1), trace-clock seconds (None if the line shows no time), and what the line says."""


class Tally:
    """What a reader met and did not yield as an event, counted while the trace is iterated."""

    def __init__(self, name: str, strict: bool) -> None:
        self.name = name
        self.strict = strict
        self.bad = 0
        """Lines reported as BadLine."""
        self.other = 0
        """Deliveries of SIGBUS whose si_code is not a memory failure's (BUS_ADRERR, SI_USER, ...)."""
        self.info = 0
        """Lines about memory failure that are no notification: what a kernel did with the page, a process that died."""
        self.notes: Counter[str] = Counter()
        """What the trace could not tell, or what was made of it, and how often; the texts are a reader's own."""

    def reject(self, number: int, reason: str) -> BadLine:
        """The item for a bad line.

        Raises InputError ("FILE:LINE: what, expected what") if the trace is read strictly.
        """
        if self.strict:
            raise InputError(f"{self.name}:{number}: {reason}")
        self.bad += 1
        return BadLine(reason)


def ascii_only(text: bytes, most: int = 60) -> str:
    """A name from a hostile line: printable ASCII, of bounded length."""
    return "".join(chr(c) if 0x20 <= c <= 0x7E else "?" for c in text[:most])


def shown(text: bytes, most: int = 60) -> str:
    """A piece of a hostile line for a message: printable ASCII, of bounded length, in quotes."""
    cut = text[:most].decode("utf-8", "replace")
    return ascii(cut) + ("..." if len(text) > most else "")
