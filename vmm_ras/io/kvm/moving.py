"""A guest of KVM moves: it is frozen, taken apart, and goes on in a machine of another host.

    conservative(vm, here, others)                             # before it runs first: it can go to all of these
    leaving = depart(guest)                                    # frozen for good; ``save`` lets it go on instead
    send(write, leaving.snapshot, leaving.memory())            # vmm_ras.snapshot.stream

    data, memory = receive(read)                               # there; then a machine is made, and a core
    arriving = Arriving(read_snapshot(data, {PART}))           # all checked, nothing changed
    arriving.enter(guest, memory)                              # memory, holes, registers, what is pending
    arriving.start(guest)                                      # it goes on

Registers move by KVM_GET_REG_LIST and ONE_REG, what is pending by KVM_GET_VCPU_EVENTS, memory without what is lost.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Final, NamedTuple

from pydantic import Field, ValidationError

from cper.words import counted
from vmm_ras.arm64 import ESR_ISS
from vmm_ras.compat import registers as names
from vmm_ras.compat.check import Verdict, check
from vmm_ras.compat.host import Description, Registers
from vmm_ras.compat.plan import Plan, Setting, plan
from vmm_ras.errors import HostError, Poisoned, SnapshotError
from vmm_ras.events import Code, HostSignal
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.io.holes import Holes, Way
from vmm_ras.io.host import describe
from vmm_ras.io.kvm.guest import KvmGuest
from vmm_ras.io.kvm.ioctl import KvmError
from vmm_ras.io.kvm.thread import MAX_SERRORS, VcpuThread
from vmm_ras.io.kvm.vcpu import Vcpu
from vmm_ras.io.kvm.vm import Vm
from vmm_ras.kvm import vcpu_state
from vmm_ras.snapshot import Arrival, Snapshot, holes, restore, snapshot_of
from vmm_ras.snapshot.container import Part
from vmm_ras.snapshot.made_of import MAX_VCPUS, U16, Plain, first_error
from vmm_ras.snapshot.parts import plain_part
from vmm_ras.snapshot.stream import MAX_RAM, Lost, Memory

PART: Final = "kvm"
PAGE: Final = 4096
_ZERO: Final = bytes(MAX_RAM)


class _Vcpu(Plain):
    """What KVM keeps of a vCPU, and its thread."""

    registers: Registers
    mp_state: U16
    serrors: Annotated[
        list[tuple[U16 | None, Annotated[int, Field(ge=0, le=ESR_ISS)]]], Field(max_length=MAX_SERRORS + 2)
    ] = []
    """As ``VcpuThread.serrors``."""


class _Machine(Plain):
    """Part ``kvm``: what of a machine belongs to KVM and its adapter, and not to the core."""

    vcpus: Annotated[list[_Vcpu], Field(max_length=MAX_VCPUS)]


def conservative(vm: Vm, here: Description, others: Sequence[Description]) -> list[Setting]:
    """Before the guest runs first: give it values that these hosts take too; the registers that this changes.

    Raises HostError where there are none such.
    """
    known = [
        other.model_copy(update={"registers": {r: v for r, v in other.registers.items() if r in here.registers}})
        for other in others
    ]  # theirs may have been described with features that this guest has not
    found: Plan = plan([here, *known])
    if found.problems:
        raise HostError(f"the guest could not move: {found.problems[0]}")
    for vcpu in vm.vcpus:
        for reg, own, value, _ in found.settings:
            differs = own ^ value  # what the machine gave the vCPU beside that stays
            vcpu.set(reg, vcpu.get(reg) & ~differs | value & differs)
    return list(found.settings)


class Leaving(NamedTuple):
    """A guest that was frozen."""

    snapshot: bytes
    ram: GuestRam
    left_out: tuple[tuple[int, int], ...]
    """(gpa, size) of memory that the core knows as lost, ascending and apart: it has no contents any more."""

    def memory(self) -> Iterator[Memory | Lost]:
        """What its memory holds: runs of pages, without those that are zero, and without what is lost."""
        ram = self.ram
        at = ram.gpa
        for gpa, size in (*self.left_out, (ram.gpa + ram.size, 0)):
            while at < gpa:
                room = min(MAX_RAM, gpa - at)
                try:
                    data = ram.read(at, room)
                except Poisoned as error:
                    data = ram.read(at, error.gpa - at)
                    yield from _runs(at, data)
                    at = error.gpa & -ram.granule
                    yield Lost(at, ram.granule)
                    at += ram.granule
                else:
                    yield from _runs(at, data)
                    at += len(data)
            at = max(at, gpa + size)


def _runs(gpa: int, data: bytes) -> Iterator[Memory]:
    """Runs of pages that are not zero; zeros at the end of a run are left out."""
    first = None
    for at in range(0, len(data) + PAGE, PAGE):
        page = data[at : at + PAGE]
        if page != _ZERO[: len(page)]:
            first = at if first is None else first
        elif first is not None:
            yield Memory(gpa + first, data[first:at].rstrip(b"\0"))
            first = None


def depart(guest: KvmGuest, more: Callable[[], Iterable[Part]] = tuple) -> Leaving:
    """Freeze the guest and take it apart; ``more`` gives the parts of the VMM's devices then.  Raises HostError."""
    guest.freeze()
    now = time.monotonic()
    taken = [_taken(thread) for thread in guest.vcpus]
    return Leaving(_snapshot(guest, taken, more(), now), guest.ram, holes(guest.core))


