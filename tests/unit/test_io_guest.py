"""The adapter of a guest on KVM, with real threads, signals and memory; the vCPUs are those of model hosts."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time

import pytest

from acpi.presets import PRESETS
from tests.kvm_host import Host, consumes, leaves, send_self
from vmm_ras import arm64
from vmm_ras.effects import Acked, Decided, Dropped, InjectSea, OwnMemory, Posted, Release, TakenBack
from vmm_ras.errors import HostError
from vmm_ras.events import Code, HostSignal, MemoryFault, TellSea, TellSerror
from vmm_ras.guests.kvm import KvmVcpu
from vmm_ras.guests.vcpu import Vcpu as ModelVcpu
from vmm_ras.io import sigbus
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.io.kvm import ioctl, vcpu
from vmm_ras.io.kvm.guest import KvmGuest
from vmm_ras.io.kvm.service import Service
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.kvm.vm import Vm
from vmm_ras.kvm import events, ioctls
from vmm_ras.kvm.events import ArmSea, MemoryFaultExit
from vmm_ras.kvm.exits import MmioExit
from vmm_ras.kvm.hosts import HOSTS
from vmm_ras.kvm.one_reg import CORE, SYSREGS
from vmm_ras.memory import MemoryMap
from vmm_ras.notifier import Notifier
from vmm_ras.policy import load_policy
from vmm_ras.profiles import PROFILES
from vmm_ras.sdei_table import PE_UNMASK, VERSION

RAM, SIZE = 0x4000_0000, 1 << 20
TABLES, LOST = RAM + 0x8_0000, RAM + 0x5000
EL0, EL1 = 0, 0x3C5
IGNORANT = 'version = 1\n[[rule]]\nname = "none"\naction = "ignore"\n'


@pytest.fixture
def mask():
    """The signal mask of this thread, put back afterwards."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, old)


class Machine:
    """A guest whose vCPUs make the exits that the test gives them."""

    def __init__(self, host, kvm, *, vcpus=1, preset="all", guest="generic", policy=None):
        self.host, self.vm, self.ram = host, Vm(kvm), GuestRam(RAM, SIZE)
        self.vm.add_memory(self.ram.slot)
        image = PRESETS[preset].place(TABLES)
        image.write(self.ram.write)
        self.cpus = [self.vm.add_vcpu() for _ in range(vcpus)]
        self.sides = [host.vcpus[cpu.fd] for cpu in self.cpus]
        for cpu in self.cpus:
            cpu.set(SYSREGS["VBAR_EL1"], 0x4000_8000)
            cpu.set(CORE["PSTATE"], EL1)
        self.core = Notifier(
            image.sources, MemoryMap([self.ram.slot]), guest=PROFILES[guest], vcpus=vcpus,
            policy=None if policy is None else load_policy(policy, "test"),
        )  # fmt: skip
        self.seen, self.ended, self.taken = [], [], []
        self.guest = KvmGuest(self.vm, self.ram, self.core, self.take, heard=self.seen.extend, ended=self.over)

    def take(self, thread, reason):
        self.taken.append((thread.vcpu.index, reason))
        return reason != ioctls.EXIT_SYSTEM_EVENT

    def over(self, thread):
        self.ended.append(thread.ended)

    def play(self, index, *run):
        self.sides[index].exits.extend(run)

    def model(self, index=0):
        return self.sides[index].model.vcpu

    def until(self, holds, what="it", seconds=20):
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"{what} does not come; {self.ended}; {self.seen[-5:]}"
            time.sleep(0.0003)

    def saw(self, kind):
        return [e for e in list(self.seen) if isinstance(e, kind)]

    def hva(self, gpa):
        return self.ram.hva + gpa - RAM

    def acknowledge(self, way="sea"):
        self.ram.update_word(self.core.ways[way][0].placed.ack, ~0, 1)

    def close(self):
        self.guest.end()
        self.vm.close()
        self.ram.close()


@pytest.fixture(params=HOSTS, ids=str)
def profile(request):
    return HOSTS[request.param]


@pytest.fixture
def make(profile, monkeypatch, mask):
    host, made = Host(profile), []
    for module in (ioctl, vcpu):
        monkeypatch.setattr(module, "fcntl", host)
    with Kvm("/dev/null") as kvm:

        def build(**options):
            made.append(Machine(host, kvm, **options))
            return made[-1]

        yield build
        for machine in made:
            machine.close()
    assert [t.name for t in threading.enumerate() if t.name.startswith(("vcpu", "memory-errors"))] == []


