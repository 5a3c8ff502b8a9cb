"""KVM's ioctls, and exceptions that a vCPU is given, on hosts of the model: with every kernel's differences."""

from __future__ import annotations

import errno
import os

import pytest

from tests.kvm_host import Host, leaves
from vmm_ras import arm64
from vmm_ras.effects import SetRegisters
from vmm_ras.errors import GuestError, HostError
from vmm_ras.events import GuestAbort
from vmm_ras.guests.kvm import KvmVcpu
from vmm_ras.guests.vcpu import Vcpu as ModelVcpu
from vmm_ras.io.guest_ram import GuestRam
from vmm_ras.io.kvm import inject, ioctl, vcpu
from vmm_ras.io.kvm.gic import GicV3
from vmm_ras.io.kvm.ioctl import KvmError
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.kvm.vm import Vm
from vmm_ras.kvm import events, exits, ioctls
from vmm_ras.kvm.events import ArmSea, MemoryFaultExit, VcpuEvents
from vmm_ras.kvm.exits import HypercallExit, MmioExit, SystemEventExit
from vmm_ras.kvm.hosts import HOSTS
from vmm_ras.kvm.one_reg import CORE, SYSREGS
from vmm_ras.memory import MemorySlot

VBAR = 0x4000_8000
EL0, EL1 = 0, 0x3C5


@pytest.fixture(params=HOSTS, ids=str)
def host(request, monkeypatch):
    found = Host(HOSTS[request.param])
    monkeypatch.setattr(ioctl, "fcntl", found)
    monkeypatch.setattr(vcpu, "fcntl", found)
    return found


@pytest.fixture
def kvm(host):
    with Kvm("/dev/null") as found:
        yield found


@pytest.fixture
def vm(kvm):
    with Vm(kvm) as found:
        yield found


@pytest.fixture
def cpu(vm):
    found = vm.add_vcpu()
    found.set(SYSREGS["VBAR_EL1"], VBAR)
    return found


@pytest.fixture
def model(host, cpu):
    return host.vcpus[cpu.fd].model.vcpu


def at(cpu, pc=0x1000, pstate=EL0):
    cpu.set(CORE["PC"], pc)
    cpu.set(CORE["PSTATE"], pstate)


class TestIoctls:
    def test_a_host_without_kvm(self, tmp_path):
        with pytest.raises(HostError, match=r"kvm: No such file or directory"):
            Kvm(str(tmp_path / "kvm"))

    def test_a_device_of_another_version(self, host, monkeypatch):
        monkeypatch.setattr(host, "version", 12)
        monkeypatch.setattr(ioctls, "API_VERSION", 13)
        with pytest.raises(HostError, match="API version 12, expected 13"):
            Kvm("/dev/null")

    def test_memory(self, host, vm):
        vm.add_memory(MemorySlot(0x7000_0000, 0x4000_0000, 0x20_0000))
        vm.add_memory(MemorySlot(0x7100_0000, 0x8000_0000, 0x1000), ioctls.MEM_READONLY)
        assert [(s.slot, s.flags, s.guest_phys_addr, s.memory_size, s.userspace_addr) for s in host.slots] == [
            (0, 0, 0x4000_0000, 0x20_0000, 0x7000_0000), (1, 2, 0x8000_0000, 0x1000, 0x7100_0000),
        ]  # fmt: skip

    def test_calls_that_come_to_user_space(self, host, vm):
        assert vm.forward_calls() == host.profile.smccc_filter
        assert [(f.base, f.nr_functions, f.action) for f in host.filters] == [(0xC4000020, 0x20, 2)] * len(host.filters)
        assert vm.relay_aborts() == host.profile.sea_exit

    def test_lines_and_the_interrupt_controller(self, host, vm):
        vm.set_line(53, True)
        assert host.lines == [(1 << 24 | 53, 1)]
        gic = GicV3(vm, 0x0800_0000, 0x080A_0000, 128)
        assert host.attributes == [
            (0, 2, (0x0800_0000).to_bytes(8, "little")), (0, 3, (0x080A_0000).to_bytes(8, "little")),
            (3, 0, (128).to_bytes(4, "little")), (4, 0, b""),
        ]  # fmt: skip
        gic.close()
        gic.close()

    def test_an_ioctl_that_fails_says_which(self, vm, cpu):
        with pytest.raises(KvmError, match="KVM_GET_ONE_REG: No such file or directory") as caught:
            cpu.get(SYSREGS["HCR_EL2"])
        assert caught.value.errno == errno.ENOENT
        with pytest.raises(KvmError, match="ioctl 0xae99"):
            ioctl.put(vm.fd, 0xAE99, VcpuEvents())

    def test_registers(self, cpu):
        cpu.set(CORE["X5"], (1 << 64) - 1)
        assert cpu.get(CORE["X5"]) == (1 << 64) - 1
        assert set(cpu.registers()) >= {CORE["X0"], SYSREGS["ESR_EL1"]}
        at(cpu, 0x1234, EL1)
        state = cpu.state()
        assert (state.pc, state.pstate, state.x[5], state.vbar, state.serror) == (
            0x1234,
            EL1,
            (1 << 64) - 1,
            VBAR,
            None,
        )

    def test_the_signals_of_the_guest(self, host, cpu):
        cpu.admit_signals({7, 10})
        assert host.vcpus[cpu.fd].mask == (8).to_bytes(4, "little") + ((1 << 64) - 1 - (1 << 6) - (1 << 9)).to_bytes(
            8, "little"
        )

    def test_closing_twice(self, kvm, vm, cpu):
        for thing in (cpu, cpu, vm, vm, kvm, kvm):
            thing.close()


