"""The model vCPU takes exceptions as the architecture says, and keeps SErrors as KVM was seen to."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm_ras import arm64
from vmm_ras.effects import SetRegisters
from vmm_ras.errors import InputError, StateError
from vmm_ras.guests.vcpu import Vcpu

OBSERVED = json.loads((Path(__file__).parents[2] / "fixtures" / "arm64" / "observed.json").read_text())
VBAR = 0xFFFF_8000_0801_0000
SEA = 0x92000410
UER, UEO = arm64.serror_iss("uer"), arm64.serror_iss("ueo")

# By bit number, not by the names under test (DDI 0487 C5.2.19)
N, Z, C, V, TCO, DIT, UAO, PAN, SS, IL, ALLINT, SSBS, A = (
    1 << n for n in (31, 30, 29, 28, 25, 24, 23, 22, 21, 20, 13, 12, 8)
)
BTYPE, DAIF = 3 << 10, 0xF << 6
SPAN, DSSBS, SPINTMASK, IESB = 1 << 23, 1 << 44, 1 << 62, 1 << 21
NMEA, EASE = 1 << 2, 1 << 5  # of SCTLR2_EL1
EVERYTHING = arm64.Features(dit=True, bti=True, mte=True, nmi=True)
DF2 = arm64.Features(double_fault2=True)


@pytest.mark.parametrize(
    ("pstate", "offset"), [(0x4, 0x000), (0x5, 0x200), (0x0, 0x400), (0x10, 0x600)], ids=["EL1t", "EL1h", "EL0t", "A32"]
)
def test_sea_entry(pstate, offset):
    vcpu = Vcpu(vbar=VBAR)
    vcpu.pstate = pstate | N
    vcpu.pc = 0x400AA4
    vcpu.far = 0x77
    vcpu.take_sea(SEA, None)
    assert (vcpu.pc, vcpu.elr, vcpu.spsr) == (VBAR + offset, 0x400AA4, pstate | N)
    assert (vcpu.esr, vcpu.far) == (SEA, 0x77)  # FnV: FAR stays as it was
    assert vcpu.pstate == N | PAN | DAIF | 0x5
    vcpu.take_sea(0x96000010, 0x1234)
    assert (vcpu.far, vcpu.pc) == (0x1234, VBAR + 0x200)


@pytest.mark.parametrize(
    ("features", "kept"),
    [(arm64.NEOVERSE_N1, 0xFEFF_FFE0), (EVERYTHING, 0xFFFF_FFE0), (arm64.Features(pan=False, ssbs=False), 0xFE3F_FFE0)],
)
def test_a_return_to_aarch32_gives_back_all_that_spsr_has(features, kept):
    """Q, IT, SSBS (bit 23), GE, E and T as well (C5.2.19); DIT, SSBS and PAN where the PE has them."""
    for bit in range(5, 32):
        vcpu = Vcpu(features, vbar=VBAR)
        vcpu.pstate, vcpu.pc = 1 << bit | 0x10, 0x8002
        vcpu.take_sea(SEA, None)
        vcpu.eret()
        assert (vcpu.pstate, vcpu.pc) == (1 << bit & kept | 0x10, 0x8002)


@pytest.mark.parametrize(
    ("features", "sctlr", "old", "new"),
    [
        (arm64.NEOVERSE_N1, 0, 0, PAN),
        (arm64.NEOVERSE_N1, SPAN, 0, 0),
        (arm64.NEOVERSE_N1, SPAN, PAN, PAN),
        (arm64.NEOVERSE_N1, SPAN | DSSBS, 0, SSBS),
        (arm64.NEOVERSE_N1, SPAN, SSBS | UAO | SS | IL, 0),
        (arm64.NEOVERSE_N1, SPAN, N | Z | C | V, N | Z | C | V),
        (arm64.NEOVERSE_N1, SPAN, DIT | TCO | ALLINT | BTYPE, 0),
        (EVERYTHING, SPAN, 0, TCO | ALLINT),
        (EVERYTHING, SPAN | SPINTMASK, DIT | BTYPE, TCO | DIT),
        (EVERYTHING, SPAN | SPINTMASK, N | Z | C | V | DIT | PAN, N | Z | C | V | TCO | DIT | PAN),
        (arm64.Features(pan=False, ssbs=False), DSSBS, PAN, 0),
    ],
)
def test_pstate_on_entry(features, sctlr, old, new):
    vcpu = Vcpu(features, sctlr=sctlr)
    vcpu.pstate = old
    vcpu.take_sea(SEA, None)
    assert vcpu.pstate == new | DAIF | 0x5
    assert vcpu.spsr == old
    assert arm64.entry_pstate(old, sctlr, features) == vcpu.pstate


def test_sctlr_written_later_counts():
    vcpu = Vcpu()
    vcpu.run_at(0)
    vcpu.sctlr = SPAN
    assert vcpu.sctlr == SPAN
    vcpu.take_sea(SEA, None)
    assert not vcpu.pstate & PAN
    assert vcpu.state().sctlr == SPAN


def test_masked_serror_waits_and_is_taken_when_unmasked():
    seen = OBSERVED["serror"][0]
    vcpu = Vcpu(vbar=VBAR)
    vcpu.run_at(1, 0x1000, A)
    assert vcpu.isr == 0
    assert vcpu.pend_serror(int(seen["vsesr"], 16)) is False
    assert vcpu.isr == int(seen["isr_while_masked"], 16)
    assert vcpu.state().serror == int(seen["vsesr"], 16)
    assert vcpu.pc == 0x1000
    vcpu.far = 0x99
    assert vcpu.unmask_serror() is True
    assert vcpu.esr == int(seen["esr"], 16)
    assert vcpu.pc == VBAR + seen["vector"] * 0x80
    assert (vcpu.elr, vcpu.isr, vcpu.state().serror, vcpu.far) == (0x1000, 0, None, 0x99)
    assert vcpu.pstate & A


def test_unmasked_serror_is_taken_at_once():
    vcpu = Vcpu(vbar=VBAR)
    vcpu.run_at(0, 0x2000, N | SS | UAO)
    assert vcpu.pend_serror(UEO) is True
    assert (vcpu.pc, vcpu.elr, vcpu.spsr) == (VBAR + 0x580, 0x2000, N | SS | UAO)
    assert vcpu.pstate == N | PAN | DAIF | 0x5
    assert vcpu.eret() is False
    assert (vcpu.pc, vcpu.pstate, vcpu.el) == (0x2000, N | SS | UAO, 0)


def test_sea_before_serror_and_never_masked():
    vcpu = Vcpu(vbar=VBAR)
    vcpu.run_at(0, 0x400000, A)
    vcpu.pend_serror(UER)
    vcpu.take_sea(SEA, None)
    assert (vcpu.esr, vcpu.pc, vcpu.isr) == (SEA, VBAR + 0x400, 0x100)
    vcpu.spsr &= ~A  # the handler returns with SErrors unmasked
    assert vcpu.eret() is True
    assert (vcpu.esr, vcpu.pc, vcpu.elr) == (0xBE000C11, VBAR + 0x580, 0x400000)


def test_a_second_serror_does_not_hide_a_worse_one():
    vcpu = Vcpu()
    vcpu.run_at(1, 0, A)
    vcpu.pend_serror(UER)
    vcpu.pend_serror(UEO)
    assert vcpu.vsesr == UER
    vcpu.pend_serror(arm64.serror_iss("uc"))
    assert vcpu.vsesr == 0x11


def test_esb_defers_a_masked_serror():
    vcpu = Vcpu()
    vcpu.run_at(1, 0, A)
    assert vcpu.esb() is False
    assert vcpu.disr == 0
    vcpu.pend_serror(UER)
    assert vcpu.esb() is True
    assert (vcpu.disr, vcpu.isr) == (0x8000_0C11, 0)
    assert vcpu.unmask_serror() is False
    vcpu.disr = 0
    assert vcpu.esb() is False
    assert vcpu.disr == 0


def test_an_esb_without_anything_pending_leaves_disr_alone():
    vcpu = Vcpu()
    vcpu.run_at(1, 0, A)
    vcpu.pend_serror(UER)
    vcpu.esb()
    assert vcpu.esb() is False
    assert vcpu.disr == 0x8000_0C11
    vcpu.unmask_serror()
    assert vcpu.esb() is False
    assert vcpu.disr == 0x8000_0C11


def test_without_feat_ras():
    vcpu = Vcpu(arm64.Features(ras=False))
    vcpu.run_at(1, 0, A)
    vcpu.pend_serror(UER)
    assert vcpu.esb() is False
    assert (vcpu.disr, vcpu.isr) == (0, 0x100)
    assert vcpu.unmask_serror() is True
    assert vcpu.esr == 0xBE000000


def test_serror_syndrome_has_25_bits():
    vcpu = Vcpu()
    for bad in (1 << 25, -1):
        with pytest.raises(InputError, match="24:0"):
            vcpu.pend_serror(bad)
    assert vcpu.isr == 0


def test_eret():
    vcpu = Vcpu(vbar=VBAR)
    vcpu.run_at(0, 0x400000, N)
    vcpu.take_sea(SEA, None)
    vcpu.eret()
    assert (vcpu.pc, vcpu.pstate, vcpu.el) == (0x400000, N, 0)
    with pytest.raises(StateError, match="EL0"):
        vcpu.eret()


@pytest.mark.parametrize("mode", [0x9, 0xD, 0x13, 0x1])
def test_illegal_return_stays_at_el1(mode):
    vcpu = Vcpu()
    vcpu.run_at(1, 0x10)
    vcpu.elr, vcpu.spsr = 0x20, mode | Z | A
    vcpu.eret()
    assert (vcpu.pc, vcpu.pstate) == (0x20, Z | A | IL | 0x5)


@pytest.mark.parametrize("mode", [0x9, 0x13])
@pytest.mark.parametrize(
    ("features", "kept"), [(arm64.NEOVERSE_N1, PAN), (EVERYTHING, PAN | ALLINT), (arm64.Features(pan=False), 0)]
)
def test_an_illegal_return_takes_flags_and_masks_as_any_other(mode, features, kept):
    """NZCV, PAN, ALLINT and DAIF come from SPSR; IL is set (SetPSTATEFromPSR)."""
    vcpu = Vcpu(features)
    vcpu.run_at(1)
    vcpu.spsr = N | Z | C | V | PAN | SS | ALLINT | DAIF | mode
    vcpu.eret()
    assert vcpu.pstate == N | Z | C | V | kept | IL | DAIF | 0x5


def test_bits_that_the_pe_lacks_do_not_come_back():
    vcpu = Vcpu()
    vcpu.run_at(1)
    vcpu.spsr = TCO | DIT | ALLINT | BTYPE | PAN | UAO | SSBS | SS | IL | 1 << 40
    vcpu.eret()
    assert vcpu.pstate == PAN | UAO | SSBS | SS | IL
    vcpu = Vcpu(EVERYTHING)
    vcpu.spsr = (1 << 64) - 1 & ~0x1F
    vcpu.eret()
    assert vcpu.pstate == N | Z | C | V | TCO | DIT | UAO | PAN | SS | IL | ALLINT | SSBS | BTYPE | DAIF


def test_run_at_refuses_other_modes():
    vcpu = Vcpu()
    for el, bits in ((2, 0), (0, 4), (-1, 0), (3, 0)):
        with pytest.raises(InputError):
            vcpu.run_at(el, 0, bits)


def test_starts_at_el1_with_everything_masked():
    vcpu = Vcpu()
    assert (vcpu.el, vcpu.pstate, vcpu.isr) == (1, 0x3C5, 0)
    assert (vcpu.pc, vcpu.elr, vcpu.spsr, vcpu.esr, vcpu.far, vcpu.disr, vcpu.sp_el0, vcpu.sp_el1) == (0,) * 8
    assert vcpu.x == [0] * 31
    assert (vcpu.vbar, vcpu.sctlr, vcpu.sctlr2, vcpu.vsesr, vcpu.latent) == (0, 0, 0, None, None)


def test_masking_and_unmasking_touch_pstate_a_only():
    vcpu = Vcpu()
    vcpu.run_at(1, 0, N | SS)
    vcpu.mask_serror()
    assert vcpu.pstate == N | SS | A | 0x5
    vcpu.mask_serror()
    assert vcpu.pend_serror(UER) is False
    vcpu.vsesr = None
    assert vcpu.unmask_serror() is False
    assert vcpu.pstate == N | SS | 0x5


def test_set_registers_and_state():
    vcpu = Vcpu(vbar=VBAR)
    vcpu.x = list(range(31))
    vcpu.run_at(0, 0x400000)
    vcpu.set_registers(SetRegisters(1, None, 0, (804, 7, 0x400000, 0), 0x5000, 0x3C5))
    assert vcpu.x == [804, 7, 0x400000, 0, *range(4, 31)]
    state = vcpu.state()
    assert (state.pc, state.pstate, state.el, state.vbar) == (0x5000, 0x3C5, 1, VBAR)
    assert state.x == (804, 7, 0x400000, 0, *range(4, 18))
    assert (vcpu.elr, vcpu.spsr, vcpu.esr) == (0, 0, 0)
    vcpu.set_registers(SetRegisters(2, None, 0, tuple(range(18)), 0x6000, 0x3C5, elr=0x400000, spsr=0x80000000))
    assert (vcpu.elr, vcpu.spsr) == (0x400000, N)
    assert vcpu.x == list(range(31))


def test_set_registers_may_set_all_of_them():
    vcpu = Vcpu()
    vcpu.set_registers(SetRegisters(1, None, 0, tuple(range(50, 81)), 0x5000, 0x5))
    assert vcpu.x == list(range(50, 81))


def test_completion_lets_a_waiting_serror_in():
    vcpu = Vcpu(vbar=VBAR)
    vcpu.pend_serror(UEO)  # masked: an SDEI handler runs
    assert vcpu.set_registers(SetRegisters(1, None, 0, (), 0x400000, 0)) is True
    assert (vcpu.elr, vcpu.pc) == (0x400000, VBAR + 0x580)


def test_set_registers_refuses_what_no_vcpu_has():
    vcpu = Vcpu()
    for x, pstate in (((0,) * 32, 5), ((), 9)):
        with pytest.raises(InputError, match="SetRegisters"):
            vcpu.set_registers(SetRegisters(1, None, 0, x, 0, pstate))
    assert len(vcpu.x) == 31


# -- FEAT_DoubleFault2: SCTLR2_EL1.EASE and NMEA -------------------------------------------


@pytest.mark.parametrize(("pstate", "offset"), [(0x4, 0x180), (0x5, 0x380), (0x0, 0x580), (0x10, 0x780)])
def test_with_ease_an_sea_takes_the_serror_vector_and_nothing_else_changes(pstate, offset):
    vcpu, plain = Vcpu(DF2, vbar=VBAR, sctlr2=EASE), Vcpu(vbar=VBAR)
    for one in (vcpu, plain):
        one.pc, one.pstate = 0x400AA4, pstate
        one.take_sea(0x92000010, 0x1234)
    assert (vcpu.pc, plain.pc) == (VBAR + offset, VBAR + offset - 0x180)
    for name in ("elr", "spsr", "esr", "far", "pstate"):
        assert getattr(vcpu, name) == getattr(plain, name)
    assert (vcpu.esr, vcpu.far, vcpu.elr, vcpu.isr) == (0x92000010, 0x1234, 0x400AA4, 0)


def test_ease_needs_the_feature_and_can_be_written_later():
    for features, offset in ((arm64.NEOVERSE_N1, 0x400), (DF2, 0x580)):
        vcpu = Vcpu(features)
        vcpu.sctlr2, vcpu.vbar = EASE, VBAR
        assert (vcpu.sctlr2, vcpu.vbar) == (EASE, VBAR)
        vcpu.run_at(0)
        vcpu.take_sea(SEA, None)
        assert vcpu.pc == VBAR + offset
    vcpu = Vcpu(DF2, vbar=VBAR, sctlr2=EASE)
    vcpu.run_at(1)
    vcpu.pend_serror(UEO)
    assert vcpu.pc == VBAR + 0x380  # as ever
    vcpu.sctlr2 = 0
    vcpu.take_sea(SEA, None)
    assert vcpu.pc == VBAR + 0x200


def test_with_nmea_pstate_a_masks_no_serror():
    vcpu = Vcpu(DF2, vbar=VBAR, sctlr2=NMEA)
    vcpu.run_at(1, 0x1000, A)
    assert vcpu.pend_serror(UER) is True
    assert (vcpu.pc, vcpu.esr, vcpu.elr, vcpu.spsr) == (VBAR + 0x380, 0xBE000C11, 0x1000, A | 0x5)
    assert vcpu.isr == 0
    vcpu = Vcpu(sctlr2=NMEA)  # without FEAT_DoubleFault2 the bit means nothing
    vcpu.run_at(1, 0x1000, A)
    assert vcpu.pend_serror(UER) is False


def test_writing_nmea_lets_a_masked_serror_in():
    vcpu = Vcpu(DF2, vbar=VBAR)
    vcpu.run_at(1, 0x1000, A)
    vcpu.pend_serror(UER)
    vcpu.sctlr2 = NMEA
    assert vcpu.poll_serror() is True
    assert (vcpu.pc, vcpu.esr, vcpu.isr) == (VBAR + 0x380, 0xBE000C11, 0)


def test_with_nmea_an_esb_takes_and_does_not_defer():
    vcpu = Vcpu(DF2, vbar=VBAR, sctlr2=NMEA)
    vcpu.run_at(1, 0x1000, A)
    vcpu.note_error(UER)
    assert vcpu.esb() is False
    assert (vcpu.disr, vcpu.pc) == (0, VBAR + 0x380)


# -- errors that nothing has synchronized: ESB, and SCTLR_EL1.IESB ---------------------------


def test_an_unsynchronized_error_shows_nowhere_until_an_esb():
    vcpu = Vcpu(vbar=VBAR)
    vcpu.run_at(1, 0x1000)
    vcpu.note_error(UER)
    assert (vcpu.pc, vcpu.isr, vcpu.state().serror, vcpu.poll_serror()) == (0x1000, 0, None, False)
    assert vcpu.esb() is False  # unmasked: taken
    assert (vcpu.pc, vcpu.esr, vcpu.disr, vcpu.latent) == (VBAR + 0x380, 0xBE000C11, 0, None)
    vcpu.note_error(UEO)  # PSTATE.A is set now: deferred
    vcpu.note_error(UER)
    assert vcpu.esb() is True
    assert (vcpu.disr, vcpu.latent, vcpu.isr) == (0x8000_0C11, None, 0)


def test_an_esb_defers_the_worse_of_what_waits():
    vcpu = Vcpu()
    vcpu.run_at(1, 0, A)
    vcpu.pend_serror(UER)
    vcpu.note_error(0x11)
    assert vcpu.esb() is True
    assert (vcpu.disr, vcpu.isr) == (0x8000_0011, 0)
    vcpu.pend_serror(UER)
    vcpu.note_error(UEO)
    assert vcpu.esb() is True
    assert vcpu.disr == 0x8000_0C11
    for iss in (UER, UEO):
        vcpu.note_error(iss)
    assert vcpu.esb() is True
    assert vcpu.disr == 0x8000_0C11


def test_without_iesb_an_exception_synchronizes_nothing():
    for features, sctlr in (
        (arm64.NEOVERSE_N1, 0), (arm64.Features(iesb=False), IESB), (arm64.Features(ras=False), IESB)
    ):  # fmt: skip
        vcpu = Vcpu(features, vbar=VBAR, sctlr=sctlr)
        vcpu.run_at(0, 0x400000)
        vcpu.note_error(UER)
        vcpu.take_sea(SEA, None)
        assert vcpu.isr == 0
        vcpu.eret()
        assert (vcpu.pc, vcpu.latent) == (0x400000, UER)


def test_with_iesb_taking_an_exception_makes_the_error_pending():
    vcpu = Vcpu(vbar=VBAR, sctlr=IESB)
    vcpu.run_at(0, 0x400000)
    vcpu.note_error(UER)
    vcpu.take_sea(SEA, None)  # the handler finds it pending and masked: an implicit ESB defers nothing
    assert (vcpu.pc, vcpu.isr, vcpu.disr, vcpu.latent) == (VBAR + 0x400, 0x100, 0, None)
    assert vcpu.eret() is True  # to EL0, which does not mask it; it was not taken immediately, so IESB is 0
    assert (vcpu.pc, vcpu.elr, vcpu.esr) == (VBAR + 0x580, 0x400000, 0xBE000C11)


def test_with_iesb_the_worse_of_what_waits_stays():
    for pending, latent in ((UER, UEO), (UEO, UER)):
        vcpu = Vcpu(sctlr=IESB)
        vcpu.run_at(1, 0x1000, A)
        vcpu.pend_serror(pending)
        vcpu.note_error(latent)
        vcpu.take_sea(SEA, None)
        assert (vcpu.vsesr, vcpu.latent) == (UER, None)


def test_with_iesb_a_return_takes_an_unmasked_error_before_it_leaves():
    vcpu = Vcpu(vbar=VBAR, sctlr=IESB)
    vcpu.run_at(1, 0x1000)
    vcpu.spsr, vcpu.elr = 0, 0x400000
    vcpu.note_error(UER)
    assert vcpu.eret() is True
    assert (vcpu.elr, vcpu.pc, vcpu.spsr) == (0x1000, VBAR + 0x380, 0x5)  # ELR is the ERET's own address
    assert vcpu.esr == 0xBE000C11 | 1 << 13  # synchronized by the implicit ESB, and taken immediately


def test_iesb_is_said_of_architected_syndromes_only():
    for vsesr in (0, 1 << 24, 1 << 24 | 0x11):  # uncategorised, IMPLEMENTATION DEFINED
        vcpu = Vcpu(vbar=VBAR, sctlr=IESB)
        vcpu.run_at(1, 0x1000)
        vcpu.note_error(vsesr)
        assert vcpu.eret() is True
        assert vcpu.esr == 0xBE000000 | vsesr


def test_with_nmea_and_iesb_the_serror_is_taken_at_the_vector_of_the_sea():
    vcpu = Vcpu(DF2, vbar=VBAR, sctlr=IESB, sctlr2=NMEA)
    vcpu.run_at(0, 0x400000)
    vcpu.note_error(UER)
    vcpu.take_sea(SEA, None)
    assert (vcpu.elr, vcpu.pc) == (VBAR + 0x400, VBAR + 0x380)  # SEA first, then the SError on top of it
    assert (vcpu.esr, vcpu.isr, vcpu.latent) == (0xBE000C11 | 1 << 13, 0, None)


def test_a_latent_error_is_synchronized_by_an_serror_too():
    vcpu = Vcpu(vbar=VBAR, sctlr=IESB)
    vcpu.run_at(0, 0x400000)
    vcpu.note_error(UER)
    vcpu.pend_serror(UEO)
    assert (vcpu.esr, vcpu.isr, vcpu.latent) == (0xBE000811, 0x100, None)
    assert vcpu.state().serror == UER


def test_latent_syndromes_have_25_bits():
    vcpu = Vcpu()
    for bad in (1 << 25, -1):
        with pytest.raises(InputError, match="24:0"):
            vcpu.note_error(bad)
    assert vcpu.latent is None


def test_without_feat_ras_an_esb_is_a_nop():
    vcpu = Vcpu(arm64.Features(ras=False))
    vcpu.run_at(1, 0x1000)
    vcpu.note_error(UER)
    assert vcpu.esb() is False
    assert (vcpu.pc, vcpu.disr, vcpu.latent) == (0x1000, 0, UER)


guest_acts = st.one_of(
    st.tuples(st.just("pend"), st.sampled_from([UER, UEO, 0x11, 0x1811, 0, 1 << 24])),
    st.tuples(st.just("sea"), st.none() | st.integers(0, (1 << 64) - 1)),
    st.tuples(st.sampled_from(["esb", "eret", "mask", "unmask", "el0", "el1"]), st.none()),
)


@given(st.lists(guest_acts, max_size=30))
def test_no_serror_is_lost_or_taken_while_masked(acts):
    vcpu = Vcpu(vbar=VBAR)
    worst = None  # of those that wait
    for act, value in acts:
        masked = bool(vcpu.pstate & A)
        taken = False
        if act == "pend":
            worst = arm64.merge_serror(worst, value)
            taken = vcpu.pend_serror(value)
            assert taken is not masked
        elif act == "sea":
            vcpu.take_sea(SEA, value)
        elif act == "esb":
            if vcpu.esb():
                assert masked
                assert vcpu.disr == 1 << 31 | worst
                worst = None
        elif act == "eret":
            if vcpu.el:
                taken = vcpu.eret()
        elif act == "mask":
            vcpu.mask_serror()
        elif act == "unmask":
            taken = vcpu.unmask_serror()
        else:
            taken = vcpu.run_at(int(act[2]))
        if taken:
            assert vcpu.esr == 0xBE000000 | worst
            assert vcpu.pc & 0x1FF == 0x180
            worst = None
        assert vcpu.vsesr == worst
        assert vcpu.isr == (0 if worst is None else 0x100)
        assert worst is None or vcpu.pstate & A
