"""A guest of KVM moves between model hosts: through real bytes, with real threads, signals, memory and holes."""

from __future__ import annotations

import errno
import io
import os
import signal
import threading

import pytest

from acpi.presets import PRESETS
from tests.kvm_host import Host, consumes, leaves, send_self
from vmm_ras import arm64
from vmm_ras.compat.host import Description
from vmm_ras.effects import Acked, InjectSea, Posted
from vmm_ras.errors import GuestError, HostError, Poisoned, SnapshotError
from vmm_ras.events import TellSerror
from vmm_ras.io import holes, libc
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.io.holes import Holes, Way
from vmm_ras.io.kvm import ioctl, moving, vcpu
from vmm_ras.io.kvm.guest import KvmGuest
from vmm_ras.io.kvm.moving import PART, Arriving
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.kvm.vm import Vm
from vmm_ras.kvm import exits, ioctls
from vmm_ras.kvm.exits import HypercallExit, MmioExit
from vmm_ras.kvm.hosts import HOSTS
from vmm_ras.kvm.one_reg import CORE, SYSREGS
from vmm_ras.memory import MemoryMap
from vmm_ras.notifier import Notifier
from vmm_ras.profiles import PROFILES
from vmm_ras.sdei_table import VERSION
from vmm_ras.snapshot import pending, read_snapshot, stream
from vmm_ras.snapshot.container import Part, decode, encode
from vmm_ras.snapshot.stream import Lost, Memory

RAM, SIZE, PAGE = 0x4000_0000, 1 << 20, 4096
TABLES, LOST = RAM + 0x8_0000, RAM + 0x5000
MMIO = 0x0900_0000


class Machine:
    """A guest on a model host; ``arriving``: nothing is in its memory, and it does not run."""

    def __init__(self, host, kvm, *, vcpus=1, arriving=False):
        self.vm, self.ram = Vm(kvm), GuestRam(RAM, SIZE)
        self.vm.add_memory(self.ram.slot)
        image = PRESETS["all"].place(TABLES)
        cpus = [self.vm.add_vcpu() for _ in range(vcpus)]
        self.sides = [host.vcpus[cpu.fd] for cpu in cpus]
        if not arriving:
            image.write(self.ram.write)
            for cpu in cpus:
                cpu.set(SYSREGS["VBAR_EL1"], 0x4000_8000)
                cpu.set(CORE["PSTATE"], 0x3C5)
        self.core = Notifier(image.sources, MemoryMap([self.ram.slot]), guest=PROFILES["generic-sei"], vcpus=vcpus)
        self.seen, self.taken = [], []
        self.guest = KvmGuest(self.vm, self.ram, self.core, self.take, heard=self.seen.extend)
        self.holes = Holes(self.ram, self.vm.cut)
        if not arriving:
            self.guest.start()

    def take(self, thread, reason):
        self.taken.append((thread.vcpu.index, reason))
        return True

    def play(self, index, *run):
        self.sides[index].exits.extend(run)

    def model(self, index=0):
        return self.sides[index].model.vcpu

    def saw(self, kind):
        return [e for e in list(self.seen) if isinstance(e, kind)]

    def hva(self, gpa):
        return self.ram.hva + gpa - RAM

    def acknowledge(self, way="sea"):
        self.ram.update_word(self.core.ways[way][0].placed.ack, ~0, 1)

    def close(self):
        self.guest.end()
        self.vm.close()
        self.holes.close()
        self.ram.close()


def until(holds, seconds=20):
    event = threading.Event()
    for _ in range(int(seconds / 0.002)):
        if holds():
            return
        event.wait(0.002)
    raise AssertionError("it does not come about")


@pytest.fixture(params=["linux-6.1", "linux-7.2"])
def make(request, monkeypatch):
    host, made = Host(HOSTS[request.param]), []
    old = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for module in (ioctl, vcpu):
        monkeypatch.setattr(module, "fcntl", host)
    with Kvm("/dev/null") as kvm:

        def build(**options):
            made.append(Machine(host, kvm, **options))
            return made[-1]

        yield build
        for machine in made:
            machine.close()
    signal.pthread_sigmask(signal.SIG_SETMASK, old)
    assert [t.name for t in threading.enumerate() if t.name.startswith(("vcpu", "memory-errors"))] == []


