"""One error source: a status block, its Read Ack Register, and what the guest owes (ACPI 6.5, 18.3.2.8).

    free --post--> posted --acknowledged--> free
                     |  \\--taken back (telling the guest failed)--> free
                     \\--overdue--> posted, notification repeated ... then escalated

The gate is ``register & read_ack_write``: posting clears exactly those bits, and nothing is written while they are
clear.  A posted block is never touched: the guest copies, clears, then acknowledges, so what was merged in between
would vanish.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from acpi.image import PlacedSource
from vmm_ras.effects import ArmAck, Effect, PollAck, WriteGuest
from vmm_ras.events import TellRecord, new
from vmm_ras.record import capacity

NEVER: Final = float("inf")
# Classes as constants: the compiled copy looks any other name up each time.
_ArmAck: Final = ArmAck
_PollAck: Final = PollAck
_WriteGuest: Final = WriteGuest
FIRST_POLL: Final = 0.001
"""Seconds to the first timed look at an ack; each further one waits twice as long."""
LAST_POLL: Final = 1.0
QUIET_POLL: Final = 60.0
"""Seconds between looks once the policy is at its end with an unacknowledged block."""


@dataclass(slots=True)
class SourceState:
    """All there is to know of a source between two events."""

    pages: tuple[tuple[int, int], ...] = ()
    """(gpa, size) of the posted entries."""
    record: TellRecord | None = None
    """What is posted, where it is no block of the core's own."""
    queue: int = 0
    """Index of the rule that the pages are told by."""
    first: int = 0
    last: int = -1
    """Ids of the first and last effect of the posting: a Failed in between takes it back."""
    vcpu: int | None = None
    """vCPU that the notification goes to."""
    tries: int = 0
    """Repetitions done."""
    overdue: float = NEVER
    """When the next step against an unacknowledged block is due."""
    poll: float = NEVER
    """When to look at the ack next."""
    peek: int = 0
    """Id of the effect that reads the block status, to see whether the guest has read the block; 0: none is out."""
    withdrawn: int = 0
    """Id of the effect that withdraws the last block which was taken back: whatever its list holds of what was posted
    since is skipped where that fails."""
    wait: float = FIRST_POLL
    """Seconds from that look to the one after."""
    broken: str = ""
    """Why the source cannot be used any more: its block or register cannot be written."""
    refused: dict[int, float] = field(default_factory=dict)
    """Queue to when this source may be tried for it again: telling the guest through it failed."""


class ErrorSource:
    """The protocol of one source; its effects are numbered by the caller."""

    def __init__(self, placed: PlacedSource, way: str) -> None:
        self.placed, self.way = placed, way
        self.source_id, self.vector, self.block, self.ack, self.ack_write = (
            placed.source_id, placed.vector, placed.block, placed.ack, placed.ack_write,
        )  # fmt: skip
        self.capacity = capacity(placed.block_length, placed.max_sections)
        self.state = SourceState()
        self._gate = placed.ack if placed.ack is not None else placed.block
        self._gate_size = 8 if placed.ack is not None else 4
        self._first_poll = placed.poll_interval_ms / 1000 if way == "polled" else FIRST_POLL

    @property
    def free(self) -> bool:
        """Whether a block may be posted."""
        s = self.state
        return not s.pages and s.record is None and not s.broken and self.capacity > 0

    def takes(self, queue: int, now: float) -> bool:
        """Whether a block of this queue may be posted now."""
        s = self.state
        return not (s.pages or s.record is not None or s.broken or (s.refused and self.refuses(queue, now))) and (
            self.capacity > 0
        )

    def post(
        self, id: int, block: bytes, pages: tuple[tuple[int, int], ...], queue: int, now: float, after: float,
        out: list[Effect],
    ) -> int:  # fmt: skip
        """Publish a block: arm the gate, write the body with block status 0, then the status.  The last id used.

        ``after``: seconds after which something is done about a missing acknowledgement.
        """
        s, source_id, at = self.state, self.source_id, self.block
        s.pages = pages
        s.queue = queue
        s.vcpu = None
        s.tries = s.peek = 0
        s.wait = FIRST_POLL
        s.first = s.last = id + 1
        s.overdue = now + after
        s.poll = now + self._first_poll
        if self.ack is not None:
            id += 1
            out.append(new(_ArmAck, (id, source_id, self.ack, self.ack_write)))
        out.append(new(_WriteGuest, (id + 1, source_id, at, b"\0\0\0\0" + block[4:])))
        out.append(new(_WriteGuest, (id + 2, source_id, at, block[:4])))
        return id + 2

    def refuses(self, queue: int, now: float) -> bool:
        """Whether the source cannot be tried for this queue at present."""
        s = self.state
        if s.broken or not self.capacity:
            return True
        if not s.refused:
            return False
        until = s.refused.get(queue, 0.0)
        if until <= now:
            s.refused.pop(queue, None)
        return until > now

    def forget_refusals(self, now: float) -> None:
        """What was refused until now may be tried again."""
        refused = self.state.refused
        for queue in [q for q, until in refused.items() if until <= now]:
            del refused[queue]

    def look(self, id: int) -> PollAck:
        """The effect that reads the gate."""
        self.state.poll = NEVER
        return new(_PollAck, (id, self.source_id, self._gate, self._gate_size))

    def acknowledged(self, value: int) -> bool:
        """Whether the gate, read as ``value``, is open.  GHES version 1 has none: there the guest clears the status."""
        return value & self.ack_write != 0 if self.ack is not None else value == 0

    def look_at_status(self, id: int) -> PollAck:
        """The effect that reads the block status: it is 0 once the guest has read the block."""
        self.state.peek = id
        return PollAck(id, self.placed.source_id, self.placed.block, 4)

    def unread(self, now: float) -> None:
        """The gate is still shut: look again later, ever less often."""
        s = self.state
        s.poll = now + s.wait
        s.wait = min(s.wait * 2, LAST_POLL if s.overdue < NEVER else QUIET_POLL)

    def clear(self) -> tuple[tuple[int, int], ...]:
        """The posting is over; its pages."""
        s = self.state
        pages, s.pages, s.record = s.pages, (), None
        s.overdue = s.poll = NEVER
        s.first, s.last = 0, -1
        return pages

    def take_back(self, id: int) -> WriteGuest:
        """The effect that withdraws an unread block: block status 0, which a guest takes for empty."""
        self.state.withdrawn = id
        return WriteGuest(id, self.placed.source_id, self.placed.block, b"\0\0\0\0")