class TestExits:
    def play(self, host, cpu, *run):
        host.vcpus[cpu.fd].exits.extend(run)
        return [cpu.run() for _ in run]

    def test_an_access(self, host, cpu):
        union = MmioExit(phys_addr=0x0900_0018, data=b"\x11\x22".ljust(8, b"\0"), len=4, is_write=1).encode()
        assert self.play(host, cpu, leaves(ioctls.EXIT_MMIO, union)) == [ioctls.EXIT_MMIO]
        found = cpu.mmio()
        assert (found.phys_addr, found.data[:2], found.len, found.is_write) == (0x0900_0018, b"\x11\x22", 4, 1)
        cpu.answer_mmio(b"\x90\0\0\0")
        assert cpu.run_page[40:44] == b"\x90\0\0\0"
        cpu.settle_access()
        assert cpu.run_page[exits.IMMEDIATE_EXIT] == 0

    def test_calls_and_system_events(self, host, cpu):
        union = HypercallExit(nr=0xC4000020, flags=ioctls.HYPERCALL_EXIT_SMC).encode()
        self.play(host, cpu, leaves(ioctls.EXIT_HYPERCALL, union))
        assert (cpu.hypercall().nr, cpu.hypercall().flags) == (0xC4000020, 1)
        self.play(host, cpu, leaves(ioctls.EXIT_SYSTEM_EVENT, SystemEventExit(type=2).encode()))
        assert cpu.system_event().type == ioctls.SYSTEM_EVENT_RESET

    @pytest.mark.parametrize("code", [errno.EFAULT, vcpu.EHWPOISON])
    def test_lost_and_absent_memory(self, host, cpu, code):
        union = MemoryFaultExit(gpa=0x4000_5000, size=0x1000).encode()
        assert self.play(host, cpu, leaves(events.EXIT_MEMORY_FAULT, union, code)) == [events.EXIT_MEMORY_FAULT]
        assert (cpu.memory_fault().gpa, cpu.lost) == (0x4000_5000, code == vcpu.EHWPOISON)

    def test_a_run_that_fails(self, host, cpu):
        with pytest.raises(KvmError, match="KVM_RUN: Bad address"):
            self.play(host, cpu, leaves(ioctls.EXIT_UNKNOWN, b"", errno.EFAULT))

    @pytest.mark.parametrize("flags", [0, 1, 2, 3])
    @pytest.mark.parametrize("fnv", [0, arm64.ISS_FNV])
    @pytest.mark.parametrize("ec", [0x20, 0x24])
    def test_an_abort_that_the_host_relays(self, host, cpu, flags, fnv, ec):
        esr = ec << 26 | arm64.ESR_IL | fnv | 0x10
        union = ArmSea(flags=flags, esr=esr, gva=0xFFFF_8000_0000_1238, gpa=0x4000_5238).encode()
        assert self.play(host, cpu, leaves(events.EXIT_ARM_SEA, union)) == [events.EXIT_ARM_SEA]
        gva, gpa = None if fnv else 0xFFFF_8000_0000_1238, 0x4000_5238 if flags & 1 else None
        assert cpu.arm_sea().event(2, 1.5) == GuestAbort(2, esr, gva, gpa, 1.5)


