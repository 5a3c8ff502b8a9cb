"""A VM of the service with a model guest, which lives in real time: the service calls it when something is due."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from acpi.image import Image
from acpi.presets import PRESETS
from vmm_ras.effects import Decided, Dropped, Effect, OwnMemory, Posted, Queued
from vmm_ras.errors import InputError
from vmm_ras.events import Event
from vmm_ras.guests import state
from vmm_ras.guests.model import ModelGuest
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import Policy, load_policy
from vmm_ras.profiles import PROFILES, GuestProfile
from vmm_ras.qmp.arguments import VmAdd
from vmm_ras.qmp.machine import Watch
from vmm_ras.record import NATIVE, STYLES, RecordStyle
from vmm_ras.replay import MAX_RAM, RAM_BASE, TABLES
from vmm_ras.sdei_state import EventDescription
from vmm_ras.snapshot import read_snapshot

MIDR = 0x413F_D0C1
"""MIDR_EL1 of the model vCPUs: a Neoverse N1, r3p1."""
DEFAULT_SLOT = MemorySlot(0x7F00_0000_0000, RAM_BASE, 1 << 30)
FIRST_THREAD = 1000
"""Thread id that stands for vCPU 0; the others follow."""
MAX_CATCH_UP = 10_000
"""Deadlines that are worked off in one call."""
_ANSWERS = (Decided, OwnMemory, Posted, Queued, Dropped)
_SHIFTS = {"4k": 12, "16k": 14, "64k": 16}


class ModelMachine:
    """One VM (``vmm_ras.qmp.machine.Machine``).  Raises InputError for memory that cannot be."""

    midr = MIDR
    max_lsb = 25
    """32 MiB, a sixth of a second's work: the service's other VMs wait meanwhile."""

    def __init__(
        self,
        name: str,
        image: Image,
        *,
        policy: Policy | None = None,
        guest: GuestProfile = PROFILES["linux"],
        slots: Sequence[MemorySlot] = (),
        vcpus: int = 1,
        page_shift: int = 12,
        style: RecordStyle = NATIVE,
        sdei: bool = True,
        sdei_events: Sequence[EventDescription] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        memory = MemoryMap(slots or [DEFAULT_SLOT])
        if sum(slot.size for slot in memory.slots) > MAX_RAM:
            raise InputError(f"VM '{name}': more than {MAX_RAM >> 40} TiB of memory")
        for _, gpa, data in image.regions:
            if any(slot.gpa < gpa + len(data) and gpa < slot.gpa + slot.size for slot in memory.slots):
                raise InputError(f"VM '{name}': a memory slot overlaps the tables at {gpa:#x}")
        core = Notifier(
            image.sources, memory, policy=policy, guest=guest, vcpus=vcpus, page_shift=page_shift, style=style,
            threads={FIRST_THREAD + n: n for n in range(vcpus)}, sdei_events=sdei_events,
        )  # fmt: skip
        model = ModelGuest(image, guest, vcpus=vcpus, page_shift=page_shift)
        model.os.sdei_events = tuple(sdei_events)
        for slot in memory.slots:
            model.memory.add_region(slot.gpa, slot.size)
        self._be(name, core, model, clock, clock())
        if sdei:
            model.start_sdei(core, 0.0)

    def _be(
        self, name: str, core: Notifier, guest: ModelGuest, clock: Callable[[], float], origin: float
    ) -> None:  # fmt: skip
        """``origin``: when the core's clock was 0."""
        self.name, self.vcpus, self.notifier, self.guest = name, core.vcpus, core, guest
        self.lock = threading.RLock()
        self.watch: Watch | None = None
        self.outcomes: Counter[str] = Counter()
        """What the guest did about the blocks that it read, and about aborts without one."""
        self._clock, self._origin = clock, origin

    @classmethod
    def of(cls, given: VmAdd) -> ModelMachine:
        """The VM that vm-add asks for.  Raises InputError."""
        for name, known in ((given.preset, PRESETS), (given.guest, PROFILES)):
            if name not in known:
                raise InputError(f"{name[:80]!r}: expected one of {', '.join(known)}")
        return cls(
            given.name, PRESETS[given.preset].place(TABLES), guest=PROFILES[given.guest], vcpus=given.vcpus,
            policy=None if given.policy is None else load_policy(given.policy, "policy"),
            slots=[MemorySlot(s.hva, s.gpa, s.size) for s in given.memory], page_shift=_SHIFTS[given.page_size],
            style=STYLES[given.style], sdei=given.sdei,
            sdei_events=[EventDescription(e.number, e.shared, e.critical) for e in given.sdei_events],
        )  # fmt: skip

    @classmethod
    def restored(cls, name: str, data: bytes, clock: Callable[[], float] = time.monotonic) -> ModelMachine:
        """The VM of a snapshot that :meth:`save` gave, or a replay; it goes on where that was taken.

        Raises SnapshotError.
        """
        snapshot = read_snapshot(data, (*state.PARTS, "replay"))
        core, guest, arrival = state.resume(snapshot)
        self = cls.__new__(cls)
        self._be(name, core, guest, clock, clock() - snapshot.now)
        with self.lock:
            self._drive(list(arrival.effects), snapshot.now, [])
        return self

    def save(self) -> bytes:
        """All that core and guest remember, as a snapshot."""
        with self.lock:
            self.advance()
            return state.save(self.notifier, self.guest, self._now())

    @property
    def status(self) -> str:
        """QEMU's RunState."""
        return "guest-panicked" if self.guest.os.panicked else "running"

    def submit(self, event: Event) -> Sequence[Effect]:
        """Give the core an event, and let the guest take what follows.  Raises InputError, GuestError."""
        with self.lock:
            self.advance()
            answers: list[Effect] = []
            now = self._now()
            self._drive(self.notifier.receive(event, now), now, answers)
            return answers

    def next_time(self) -> float | None:
        """When :meth:`advance` is to be called, in seconds of the clock; None: never."""
        with self.lock:
            core, guest = self.notifier.next_deadline(), self.guest.os.next_time(self._now())
            soonest = guest if core is None else min(core, guest)
            return None if soonest == float("inf") else soonest + self._origin

    def advance(self) -> None:
        """What core and guest do by themselves happens, as far as it is due."""
        with self.lock:
            for _ in range(MAX_CATCH_UP):
                now, due = self._now(), self.next_time()
                if due is None or due - self._origin > now:
                    break
                self.guest.os.advance(now)
                self._drive(self.notifier.expire(now), now, [])

    def plain(self) -> dict[str, Any]:
        """What is known of the model guest, for query-ras."""
        with self.lock:
            os = self.guest.os
            return {
                "model": {
                    "outcomes": dict(self.outcomes), "offlined": os.offlined.count, "signalled": os.signalled,
                    "panicked": os.panicked, "sdei-handled": {str(n): times for n, times in os.sdei_handled.items()},
                }
            }  # fmt: skip

    def _now(self) -> float:
        return self._clock() - self._origin

    def _drive(self, effects: list[Effect], now: float, answers: list[Effect]) -> None:
        def heard(effects: list[Effect]) -> None:
            if len(answers) < 64:  # a large page makes thousands
                answers.extend(e for e in effects if isinstance(e, _ANSWERS))
            if self.watch is not None:
                self.watch(effects)
            self._drain()

        self.guest.drive(self.notifier, effects, now, heard)
        self._drain()

    def _drain(self) -> None:
        for action in self.guest.os.drain():
            self.outcomes[action.outcome] += 1