def sent(machine):
    """The bytes of a machine that leaves."""
    leaving, out = moving.depart(machine.guest), bytearray()
    stream.send(out.extend, leaving.snapshot, leaving.memory())
    return bytes(out)


def arrived(make, data, ways=(Way.UNMAPPED,), **options):
    """A machine into which these bytes came; it does not run yet."""
    there = make(arriving=True, **options)
    snapshot, memory = stream.receive(io.BytesIO(data).read)
    arriving = Arriving(read_snapshot(snapshot, {PART}))
    arriving.enter(there.guest, memory, there.holes, ways)
    return there, arriving


def of_hole(gpa, write=False):
    return leaves(
        ioctls.EXIT_MMIO, MmioExit(phys_addr=gpa, data=bytes(8), len=8, is_write=int(write)).encode()
    )  # fmt: skip


# -- a guest that moves --------------------------------------------------------------------


def test_memory_and_registers_come_whole(make):
    here = make(vcpus=2)
    here.ram.write(RAM + 0x1234, b"code")
    here.ram.write(RAM + SIZE - 1, b"\1")
    whole = here.ram.read(RAM, SIZE)
    for index in (0, 1):
        here.model(index).x[7] = 0x7700 + index
    data = sent(here)
    assert len(data) < 64 << 10, "zeros do not travel"
    there, arriving = arrived(make, data, vcpus=2)
    assert there.ram.read(RAM, SIZE) == whole
    assert [there.model(index).x[7] for index in (0, 1)] == [0x7700, 0x7701]
    for side, mine in zip(there.sides, here.sides, strict=True):
        assert {r: side.model.get_one_reg(r) for r in side.model.reg_list} == {
            r: mine.model.get_one_reg(r) for r in mine.model.reg_list
        }
    assert (arriving.refused, arriving.left) == ([{}, {}], [])


def test_serrors_that_wait_come_in_their_order(make):
    here = make()
    for iss in (0xC11, 0x11, 0x1000011):
        here.guest.receive(TellSerror(0, iss))
    until(lambda: len(here.guest.vcpus[0].serrors) == 3)
    there, arriving = arrived(make, sent(here))
    assert there.model().vsesr == 0xC11
    assert pending(there.core, arriving.arrival.vcpus)["vcpus"][0]["owed"][0]["owed"] == "serror"
    arriving.start(there.guest)
    for expected in (0x11, 0x1000011, None):
        there.model().vsesr = None  # the guest takes it
        there.guest.vcpus[0].kick()
        until(lambda expected=expected: there.model().vsesr == expected)


def test_a_held_vcpu_has_its_access_refused_again(make):
    """FAR is known to the host only that refused the access: so it is refused once more, where the vCPU goes on."""
    here = make(vcpus=2)
    for index in (0, 1):
        here.play(index, consumes(here.hva(LOST + index * PAGE), 0x7000 + index, pc=0x1000 + index, pstate=0))
    until(lambda: len(here.saw(InjectSea)) == 1 and any(t.out for t in here.guest.vcpus))
    held = next(t.vcpu.index for t in here.guest.vcpus if t.out)
    there, arriving = arrived(make, sent(here), vcpus=2)
    assert arriving.arrival.held == (held,)
    masked = []

    def refused(side):
        masked.append(side.model.vcpu.pstate & arm64.PSTATE_DAIF)
        side.model.hfar = 0x7000 + held
        return of_hole(LOST + held * PAGE + 8)(side)

    there.play(held, refused)
    arriving.start(there.guest)
    assert there.saw(InjectSea) == []
    there.acknowledge()
    until(lambda: there.saw(InjectSea))
    assert masked == [arm64.PSTATE_DAIF], "nothing else of the guest is executed"
    assert (there.model(held).far, there.model(held).elr, there.model(held).spsr) == (0x7000 + held, 0x1000 + held, 0)
    assert there.saw(Posted)[0].pages == ((LOST + held * PAGE, PAGE),)


def test_a_held_vcpu_whose_access_is_not_refused_does_not_go_on(make):
    here = make(vcpus=2)
    for index in (0, 1):
        here.play(index, consumes(here.hva(LOST + index * PAGE), 0x7000, pstate=0))
    until(lambda: len(here.saw(InjectSea)) == 1 and any(t.out for t in here.guest.vcpus))
    held = next(t.vcpu.index for t in here.guest.vcpus if t.out)
    there, arriving = arrived(make, sent(here), vcpus=2)
    there.play(held, *[leaves(ioctls.EXIT_INTR)] * 16)
    arriving.start(there.guest)
    until(lambda: there.guest.vcpus[held].ended)
    assert "was refused elsewhere, and is not refused here" in there.guest.vcpus[held].ended