class TestSea:
    @pytest.mark.parametrize("pstate", [EL0, EL1])
    @pytest.mark.parametrize("dfsc", [0x10, 0x14, 0x17, 0x18, 0x1C])
    def test_at_the_access(self, host, cpu, model, pstate, dfsc):
        """KVM makes it; FAR is what KVM knows; no host leaves anything else than what was asked for in ESR."""
        at(cpu, 0x1000, pstate)
        host.vcpus[cpu.fd].model.hfar = 0xFFFF_AA44_7040
        el = 1 if pstate else 0
        inject.take_sea(cpu, arm64.sea_esr(el, 0, dfsc=dfsc, force=True), None, at_access=True)
        ec = 0x25 if el else 0x24
        assert (model.esr, model.far) == (ec << 26 | arm64.ESR_IL | dfsc, 0xFFFF_AA44_7040)
        assert (model.elr, model.spsr, model.pc) == (0x1000, pstate, VBAR + (0x200 if el else 0x400))
        host.vcpus[cpu.fd].model.run()
        assert model.pc == VBAR + (0x200 if el else 0x400)

    def test_an_unknown_far_is_known_at_the_access(self, host, cpu, model):
        at(cpu)
        host.vcpus[cpu.fd].model.hfar = 0x5008
        inject.take_sea(cpu, 0x92000410, None, at_access=True)
        assert (model.esr, model.far) == (0x92000010, 0x5008)

    @pytest.mark.parametrize(("pstate", "ec"), [(EL0, 0x20), (EL1, 0x21)])
    def test_an_instruction_that_could_not_be_fetched(self, host, cpu, model, pstate, ec):
        at(cpu, 0x5008, pstate)
        host.vcpus[cpu.fd].model.hfar = 0x5008
        inject.take_sea(cpu, arm64.sea_esr(1 if pstate else 0, 0), None, at_access=True)
        assert (model.esr >> 26, model.far, model.elr) == (ec, 0x5008, 0x5008)

    @pytest.mark.parametrize("far", [None, 0x7777])
    @pytest.mark.parametrize("pstate", [EL0, EL1, EL1 & ~arm64.PSTATE_A | arm64.PSTATE_PAN, arm64.EL0_AARCH32])
    def test_anywhere_else(self, host, cpu, model, pstate, far):
        """All registers are set; the model's own entry is what they must be."""
        at(cpu, 0x2000, pstate)
        cpu.set(SYSREGS["FAR_EL1"], 0x99)
        same = ModelVcpu(arm64.NEOVERSE_N1, vbar=VBAR)
        same.pc, same.pstate, same.far, same.sctlr = 0x2000, pstate, 0x99, cpu.get(SYSREGS["SCTLR_EL1"])
        same.take_sea(0x9200_0410, far)
        inject.take_sea(cpu, 0x9200_0410, far, at_access=False)
        for name in ("pc", "pstate", "elr", "spsr", "esr", "far"):
            assert getattr(model, name) == getattr(same, name), name

    @pytest.mark.parametrize("host", ["linux-7.2"], indirect=True)
    @pytest.mark.parametrize("at_access", [False, True])
    @pytest.mark.parametrize("ease", [0, arm64.SCTLR2_EASE])
    def test_a_guest_that_wants_it_at_its_serror_vector(self, host, cpu, at_access, ease):
        """FEAT_DoubleFault2, SCTLR2_EL1.EASE: KVM enters there, and so do we."""
        model = ModelVcpu(arm64.Features(double_fault2=True), vbar=VBAR)
        host.vcpus[cpu.fd].model = KvmVcpu(model, host.profile)
        at(cpu, 0x1000, EL1)
        cpu.set(SYSREGS["VBAR_EL1"], VBAR)
        cpu.set(SYSREGS["SCTLR2_EL1"], ease)
        host.vcpus[cpu.fd].model.hfar = 0x5008
        inject.take_sea(cpu, 0x96000010, None if at_access else 0x5008, at_access=at_access)
        assert (model.pc, model.esr, model.far) == (VBAR + (0x380 if ease else 0x200), 0x96000010, 0x5008)

    def test_an_abort_that_is_not_made_is_no_success(self, host, cpu):
        at(cpu)
        host.vcpus[cpu.fd].deaf = True
        with pytest.raises(GuestError, match="did not take the abort"):
            inject.take_sea(cpu, 0x92000010, None, at_access=True)

    @pytest.mark.parametrize("at_access", [False, True])
    def test_a_guest_that_has_no_vectors_yet(self, host, cpu, model, at_access):
        """It would go nowhere: refused, so that another way tells what is lost."""
        at(cpu)
        cpu.set(SYSREGS["VBAR_EL1"], 0)
        with pytest.raises(GuestError, match="no vectors yet"):
            inject.take_sea(cpu, 0x92000010, None, at_access=at_access)
        assert (model.pc, model.esr) == (0x1000, 0)
        cpu.set(SYSREGS["SCTLR_EL1"], cpu.get(SYSREGS["SCTLR_EL1"]) | 1)  # with its MMU on, 0 may be an address
        inject.take_sea(cpu, 0x92000010, 0x5000, at_access=False)
        assert model.pc == 0x400

    def test_a_mode_that_has_no_vector(self, host, cpu, model):
        at(cpu)
        model.pstate = 0x9  # EL2h
        with pytest.raises(GuestError, match=r"PSTATE\.M"):
            inject.take_sea(cpu, 0x92000010, 0, at_access=False)