def test_consumed_and_acknowledged(make):
    """A real SIGBUS in the vCPU's thread, a record in memory, the model's exception, the guest's acknowledgement."""
    m = make()
    m.guest.start()
    m.play(0, consumes(m.hva(LOST), 0xFFFF_AA44_7040, pc=0x1000, pstate=EL0))
    m.until(lambda: m.saw(Release))
    posted = m.saw(Posted)[0]
    assert (posted.delivery, posted.esr, posted.pages) == ("sea", 0x92000010, ((LOST, 4096),))
    model = m.model()
    assert (model.esr, model.far, model.elr, model.pc) == (0x92000010, 0xFFFF_AA44_7040, 0x1000, 0x4000_8400)
    assert m.ram.read(m.core.ways["sea"][0].placed.block, len(posted.block)) == posted.block
    m.acknowledge()
    m.until(lambda: m.saw(Acked))
    assert m.ended == []


def test_two_at_once(make):
    """One SEA at a time: the second vCPU is held until the first block was read."""
    m = make(vcpus=2)
    m.guest.start()
    for index in (0, 1):
        m.play(index, consumes(m.hva(LOST + index * 4096), 0x7000 + index, pstate=EL0))
    m.until(lambda: len(m.saw(InjectSea)) == 1 and any(t.out for t in m.guest.vcpus))
    m.acknowledge()
    m.until(lambda: len(m.saw(InjectSea)) == 2)
    m.acknowledge()
    m.until(lambda: len(m.saw(Acked)) == 2)
    assert sorted(m.model(index).far for index in (0, 1)) == [0x7000, 0x7001]
    assert not any(t.out for t in m.guest.vcpus)


def test_an_abort_that_is_not_made_takes_the_record_back(make):
    m = make()
    m.guest.start()
    m.sides[0].deaf = True
    m.play(0, consumes(m.hva(LOST), 0x7000, pstate=EL0))
    m.until(lambda: m.saw(TakenBack))
    assert "did not take the abort" in m.saw(TakenBack)[0].reason
    m.until(lambda: len(m.saw(Posted)) == 2)  # another way tells the page
    assert m.saw(Posted)[1].delivery != "sea"
    assert m.ram.read(m.core.ways["sea"][0].placed.block, 4) == bytes(4)


@pytest.mark.parametrize("flags", [0, 1])
@pytest.mark.parametrize("fnv", [0, arm64.ISS_FNV])
def test_an_abort_that_the_host_relays(make, flags, fnv):
    """KVM_EXIT_ARM_SEA: FAR and ESR by ONE_REG, and a record where the host knows the page."""
    m = make()
    m.guest.start()
    union = ArmSea(flags=flags, esr=0x92000010 | fnv, gva=0xFFFF_8000_0000_1238, gpa=LOST + 0x238).encode()
    m.play(0, leaves(events.EXIT_ARM_SEA, union))
    m.until(lambda: m.saw(Release))
    sea, model = m.saw(InjectSea)[0], m.model()
    assert sea.far == (None if fnv else 0xFFFF_8000_0000_1238)
    assert model.esr == sea.esr == (0x96000410 if fnv else 0x96000010)
    assert model.far == (0 if fnv else 0xFFFF_8000_0000_1238)
    assert [e.pages for e in m.saw(Posted) if e.delivery == "sea"] == ([((LOST, 4096),)] if flags else [])


def test_an_sdei_handler_is_entered_as_the_hosts_processors_take_exceptions(make):
    """PSTATE.DIT stays and TCO is set, where there are FEAT_DIT and FEAT_MTE2."""
    m = make()
    assert m.core.sdei.entry_pstate(arm64.PSTATE_DIT, 0) == EL1 | arm64.PSTATE_PAN
    m.sides[0].model = KvmVcpu(ModelVcpu(arm64.Features(dit=True, mte=True)), m.host.profile)
    m.guest.start()
    assert m.core.sdei.entry_pstate(arm64.PSTATE_DIT, 0) == EL1 | arm64.PSTATE_PAN | arm64.PSTATE_DIT | arm64.PSTATE_TCO


def test_lost_memory_as_a_memory_fault(make):
    m = make()
    m.guest.start()
    m.play(0, leaves(events.EXIT_MEMORY_FAULT, MemoryFaultExit(gpa=LOST, size=4096).encode(), vcpu.EHWPOISON))
    m.until(lambda: m.saw(Posted))
    assert (m.saw(Posted)[0].delivery, m.saw(Posted)[0].pages) == ("sea", ((LOST, 4096),))