def test_an_unacknowledged_block_is_acknowledged_there(make):
    here = make()
    here.play(0, consumes(here.hva(LOST), 0x7000, pstate=0))
    until(lambda: here.saw(InjectSea))
    there, arriving = arrived(make, sent(here))
    assert pending(there.core)["sources"][0]["pages"] == [[LOST, PAGE]]
    arriving.start(there.guest)
    there.acknowledge()
    until(lambda: there.saw(Acked))
    assert there.saw(Acked)[0].pages == ((LOST, PAGE),)


def test_an_access_to_a_hole_is_consumed_poison(make):
    here = make()
    here.ram.write(LOST, b"secret")
    here.play(0, consumes(here.hva(LOST), 0x7000, pstate=0))
    until(lambda: here.saw(InjectSea))
    here.acknowledge()
    until(lambda: here.saw(Acked))
    data = sent(here)
    assert b"secret" not in data, "what a lost page held does not travel"
    there, arriving = arrived(make, data)
    assert arriving.ways == {(LOST, PAGE): Way.UNMAPPED}
    arriving.start(there.guest)
    there.sides[0].model.hfar = 0x9990
    there.play(0, of_hole(LOST + 0x10))
    until(lambda: there.saw(InjectSea))
    assert there.model().far == 0x9990
    assert there.saw(Posted)[0].pages == ((LOST, PAGE),)
    assert there.taken == [], "no device hears of it"
    there.play(0, of_hole(MMIO))
    until(lambda: there.taken)


def test_an_access_without_syndrome_too(make):
    here = make()
    here.play(0, consumes(here.hva(LOST), 0x7000, pstate=0))
    until(lambda: here.saw(InjectSea))
    here.acknowledge()
    until(lambda: here.saw(Acked))
    there, arriving = arrived(make, sent(here))
    arriving.start(there.guest)
    there.play(0, leaves(ioctls.EXIT_ARM_NISV, bytes(8) + (LOST + 64).to_bytes(8, "little")))
    until(lambda: there.saw(InjectSea))
    assert there.saw(Posted)[0].pages == ((LOST, PAGE),)


def test_a_page_that_nobody_has_heard_of(make, monkeypatch):
    """It is found when its contents are to be sent."""
    here = make()
    pread, gone = os.pread, LOST - RAM

    def lost(fd, size, offset):
        if fd == here.ram.fd and offset <= gone < offset + size:
            if offset == gone:
                raise OSError(errno.EIO, "lost")
            size = gone - offset
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", lost)
    data = sent(here)
    monkeypatch.undo()
    assert Lost(LOST, PAGE) in list(stream.receive(io.BytesIO(data).read)[1])


def test_what_was_not_heard_of_is_told_there(make):
    here = make()
    leaving, out = moving.depart(here.guest), bytearray()
    stream.send(out.extend, leaving.snapshot, [*leaving.memory(), Lost(LOST, PAGE)])
    there, arriving = arrived(make, bytes(out))
    assert arriving.untold == [(LOST, PAGE)]
    arriving.start(there.guest)
    until(lambda: there.saw(Posted))
    assert there.saw(Posted)[0].pages == ((LOST, PAGE),)
    with pytest.raises(Poisoned):
        there.ram.read(LOST, 1)


# -- frozen in the middle --------------------------------------------------------------------


def test_a_signal_that_comes_too_late_is_not_lost(make):
    """The guest is frozen while its vCPU comes out with BUS_MCEERR_AR: the access happens again elsewhere."""
    here = make()

    def late(side):
        side.model.vcpu.pc = 0x1000
        here.guest.frozen = here.guest.ending = True
        send_self(4, here.hva(LOST))
        raise OSError(errno.EINTR, "a signal")

    here.play(0, late)
    until(lambda: here.guest.vcpus[0].ended)
    assert (here.seen, here.model().pc) == ([], 0x1000)
    assert sent(here)


