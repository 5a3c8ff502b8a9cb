"""Virtual SErrors of the tiny guest: pending, queued, moved to another machine, deferred, taken."""

from __future__ import annotations

import os

from vmm_ras import arm64
from vmm_ras.errors import HostError
from vmm_ras.events import TellSea, TellSerror
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.io.kvm.inject import drain_serror
from vmm_ras.io.kvm.ioctl import KvmError
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.kvm.vcpu import Vcpu
from vmm_ras.kvm.events import VcpuEvents
from vmm_ras.kvm.hosts import HOSTS
from vmm_ras.kvm.one_reg import CORE
from vmm_ras.lab.report import Report
from vmm_ras.lab.tiny_desk import Command
from vmm_ras.lab.tiny_guest import PAGES, RAM, SIZE, TinyGuest

SERROR = 7
"""Number of the vector: SError from the current EL with SPx."""
UER, UC, IMPDEF = 0xC11, 0x11, 0x1000011
AET_ORDER = (UER, UC, IMPDEF)


def _esr(iss: int) -> int:
    return arm64.EC_SERROR << arm64.ESR_EC_SHIFT | arm64.ESR_IL | iss


def _events(guest: TinyGuest) -> VcpuEvents:
    """KVM_GET_VCPU_EVENTS, while the guest waits for a command; from this thread, because nothing runs meanwhile."""
    return guest.vm.vcpus[0].events()


def pending(report: Report, kvm: Kvm) -> None:
    """Masked, an SError is shown as pending; unmasked, it is taken."""
    with TinyGuest(kvm) as guest:
        report.equal(guest.do(Command.IDS).results[2], 0, "ISR_EL1 is 0 at first")
        guest.tell(TellSerror(0, 0x123456))
        report.equal(_events(guest).serror, 0x123456, "KVM_GET_VCPU_EVENTS shows it with its syndrome", "0x123456")
        answer = guest.do(Command.IDS)
        report.equal((answer.results[2], answer.taken), (arm64.ISR_A, ()), "ISR_EL1.A is set, and nothing is taken")
        answer = guest.do(Command.UNMASK, skip=0)
        report.equal([(t.vector, t.esr) for t in answer.taken], [(SERROR, _esr(0x123456))],
                     "unmasked, it is taken with its syndrome", f"ESR {answer.taken[0].esr:#x}")  # fmt: skip
        report.equal(_events(guest).serror, None, "and is pending no more")
        report.equal(guest.do(Command.IDS).results[2], 0, "ISR_EL1 is 0 again")
        for iss in (0, UC, 0x1FFFFFF):
            guest.begin(Command.SPIN, PAGES, skip=0)
            guest.tell(TellSerror(0, iss))
            guest.ram.write(PAGES, b"\1")
            taken = guest.finish().taken
            guest.ram.write(PAGES, bytes(8))
            report.equal([(t.vector, t.esr) for t in taken], [(SERROR, _esr(iss))],
                         f"a running vCPU with SErrors unmasked takes ISS {iss:#x} at once")  # fmt: skip


def queued(report: Report, kvm: Kvm) -> None:
    """A second SError replaces none that is pending: it waits until that is taken."""
    with TinyGuest(kvm) as guest:
        guest.do(Command.MASK)
        for iss in AET_ORDER:
            guest.tell(TellSerror(0, iss))
        report.equal(_events(guest).serror, UER, "the first one is pending", f"{UER:#x}")
        taken = list(guest.do(Command.UNMASK, skip=0).taken)
        for _ in range(100):
            if len(taken) >= len(AET_ORDER):
                break
            taken += guest.do(Command.IDS, skip=0).taken
        report.equal([t.esr for t in taken], [_esr(iss) for iss in AET_ORDER], "all are taken, in order",
                     ", ".join(f"{t.esr:#x}" for t in taken))  # fmt: skip
        report.equal(guest.ended, [], "no vCPU has ended")


def deferred(report: Report, kvm: Kvm) -> None:
    """An ESB defers a masked SError to DISR_EL1."""
    with TinyGuest(kvm) as guest:
        guest.do(Command.MASK)
        guest.tell(TellSerror(0, UC))
        before, disr, after = guest.do(Command.ESB).results
        report.equal(
            (before, after), (arm64.ISR_A, 0), "ISR_EL1.A before and after the ESB", f"{before:#x}, {after:#x}"
        )
        report.equal(disr, arm64.DISR_A | UC, "DISR_EL1 holds the syndrome", f"{disr:#x}")


