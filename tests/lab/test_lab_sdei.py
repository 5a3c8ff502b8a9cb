"""SDEI through the debugger: the adapter answers a guest's calls from the core, and starts its handler."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from acpi.firmware import build
from acpi.firmware_presets import MIB, describe, with_sources
from acpi.hest import NotificationType
from acpi.image import SourceDescription
from vmm_ras import sdei_table as t
from vmm_ras.events import Code, HostSignal
from vmm_ras.io.qemu.adapter import MAX_STOPS, QemuGuest
from vmm_ras.io.qemu.machine import SharedRam
from vmm_ras.lab.errors import Failure
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier

RAM, EVENT = 0x4000_0000, 804
CALL, EXIT = 0xFFFF_8000_0802_8018, 0xFFFF_8000_0801_68A0
ENTRY, IDLE, USER = 0xFFFF_8000_0803_0000, 0xFFFF_8000_0900_0000, 0x50_0000_0644
EL0, EL1 = 0x8000_0000, 0x6040_0005


class Stub:
    """Two vCPUs that stand or run; ``stops`` are the vCPUs that come to a breakpoint."""

    def __init__(self):
        self.vcpus = [{"pc": IDLE, "cpsr": EL1, **{f"x{i}": 1000 * n + i for i in range(18)}} for n in range(2)]
        self.at, self.stops, self.running, self.breakpoints = 0, [], True, set()
        self.stepped, self.interrupts, self.levels = 0, 0, []

    def poll(self, seconds):
        if not self.stops:
            return None
        self.at, self.running = self.stops.pop(0), False
        return self.at

    def interrupt(self):
        assert self.running
        self.interrupts, self.running = self.interrupts + 1, False
        if self.levels:
            self.vcpus[0]["cpsr"] = self.levels.pop(0)

    def resume(self, vcpu=None):
        assert not self.running
        self.running = True

    def step(self):
        self.stepped += 1

    def select(self, vcpu):
        self.at = vcpu

    def read(self, name):
        return self.vcpus[self.at].get(name, 0)

    def write(self, name, value):
        assert not self.running
        self.vcpus[self.at][name] = value

    def add_breakpoint(self, address):
        self.breakpoints.add(address)

    def remove_breakpoint(self, address):
        self.breakpoints.remove(address)


@pytest.fixture
def ram():
    found = SharedRam(RAM, MIB)
    yield found
    found.close()


@pytest.fixture
def stub():
    return Stub()


@pytest.fixture
def guest(ram, stub):
    source = SourceDescription(0, NotificationType.SDEI, vector=EVENT)
    image = build(with_sources(describe("minimal-vmm", memory=MIB, vcpus=2), source)).image()
    image.write(ram.write)
    core = Notifier(image.sources, MemoryMap([MemorySlot(1 << 40, RAM, MIB)]), vcpus=2)
    qemu = SimpleNamespace(ram=ram, interrupt_controller=lambda: "/gic", debugger=stub)
    return QemuGuest(qemu, core, sites=(CALL, EXIT))


def call(guest, stub, vcpu, function, *args, site=CALL):
    """The vCPU calls; X0 afterwards."""
    stub.vcpus[vcpu] |= {"pc": site, "cpsr": EL1, "x0": function} | {f"x{i}": a for i, a in enumerate(args, 1)}
    stub.stops.append(vcpu)
    guest.pump(0.01)
    return stub.vcpus[vcpu]["x0"]


def ready(guest, stub):
    for function, *args in ((t.EVENT_REGISTER, EVENT, ENTRY, 77, 0, 0), (t.EVENT_ENABLE, EVENT), (t.PE_UNMASK,)):
        assert call(guest, stub, 0, function, *args) == 0


def test_calls_are_answered_by_the_core(guest, stub):
    assert call(guest, stub, 1, t.VERSION) >> 48 == 1
    assert stub.vcpus[1]["pc"] == CALL + 4
    assert stub.running
    assert call(guest, stub, 0, t.EVENT_ENABLE, EVENT) == 2**64 - 3  # DENIED: nobody registered it
    assert guest.calls == 2


def test_other_calls_are_emulations_own(guest, stub):
    assert call(guest, stub, 0, 0x8400_0000) == 0x8400_0000  # PSCI_VERSION
    assert (stub.stepped, guest.calls, stub.running) == (1, 0, True)


def test_a_stop_where_no_call_is(guest, stub):
    with pytest.raises(Failure, match=r"vCPU 0 stopped at 0x5000000644, where no call is"):
        call(guest, stub, 0, t.VERSION, site=USER)


def test_breakpoints_come_and_go(guest, stub):
    guest.watch_calls(True)
    assert stub.breakpoints == {CALL, EXIT}
    guest.watch_calls(False)
    assert stub.breakpoints == set()


@pytest.mark.parametrize("resume", [False, True])
def test_a_found_page_is_told_by_an_event(guest, stub, ram, resume):
    ready(guest, stub)
    vcpu = stub.vcpus[0]
    vcpu |= {"pc": IDLE, "cpsr": EL1, "x0": 1, "x17": 17}
    stub.levels = [EL0, EL0, EL1]
    guest.receive(HostSignal(Code.AO, (1 << 40) + 0x5000, 12, 99, 1.0))
    assert stub.interrupts == 3
    assert stub.running
    assert [vcpu[name] for name in ("x0", "x1", "x2", "x3", "pc")] == [EVENT, 77, IDLE, EL1, ENTRY]
    assert vcpu["cpsr"] & 0x3CF == 0x3C5
    source = guest.notifier.sources[0].placed
    ram.write(source.ack, (1).to_bytes(8, "little"))
    with pytest.raises(Failure, match="nothing within"):
        guest.settle(1, 0.2)  # acknowledged, but the handler still runs
    if resume:
        guest.qemu.debugger.read_memory = lambda at, size: bytes(size)
        guest.qemu.debugger.write_memory = lambda at, data: None
        stub.step = lambda: stub.vcpus[0].update(pc=stub.vcpus[0]["pc"] + 4)
        call(guest, stub, 0, t.EVENT_COMPLETE_AND_RESUME, ENTRY + 0x280, site=EXIT)
        assert (vcpu["pc"], vcpu["cpsr"] & 0x3CF) == (ENTRY + 0x280, 0x3C5)
    else:
        call(guest, stub, 0, t.EVENT_COMPLETE, 0, site=EXIT)
        assert (vcpu["pc"], vcpu["cpsr"]) == (IDLE, EL1)
    assert (vcpu["x0"], vcpu["x17"]) == (1, 17)
    (posted,) = guest.settle(1, 5)
    assert (posted.delivery, posted.pages) == ("sdei", ((RAM + 0x5000, 4096),))


def test_a_vcpu_that_never_enters_the_kernel_is_not_waited_for_without_end(guest, stub, monkeypatch):
    monkeypatch.setattr("vmm_ras.io.qemu.adapter.time.sleep", lambda seconds: None)
    ready(guest, stub)
    stub.levels = [EL0] * 10 * MAX_STOPS
    guest.receive(HostSignal(Code.AO, (1 << 40) + 0x5000, 12, 99, 1.0))
    assert stub.interrupts >= MAX_STOPS
    assert stub.running
    assert stub.vcpus[0]["pc"] == CALL + 4