def test_a_call_that_comes_too_late_is_made_again(make):
    here = make()

    def late(side):
        side.model.vcpu.pc, side.model.vcpu.x[0] = 0x1004, VERSION  # behind the HVC, as KVM leaves it
        here.guest.frozen = here.guest.ending = True
        return leaves(ioctls.EXIT_HYPERCALL, HypercallExit(nr=VERSION).encode())(side)

    here.play(0, late)
    until(lambda: here.guest.vcpus[0].ended)
    assert here.model().pc == 0x1000


def test_an_access_that_is_undone_is_not_completed(make):
    here = make()
    here.guest.freeze()
    cpu = here.vm.vcpus[0]
    here.sides[0].write(exits.EXIT_REASON, ioctls.EXIT_MMIO.to_bytes(4, "little"))
    cpu._unsettled = True
    cpu.undo(ioctls.EXIT_MMIO)
    assert (cpu.reason, cpu._unsettled) == (ioctls.EXIT_UNKNOWN, False)


def test_a_frozen_core_hears_nothing(make):
    here = make()
    here.guest.freeze()
    with pytest.raises(GuestError, match="is moving"):
        here.guest.receive(TellSerror(0, 1))
    here.guest.expire()
    assert here.seen == []


def test_it_can_be_saved_while_it_runs(make):
    here = make(vcpus=2)
    here.guest.receive(TellSerror(1, 0x811))
    until(lambda: here.model(1).vsesr == 0x811)
    parts = read_snapshot(moving.save(here.guest), {PART}).parts
    assert [v["serror"] for v in parts["vcpus"].vcpus] == [None, 0x811]
    here.play(0, consumes(here.hva(LOST), 0x7000, pstate=0))
    until(lambda: here.saw(InjectSea))
    parts = read_snapshot(moving.save(here.guest), {PART}).parts
    assert [run[:2] for run in parts["poison"]["poison"]] == [[LOST >> 12, 1]]
    there, _ = arrived(make, b"".join(_stream(moving.save(here.guest))), vcpus=2)
    assert there.model(1).vsesr == 0x811


def _stream(snapshot):
    out = []
    stream.send(out.append, snapshot, [])
    return out


def test_a_vcpu_that_does_not_come_out_is_not_saved(make, monkeypatch):
    from vmm_ras.io.kvm import guest

    here, go = make(), threading.Event()
    here.guest._take = lambda thread, reason: go.wait(20)
    here.play(0, of_hole(MMIO))
    monkeypatch.setattr(guest, "PAUSE_SECONDS", 0.1)
    until(lambda: not here.sides[0].exits)
    with pytest.raises(HostError, match="do not come out"):
        moving.save(here.guest)
    go.set()


# -- hostile streams ------------------------------------------------------------------------


def changed(data, name, change):
    """The stream with one part of its snapshot changed, all checksums right."""
    snapshot, memory = stream.receive(io.BytesIO(data).read)
    parts = [Part(p.name, change(p.body), p.mandatory) if p.name == name else p for p in decode(snapshot)]
    out = bytearray()
    stream.send(out.extend, encode(parts), memory)
    return bytes(out)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (b'"mp_state":0', b'"mp_state":-1', "mp_state"),
        (b'"mp_state":0', b'"mp_state":"x"', "mp_state"),
        (b'"serrors":[]', b'"serrors":[[0,33554432]]', "serrors"),
        (b'"serrors":[]', b'"serrors":[' + b",".join([b"[0,1]"] * 19) + b"]", "serrors"),
        (b'"registers":{', b'"registers":{"x":"0x1",', "registers"),
        (b'"vcpus":[', b'"vcpus":[],"more":[', "more"),
        (b'{"vcpus":', b'{"vcpus":[],"x":', "kvm"),
    ],
)
def test_a_part_that_is_none_is_refused(make, old, new, what):
    data = changed(sent(make()), PART, lambda body: body.replace(old, new, 1))
    with pytest.raises(SnapshotError, match=what):
        arrived(make, data)


def test_a_register_that_the_host_does_not_take_stops_the_move(make, monkeypatch):
    """A core register that the guest uses is no small thing; one that means nothing is left out."""
    good = sent(make())
    unknown = SYSREGS["FAR_EL1"] ^ 0x7F << 3
    monkeypatch.setattr(Host, "has", lambda *_: False)
    for value in (0, 0x77):
        more = b'"registers":{"%#x":"%#x",' % (unknown, value)
        data = changed(good, PART, lambda body, more=more: body.replace(b'"registers":{', more))
        if not value:
            assert arrived(make, data)[1].refused == [{unknown: 0}]
        else:
            with pytest.raises(SnapshotError, match="vCPU 0"):
                arrived(make, data)


