"""Traces that nobody recorded, from a seed: the same scenario and seed give the same items on every machine.

Each is what a host with these properties could tell.  Only ``random()`` and ``getrandbits()`` of Python's generator are
used, whose streams are promised to stay, and times are whole microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any

from vmm_ras.errors import InputError
from vmm_ras.events import Code, HostSignal
from vmm_ras.memory import MemorySlot
from vmm_ras.traces.items import (
    AckDelay,
    Entry,
    Header,
    MaskSerror,
    PollStop,
    RunAt,
    SdeiRegistered,
    TraceItem,
    Unlocated,
    VcpuThread,
)

HVA, GPA = 0x7F40_0000_0000, 0x4000_0000
"""Where guest memory begins; aligned for granules of 1 GiB."""
TID = 4200
"""Thread of the VMM that takes AO; the vCPUs' follow it."""
HISTORY = 4096
"""Lost pages of which one may be met again."""
LOST = ("not sent (already pending)", "not sent (queue full)")


@dataclass(frozen=True)
class Scenario:
    """What a host does to a guest."""

    events: int = 1000
    """Errors, those that are lost included."""
    memory: int = 4 << 30
    """Bytes of guest memory, in one slot."""
    vcpus: int = 4
    host_page: int = 12
    """log2 of the host's page size: addresses are multiples of it."""
    granules: tuple[int, ...] = (12,)
    """``si_addr_lsb`` of the losses, each as likely."""
    ar: float = 0.3
    """How many errors are AR, of 1."""
    again: float = 0.1
    """How many are about a page that was lost before."""
    interval_us: int = 1_000_000
    """Mean time between errors, or between storms."""
    storm: int = 1
    """Errors of a storm."""
    storm_us: int = 2_000
    """Mean time between the errors of a storm."""
    at_once: int = 1
    """vCPUs that touch one lost page together."""
    lost: float = 0.0
    """How many signals are lost on their way: the VMM learns of the page when it is touched, if ever."""
    late_ack_ms: int = 0
    """The guest's acks change between prompt, late by up to this, and (seldom) never; 0: always prompt."""
    actions: float = 0.0
    """How often, per error, the guest masks SError, changes EL, registers SDEI anew or stops polling."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("events", 0, 1 << 40), ("memory", 1 << 12, 1 << 46), ("vcpus", 1, 512), ("host_page", 12, 16),
            ("ar", 0, 1), ("again", 0, 1), ("interval_us", 0, 1 << 40), ("storm", 1, 1 << 20), ("storm_us", 0, 1 << 40),
            ("at_once", 1, 512), ("lost", 0, 1), ("late_ack_ms", 0, 1 << 30), ("actions", 0, 1),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} is {getattr(self, name)}, expected {low} to {high}")
        for lsb in self.granules:
            if not self.host_page <= lsb <= 40 or 1 << lsb > self.memory:
                raise InputError(
                    f"a granule of {1 << lsb:#x} bytes, expected a host page at least, and guest memory at most"
                )
        if not self.granules or self.memory % (1 << self.host_page):
            raise InputError("guest memory is no multiple of the host's pages, or there is no granule")


SCENARIOS: dict[str, tuple[str, Scenario]] = {
    "mixed": ("AO and AR, one by one, some pages again", Scenario()),
    "storm": ("Storms of 64 errors within a tenth of a second", Scenario(storm=64, interval_us=20_000_000, again=0.3)),
    "host-64k": (
        "A host with 64 KiB pages under a guest with 4 KiB pages: several vCPUs hit one loss",
        Scenario(host_page=16, granules=(16,), at_once=4, ar=0.7),
    ),
    "hugetlb-2m": ("Guest memory from 2 MiB huge pages", Scenario(granules=(21,), at_once=2, interval_us=5_000_000)),
    "hugetlb-1g": (
        "Guest memory from 1 GiB huge pages",
        Scenario(events=4, memory=8 << 30, granules=(30,), at_once=2, interval_us=60_000_000),
    ),
    "lost": ("Signals that get lost; the page is told of when it is touched", Scenario(lost=0.3, storm=8)),
    "late-ack": ("A guest that acknowledges late, and sometimes never", Scenario(late_ack_ms=500, interval_us=200_000)),
    "restless": (
        "A guest that masks SError, changes EL, registers SDEI anew and stops polling meanwhile",
        Scenario(actions=0.3, late_ack_ms=100),
    ),
}
"""By name: what it is, and its values."""


def change(scenario: Scenario, **values: Any) -> Scenario:
    """The scenario with those values that are not None.  Raises InputError."""
    known = {field.name for field in fields(Scenario)}
    return replace(scenario, **{k: v for k, v in values.items() if v is not None and k in known})


def generate(scenario: Scenario, seed: int) -> Iterator[Entry]:
    """The items of a trace, numbered as the lines of the native trace."""
    run = _Run(scenario, seed)
    yield 1, None, Header(1, False)
    yield 2, None, MemorySlot(HVA, GPA, scenario.memory)
    number = 2
    for vcpu in range(scenario.vcpus):
        number += 1
        yield number, None, VcpuThread(vcpu, TID + 1 + vcpu)
    for at, item in run.items():
        number += 1
        yield number, at, item


class _Run:
    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.s = scenario
        self.random = Random(seed)
        self.now = 0
        """Microseconds."""
        self.past: list[tuple[int, int]] = []
        """(offset, lsb) of losses, the newest HISTORY of them."""
        self.masked: set[int] = set()
        self.el: dict[int, int] = {}
        self.registered, self.stopped, self.prompt = True, False, True

    def below(self, n: int) -> int:
        """A number from 0 to n - 1."""
        return self.random.getrandbits(64) * n >> 64

    def chance(self, of_one: float) -> bool:
        return self.random.random() < of_one

    def wait(self, mean_us: int) -> None:
        self.now += self.below(2 * mean_us + 1)

    def items(self) -> Iterator[tuple[float, TraceItem]]:
        done = 0
        while done < self.s.events:
            self.wait(self.s.interval_us)
            for _ in range(self.s.storm):
                if done >= self.s.events:
                    return
                for item in self.loss(self.s.events - done):
                    done += isinstance(item, HostSignal | Unlocated)
                    yield self.now / 1e6, item
                self.wait(self.s.storm_us if self.s.storm > 1 else 0)

    def loss(self, most: int) -> Iterator[TraceItem]:
        """One loss: what the guest does before it, and its signals, ``most`` of them."""
        if self.s.late_ack_ms and self.chance(0.05):
            yield self.acks()
        if self.chance(self.s.actions):
            yield self.action()
        offset, lsb = self.page()
        code = Code.AR if self.chance(self.s.ar) else Code.AO
        together = 1 + self.below(min(self.s.at_once, self.s.vcpus)) if code is Code.AR else 1
        first = self.below(self.s.vcpus)
        for n in range(min(together, most)):
            if n:
                self.wait(50)
            tid = TID + 1 + (first + n) % self.s.vcpus if code is Code.AR else TID
            if self.chance(self.s.lost):
                yield Unlocated(code, tid, LOST[self.below(len(LOST))])
                continue
            within = self.below(1 << lsb - self.s.host_page) << self.s.host_page
            yield HostSignal(code, HVA + offset + within, lsb, tid)

    def page(self) -> tuple[int, int]:
        """A new loss, or one of before."""
        if self.past and self.chance(self.s.again):
            return self.past[self.below(len(self.past))]
        lsb = self.s.granules[self.below(len(self.s.granules))]
        loss = self.below(self.s.memory >> lsb) << lsb, lsb
        if len(self.past) < HISTORY:
            self.past.append(loss)
        else:
            self.past[self.below(HISTORY)] = loss
        return loss

    def acks(self) -> AckDelay:
        self.prompt = not self.prompt
        if self.prompt:
            return AckDelay(0.0, None)
        return AckDelay(None if self.chance(0.1) else float(1 + self.below(self.s.late_ack_ms)), None)

    def action(self) -> TraceItem:
        vcpu = self.below(self.s.vcpus)
        match self.below(4):
            case 0:
                self.masked ^= {vcpu}
                return MaskSerror(vcpu, vcpu in self.masked)
            case 1:
                self.el[vcpu] = 1 - self.el.get(vcpu, 0)
                return RunAt(vcpu, self.el[vcpu])
            case 2:
                self.registered = not self.registered
                return SdeiRegistered(self.registered)
            case _:
                self.stopped = not self.stopped
                return PollStop(self.stopped)
