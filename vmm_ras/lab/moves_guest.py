"""The tiny guest on its way: its desk moves with it, and it can be frozen in the middle of a handler."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import Field, ValidationError

from vmm_ras.compat.host import Description
from vmm_ras.errors import SnapshotError
from vmm_ras.io.holes import Holes, Way
from vmm_ras.io.kvm.moving import PART, Arriving, Leaving, conservative, depart
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.lab.tiny_desk import Desk
from vmm_ras.lab.tiny_guest import SECONDS, TinyGuest
from vmm_ras.snapshot import Snapshot, read_snapshot
from vmm_ras.snapshot.made_of import U64, Plain, first_error
from vmm_ras.snapshot.parts import plain_part
from vmm_ras.snapshot.stream import Lost, Memory

DESKS = "desks"
_Words = Annotated[list[U64], Field(max_length=4096)]


class _Desk(Plain):
    arguments: _Words
    skip: int
    busy: bool
    results: _Words
    taken: Annotated[list[_Words], Field(max_length=4096)]
    records: _Words


class _Desks(Plain):
    """Part ``desks``: the machine's only device, as an example of a VMM's own."""

    desks: Annotated[list[_Desk], Field(max_length=8)]


class MovingDesk(Desk):
    """A desk that is taken along.  ``stop_at``: a register; its vCPU does not come back from writing it here."""

    stop_at = -1

    def __init__(self, guest: MovingGuest, index: int) -> None:
        super().__init__(guest.vm.vcpus[index], guest.core.ways)
        self._guest = guest
        self.reached = threading.Event()

    def written(self, register: int, value: int) -> None:
        """As of any desk."""
        super().written(register, value)
        if register == self.stop_at:
            self.reached.set()
            while not self._guest.guest.ending:
                time.sleep(0.001)

    def take(self) -> dict[str, object]:
        """Of a machine that is frozen."""
        return {
            "arguments": list(self._arguments), "skip": self._skip if isinstance(self._skip, int) else 0,
            "busy": self._busy, "results": self._results, "taken": self._taken, "records": self._records,
        }  # fmt: skip

    def put(self, value: _Desk) -> None:
        """Of a machine that has not run."""
        self._arguments, self._skip, self._busy = value.arguments, value.skip, value.busy
        self._results, self._taken, self._records = list(value.results), list(value.taken), list(value.records)


class MovingGuest(TinyGuest):
    """A tiny guest that leaves, or that arrives: then its memory is empty, and ``enter`` comes before ``start``.

    ``hosts``: this one, and those to which it is to be able to go.
    """

    def __init__(
        self, kvm: Kvm, *, vcpus: int = 1, found: Sequence[str] = ("polled",), preset: str = "all",
        arriving: bool = False, hosts: Sequence[Description] = (),
    ) -> None:  # fmt: skip
        self._arriving = arriving
        super().__init__(kvm, vcpus=vcpus, found=found, preset=preset, start=False)
        self.moving = [MovingDesk(self, index) for index in range(vcpus)]
        self.desks = list(self.moving)
        self.holes = Holes(self.ram, self.vm.cut)
        self.settings = conservative(self.vm, hosts[0], hosts[1:]) if len(hosts) > 1 else []
        if not arriving:
            self.start()

    def boot(self) -> None:
        """Nothing of this machine's own is in the memory of one that arrives."""
        if not self._arriving:
            super().boot()

    def leave(self) -> Leaving:
        """Freeze it.  Raises HostError."""
        return depart(self.guest, lambda: [plain_part(DESKS, {"desks": [desk.take() for desk in self.moving]})])

    def enter(self, data: bytes, memory: Iterable[Memory | Lost], ways: Sequence[Way] = tuple(Way)) -> Arriving:
        """What came.  Raises SnapshotError and HostError."""
        snapshot: Snapshot = read_snapshot(data, {PART, DESKS})
        arriving = Arriving(snapshot)
        try:
            desks = _Desks.model_validate_json(snapshot.parts.get(DESKS, b""))
        except ValidationError as error:
            raise SnapshotError(f"snapshot: part {DESKS!r}: {first_error(error)}") from None
        arriving.enter(self.guest, memory, self.holes, ways)
        for desk, value in zip(self.moving, desks.desks, strict=True):
            desk.put(value)
        return arriving

    def reached(self, vcpu: int = 0) -> None:
        """Wait until a vCPU stands where it is to be frozen.  Raises Failure."""
        if not self.moving[vcpu].reached.wait(SECONDS):
            raise Failure(f"vCPU {vcpu} does not come to register {self.moving[vcpu].stop_at:#x}")

    def close(self) -> None:
        """End the machine; it may be called twice."""
        super().close()
        self.holes.close()