class TestSerror:
    def test_masked_it_is_pending(self, cpu, model):
        at(cpu, 0x1000, EL1)
        assert inject.pend_serror(cpu, 0x123456)
        assert cpu.events().serror == 0x123456
        assert model.pc == 0x1000

    def test_a_second_one_replaces_none(self, cpu):
        at(cpu, 0x1000, EL1)
        assert inject.pend_serror(cpu, 0xC11)
        assert not inject.pend_serror(cpu, 0x11)
        assert cpu.events().serror == 0xC11

    def test_unmasked_it_is_pending_or_taken(self, host, cpu, model):
        at(cpu, 0x1000, EL1 & ~arm64.PSTATE_A)
        assert inject.pend_serror(cpu, 0x11)
        assert (cpu.events().serror is None) == host.profile.serror_at_set
        host.vcpus[cpu.fd].model.run()
        assert (model.esr, model.pc) == (0xBE000011, VBAR + 0x380)

    def test_one_that_does_nothing_is_no_success(self, host, cpu):
        at(cpu, 0x1000, EL1)
        host.vcpus[cpu.fd].deaf = True
        with pytest.raises(GuestError, match="neither pending nor taken"):
            inject.pend_serror(cpu, 0x11)

    def test_one_that_the_host_refuses(self, host, cpu):
        host.vcpus[cpu.fd].model.host_ras = False
        at(cpu, 0x1000, EL1)
        assert inject.pend_serror(cpu, 0x11)  # without FEAT_RAS the host has no syndrome to give
        assert cpu.events().serror == arm64.ISS_IDS

    def test_a_reset_leaves_none(self, host, cpu):
        """KVM_ARM_VCPU_INIT leaves it pending on some hosts: it is taken in a vector of its own then."""
        with GuestRam(0x4000_0000, 1 << 16) as ram:
            at(cpu, 0x1000, EL1)
            inject.pend_serror(cpu, 0x11)
            cpu.init()
            assert (cpu.events().serror is None) == host.profile.init_clears_serror

            def enter(own):
                own.model.run()
                return leaves(ioctls.EXIT_MMIO, MmioExit(phys_addr=8, data=bytes(8), len=8, is_write=1).encode())(own)

            host.vcpus[cpu.fd].exits.extend([enter] * 16)
            inject.drain_serror(cpu, ram, 0x4000_0000)
            assert cpu.events().serror is None
            assert cpu.get(CORE["PSTATE"]) == EL1


def test_registers_of_an_sdei_handler(cpu, model):
    at(cpu)
    inject.set_registers(cpu, SetRegisters(1, None, 0, (7, 8, 9), 0x4000, EL1))
    assert (model.x[:4], model.pc, model.pstate) == ([7, 8, 9, 0], 0x4000, EL1)
    inject.set_registers(cpu, SetRegisters(2, None, 0, (1,), 0x4004, EL1, 0x1000, EL0))
    assert (model.x[:2], model.elr, model.spsr) == ([1, 8], 0x1000, EL0)
    inject.reply(cpu, -1)
    assert model.x[0] == arm64.U64


def test_the_files_are_closed(host, kvm):
    before = len(os.listdir("/proc/self/fd"))
    with Vm(kvm) as vm:
        vm.add_vcpu()
    assert len(os.listdir("/proc/self/fd")) == before
