"""The whole core over model hosts: an adapter that has only ioctls tells the guest what the plain model is told."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acpi.presets import PRESETS
from vmm_ras import arm64
from vmm_ras.events import Code, GuestAbort, HostSignal
from vmm_ras.guests.kvm import KvmVcpu
from vmm_ras.guests.model import ModelGuest
from vmm_ras.kvm.events import VcpuEvents
from vmm_ras.kvm.hosts import HOSTS
from vmm_ras.kvm.one_reg import CORE, SYSREGS
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import load_policy
from vmm_ras.profiles import PROFILES

HVA, GPA, SIZE, PAGES = 0x7F00_0000_0000, 0x4000_0000, 1 << 24, 64
A = 1 << 8
POLICY = load_policy("""
version = 1
[[rule]]
name = "consumed"
when = { code = "AR" }
deliver = ["sea"]
[[rule]]
name = "found"
when = { code = "AO" }
deliver = ["sei"]
aet = "ueo"
""")


class Ioctls:
    """A vCPU whose injections go by KVM_SET_VCPU_EVENTS and ONE_REG; everything else is the guest's own doing."""

    def __init__(self, vcpu, host):
        self.__dict__.update(vcpu=vcpu, kvm=KvmVcpu(vcpu, host))

    def __getattr__(self, name):
        return getattr(self.vcpu, name)

    def __setattr__(self, name, value):
        setattr(self.vcpu, name, value)

    def take_sea(self, esr, far):
        """Data aborts with an address by ext_dabt_pending, all else by registers."""
        kvm = self.kvm
        if far is not None and esr >> 26 in (0x24, 0x25):
            kvm.hfar = far
            kvm.set_events(VcpuEvents(ext_dabt_pending=1).encode())
            kvm.set_one_reg(SYSREGS["ESR_EL1"], esr)
            return
        pstate = kvm.get_one_reg(CORE["PSTATE"])
        vector = kvm.get_one_reg(SYSREGS["VBAR_EL1"]) + arm64.vector_block(pstate)
        new = arm64.entry_pstate(pstate, kvm.get_one_reg(SYSREGS["SCTLR_EL1"]))
        for reg, value in (
            (SYSREGS["ESR_EL1"], esr), (CORE["ELR_EL1"], kvm.get_one_reg(CORE["PC"])), (CORE["SPSR_EL1"], pstate),
            (CORE["PC"], vector), (CORE["PSTATE"], new),
        ):  # fmt: skip
            kvm.set_one_reg(reg, value)

    def pend_serror(self, vsesr):
        events = VcpuEvents.decode(self.kvm.get_events())
        self.kvm.set_events(events.with_serror(vsesr).encode())

    def state(self):
        events = VcpuEvents.decode(self.kvm.get_events())
        return self.vcpu.state()._replace(serror=events.serror)


class KvmGuest(ModelGuest):
    """The model guest on a model host: releasing a vCPU is KVM_RUN."""

    def __init__(self, image, profile, host, **kwargs):
        super().__init__(image, profile, **kwargs)
        self.vcpus[:] = [Ioctls(vcpu, host) for vcpu in self.vcpus]

    def _enter(self, index, now):
        self.vcpus[index].kvm.run()
        return super()._enter(index, now)


def world(make):
    image = PRESETS["all"].place(0x3FF00000)
    guest = make(image)
    guest.memory.add_region(GPA, SIZE)
    core = Notifier(
        image.sources, MemoryMap([MemorySlot(HVA, GPA, SIZE)]), guest=PROFILES["generic"], vcpus=2,
        threads={100: 0, 101: 1}, policy=POLICY,
    )  # fmt: skip
    return guest, core


def play(make, steps):
    """What the guest did and what it holds in the end."""
    guest, core = world(make)
    now, seen = 0.0, []
    for act, vcpu, page in steps:
        now += 20.0
        if act == "mask":
            guest.vcpus[vcpu].mask_serror()
        elif act == "unmask":
            guest.vcpus[vcpu].unmask_serror()
            guest.os.run(vcpu, now)
        elif act == "el1":
            guest.vcpus[vcpu].run_at(1, 0x1000, guest.vcpus[vcpu].pstate & A)
            guest.os.run(vcpu, now)
        elif act == "abort":
            event = GuestAbort(vcpu, 0x92000010, 0x7000 + page, GPA + page * 4096)
            guest.drive(core, core.receive(event, now), now)
        else:
            code = Code.AR if act == "ar" else Code.AO
            guest.drive(core, core.receive(HostSignal(code, HVA + page * 4096, 12, 100 + vcpu), now), now)
        guest.drive(core, core.expire(now + 10.0), now + 10.0)
        seen.append([(a.source_id, a.outcome) for a in guest.os.drain()])
    registers = [(v.pc, v.pstate, v.elr, v.spsr, v.esr & 0xFFFFFFFF, v.far, v.vsesr) for v in guest.vcpus]
    return seen, registers, guest.os.offlined.count, guest.os.signalled, guest.os.panicked, guest.memory.read(GPA, 64)


steps = st.lists(
    st.tuples(
        st.sampled_from(["ar", "ar", "abort", "ao", "ao", "mask", "unmask", "el1"]),
        st.integers(0, 1),
        st.integers(0, PAGES - 1),
    ),
    max_size=12,
)


@pytest.mark.parametrize("host", HOSTS)
@settings(max_examples=40, deadline=None)
@given(steps)
def test_every_host_gives_what_the_plain_model_gives(host, steps):
    plain = play(lambda image: ModelGuest(image, PROFILES["generic"], vcpus=2), steps)
    assert play(lambda image: KvmGuest(image, PROFILES["generic"], HOSTS[host], vcpus=2), steps) == plain


@pytest.mark.parametrize("host", HOSTS)
def test_a_consumed_and_a_found_error_on_a_vcpu_that_masks_serrors(host):
    steps = [("mask", 0, 0), ("ao", 0, 3), ("ar", 0, 5), ("unmask", 0, 0)]
    did, _, offlined, signalled, panicked, _ = play(
        lambda image: KvmGuest(image, PROFILES["generic"], HOSTS[host], vcpus=2), steps
    )
    assert [[outcome for _, outcome in at] for at in did] == [[], [], ["offlined"], ["offlined"]]
    assert (offlined, signalled, panicked) == (2, 1, "")
