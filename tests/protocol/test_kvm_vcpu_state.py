"""A vCPU moves between hosts of different kernels with what the host kernel holds for it: nothing is guessed."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from vmm_ras import arm64
from vmm_ras.errors import SnapshotError
from vmm_ras.guests.kvm import KvmVcpu
from vmm_ras.guests.vcpu import Vcpu
from vmm_ras.kvm.events import VcpuEvents
from vmm_ras.kvm.hosts import HOSTS
from vmm_ras.kvm.one_reg import SYSREGS
from vmm_ras.kvm.vcpu_state import put, take
from vmm_ras.memory import MemoryMap
from vmm_ras.notifier import Notifier
from vmm_ras.snapshot import pending, read_snapshot, rebuild, snapshot_of


class Fd:
    """A model vCPU with the calls of a real one."""

    def __init__(self, host: str, ras: bool = True) -> None:
        self.vcpu = Vcpu(vbar=0x8000)
        self.kvm = KvmVcpu(self.vcpu, HOSTS[host], host_ras=ras)
        self.registers = self.kvm.reg_list
        self.get, self.set = self.kvm.get_one_reg, self.kvm.set_one_reg

    def events(self) -> VcpuEvents:
        return VcpuEvents.decode(self.kvm.get_events())

    def set_events(self, wanted: VcpuEvents) -> None:
        self.kvm.set_events(wanted.encode())


def moved(one: Fd, two: Fd) -> list[str]:
    """The vCPU goes by way of a snapshot's bytes."""
    core = Notifier([], MemoryMap())
    data = snapshot_of(core, [take(one, one.registers)], now=0.0)
    _, arrival = rebuild(read_snapshot(data))
    owed = [thing["owed"] for vcpu in pending(core, arrival.vcpus)["vcpus"] for thing in vcpu["owed"]]
    assert ("serror" in owed) == (one.vcpu.vsesr is not None)
    return put(two, two.registers, arrival.vcpus[0])


@pytest.mark.parametrize(("source", "destination"), [*permutations(HOSTS, 2), ("linux-7.2", "linux-7.2")])
def test_a_masked_serror_moves_with_its_syndrome_and_is_taken_there(source: str, destination: str) -> None:
    one, two = Fd(source), Fd(destination)
    one.vcpu.run_at(1, 0x4000, arm64.PSTATE_A)
    one.vcpu.x[5], one.vcpu.disr, one.vcpu.far = 55, arm64.DISR_A | 0x11, 0xFFFF_0000_1234_5678
    one.set_events(VcpuEvents(serror_pending=1, serror_has_esr=1, serror_esr=0x811))  # the host's own: nobody was told

    assert moved(one, two) == []

    two.kvm.run()
    assert (two.vcpu.vsesr, two.vcpu.pc, two.vcpu.isr) == (0x811, 0x4000, arm64.ISR_A)
    assert two.vcpu.take() == one.vcpu.take()
    assert two.vcpu.unmask_serror()
    assert two.vcpu.esr == arm64.serror_esr(0x811)
    assert two.vcpu.elr == 0x4000


@pytest.mark.parametrize("destination", HOSTS)
def test_one_that_is_not_masked_is_taken_where_the_vcpu_stood(destination: str) -> None:
    """Masked while its state moves: on 7.2 SET delivers at once, so registers come first."""
    one, two = Fd("linux-6.1"), Fd(destination)
    one.vcpu.run_at(0, 0x4000)
    one.set_events(VcpuEvents(serror_pending=1, serror_has_esr=1, serror_esr=0x411))
    assert one.vcpu.vsesr == 0x411

    moved(one, two)
    two.kvm.run()

    assert (two.vcpu.elr, two.vcpu.pc, two.vcpu.spsr) == (0x4000, 0x8000 + 0x580, 0)
    assert two.vcpu.esr == arm64.serror_esr(0x411)


def test_what_the_destination_cannot_take_is_said() -> None:
    one, without, other = Fd("linux-7.2"), Fd("linux-6.12", ras=False), Fd("linux-6.12")
    one.vcpu.run_at(1, 0x4000, arm64.PSTATE_A)
    one.set_events(VcpuEvents(serror_pending=1, serror_has_esr=1, serror_esr=0x811))
    assert moved(one, without) == ["the SError's syndrome 0x811: this host has no FEAT_RAS"]
    assert without.vcpu.vsesr is not None, "pending all the same"

    without.registers -= {SYSREGS["DISR_EL1"]}
    assert "disr is no register of this host" in moved(one, without)
    other.vcpu.vsesr = 0x11
    assert moved(Fd("linux-6.12"), other) == ["an SError is pending there, and KVM takes none back"]


@pytest.mark.parametrize(
    "change", [{"x": 1}, {"pc": -1}, {"pc": None}, {"pc": 1 << 64}, {"serror": 1 << 25}, {"pstate": 0xD}, {"far": "1"}]
)
def test_hostile_values_change_nothing(change: dict[str, Any]) -> None:
    one, two = Fd("linux-6.12"), Fd("linux-7.2")
    before = two.vcpu.take()

    with pytest.raises(SnapshotError, match="vCPU: "):
        put(two, two.registers, take(one, one.registers) | {"x1": 7} | change)

    assert two.vcpu.take() == before
