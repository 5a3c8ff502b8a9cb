"""A core and a model guest joined, as the tests use them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from acpi.presets import PRESETS
from vmm_ras import sdei_table
from vmm_ras.effects import Effect, SetRegisters, Stop
from vmm_ras.events import Code, Event, Failed, GuestCall, HostSignal, Stopped
from vmm_ras.guests.model import ModelGuest
from vmm_ras.guests.os import Action
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import load_policy
from vmm_ras.profiles import PROFILES

HVA, GPA, SIZE = 0x7F00_0000_0000, 0x4000_0000, 1 << 30
TABLES = 0x3FF0_0000
SDEI = 'version = 1\n[[rule]]\nname = "r"\nwhen = { code = "AO" }\ndeliver = ["sdei"]\n'
CONSUMED = '[[rule]]\nname = "c"\nwhen = { code = "AR" }\ndeliver = ["sea"]\n'


class Machine:
    """One VM: 4 vCPUs on threads 100 to 103, 1 GiB of memory, the sources of a preset."""

    def __init__(
        self, preset: str = "all", guest: str = "linux", *, sdei: bool = True, policy: str | None = None, **options: Any
    ) -> None:
        self.image = PRESETS[preset].place(TABLES)
        self.guest = ModelGuest(self.image, PROFILES[guest], vcpus=4)
        self.guest.memory.add_region(GPA, SIZE)
        self.core = Notifier(
            self.image.sources, MemoryMap([MemorySlot(HVA, GPA, SIZE)]), guest=PROFILES[guest], vcpus=4,
            threads={100 + n: n for n in range(4)}, policy=None if policy is None else load_policy(policy), **options,
        )  # fmt: skip
        self.now = 1.0
        self.last_id = 0
        """Of the effects that were carried out."""
        if sdei:
            self.guest.start_sdei(self.core, 0.0)

    @property
    def os(self) -> Any:
        return self.guest.os

    def receive(self, event: Event) -> list[Effect]:
        """The event, and all that follows from it in core and guest; the effects in order."""
        return self.drive(self.core.receive(event, self.now))

    def drive(self, effects: list[Effect]) -> list[Effect]:
        """Carry out effects and all that follows; the effects in order."""
        seen: list[Effect] = []

        def watch(done: list[Effect]) -> None:
            for e in done:
                assert e.id > self.last_id, "the id of an effect is its place in the order of all"
                self.last_id = e.id
            seen.extend(done)

        self.guest.drive(self.core, effects, self.now, watch)
        return seen

    def ar(self, page: int, vcpu: int = 0, lsb: int = 12) -> list[Effect]:
        """vCPU consumes poison in a page."""
        return self.receive(HostSignal(Code.AR, HVA + (page << 12), lsb, 100 + vcpu))

    def ao(self, page: int, lsb: int = 12) -> list[Effect]:
        """Poison is found in a page."""
        return self.receive(HostSignal(Code.AO, HVA + (page << 12), lsb, 1))

    def wait(self, seconds: float) -> list[Effect]:
        """Let time pass."""
        end, seen = self.now + seconds, []
        while True:
            core = self.core.next_deadline()
            due = min(end if core is None else core, self.os.next_time(self.now))
            if due > end or (core is None and due == end):
                break
            self.now = max(self.now, due)
            self.os.advance(self.now)
            seen += self.drive(self.core.expire(self.now))
            if due == end:
                break
        self.now = end
        return seen

    def state(self, page: int) -> int:
        return self.core.poison.state((GPA >> 12) + page)

    def did(self) -> list[tuple[int | None, str]]:
        """(source id, outcome) of what the guest did since the last call."""
        found: Iterable[Action] = self.os.drain()
        return [(a.source_id, a.outcome) for a in found]


class Gated(Machine):
    """A machine whose adapter is slow: Stops of ``deaf`` vCPUs are kept in ``unanswered``."""

    def __init__(self, policy: str = SDEI + CONSUMED, **options: Any) -> None:
        super().__init__(policy=policy, **options)
        self.deaf: set[int] = set()
        self.unanswered: dict[int, Stop] = {}
        self.entered: list[tuple[int, int | None]] = []
        """(vCPU, source) of each SDEI handler that was entered."""
        perform = self.guest.perform

        def slow(effects: list[Effect], now: float) -> list[Any]:
            for e in effects:
                if isinstance(e, SetRegisters) and len(e.x) == 4:
                    assert not self.core.sdei.masked(e.vcpu)
                    self.entered.append((e.vcpu, e.source_id))
                if isinstance(e, Stop) and e.vcpu in self.deaf:
                    self.unanswered[e.vcpu] = e
            return perform([e for e in effects if e not in self.unanswered.values()], now)

        self.guest.perform = slow  # type: ignore[method-assign]

    def call(self, vcpu: int, function: int, *args: int) -> list[Effect]:
        """A call of the guest's kernel."""
        state = self.guest.vcpus[vcpu].state()
        return self.receive(GuestCall(vcpu, function, args, state._replace(pstate=5)))

    def mask(self, *vcpus: int) -> None:
        for vcpu in vcpus:
            self.call(vcpu, sdei_table.PE_MASK)

    def answer(self, vcpu: int) -> list[Effect]:
        """The vCPU comes at last."""
        del self.unanswered[vcpu]
        return self.receive(Stopped(vcpu, self.guest.vcpus[vcpu].state()))

    def fail(self, vcpu: int) -> list[Effect]:
        """Its thread is gone."""
        return self.receive(Failed(self.unanswered.pop(vcpu).id, "the thread is gone"))


def of(effects: Iterable[Effect], kind: type) -> list[Any]:
    """The effects of one kind."""
    return [e for e in effects if isinstance(e, kind)]


def stops(effects: list[Effect]) -> list[int]:
    return [e.vcpu for e in of(effects, Stop)]
