"""The model of a KVM host answers as real hosts were seen to (``fixtures/kvm``), kernel by kernel."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm_ras import arm64
from vmm_ras.errors import InputError
from vmm_ras.guests.kvm import KvmVcpu, Refused
from vmm_ras.guests.nested import NestedVcpu
from vmm_ras.guests.vcpu import Vcpu
from vmm_ras.kvm.events import VcpuEvents
from vmm_ras.kvm.hosts import HOSTS
from vmm_ras.kvm.one_reg import CORE, SYSREGS

OBSERVED = json.loads((Path(__file__).parents[2] / "fixtures" / "kvm" / "observed.json").read_text())
VBAR, HFAR = 0x40000800, 0x9000000
A = 1 << 8
UER, UC, CE = 0xC11, 0x11, 0x1811
each_host = pytest.mark.parametrize("host", HOSTS)


def guest(host, el=1, bits=0, features=arm64.NEOVERSE_N1, **kwargs):
    """A vCPU that runs at 0x40001000 and left KVM_RUN for an access to HFAR."""
    kvm = KvmVcpu(Vcpu(features, vbar=VBAR), HOSTS[host], **kwargs)
    kvm.vcpu.run_at(el, 0x40001000, bits)
    kvm.hfar = HFAR
    return kvm


def set_events(kvm, **members):
    kvm.set_events(VcpuEvents(**members).encode())


def serror(kvm, iss):
    set_events(kvm, serror_pending=1, serror_has_esr=1, serror_esr=iss)


def pending(kvm):
    events = VcpuEvents.decode(kvm.get_events())
    assert events.ext_dabt_pending == 0
    return events.serror


@pytest.mark.parametrize("seen", OBSERVED["ext_dabt"], ids=lambda seen: f"{seen['host']}-el{seen['el']}")
def test_ext_dabt_as_observed(seen):
    kvm = guest(seen["host"], seen["el"])
    set_events(kvm, ext_dabt_pending=1)
    offset = 0x200 if seen["el"] else 0x400
    assert kvm.get_one_reg(SYSREGS["ESR_EL1"]) == int(seen["esr"], 16)
    assert kvm.get_one_reg(SYSREGS["FAR_EL1"]) == HFAR
    assert kvm.get_one_reg(CORE["PC"]) == (VBAR + offset if seen["pc_moves"] == "at SET" else 0x40001000)
    kvm.run()
    assert kvm.get_one_reg(CORE["PC"]) == VBAR + offset
    assert kvm.get_one_reg(SYSREGS["ESR_EL1"]) == int(seen["esr"], 16)
    assert kvm.get_one_reg(CORE["ELR_EL1"]) == 0x40001000
    assert kvm.get_one_reg(CORE["SPSR_EL1"]) == (0x5 if seen["el"] else 0)
    kvm.run()
    assert kvm.get_one_reg(CORE["PC"]) == VBAR + offset  # once


@each_host
@pytest.mark.parametrize("dfsc", OBSERVED["dfsc_chosen_by_esr_el1"])
def test_user_space_chooses_the_status_code_in_esr_el1(host, dfsc):
    kvm = guest(host)
    set_events(kvm, ext_dabt_pending=1)
    esr = kvm.get_one_reg(SYSREGS["ESR_EL1"]) & 0xFFFFFFC0 | int(dfsc, 16)
    kvm.set_one_reg(SYSREGS["ESR_EL1"], esr)
    kvm.run()
    assert (kvm.vcpu.esr, kvm.vcpu.far, kvm.vcpu.pc) == (0x96000000 | int(dfsc, 16), HFAR, VBAR + 0x200)


@each_host
def test_a_masked_serror_is_shown_pending_until_it_is_taken(host):
    seen = OBSERVED["serror_masked"]
    kvm = guest(host, bits=A)
    serror(kvm, int(seen["set"], 16))
    for _ in range(3):
        assert pending(kvm) == int(seen["set"], 16)
        assert kvm.vcpu.isr == int(seen["isr"], 16)
        kvm.run()
        assert kvm.vcpu.pc == 0x40001000
    assert kvm.vcpu.unmask_serror() is True
    assert kvm.vcpu.esr == int(seen["unmasked_esr"], 16)
    assert kvm.vcpu.pc == VBAR + 0x80 * seen["vector"]
    assert pending(kvm) is None


@pytest.mark.parametrize(("host", "when"), OBSERVED["serror_unmasked"].items())
def test_an_unmasked_serror(host, when):
    kvm = guest(host)
    serror(kvm, UC)
    if when == "at SET":
        assert (kvm.vcpu.pc, kvm.vcpu.esr, pending(kvm)) == (VBAR + 0x380, 0xBE000011, None)
    else:
        assert (kvm.vcpu.pc, kvm.vcpu.esr, pending(kvm)) == (0x40001000, 0, UC)
    kvm.run()
    assert (kvm.vcpu.pc, kvm.vcpu.elr, kvm.vcpu.esr, pending(kvm)) == (VBAR + 0x380, 0x40001000, 0xBE000011, None)


@each_host
def test_without_a_syndrome_it_is_implementation_defined(host):
    kvm = guest(host, bits=A)
    set_events(kvm, serror_pending=1, serror_esr=UER)  # has_esr is 0: the syndrome does not count
    assert pending(kvm) == int(OBSERVED["serror_without_esr"], 16)
    kvm.vcpu.unmask_serror()
    assert kvm.vcpu.esr == 0xBF000000


@each_host
@pytest.mark.parametrize("bad", OBSERVED["refused_esr"])
def test_a_syndrome_beyond_25_bits_is_refused(host, bad):
    kvm = guest(host, bits=A)
    with pytest.raises(Refused, match="EINVAL") as caught:
        serror(kvm, int(bad, 16))
    assert caught.value.errno == errno.EINVAL
    assert pending(kvm) is None
    set_events(kvm, serror_has_esr=1, serror_esr=int(bad, 16))  # pending is 0: nobody looks
    assert pending(kvm) is None


@each_host
def test_a_host_without_ras(host):
    kvm = guest(host, bits=A, host_ras=False)
    with pytest.raises(Refused):
        serror(kvm, UER)
    assert VcpuEvents.decode(kvm.get_events()) == VcpuEvents()
    set_events(kvm, serror_pending=1)
    assert VcpuEvents.decode(kvm.get_events()) == VcpuEvents(serror_pending=1)
    kvm.vcpu.unmask_serror()
    assert kvm.vcpu.esr == 0xBE000000


@each_host
def test_a_vcpu_that_never_ran(host):
    kvm = KvmVcpu(Vcpu(vbar=VBAR), HOSTS[host])
    set_events(kvm, ext_dabt_pending=1)
    kvm.run()
    assert (kvm.vcpu.pc, kvm.vcpu.far, kvm.vcpu.esr & 0xFFFFFFFF) == (VBAR + 0x200, 0, 0x96000010)


@each_host
def test_the_host_says_whether_it_has_ras(host):
    assert VcpuEvents.decode(guest(host).get_events()) == VcpuEvents(serror_has_esr=1)


@each_host
@pytest.mark.parametrize("at", [*range(3, 8), *range(16, 64)])
def test_reserved_bytes_are_refused(host, at):
    data = bytearray(VcpuEvents(serror_pending=1, ext_dabt_pending=1).encode())
    data[at] = 1
    kvm = guest(host, bits=A)
    with pytest.raises(Refused):
        kvm.set_events(bytes(data))
    kvm.run()
    assert (pending(kvm), kvm.vcpu.pc) == (None, 0x40001000)


@pytest.mark.parametrize("host", OBSERVED["survives_set_zero"])
def test_set_zero_takes_nothing_back(host):
    kvm = guest(host, bits=A)
    serror(kvm, UC)
    set_events(kvm)
    assert pending(kvm) == UC


@pytest.mark.parametrize("host", OBSERVED["second_set"]["hosts"])
def test_a_second_set_replaces_the_first(host):
    seen = OBSERVED["second_set"]
    for first, second in ((seen["first"], seen["second"]), (seen["second"], seen["first"])):
        kvm = guest(host, bits=A)
        serror(kvm, int(first, 16))
        serror(kvm, int(second, 16))
        assert pending(kvm) == int(second, 16)


@each_host
def test_who_asks_first_replaces_nothing_worse(host):
    kvm = guest(host, bits=A)
    for iss, waits in ((UER, UER), (CE, UER), (UC, UC), (UER, UC)):
        kvm.set_events(VcpuEvents.decode(kvm.get_events()).with_serror(iss).encode())
        assert pending(kvm) == waits


@pytest.mark.parametrize("host", OBSERVED["survives_vcpu_init"])
def test_an_serror_survives_a_reset(host):
    kvm = guest(host, bits=A)
    serror(kvm, UC)
    kvm.vcpu.x[5] = 7
    kvm.init()
    assert pending(kvm) == UC
    assert (kvm.vcpu.pstate, kvm.vcpu.pc, kvm.vcpu.x[5], kvm.vcpu.vbar, kvm.vcpu.isr) == (0x3C5, 0, 0, 0, 0x100)
    assert kvm.get_one_reg(SYSREGS["SCTLR_EL1"]) == 0x00C50078
    assert kvm.get_one_reg(CORE["PSTATE"]) == 0x3C5


@each_host
def test_an_abort_that_was_not_entered_does_not_survive_a_reset(host):
    kvm = guest(host)
    set_events(kvm, ext_dabt_pending=1)
    kvm.init()
    kvm.run()
    assert (kvm.vcpu.pc, kvm.vcpu.esr) == (0, 0)


@each_host
@pytest.mark.parametrize("bits", [0, A])
def test_both_at_once_the_abort_comes_first(host, bits):
    kvm = guest(host, bits=bits)
    set_events(kvm, ext_dabt_pending=1, serror_pending=1, serror_has_esr=1, serror_esr=UC)
    assert pending(kvm) == UC
    kvm.run()
    assert (kvm.vcpu.pc, kvm.vcpu.elr, kvm.vcpu.esr & 0xFFFFFFFF) == (VBAR + 0x200, 0x40001000, 0x96000010)
    assert (pending(kvm), kvm.vcpu.isr) == (UC, 0x100)
    kvm.vcpu.spsr &= ~A
    assert kvm.vcpu.eret() is True
    assert (kvm.vcpu.pc, kvm.vcpu.elr, kvm.vcpu.esr) == (VBAR + 0x380, 0x40001000, 0xBE000011)


@each_host
def test_a_refused_syndrome_beside_an_abort(host):
    kvm = guest(host)
    with pytest.raises(Refused):
        set_events(kvm, ext_dabt_pending=1, serror_pending=1, serror_has_esr=1, serror_esr=1 << 25)
    kvm.run()
    assert (kvm.vcpu.pc == VBAR + 0x200) == HOSTS[host].sea_despite_refusal
    assert HOSTS[host].sea_despite_refusal == (host == "linux-7.2")


def test_on_72_ease_and_nmea_count():
    """Linux 7.2, inject_fault.c; the selftest external_aborts has the guest see an SEA at the SError vector."""
    features = arm64.Features(double_fault2=True)
    kvm = guest("linux-7.2", features=features)
    kvm.set_one_reg(SYSREGS["SCTLR2_EL1"], 1 << 5)
    set_events(kvm, ext_dabt_pending=1)
    assert (kvm.vcpu.pc, kvm.vcpu.esr, kvm.vcpu.far) == (VBAR + 0x380, 0x96000010, HFAR)
    kvm = guest("linux-7.2", bits=A, features=features)
    kvm.set_one_reg(SYSREGS["SCTLR2_EL1"], 1 << 2)
    serror(kvm, UER)
    assert (kvm.vcpu.pc, pending(kvm)) == (VBAR + 0x380, None)


def test_el2_needs_a_host_that_has_it():
    kvm = KvmVcpu(NestedVcpu(vbar=VBAR), HOSTS["linux-7.2"])
    kvm.vcpu.set_el2(vbar=VBAR + 0x1000, hcr=1 << 37)  # TEA
    kvm.vcpu.run_at(1, 0x40001000)
    kvm.hfar = HFAR
    set_events(kvm, ext_dabt_pending=1)
    assert (kvm.vcpu.pc, kvm.vcpu.esr_el2, kvm.vcpu.far_el2) == (VBAR + 0x1400, 0x92000010, HFAR)
    for host in ("linux-6.1", "linux-6.12"):
        with pytest.raises(InputError, match="no vCPU has EL2"):
            KvmVcpu(NestedVcpu(), HOSTS[host])


def nested(features=arm64.NEOVERSE_N1):
    """A stopped vCPU with EL2 of a host with Linux 7.2, about to run at EL1."""
    kvm = KvmVcpu(NestedVcpu(features, vbar=VBAR), HOSTS["linux-7.2"])
    kvm.set_one_reg(SYSREGS["VBAR_EL2"], VBAR + 0x1000)
    kvm.set_one_reg(CORE["PSTATE"], 0x5)
    kvm.hfar = HFAR
    return kvm


@pytest.mark.parametrize(("hcr", "to_el2"), [(0, False), (1 << 37, True), (1 << 5, False)], ids=["none", "TEA", "AMO"])
def test_where_an_abort_goes_is_set_by_registers(hcr, to_el2):
    kvm = nested()
    kvm.set_one_reg(SYSREGS["HCR_EL2"], hcr)
    set_events(kvm, ext_dabt_pending=1)
    taken = [kvm.get_one_reg(SYSREGS[f"{name}_EL2"]) for name in ("ESR", "FAR", "SPSR", "ELR")]
    assert taken == ([0x92000010, HFAR, 0x5, 0] if to_el2 else [0] * 4)
    assert kvm.get_one_reg(CORE["PC"]) == VBAR + (0x1400 if to_el2 else 0x200)


def test_an_serror_waits_for_the_next_run_when_its_way_is_opened_by_registers():
    kvm = nested()
    kvm.set_one_reg(CORE["PSTATE"], A | 0x5)
    serror(kvm, UER)
    kvm.set_one_reg(SYSREGS["HCR_EL2"], 1 << 5)  # AMO: PSTATE.A does not mask what goes to EL2
    assert (pending(kvm), kvm.get_one_reg(CORE["PC"])) == (UER, 0)
    kvm.run()
    assert (pending(kvm), kvm.get_one_reg(CORE["PC"])) == (None, VBAR + 0x1580)
    assert kvm.get_one_reg(SYSREGS["ESR_EL2"]) == 0xBE000C11


def test_registers_of_el2_are_there_with_el2_and_reset_with_the_vcpu():
    names = {n for n in SYSREGS if n.endswith("_EL2")}
    assert {SYSREGS[n] for n in names - {"SCTLR2_EL2"}} == nested().reg_list - guest("linux-7.2").reg_list
    kvm = nested(arm64.Features(double_fault2=True))
    for number, name in enumerate(sorted(names), 0x1000):
        kvm.set_one_reg(SYSREGS[name], number)
    assert [kvm.get_one_reg(SYSREGS[name]) for name in sorted(names)] == [0x1000 + n for n in range(len(names))]
    kvm.init()
    assert {kvm.get_one_reg(SYSREGS[name]) for name in names} == {0}


# -- registers -------------------------------------------------------------------------------------


@each_host
def test_state_carried_to_another_host_is_the_same_there(host):
    """Registers by the list, the SError by the events, set after them."""
    seen = OBSERVED["saved_and_restored"]
    for target in HOSTS:
        old, new = guest(host, bits=A), KvmVcpu(Vcpu(), HOSTS[target])
        old.vcpu.x = list(range(100, 131))
        old.vcpu.sctlr, old.vcpu.disr, old.vcpu.esr, old.vcpu.far = 1 << 23, 0x80000C11, 0x92000010, 5
        serror(old, int(seen["set"], 16))
        for reg in sorted(old.reg_list):
            new.set_one_reg(reg, old.get_one_reg(reg))
        new.set_events(old.get_events())
        assert {reg: new.get_one_reg(reg) for reg in new.reg_list} == {
            reg: old.get_one_reg(reg) for reg in old.reg_list
        }
        assert new.vcpu.state() == old.vcpu.state()
        new.vcpu.unmask_serror()
        assert (new.vcpu.esr, new.vcpu.pc) == (int(seen["esr"], 16), VBAR + 0x380)


def test_every_register_is_its_own():
    kvm = guest("linux-7.2", features=arm64.Features(double_fault2=True))
    ids = {SYSREGS[f"ID_AA64{name}_EL1"] for name in ("PFR0", "PFR1", "MMFR1", "MMFR2")}
    for number, reg in enumerate(sorted(kvm.reg_list - ids), 0x1000):
        kvm.set_one_reg(reg, number if reg != CORE["PSTATE"] else 0x3C5)
    for number, reg in enumerate(sorted(kvm.reg_list - ids), 0x1000):
        assert kvm.get_one_reg(reg) == (number if reg != CORE["PSTATE"] else 0x3C5)
    assert (kvm.vcpu.elr, kvm.vcpu.vbar) == tuple(kvm.get_one_reg(r) for r in (CORE["ELR_EL1"], SYSREGS["VBAR_EL1"]))
    assert kvm.vcpu.x[30] == kvm.get_one_reg(0x603000000010003C)
    assert kvm.vcpu.disr == kvm.get_one_reg(0x603000000013C609)


def test_id_registers_say_what_the_vcpu_implements_and_stay():
    features = arm64.Features(mte=True, nmi=True, dit=True, double_fault2=True)
    for one in (features, arm64.NEOVERSE_N1, arm64.Features(ras=False)):
        kvm = KvmVcpu(Vcpu(one), HOSTS["linux-7.2"])
        regs = [SYSREGS[f"ID_AA64{name}_EL1"] for name in ("PFR0", "PFR1", "MMFR1", "MMFR2")]
        values = [kvm.get_one_reg(reg) for reg in regs]
        assert arm64.Features.of_id_registers(*values) == one
        for reg, value in zip(regs, values, strict=True):
            kvm.set_one_reg(reg, value)
            with pytest.raises(Refused, match="EINVAL"):
                kvm.set_one_reg(reg, value ^ 1 << 60)


def test_registers_that_are_not_there():
    kvm = guest("linux-7.2")
    for reg in (0x603000000013E293, SYSREGS["SCTLR2_EL1"], SYSREGS["HCR_EL2"], 0):  # the first is VSESR_EL2
        for call in (kvm.get_one_reg, lambda reg: kvm.set_one_reg(reg, 0)):
            with pytest.raises(Refused, match="ENOENT") as caught:
                call(reg)
            assert caught.value.errno == errno.ENOENT
    with pytest.raises(Refused, match="EINVAL"):
        kvm.set_one_reg(CORE["PSTATE"], 0x9)


# -- by hand, as a live adapter does -----------------------------------------------------------------


@each_host
def test_an_abort_by_registers_equals_the_models(host):
    """KVM has no ext_iabt_pending: an instruction abort is written with ONE_REG, and any host takes it."""
    esr = arm64.sea_esr(0, 0x400AA4, instruction=True)
    kvm, model = guest(host, 0), guest(host, 0)
    model.vcpu.take_sea(esr, 0x400AA4)
    pstate = kvm.get_one_reg(CORE["PSTATE"])
    sctlr = kvm.get_one_reg(SYSREGS["SCTLR_EL1"])
    vector = kvm.get_one_reg(SYSREGS["VBAR_EL1"]) + arm64.vector_block(pstate)
    for reg, value in (
        (SYSREGS["ESR_EL1"], esr),
        (SYSREGS["FAR_EL1"], 0x400AA4),
        (CORE["ELR_EL1"], kvm.get_one_reg(CORE["PC"])),
        (CORE["SPSR_EL1"], pstate),
        (CORE["PC"], vector),
        (CORE["PSTATE"], arm64.entry_pstate(pstate, sctlr)),
    ):
        kvm.set_one_reg(reg, value)
    kvm.run()
    assert [kvm.get_one_reg(reg) for reg in sorted(kvm.reg_list)] == [
        model.get_one_reg(reg) for reg in sorted(model.reg_list)
    ]


acts = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from([UER, UC, CE, 0, 1 << 24]), st.booleans()),
        st.tuples(st.sampled_from(["abort", "run", "mask", "unmask", "eret", "esb"]), st.just(0), st.just(False)),
    ),
    max_size=20,
)


@given(st.sampled_from(sorted(HOSTS)), acts)
def test_what_is_shown_pending_is_taken_or_deferred_and_nothing_else(host, steps):
    kvm = guest(host)
    vcpu = kvm.vcpu
    waits = None
    for act, iss, abort in steps:
        vcpu.esr = vcpu.disr = 0
        if act == "set":
            waits = iss
            set_events(kvm, serror_pending=1, serror_has_esr=1, serror_esr=iss, ext_dabt_pending=int(abort))
        elif act == "abort":
            set_events(kvm, ext_dabt_pending=1)
        elif act == "run":
            kvm.run()
        elif act == "eret":
            if vcpu.el:
                kvm.run()
                vcpu.eret()
        else:
            kvm.run()
            {"mask": vcpu.mask_serror, "unmask": vcpu.unmask_serror, "esb": vcpu.esb}[act]()
        shown = pending(kvm)
        if waits is not None and shown is None:
            assert vcpu.esr == 0xBE000000 | waits or vcpu.disr == 1 << 31 | waits
            waits = None
        assert shown == waits


def test_a_host_that_would_clear_or_keep():
    """Members that all observed hosts agree on do something: another kernel may differ."""
    host = replace(
        HOSTS["linux-7.2"], name="other", zero_clears_serror=True, second_serror_replaces=False, init_clears_serror=True
    )
    kvm = KvmVcpu(Vcpu(), host)
    serror(kvm, UER)
    serror(kvm, UC)
    assert pending(kvm) == UER
    set_events(kvm)
    assert pending(kvm) is None
    serror(kvm, UC)
    kvm.init()
    assert pending(kvm) is None