@pytest.mark.parametrize(
    ("item", "what"),
    [
        (Memory(RAM - 1, b"xx"), "outside the guest's memory"),
        (Memory(RAM + SIZE - 1, b"xx"), "outside the guest's memory"),
        (Memory((1 << 64) - 1, b"xx"), "outside the guest's memory"),
        (Memory(LOST + 8, b"x"), "of memory that is lost"),
        (Memory(LOST - 1, b"xx"), "of memory that is lost"),
        (Lost(LOST, PAGE), "of memory that is lost"),
        (Lost(RAM, 1), "whole pages"),
        (Lost(RAM, 0), "whole pages"),
        (Lost(RAM, 1 << 63), "outside the guest's memory"),
    ],
)
def test_memory_where_none_may_be_is_refused(make, item, what):
    here = make()
    here.play(0, consumes(here.hva(LOST), 0x7000, pstate=0))
    until(lambda: here.saw(InjectSea))
    leaving, out = moving.depart(here.guest), bytearray()
    stream.send(out.extend, leaving.snapshot, [item])
    with pytest.raises(SnapshotError, match=what):
        arrived(make, bytes(out))


def test_the_other_machine_has_as_many_vcpus(make):
    data = sent(make())
    with pytest.raises(SnapshotError, match="1 vCPU, 2 here"):
        arrived(make, data, vcpus=2)


# -- a conservative source ---------------------------------------------------------------


def described(values, kernel="6.12"):
    return Description(kernel=kernel, registers={hex(reg): hex(value) for reg, value in values.items()})


def test_a_guest_begins_with_what_all_take(make):
    """From the own value to the planned one only what differs is changed: the machine may have set more."""
    here = make(vcpus=2)
    reg, other = CORE["X5"], CORE["X6"]
    found = moving.Plan((moving.Setting(reg, 0xF0, 0x30, "less"),), {}, (), {})
    for cpu in here.vm.vcpus:
        cpu.set(reg, 0x1F0)
        cpu.set(other, 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving, "plan", lambda hosts: found)
        assert moving.conservative(here.vm, described({}), [described({})]) == list(found.settings)
    assert [(cpu.get(reg), cpu.get(other)) for cpu in here.vm.vcpus] == [(0x130, 7)] * 2


def test_registers_of_features_that_the_guest_has_not_do_not_matter(make):
    here, psci = make(), 0x6030000000140000
    own, theirs = described({psci: 0x10003}, "7.2"), described({psci: 0x10001, CORE["X1"]: 5})
    with pytest.MonkeyPatch.context() as patch:
        done = []
        patch.setattr(moving.Vcpu, "set", lambda cpu, reg, value: done.append((reg, value)))
        patch.setattr(moving.Vcpu, "get", lambda cpu, reg: 0x10003)
        settings = moving.conservative(here.vm, own, [theirs])
    assert [(s.register, s.own, s.value) for s in settings] == [(psci, 0x10003, 0x10001)]
    assert done == [(psci, 0x10001)]


def test_where_there_is_no_such_set(make):
    here = make()
    midr = 0x603000000013C000
    with pytest.raises(HostError, match="could not move: MIDR_EL1"):
        moving.conservative(here.vm, described({midr: 0x413FD0C1}), [described({midr: 0x411FD0B1})])


# -- holes ------------------------------------------------------------------------------


def test_a_hole_is_an_error_for_calls_and_neighbours_are_not():
    with GuestRam(RAM, SIZE) as ram:
        ram.write(RAM, b"\x5a" * SIZE)
        for first in (0x3000, 0x5000, 0x6000):
            ram.add_hole(RAM + first, PAGE)
        assert ram.holes == [(RAM + first, PAGE) for first in (0x3000, 0x5000, 0x6000)]
        for gpa, size, where in ((0x3000, 1, 0x3000), (0x2FFF, 2, 0x3000), (0x3FFF, 2, 0x3FFF), (0, SIZE, 0x3000),
                                 (0x4000, PAGE + 1, 0x5000), (0x6FFF, 1, 0x6FFF)):  # fmt: skip
            with pytest.raises(Poisoned) as error:
                ram.read(RAM + gpa, size)
            assert error.value.gpa == RAM + where
        assert ram.read(RAM + 0x4000, PAGE) == b"\x5a" * PAGE
        with pytest.raises(Poisoned):
            ram.write(RAM + 0x2000, bytes(2 * PAGE))
        assert ram.read(RAM + 0x2000, PAGE) == bytes(PAGE), "before a hole everything is written"
        assert ram.replace(RAM + 0x5000, PAGE) == (RAM + 0x5000, PAGE)
        assert ram.read(RAM + 0x5000, PAGE) == bytes(PAGE)
        assert ram.holes == [(RAM + 0x3000, PAGE), (RAM + 0x6000, PAGE)]