def moved(report: Report, kvm: Kvm) -> None:
    """A pending SError goes with the vCPU to another machine; registers alone do not carry it."""
    for iss in (UC, 0x1C00011):
        with TinyGuest(kvm) as guest:
            guest.do(Command.MASK)
            guest.tell(TellSerror(0, iss))
            guest.guest.end()
            source = guest.vm.vcpus[0]
            source.settle()
            saved = {reg: source.get(reg) for reg in source.registers()}
            events, ram = source.events(), guest.ram.read(RAM, SIZE)
        copy = GuestRam(RAM, SIZE)
        copy.write(RAM, ram)
        with TinyGuest(kvm, ram=copy, start=False) as other:
            target = other.vm.vcpus[0]
            report.equal(target.events().serror, None, "the new machine has none pending")
            refused = restore(target, saved)
            report.check(not [r for r in refused if r in CORE.values()], "core registers are taken over",
                         f"{len(saved) - len(refused)} of {len(saved)} registers")  # fmt: skip
            target.set_events(VcpuEvents(serror_pending=1, serror_has_esr=1, serror_esr=events.serror or 0))
            report.equal(target.events().serror, iss, "it is pending there", f"{iss:#x}")
            other.start()
            report.equal(other.do(Command.IDS).results[2], arm64.ISR_A, "ISR_EL1.A is set there")
            taken = other.do(Command.UNMASK, skip=0).taken
            report.equal([(t.vector, t.esr) for t in taken], [(SERROR, _esr(iss))], "it is taken there",
                         f"ESR {taken[0].esr:#x}")  # fmt: skip


def restore(vcpu: Vcpu, saved: dict[int, int]) -> list[int]:
    """Set registers; those that the host refuses."""
    refused = []
    for reg, value in saved.items():
        try:
            vcpu.set(reg, value)
        except KvmError:
            refused.append(reg)
    return refused


def by_hand(report: Report, kvm: Kvm) -> None:
    """An SEA where no access failed: all registers are set, and FAR is what is asked for."""
    with TinyGuest(kvm) as guest:
        for esr, far in ((0x96000010, 0x1234), (0x86000010, 0x5678), (0x96000410, None)):
            guest.begin(Command.SPIN, PAGES, skip=0)
            guest.tell(TellSea(0, esr, far))
            guest.ram.write(PAGES, b"\1")
            taken = guest.finish().taken
            guest.ram.write(PAGES, bytes(8))
            report.equal([t.esr for t in taken], [esr], f"ESR {esr:#x} is taken as asked")
            if far is not None:
                report.equal(taken[0].far, far, f"with FAR {far:#x}")


def quirks(report: Report, kvm: Kvm) -> None:
    """What SET leaves of a pending SError, and KVM_ARM_VCPU_INIT: as the host's profile says."""
    series = ".".join(os.uname().release.split(".")[:2])
    host = HOSTS[f"linux-{series}"]
    with TinyGuest(kvm) as guest:
        guest.do(Command.MASK)
        guest.guest.end()
        vcpu = guest.vm.vcpus[0]
        vcpu.set_events(VcpuEvents(serror_pending=1, serror_has_esr=1, serror_esr=UC))
        vcpu.set_events(VcpuEvents())
        report.equal(vcpu.events().serror, None if host.zero_clears_serror else UC,
                     "what SET with serror_pending 0 leaves pending")  # fmt: skip
        vcpu.set_events(VcpuEvents(serror_pending=1, serror_has_esr=1, serror_esr=UER))
        report.equal(vcpu.events().serror, UER if host.second_serror_replaces else UC, "what a second SET leaves")
        vcpu.init()
        left = None if host.init_clears_serror else UER
        report.equal(vcpu.events().serror, left, f"what KVM_ARM_VCPU_INIT leaves on {host.name}")
        drain_serror(vcpu, guest.ram, RAM)
        report.equal(vcpu.events().serror, None, "a reset that takes it in a vector of its own leaves none")
        try:
            vcpu.set_events(VcpuEvents(serror_pending=1, serror_has_esr=1, serror_esr=1 << 25))
            refused = ""
        except HostError as error:
            refused = str(error)
        report.check("Invalid argument" in refused, "a syndrome of more than 25 bits is refused", refused)


SCENARIOS = (
    ("SError pending", pending),
    ("SErrors queued", queued),
    ("SError deferred", deferred),
    ("SError moved", moved),
    ("SError and reset", quirks),
    ("Exceptions by ONE_REG", by_hand),
)
