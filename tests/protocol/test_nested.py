"""A vCPU with EL2 takes external aborts and SErrors where the architecture, and KVM of Linux 7.2, send them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm_ras import arm64
from vmm_ras.errors import InputError
from vmm_ras.events import VcpuState
from vmm_ras.guests.nested import NestedVcpu

VBAR1, VBAR2 = 0xFFFF_8000_0801_0000, 0xFFFF_9000_0000_0800
# By bit number, not by the names under test
AMO, TGE, RW, E2H, TEA = 1 << 5, 1 << 27, 1 << 31, 1 << 34, 1 << 37
SCTLR2EN, TMEA = 1 << 15, 1 << 19
NMEA, EASE = 1 << 2, 1 << 5
SPAN, DSSBS, IESB = 1 << 23, 1 << 44, 1 << 21
A, PAN, SSBS, DAIF = 1 << 8, 1 << 22, 1 << 12, 0xF << 6
EL0, EL1T, EL1H, EL2T, EL2H, A32 = 0x0, 0x4, 0x5, 0x8, 0x9, 0x10
UER = 0xC11
DF2 = arm64.Features(double_fault2=True)


def at(pstate, hcr=0, hcrx=0, *, features=arm64.NEOVERSE_N1, pc=0x1000, **kwargs):
    """A vCPU that runs there."""
    vcpu = NestedVcpu(features, vbar=VBAR1, **kwargs)
    vcpu.set_el2(hcr=hcr, hcrx=hcrx, vbar=VBAR2)
    vcpu.pc, vcpu.pstate = pc, pstate
    return vcpu


@pytest.mark.parametrize(
    ("pstate", "hcr", "hcrx", "pc", "ec"),
    [
        # from EL2 to EL2, whatever HCR_EL2 says
        (EL2H, 0, 0, VBAR2 + 0x200, 0x25),
        (EL2T, 0, 0, VBAR2 + 0x000, 0x25),
        (EL2H, TEA | AMO, 0, VBAR2 + 0x200, 0x25),
        # TGE and TEA
        (EL0, TGE, 0, VBAR2 + 0x400, 0x24),
        (EL0, TGE | E2H, 0, VBAR2 + 0x400, 0x24),
        (EL0, TEA, 0, VBAR2 + 0x400, 0x24),
        (EL1H, TEA, 0, VBAR2 + 0x400, 0x24),
        (EL1T, TEA, 0, VBAR2 + 0x400, 0x24),
        # neither: to EL1; AMO is about SErrors
        (EL0, 0, 0, VBAR1 + 0x400, 0x24),
        (EL1H, 0, 0, VBAR1 + 0x200, 0x25),
        (EL1H, AMO, 0, VBAR1 + 0x200, 0x25),
        # an AArch32 program: EL2 looks at the width of EL1, unless EL0 is its own
        (A32, 0, 0, VBAR1 + 0x600, 0x24),
        (A32, TEA, 0, VBAR2 + 0x400, 0x24),
        (A32, TGE | E2H, 0, VBAR2 + 0x600, 0x24),
        # HCRX_EL2.TMEA: from EL1 with SErrors masked
        (EL1H | A, 0, TMEA, VBAR2 + 0x400, 0x24),
        (EL1H, 0, TMEA, VBAR1 + 0x200, 0x25),
        (EL0 | A, 0, TMEA, VBAR1 + 0x400, 0x24),
    ],
)
def test_where_an_sea_goes(pstate, hcr, hcrx, pc, ec):
    vcpu = at(pstate, hcr, hcrx, features=DF2)
    el = vcpu.el
    assert vcpu.sea_target() == (2 if pc >= VBAR2 else 1)
    vcpu.take_sea(arm64.sea_esr(el, 0x1234), 0x1234)
    assert vcpu.pc == pc
    if pc & ~0xFFF == VBAR2 & ~0xFFF:
        assert (vcpu.esr_el2, vcpu.far_el2, vcpu.elr_el2, vcpu.spsr_el2) == (
            ec << 26 | 0x2000010,
            0x1234,
            0x1000,
            pstate,
        )
        assert (vcpu.esr, vcpu.far, vcpu.elr, vcpu.spsr, vcpu.el) == (0, 0, 0, 0, 2)
    else:
        assert (vcpu.esr, vcpu.far, vcpu.elr, vcpu.spsr) == (ec << 26 | 0x2000010, 0x1234, 0x1000, pstate)
        assert (vcpu.esr_el2, vcpu.far_el2, vcpu.elr_el2, vcpu.spsr_el2, vcpu.el) == (0, 0, 0, 0, 1)


def test_tmea_needs_the_feature():
    vcpu = at(EL1H | A, 0, TMEA)
    vcpu.take_sea(0x96000010, 0)
    assert vcpu.pc == VBAR1 + 0x200


def test_ec_is_that_of_the_el_for_instruction_aborts_too():
    vcpu = at(EL1H, TEA)
    vcpu.take_sea(0x86000410, None)
    assert (vcpu.esr_el2, vcpu.far_el2) == (0x82000410, 0)  # FnV: FAR_EL2 is not written
    vcpu = at(EL2H)
    vcpu.take_sea(0x82000410, None)
    assert vcpu.esr_el2 == 0x86000410


@pytest.mark.parametrize(
    ("hcr", "sctlr", "old", "new"),
    [
        (0, 0, 0, 0),  # SPAN of SCTLR_EL2 counts for a host only
        (0, 0, PAN, PAN),
        (TGE | E2H, 0, 0, PAN),
        (TGE | E2H, SPAN, 0, 0),
        (TGE, 0, 0, 0),
        (0, DSSBS, 0, SSBS),
    ],
)
def test_pstate_on_entry_to_el2(hcr, sctlr, old, new):
    vcpu = at(EL2H | old, hcr, sctlr=SPAN ^ sctlr & SPAN)  # SCTLR_EL1 says the opposite
    vcpu.set_el2(sctlr=sctlr)
    vcpu.take_sea(0x96000010, 0)
    assert vcpu.pstate == new | DAIF | EL2H


@pytest.mark.parametrize(
    ("pstate", "hcr", "hcrx", "sctlr2", "where"),
    [
        # nested context: AMO sends it to EL2, and PSTATE.A of a lower EL does not mask it
        (EL1H, AMO, 0, 0, VBAR2 + 0x580),
        (EL1H | A, AMO, 0, 0, VBAR2 + 0x580),
        (EL0 | A, AMO, 0, 0, VBAR2 + 0x580),
        (EL0 | A, TGE, 0, 0, VBAR2 + 0x580),
        (EL1H, 0, 0, 0, VBAR1 + 0x380),
        (EL1H | A, 0, 0, 0, None),
        (EL0 | A, 0, 0, 0, None),
        (EL1H, TEA, 0, 0, VBAR1 + 0x380),  # TEA is about synchronous aborts
        # at EL2, and at the EL0 of a host: PSTATE.A masks, and without AMO or TGE it waits
        (EL2H, AMO, 0, 0, VBAR2 + 0x380),
        (EL2H, TGE, 0, 0, VBAR2 + 0x380),
        (EL2H | A, AMO, 0, 0, None),
        (EL2H, 0, 0, 0, None),
        (EL0, TGE | E2H, 0, 0, VBAR2 + 0x580),
        (EL0 | A, TGE | E2H, 0, 0, None),
        # FEAT_DoubleFault2
        (EL1H | A, 0, TMEA, 0, VBAR2 + 0x580),
        (EL1H, 0, TMEA, 0, VBAR1 + 0x380),
        (EL1H | A, 0, TMEA | SCTLR2EN, NMEA, VBAR2 + 0x580),  # TMEA looks at PSTATE.A, not at NMEA
        (EL0 | A, 0, TMEA, 0, VBAR2 + 0x580),
        (EL0 | A, 0, TMEA | SCTLR2EN, NMEA, VBAR1 + 0x580),  # at EL0 NMEA unmasks it first
        (EL1H | A, 0, SCTLR2EN, NMEA, VBAR1 + 0x380),
        (EL1H | A, 0, 0, NMEA, None),  # SCTLR2_EL1 does not count without HCRX_EL2.SCTLR2En
    ],
)
def test_where_an_serror_goes(pstate, hcr, hcrx, sctlr2, where):
    vcpu = at(pstate, hcr, hcrx, features=DF2, sctlr2=sctlr2)
    assert vcpu.serror_target() == (None if where is None else 2 if where > VBAR2 else 1)
    assert vcpu.pend_serror(UER) is (where is not None)
    assert vcpu.isr == (0x100 if where is None else 0)
    assert vcpu.pc == (0x1000 if where is None else where)
    if where is not None and where > VBAR2:
        assert (vcpu.esr_el2, vcpu.spsr_el2, vcpu.elr_el2, vcpu.esr) == (0xBE000C11, pstate, 0x1000, 0)
    elif where is not None:
        assert (vcpu.esr, vcpu.spsr, vcpu.elr, vcpu.esr_el2) == (0xBE000C11, pstate, 0x1000, 0)


def test_an_serror_at_el2_waits_for_amo_or_for_el1():
    vcpu = at(EL2H)
    vcpu.pend_serror(UER)
    assert vcpu.set_el2(hcr=AMO) is True
    assert vcpu.pc == VBAR2 + 0x380
    vcpu = at(EL2H)
    vcpu.pend_serror(UER)
    vcpu.elr_el2, vcpu.spsr_el2 = 0x2000, EL1H
    assert vcpu.eret() is True
    assert (vcpu.pc, vcpu.elr) == (VBAR1 + 0x380, 0x2000)


def test_ease_and_nmea_of_el2_are_its_own():
    vcpu = at(EL1H | A, TEA | AMO, features=DF2)
    vcpu.set_el2(sctlr2=EASE | NMEA)
    vcpu.take_sea(0x96000010, 0)
    assert (vcpu.pc, vcpu.esr_el2) == (VBAR2 + 0x580, 0x92000010)
    assert vcpu.pend_serror(UER) is True  # masked by PSTATE.A on entry, but for NMEA
    assert (vcpu.pc, vcpu.elr_el2) == (VBAR2 + 0x380, VBAR2 + 0x580)
    vcpu = at(EL1H, TEA | AMO)
    vcpu.set_el2(sctlr2=EASE | NMEA)  # without FEAT_DoubleFault2
    vcpu.take_sea(0x96000010, 0)
    assert (vcpu.pc, vcpu.pend_serror(UER)) == (VBAR2 + 0x400, False)
    vcpu = at(EL2H, features=DF2, sctlr2=EASE)  # EL1's
    vcpu.take_sea(0x96000010, 0)
    assert vcpu.pc == VBAR2 + 0x200


def test_sea_before_serror_at_el2():
    vcpu = at(EL2H | A, AMO)
    vcpu.pend_serror(UER)
    vcpu.take_sea(0x96000010, 0)
    assert (vcpu.pc, vcpu.isr) == (VBAR2 + 0x200, 0x100)
    vcpu.spsr_el2 = EL2H
    assert vcpu.eret() is True
    assert (vcpu.pc, vcpu.elr_el2) == (VBAR2 + 0x380, 0x1000)


def test_iesb_is_that_of_the_el_that_takes_the_exception():
    for el1, el2, pstate, synchronized in (
        (IESB, 0, EL2H, False), (0, IESB, EL2H, True), (IESB, 0, EL1H, True), (0, IESB, EL1H, False),
    ):  # fmt: skip
        vcpu = at(pstate | A, sctlr=el1)
        vcpu.set_el2(sctlr=el2)
        vcpu.note_error(UER)
        vcpu.take_sea(0x96000010, 0)
        assert vcpu.isr == (0x100 if synchronized else 0)
        assert vcpu.latent == (None if synchronized else UER)


def test_iesb_that_el2_writes_for_el1_counts_at_el1():
    vcpu = at(EL2H)
    vcpu.sctlr = IESB
    vcpu.run_at(1, 0x1000, A)
    vcpu.note_error(UER)
    vcpu.take_sea(0x96000010, 0)
    assert (vcpu.pc, vcpu.isr) == (VBAR1 + 0x200, 0x100)


def test_iesb_on_a_return_from_el2():
    vcpu = at(EL2H, AMO)
    vcpu.set_el2(sctlr=IESB)
    vcpu.note_error(UER)
    vcpu.elr_el2, vcpu.spsr_el2 = 0x2000, EL1H
    assert vcpu.eret() is True
    assert (vcpu.elr_el2, vcpu.pc, vcpu.esr_el2) == (0x1000, VBAR2 + 0x380, 0xBE002C11)


def test_an_esb_at_el2_defers():
    vcpu = at(EL2H | A, AMO)
    vcpu.pend_serror(UER)
    assert vcpu.esb() is True
    assert (vcpu.disr, vcpu.isr) == (0x80000C11, 0)


@pytest.mark.parametrize(
    ("hcr", "spsr", "pstate"),
    [
        (0, EL1H, EL1H), (0, EL1T, EL1T), (0, EL0, EL0), (0, A32, A32), (0, EL2T, EL2T),
        (TGE, EL0, EL0), (TGE, EL1H, EL2H | 1 << 20), (TGE, EL2H, EL2H), (0, 0xD, EL2H | 1 << 20),
    ],
)  # fmt: skip
def test_a_return_from_el2(hcr, spsr, pstate):
    vcpu = at(EL2H, hcr)
    vcpu.elr_el2, vcpu.spsr_el2 = 0x2000, spsr
    assert vcpu.eret() is False
    assert (vcpu.pc, vcpu.pstate) == (0x2000, pstate)


def test_el1_does_not_return_to_el2():
    vcpu = at(EL1H)
    vcpu.elr, vcpu.spsr = 0x2000, EL2H
    vcpu.eret()
    assert vcpu.pstate == EL1H | 1 << 20


def test_what_the_core_is_told():
    vcpu = at(EL1H, sctlr=SPAN)
    vcpu.set_el2(sctlr=DSSBS)
    assert vcpu.state() == VcpuState(0x1000, EL1H, (0,) * 18, None, VBAR1, SPAN)
    vcpu.pstate = EL2H
    assert (vcpu.state().vbar, vcpu.state().sctlr, vcpu.state().el) == (VBAR2, DSSBS, 2)
    assert vcpu.run_at(2, 0x3000) is False
    assert (vcpu.el, vcpu.pc) == (2, 0x3000)
    with pytest.raises(InputError):
        vcpu.run_at(3)


acts = st.lists(
    st.one_of(
        st.tuples(st.just("pend"), st.sampled_from([UER, 0x811, 0x11, 0, 1 << 24])),
        st.tuples(st.just("hcr"), st.sampled_from([0, AMO, TGE, TEA, AMO | TEA, TGE | E2H, AMO | E2H])),
        st.tuples(st.sampled_from(["sea", "esb", "eret", "mask", "unmask", "el0", "el1", "el2"]), st.just(0)),
    ),
    max_size=30,
)


@given(acts, st.booleans())
def test_no_serror_is_lost(steps, df2):
    vcpu = at(EL2H, AMO, features=DF2 if df2 else arm64.NEOVERSE_N1)
    worst = None
    for act, value in steps:
        vcpu.esr = vcpu.esr_el2 = 0
        taken = False
        if act == "pend":
            worst = arm64.merge_serror(worst, value)
            taken = vcpu.pend_serror(value)
        elif act == "hcr":
            if vcpu.el == 2:
                taken = vcpu.set_el2(hcr=value)
        elif act == "sea":
            vcpu.take_sea(0x92000010, 0)
            assert (vcpu.esr or vcpu.esr_el2) >> 26 in (0x24, 0x25)
            assert not (vcpu.esr and vcpu.esr_el2)
        elif act == "esb":
            if vcpu.esb():
                assert vcpu.disr == 1 << 31 | worst
                worst = None
            taken = worst is not None and vcpu.isr == 0
        elif act == "eret":
            taken = vcpu.el > 0 and vcpu.eret()
        elif act == "mask":
            vcpu.mask_serror()
        elif act == "unmask":
            taken = vcpu.unmask_serror()
        else:
            taken = vcpu.run_at(int(act[2]))
        if taken:
            assert (vcpu.esr or vcpu.esr_el2) == 0xBE000000 | worst
            worst = None
        assert vcpu.vsesr == worst
        assert worst is None or vcpu.serror_target() is None