def test_absent_memory_is_no_lost_memory(make):
    m = make()
    m.guest.start()
    m.play(0, leaves(events.EXIT_MEMORY_FAULT, MemoryFaultExit(gpa=LOST, size=4096).encode(), errno.EFAULT))
    m.until(lambda: m.ended)
    assert m.ended == [f"vCPU 0: the host has no memory at {LOST:#x}"]


def test_found_memory_is_heard_of_in_the_service_thread(make, monkeypatch):
    """BUS_MCEERR_AO, as the kernel sends it to the thread that asked for early kill."""
    m, sent = make(), []
    patience = Service._patience

    def send(service):
        if not sent:
            sent.append(1)
            send_self(5, m.hva(LOST))
        return patience(service)

    monkeypatch.setattr(Service, "_patience", send)
    m.guest.start()
    m.until(lambda: m.saw(Posted))
    assert (m.saw(Posted)[0].delivery, m.saw(Posted)[0].pages, m.guest.service.signals) == ("gsiv", ((LOST, 4096),), 1)
    gsiv = m.core.ways["gsiv"][0].placed.vector
    assert m.host.lines == [(1 << 24 | gsiv, 1), (1 << 24 | gsiv, 0)]


def test_a_page_whose_signal_was_lost_is_found_again(make, monkeypatch):
    m, sent = make(), []
    patience = Service._patience

    def send(service):
        if not sent:
            sent.append(1)
            send_self(5, m.hva(LOST))
            send_self(5, m.hva(LOST + 4096))  # a standard signal that is pending takes no second one
        return patience(service)

    monkeypatch.setattr(Service, "_patience", send)
    monkeypatch.setattr(sigbus, "lost_pages", lambda ram: [LOST, LOST + 4096] if sent else [])
    m.guest.start()
    m.until(lambda: m.core.poison.state(LOST + 4096 >> 12))
    assert (m.guest.service.signals, m.guest.service.found_again) == (1, 1)


def test_another_machines_thread_hears_of_it(make, monkeypatch):
    """Of one process one thread is told, whoever's memory it is."""
    first, second, sent = make(), make(), []
    patience = Service._patience

    def send(service):
        if service.guest is first.guest and not sent:
            sent.append(1)
            while not second.guest.started.is_set():
                time.sleep(0.001)
            send_self(5, second.hva(LOST))
        return patience(service)

    monkeypatch.setattr(Service, "_patience", send)
    starter = threading.Thread(target=second.guest.start)
    starter.start()
    first.guest.start()
    second.until(lambda: second.saw(Posted))
    starter.join()
    assert second.saw(Posted)[0].pages == ((LOST, 4096),)
    assert (first.seen, first.guest.service.signals) == ([], 1)


def test_what_was_told_is_not_found_again(make, monkeypatch):
    """Not even where the policy ignores it, so that the core remembers nothing."""
    m, sent = make(policy=IGNORANT), []
    patience = Service._patience

    def send(service):
        if len(sent) < 3:
            sent.append(1)
            send_self(5, m.hva(LOST + 4096 * len(sent)))
        return patience(service) if len(sent) == 3 else 0

    monkeypatch.setattr(Service, "_patience", send)
    monkeypatch.setattr(sigbus, "lost_pages", lambda ram: [LOST + 4096 * (i + 1) for i in range(len(sent))])
    m.guest.start()
    m.until(lambda: m.guest.service.signals == 3)
    m.guest.end()
    assert len(m.saw(Decided)) == 3
    assert m.guest.service.found_again == 0


def test_poison_in_the_vmms_own_memory(make):
    m = make()
    m.guest.start()
    m.play(0, consumes(0x1000, 0x7000))
    m.until(lambda: m.ended)
    assert [(e.hva, e.code) for e in m.saw(OwnMemory)] == [(0x1000, Code.AR)]
    assert m.ended == ["vCPU 0 needs lost memory at 0x1000, which no slot holds"]


def test_a_running_vcpu_is_asked_for(make):
    """It is kicked out of KVM_RUN, and what a person asks for is carried out there."""
    m = make(vcpus=2)
    m.guest.start()
    m.guest.receive(TellSea(1, 0x96000010, 0x1234))
    m.until(lambda: m.saw(Release))
    assert (m.model(1).esr, m.model(1).far, m.model(1).pc) == (0x96000010, 0x1234, 0x4000_8200)
    assert m.model(0).esr == 0