def test_the_next_way_is_taken_where_the_host_refuses_one(monkeypatch):
    def no(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    cut = []
    monkeypatch.setattr(libc, "userfaultfd", no)
    monkeypatch.setattr(Holes, "_lose", no)
    with GuestRam(RAM, SIZE) as ram:
        made = Holes(ram, lambda gpa, size: cut.append((gpa, size)))
        assert made.make([(LOST, PAGE), (RAM, 2 * PAGE)]) == dict.fromkeys(
            [(LOST, PAGE), (RAM, 2 * PAGE)], Way.UNMAPPED
        )
        assert (cut, list(made.refused)) == ([(LOST, PAGE), (RAM, 2 * PAGE)], [Way.HWPOISON, Way.USERFAULTFD])
        with pytest.raises(HostError, match=r"hwpoison: Operation not permitted; userfaultfd: Operation not permitted"):
            Holes(ram).make([(RAM + 0x8000, PAGE)], (Way.HWPOISON, Way.USERFAULTFD))
        with pytest.raises(HostError, match="no machine to take it from"):
            Holes(ram).make([(RAM + 0x8000, PAGE)])


def test_less_than_a_page_of_the_host_is_taken_from_the_machine_only():
    cut = []
    with GuestRam(RAM, SIZE) as ram:
        ram.granule = 4 * PAGE
        made = Holes(ram, lambda gpa, size: cut.append((gpa, size)))
        assert made.make([(LOST, PAGE)]) == {(LOST, PAGE): Way.UNMAPPED}
        assert cut == [(LOST, PAGE)]
        assert libc.read_mapped(ram.hva + LOST - RAM, 4) == bytes(4), "the mapping has larger pages"


def test_a_hole_that_userfaultfd_makes_is_an_error_for_calls_through_the_mapping():
    with GuestRam(RAM, SIZE) as ram:
        made = Holes(ram)
        try:
            made.make([(LOST, 2 * PAGE)], (Way.USERFAULTFD,))
        except HostError:
            pytest.skip("UFFDIO_POISON is not to be had")
        for offset in (0, PAGE):
            with pytest.raises(OSError, match="Bad address"):
                libc.read_mapped(ram.hva + LOST - RAM + offset, 1)
        assert libc.read_mapped(ram.hva + LOST - RAM - 1, 1) == b"\0"
        ram.replace(LOST, 2 * PAGE)
        assert libc.read_mapped(ram.hva + LOST - RAM, 1) == b"\0"
        made.close()


def test_a_slot_is_cut_and_mended(make):
    here = make(arriving=True)
    here.vm.cut(LOST, PAGE)
    here.vm.cut(RAM, PAGE)
    assert sorted((s.gpa, s.size, s.hva - here.ram.hva) for s in here.vm.slots if s.size) == [
        (RAM + PAGE, 4 * PAGE, PAGE), (LOST + PAGE, SIZE - 6 * PAGE, 6 * PAGE),
    ]  # fmt: skip
    here.ram.add_hole(LOST, PAGE)
    here.ram.add_hole(RAM, PAGE)
    assert sorted(here.guest.replace_lost()) == [(RAM, PAGE), (LOST, PAGE)]
    whole = sorted((s.gpa, s.size) for s in here.vm.slots if s.size)
    assert whole == [(RAM, PAGE), (RAM + PAGE, 4 * PAGE), (LOST, PAGE), (LOST + PAGE, SIZE - 6 * PAGE)]
    assert here.ram.holes == []


def test_the_ioctls_are_those_of_linux():
    """_IOWR(0xAA, number, size) of linux/userfaultfd.h."""
    made = [3 << 30 | size << 16 | 0xAA << 8 | number for number, size in ((0x3F, 24), (0, 32), (8, 32))]
    assert made == [holes._API, holes._REGISTER, holes._POISON]