@contextmanager
def departing(guest: KvmGuest, more: Callable[[], Iterable[Part]] = tuple) -> Iterator[Leaving]:
    """The guest, out of KVM_RUN, to be sent; behind the block it is frozen for good.  If that raises, it goes on."""
    with guest.paused():
        now = time.monotonic()
        taken = [_taken(t) if t.ended else t.do(partial(_taken, t)) for t in guest.vcpus]
        yield Leaving(_snapshot(guest, taken, more(), now), guest.ram, holes(guest.core))
        guest.frozen = guest.ending = True
    guest.end()


def save(guest: KvmGuest, more: Callable[[], Iterable[Part]] = tuple) -> bytes:
    """The snapshot of a guest that goes on afterwards; of one whose vCPUs do not come out, HostError."""
    with guest.paused():
        now = time.monotonic()
        taken = [_taken(t) if t.ended else t.do(partial(_taken, t)) for t in guest.vcpus]
        return _snapshot(guest, taken, more(), now)


def _taken(thread: VcpuThread) -> tuple[dict[str, int | None], dict[str, object]]:
    """Of a vCPU that does not run: exception state, and what KVM and its thread keep."""
    vcpu = thread.vcpu
    vcpu.settle_access()
    listed = vcpu.registers()
    registers = {hex(reg): hex(vcpu.get(reg)) for reg in listed}
    kept = {"registers": registers, "mp_state": vcpu.mp_state, "serrors": list(thread.serrors)}
    return vcpu_state.take(vcpu, listed), kept


def _snapshot(
    guest: KvmGuest,
    taken: Sequence[tuple[dict[str, int | None], dict[str, object]]],
    more: Iterable[Part],
    now: float,
) -> bytes:
    machine = plain_part(PART, {"vcpus": [kept for _, kept in taken]})
    return snapshot_of(guest.core, [state for state, _ in taken], now=now, more=[machine, *more])