def test_an_access_in_flight_is_completed_first(make):
    m = make()
    ran = []
    run = m.sides[0].run

    def note():
        ran.append((m.sides[0].exits and "exit") or "run")
        return run()

    m.sides[0].run = note
    m.guest.start()
    asked = threading.Event()

    def take(thread, reason):
        m.guest.receive(TellSea(0, 0x96000010, 0x1234))
        asked.set()
        return True

    m.guest._take = take
    m.play(0, leaves(ioctls.EXIT_MMIO, MmioExit(phys_addr=8, data=bytes(8), len=8, is_write=0).encode()))
    m.until(lambda: asked.is_set() and m.model().far == 0x1234)


def test_serrors_wait_for_one_another(make):
    m = make()
    m.guest.start()
    for iss in (0xC11, 0x11):
        m.guest.receive(TellSerror(0, iss))
    m.until(lambda: len(m.guest.vcpus[0].serrors) == 2)
    assert m.model().vsesr == 0xC11
    m.model().vsesr = None  # the guest took it
    m.until(lambda: m.model().vsesr == 0x11, "the second SError")


def test_a_call_is_answered_by_the_dispatcher(make):
    m = make()
    m.guest.start()
    model = m.model()

    def call(number):
        def play(side):
            model.x[0] = number
            return leaves(ioctls.EXIT_HYPERCALL)(side)

        return play

    for number, answer in ((VERSION, (1 << 48)), (PE_UNMASK, 0), (0x8400_0000, arm64.U64)):
        m.play(0, call(number))
        m.until(lambda number=number: model.x[0] != number and not m.sides[0].exits, "an answer")
        assert model.x[0] & (arm64.U64 if answer in (0, arm64.U64) else ~(0xFFFF << 32)) == answer
    assert m.ended == []


def test_a_vcpu_that_ends_is_no_vcpu_to_tell(make):
    m = make(vcpus=2)
    m.guest.start()
    m.play(0, leaves(ioctls.EXIT_SYSTEM_EVENT))
    m.until(lambda: m.ended)
    assert m.ended == ["the guest ended it"]
    m.guest.receive(TellSea(0, 0x96000010, 1))
    m.until(lambda: m.saw(Dropped), "the answer")
    assert m.model(0).esr == 0


def test_a_host_error_ends_the_vcpu_with_a_line(make):
    m = make()
    m.guest.start()
    m.play(0, leaves(0, b"", errno.EFAULT))
    m.until(lambda: m.ended)
    assert m.ended == ["KVM_RUN: Bad address"]


def test_a_reset_replaces_what_was_lost(make):
    m = make()
    m.guest.start()
    m.ram.write(LOST, b"old")
    m.guest.receive(HostSignal(Code.AO, m.hva(LOST), 12, 0, None))
    m.guest.receive(MemoryFault(LOST + 8192, 4096))
    assert sorted(m.guest.replace_lost()) == [(LOST, 4096), (LOST + 8192, 4096)]
    assert m.ram.read(LOST, 3) == bytes(3)
    assert m.core.poison.counts[1:] == [0, 0, 0]


def test_an_effect_on_lost_memory_is_a_failure(make, monkeypatch):
    """The block's page is lost: the way is broken, the next one tells."""
    m = make()
    m.guest.start()
    block = m.core.ways["gsiv"][0].placed.block
    write = os.pwrite

    def refuse(fd, data, offset):
        if fd == m.ram.fd and offset + RAM == block:
            raise OSError(errno.EIO, "Input/output error")
        return write(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", refuse)
    m.guest.receive(HostSignal(Code.AO, m.hva(LOST), 12, 0, None))
    m.until(lambda: m.saw(TakenBack))
    assert m.saw(TakenBack)[0].reason == f"guest memory at {block:#x} is poisoned"
    m.until(lambda: any(e.delivery == "polled" for e in m.saw(Posted)), "the next way")


def test_a_host_that_lets_nobody_hear(make, monkeypatch):
    m = make()
    monkeypatch.setattr("vmm_ras.io.libc.prefer_early_kill", lambda: (_ for _ in ()).throw(OSError(22, "no")))
    with pytest.raises(HostError, match="memory errors cannot be heard of"):
        m.guest.start()


def test_ending_twice_and_never_started(make):
    m = make()
    m.guest.end()
    other = make(vcpus=2)
    other.guest.start()
    other.guest.end()
    other.guest.end()
    assert other.guest.join(1)
