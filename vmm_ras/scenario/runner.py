"""Who plays a scenario: the model machine here, a real guest elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from acpi.image import PlacedSource
from acpi.presets import PRESETS
from vmm_ras.deciding import Hook
from vmm_ras.effects import Effect
from vmm_ras.errors import InputError
from vmm_ras.events import Proceed
from vmm_ras.guests.os import Action
from vmm_ras.memory import PAGE_SHIFTS, STATES, MemorySlot
from vmm_ras.policy import Policy, load_policy
from vmm_ras.profiles import PROFILES
from vmm_ras.record import STYLES
from vmm_ras.replay import RAM_BASE, TABLES, Replay
from vmm_ras.scenario.journal import Moment, Place, Wait
from vmm_ras.traces.items import VcpuThread

HVA = 0x7F00_0000_0000
FIRST_THREAD = 100
"""Thread of vCPU 0 in the model; those of the others follow."""
BOOTED = 0.001
"""Seconds from boot to the first sentence, so that what the guest does at whole intervals lies ahead."""
_SIZES = {"K": 10, "M": 20, "G": 30, "T": 40}


def bytes_of(value: int | str, what: str = "size") -> int:
    """Bytes, from a number or a text like ``64K``.  Raises InputError."""
    shift = _SIZES.get(value[-1:].upper(), 0) if isinstance(value, str) else 0
    try:
        found = int(value[: -1 if shift else None], 0) << shift if isinstance(value, str) else value
    except ValueError:
        found = 0
    if isinstance(found, bool) or not isinstance(found, int) or not 0 < found < 1 << 64:
        raise InputError(f"{what} {value!r}: expected bytes, as a number or like '64K'")
    return found


class Runner(Protocol):
    """What a scenario needs of whoever plays it."""

    @property
    def now(self) -> float:
        """Seconds since the guest booted."""

    @property
    def place(self) -> Place:
        """Where memory and threads are."""

    @property
    def sources(self) -> Sequence[PlacedSource]:
        """The error sources that the guest was given."""

    @property
    def journal(self) -> list[Moment]:
        """What happened so far, in order."""

    def play(self, item: Any) -> None:
        """An event of the host or an action of the guest (``vmm_ras.traces.items``), now, and all that follows."""

    def wait(self, seconds: float) -> None:
        """Let time pass."""

    def settle(self) -> None:
        """Let the guest finish what it has, for some time."""

    def state(self, gpa: int) -> str:
        """What the guest was told of a page: one of ``vmm_ras.memory.STATES``."""

    def offlined(self, gpa: int) -> bool:
        """Whether the guest took the page out of use."""

    @property
    def held(self) -> Collection[int]:
        """vCPUs that are kept out of the guest now."""

    @property
    def signalled(self) -> int:
        """Processes of the guest that got a SIGBUS."""

    @property
    def panicked(self) -> str:
        """Why the guest panicked; empty while it lives."""


class ModelRunner:
    """The model machine: deterministic, its clock moves only when it is told to.

    ``policy``: a Policy, TOML text, or None for the default one.  ``page_size``: the guest's, 4K, 16K or 64K.  ``ram``:
    bytes of guest memory.  ``sdei``: whether the guest has registered its SDEI events.  ``mapped``: whether memory and
    threads are there from the start; a trace brings its own.  Raises InputError.
    """

    def __init__(
        self,
        *,
        preset: str = "default",
        guest: str = "linux",
        policy: Policy | str | None = None,
        page_size: int | str = 4096,
        vcpus: int = 4,
        ram: int | str = "1G",
        sdei: bool = True,
        style: str = "native",
        hook: Hook | None = None,
        mapped: bool = True,
    ) -> None:
        for what, name, known in (("preset", preset, PRESETS), ("guest", guest, PROFILES), ("style", style, STYLES)):
            if name not in known:
                raise InputError(f"{what} {name!r}: expected one of {', '.join(known)}")
        bytes_ = bytes_of(page_size, "page_size")
        if bytes_ not in {1 << shift for shift in PAGE_SHIFTS}:
            raise InputError(
                f"page_size {page_size!r}: expected one of {', '.join(f'{1 << s >> 10}K' for s in PAGE_SHIFTS)}"
            )
        if isinstance(vcpus, bool) or not isinstance(vcpus, int) or not 1 <= vcpus <= 512:
            raise InputError(f"vcpus {vcpus!r}: expected 1 to 512")
        if not isinstance(sdei, bool):
            raise InputError(f"sdei {sdei!r}: expected True or False")
        memory = bytes_of(ram, "ram")
        if memory % bytes_ or memory > 1 << 40:
            raise InputError(f"ram {ram!r}: expected whole pages, at most 1T")
        self.place = Place(
            MemorySlot(HVA, RAM_BASE, memory), bytes_.bit_length() - 1,
            tuple(range(FIRST_THREAD, FIRST_THREAD + vcpus)),
        )  # fmt: skip
        self.policy = load_policy(policy) if isinstance(policy, str) else policy
        self.replay = Replay(
            PRESETS[preset].place(TABLES), policy=self.policy, guest=PROFILES[guest],
            slots=[self.place.slot] if mapped else [], vcpus=vcpus,
            page_shift=self.place.page_shift, style=STYLES[style], sdei=sdei, hook=hook,
        )  # fmt: skip
        self.journal: list[Moment] = []
        if mapped:
            for vcpu, tid in enumerate(self.place.threads):
                self.replay.play(VcpuThread(vcpu, tid))
            self.replay.wait(BOOTED)
            self.replay.watch = self._watch

    def _watch(self, effects: list[Effect], actions: list[Action]) -> None:
        now = self.replay.now
        self.journal += [Moment(now, e) for e in effects]
        self.journal += [Moment(now, a) for a in actions]

    @property
    def now(self) -> float:
        """Seconds since the guest booted."""
        return self.replay.now

    @property
    def sources(self) -> Sequence[PlacedSource]:
        """The error sources that the guest was given."""
        return self.replay.image.sources

    def play(self, item: Any) -> None:
        """An event or action, now, and all that follows.  Raises InputError for what cannot happen."""
        rules = [rule.name for rule in self.replay.notifier.rules]
        if isinstance(item, Proceed) and item.rule not in rules:
            raise InputError(f"rule {item.rule!r}: expected one of {', '.join(rules)}")
        self.journal.append(Moment(self.now, item))
        self.replay.play(item)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.journal.append(Moment(self.now, Wait(seconds)))
        self.replay.wait(seconds)

    def settle(self) -> None:
        """Let the guest finish what it has: up to 30 s of its time."""
        before, at = self.now, len(self.journal)
        self.replay.settle()
        self.journal.insert(at, Moment(before, Wait(self.now - before)))

    def state(self, gpa: int) -> str:
        """What the guest was told of a page."""
        return STATES[self.replay.notifier.poison.state(gpa >> self.place.page_shift)]

    def offlined(self, gpa: int) -> bool:
        """Whether the guest took the page out of use."""
        return gpa >> self.place.page_shift in self.replay.guest.os.offlined

    @property
    def held(self) -> Collection[int]:
        """vCPUs that are kept out of the guest."""
        return [vcpu for vcpu, abort in self.replay.notifier.aborts.items() if abort.state is not None]

    @property
    def signalled(self) -> int:
        """Processes of the guest that got a SIGBUS."""
        return self.replay.guest.os.signalled

    @property
    def panicked(self) -> str:
        """Why the guest panicked."""
        return self.replay.guest.os.panicked