class Arriving:
    """A snapshot of ``depart``, all of it checked as far as it can be without the machine.  Raises SnapshotError."""

    def __init__(self, snapshot: Snapshot) -> None:
        """``snapshot``: ``read_snapshot(data, {PART, ...})``."""
        self.snapshot = snapshot
        if PART not in snapshot.parts:
            raise SnapshotError(f"snapshot: part {PART!r} is missing")
        try:
            self._machine = _Machine.model_validate_json(snapshot.parts[PART])
        except ValidationError as error:
            raise SnapshotError(f"snapshot: part {PART!r}: {first_error(error)}") from None
        states = snapshot.parts["vcpus"].vcpus if "vcpus" in snapshot.parts else []
        if not len(self._machine.vcpus) == len(states) == snapshot.parts["machine"].vcpus:
            raise SnapshotError(f"snapshot: part {PART!r}: {counted(len(self._machine.vcpus), 'vCPU')}")
        self.arrival: Arrival | None = None
        self.refused: list[dict[int, int]] = []
        """Of each vCPU: registers that this host does not take, and that the guest does not miss."""
        self.sent: list[Mapping[int, int]] = [vcpu.registers for vcpu in self._machine.vcpus]
        """Of each vCPU: all registers that came."""
        self.left: list[str] = []
        """What this host cannot take of what is pending, in words."""
        self.untold: list[tuple[int, int]] = []
        """(gpa, size) of memory that is lost, and of which the core has not heard yet."""
        self.ways: Mapping[tuple[int, int], Way] = {}
        """How each hole was made."""

    def enter(
        self, guest: KvmGuest, memory: Iterable[Memory | Lost], made: Holes, ways: Sequence[Way] = tuple(Way)
    ) -> Arrival:
        """Put the guest into a machine that has not run: core, memory, holes, registers; in this order.

        Raises SnapshotError, GuestError and HostError: then the machine is to be thrown away.
        """
        core, ram = guest.core, guest.ram
        if len(self._machine.vcpus) != len(guest.vcpus):
            raise SnapshotError(
                f"snapshot: part {PART!r}: {counted(len(self._machine.vcpus), 'vCPU')}, {len(guest.vcpus)} here"
            )
        arrival = restore(core, self.snapshot, threads={})  # refused before memory comes, if it is
        self._fill(ram, memory, arrival.holes)
        self.ways = made.make([*arrival.holes, *self.untold], ways)
        for thread, vcpu, state in zip(guest.vcpus, self._machine.vcpus, arrival.vcpus, strict=True):
            self._put(thread.vcpu, vcpu, state, guest)
            thread.serrors.extend(vcpu.serrors)
            thread.asked = thread.vcpu.index in core.stopping
            abort = core.aborts.get(thread.vcpu.index)
            thread.out = abort is not None and abort.state is not None
            thread.came_held = abort is not None and abort.state is not None and abort.state.far_known
        self.arrival = arrival
        return arrival

    def start(self, guest: KvmGuest) -> None:
        """Let it go on, once it has entered; memory of which the core has not heard is told.  Raises HostError."""
        arrival = restore(
            guest.core, self.snapshot, now=time.monotonic(), threads={}
        )  # for the guest no time has passed
        guest.start(arrival.effects)
        for gpa, size in self.untold:
            lsb = (size & -size).bit_length() - 1
            guest.receive(HostSignal(Code.AO, guest.ram.hva + gpa - guest.ram.gpa, lsb, 0, time.time()))

    def _fill(self, ram: GuestRam, memory: Iterable[Memory | Lost], told: Sequence[tuple[int, int]]) -> None:
        lost = list(told)
        for item in memory:
            size = item.size if isinstance(item, Lost) else len(item.data)
            if not ram.gpa <= item.gpa <= item.gpa + size <= ram.gpa + ram.size:
                raise SnapshotError(f"stream: {counted(size, 'byte')} at {item.gpa:#x}: outside the guest's memory")
            at = bisect.bisect_left(lost, (item.gpa + size,))
            if at and item.gpa < sum(lost[at - 1]):
                raise SnapshotError(f"stream: {counted(size, 'byte')} at {item.gpa:#x}: of memory that is lost")
            if not isinstance(item, Lost):
                ram.write(item.gpa, item.data)
            elif not size or size % PAGE or item.gpa % PAGE:
                raise SnapshotError(f"stream: {counted(size, 'byte')} at {item.gpa:#x} lost: expected whole pages")
            else:
                lost.insert(at, item)
                self.untold.append((item.gpa, size))

    def _put(self, vcpu: Vcpu, wanted: _Vcpu, state: Mapping[str, object], guest: KvmGuest) -> None:
        refused = {}
        for reg, value in wanted.registers.items():
            try:
                vcpu.set(reg, value)
            except (KvmError, OverflowError):
                refused[reg] = value
        if refused:
            here = describe(guest.vm.kvm, frozenset())
            for row in check(wanted.registers, here).rows:
                if row.register in refused and row.verdict is not Verdict.LEAVE_OUT:
                    raise SnapshotError(f"vCPU {vcpu.index}: {names.name(row.register)} {row.source:#x}: {row.why}")
        self.refused.append(refused)
        self.left += vcpu_state.put(vcpu, set(vcpu.registers()), state)
        vcpu.mp_state = wanted.mp_state
