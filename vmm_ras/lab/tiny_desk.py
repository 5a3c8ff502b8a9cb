"""Where a vCPU of the tiny guest gets its commands, and leaves what became of them: the page of ``guest/tiny.S``."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from vmm_ras.io.kvm.vcpu import Vcpu
from vmm_ras.source import ErrorSource

MMIO = 0x0900_0000
INSTRUCTION = 4
IDLE = 0.002
"""Seconds before a vCPU without a command asks again."""
ARGUMENTS, RESULT, VECTOR, SPSR, SKIP = 0x08, 0x40, 0x100, 0x120, 0x128
BLOCK, ACK, RECORD, SDEI_BLOCK, SDEI_ACK, SDEI_DONE = 0x130, 0x138, 0x140, 0x150, 0x158, 0x160
SERROR = 3
"""Number of an SError's vector, in its block of four."""
Skip = Callable[[Vcpu], int] | int
"""What the handler of an exception adds to ELR."""


class Command(IntEnum):
    """As in the table of ``tiny.S``."""

    NONE = 0
    LOAD = 1
    STORE = 2
    JUMP = 3
    UNMASK = 4
    MASK = 5
    HVC = 6
    SMC = 7
    IDS = 8
    ESB = 9
    USER = 10
    WALK = 11
    SPIN = 12
    POLL = 13
    MMU = 14


class Taken(NamedTuple):
    """An exception as the guest saw it."""

    vector: int
    esr: int
    far: int
    elr: int
    spsr: int


class Answer(NamedTuple):
    """What became of a command."""

    results: tuple[int, ...]
    taken: tuple[Taken, ...]
    records: tuple[int, ...]
    """Physical addresses that the guest found in records."""


class Desk:
    """One vCPU's: everything in its thread, but for :meth:`give`."""

    def __init__(self, vcpu: Vcpu, ways: Mapping[str, Sequence[ErrorSource]]) -> None:
        self._vcpu, self._ways = vcpu, ways
        self._wanted: queue.SimpleQueue[tuple[Command, Sequence[int], Skip]] = queue.SimpleQueue()
        self.exceptions = 0
        """Taken so far."""
        self.up, self.begun, self.done = threading.Event(), threading.Event(), threading.Event()
        """It has asked for a command at all; it has the one that was wanted; it is through with it."""
        self._arguments: Sequence[int] = ()
        self._skip: Skip = INSTRUCTION
        self._busy = False
        self._results: list[int] = []
        self._taken: list[list[int]] = []
        self._records: list[int] = []

    def give(self, number: Command, arguments: Sequence[int], skip: Skip = INSTRUCTION) -> None:
        """Leave a command, from another thread."""
        self.done.clear()
        self.begun.clear()
        self._wanted.put((number, arguments, skip))

    def answer(self) -> Answer:
        """What became of the last command."""
        return Answer(tuple(self._results), tuple(Taken(*values) for values in self._taken), tuple(self._records))

    def written(self, register: int, value: int) -> None:
        """The guest tells something."""
        if register == RESULT:
            self._results.append(value)
        elif register == VECTOR:
            self._taken.append([value])
            self.exceptions += 1
        elif VECTOR < register <= SPSR:
            self._taken[-1].append(value)
        elif register in (RECORD, SDEI_DONE):
            self._records.append(value)

    def read(self, register: int) -> int:
        """The guest asks for something."""
        if register == 0:
            return self._next()
        if ARGUMENTS <= register < ARGUMENTS + 8 * len(self._arguments):
            return self._arguments[(register - ARGUMENTS) // 8]
        if register == SKIP:
            return (self._skip if isinstance(self._skip, int) else self._skip(self._vcpu)) & (1 << 64) - 1
        if register in (BLOCK, ACK):
            return self._source("sei" if self._taken and self._taken[-1][0] % 4 == SERROR else "sea", register == ACK)
        if register in (SDEI_BLOCK, SDEI_ACK):
            return self._source("sdei", register == SDEI_ACK)
        return 0

    def _source(self, way: str, ack: bool) -> int:
        """Where its block is, or its Read Ack Register; 0: there is no such source, and nothing to look at."""
        if not self._ways[way]:
            return 0
        placed = self._ways[way][0].placed
        return placed.ack or 0 if ack else placed.block

    def _next(self) -> Command:
        if self._busy:
            self._busy = False
            self.done.set()
        self.up.set()
        try:
            number, self._arguments, self._skip = self._wanted.get_nowait()
        except queue.Empty:
            threading.Event().wait(IDLE)
            return Command.NONE
        self._results, self._taken, self._records, self._busy = [], [], [], True
        self.begun.set()
        return number
