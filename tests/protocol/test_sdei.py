"""The SDEI dispatcher, call by call and event by event, as a guest sees it."""

import pytest

from tests.protocol.sdei_guest import (
    AFFINITY,
    CRITICAL,
    EL0,
    ENTRY,
    HANDLER,
    KEPT,
    MPIDRS,
    PPI,
    PRIVATE,
    PRIVATE_CRITICAL,
    PRIVATE_SLOT,
    RESUME,
    SHARED,
    SLOT,
    SLOT_2,
    SPI,
    SPI_2,
    Guest,
    N,
    at,
)  # fmt: skip
from tests.protocol.test_sdei_table import ACS, SINCE_1_1
from vmm_ras import sdei_table as t
from vmm_ras.errors import InputError, StateError
from vmm_ras.sdei import CallResult, Dispatch, EventDescription, Registers, SdeiDispatcher


@pytest.fixture
def guest():
    return Guest()


# -- calls


def test_version(guest):
    assert guest("VERSION") == CallResult(0x0001_0001_0000_0000)
    assert Guest(version=t.VERSION_1_0).x0("VERSION") == 0x0001_0000_0000_0000
    assert Guest(version=t.VERSION_1_1 | 0xB66F_B428).x0("VERSION") == 0x0001_0001_B66F_B428


def test_features(guest):
    assert guest.x0("FEATURES", t.FEATURE_BIND_SLOTS) == 2 << 16 | 1
    assert SdeiDispatcher([], [0]).call(0, t.FEATURES, (0,), at()).x0 == 0
    assert guest.x0("FEATURES", t.FEATURE_RELATIVE_MODE) == SINCE_1_1["RELATIVE_MODE_NOT_SUPPORTED"]
    assert Guest(version=t.VERSION_1_0).x0("FEATURES", t.FEATURE_RELATIVE_MODE) == t.INVALID_PARAMETERS
    for feature in (2, 1 << 32, 1 << 63):
        assert guest.x0("FEATURES", feature) == t.INVALID_PARAMETERS


def test_pe_mask_says_whether_it_changed_anything(guest):
    assert guest.x0("PE_MASK") == ACS["SDEI_PE_MASK_ALREADY_MASKED"]  # PEs start masked
    guest.unmask(0)
    assert guest.x0("PE_MASK", vcpu=1) == ACS["SDEI_PE_MASK_ALREADY_MASKED"]
    guest.unmask(2)
    for vcpu in (0, 2):
        assert guest.x0("PE_MASK", vcpu=vcpu) == ACS["SDEI_PE_MASK_MASKED"]
        assert guest.x0("PE_MASK", vcpu=vcpu) == ACS["SDEI_PE_MASK_ALREADY_MASKED"]


def test_get_info_before_registration(guest):
    def info(event, *which):
        return [guest.x0("EVENT_GET_INFO", event, i) for i in which]

    assert info(0, 0, 1, 2) == [0, ACS["SDEI_EV_SIGNALED_CAN_BE_SIGNALLED"], 0]
    assert info(SHARED, 0, 1, 2) == [1, ACS["SDEI_EV_SIGNALED_CANNOT_BE_SIGNALLED"], 0]
    assert info(CRITICAL, 0, 1, 2) == [1, 1, 1]
    assert info(PRIVATE, 0, 1, 2) == [0, 1, 0]
    assert info(PRIVATE_CRITICAL, 0, 1, 2) == [0, 1, 1]
    assert info(PRIVATE, 3, 4) == [t.INVALID_PARAMETERS] * 2
    assert info(SHARED, 3, 4) == [t.DENIED] * 2
    assert info(SHARED, 5, 1 << 32, (1 << 64) - 1) == [t.INVALID_PARAMETERS] * 3
    assert info(1, 0, 3) == [t.INVALID_PARAMETERS] * 2


@pytest.mark.parametrize("call", ["ENABLE", "DISABLE", "UNREGISTER", "STATUS"])
def test_unknown_events_are_invalid(guest, call):
    for event in (1, 1 << 31, 1 << 32, 1 << 32 | SHARED, (1 << 64) - 1):
        assert guest.x0(f"EVENT_{call}", event) == t.INVALID_PARAMETERS


def test_routing_info(guest):
    assert guest.x0("EVENT_REGISTER", SHARED, ENTRY, 0, 1, AFFINITY[3]) == 0
    assert guest.x0("EVENT_GET_INFO", SHARED, 3) == 1
    assert guest.x0("EVENT_GET_INFO", SHARED, 4) == AFFINITY[3]
    assert guest.x0("EVENT_ROUTING_SET", SHARED, 0, 0) == 0
    assert guest.x0("EVENT_GET_INFO", SHARED, 3) == 0
    assert guest.x0("EVENT_GET_INFO", SHARED, 4) == t.INVALID_PARAMETERS
    assert guest.x0("EVENT_ROUTING_SET", SHARED, 1, MPIDRS[2]) == 0  # a whole MPIDR is taken as its affinity
    assert guest.x0("EVENT_GET_INFO", SHARED, 4) == AFFINITY[2]
    for mode, mpidr in ((2, 0), (1, 2), (1 << 32, 0)):
        assert guest.x0("EVENT_ROUTING_SET", SHARED, mode, mpidr) == t.INVALID_PARAMETERS
    assert guest.x0("EVENT_ROUTING_SET", PRIVATE, 0, 0) == t.INVALID_PARAMETERS
    assert guest.x0("EVENT_ROUTING_SET", 7, 0, 0) == t.INVALID_PARAMETERS
    assert guest.x0("EVENT_GET_INFO", SHARED, 4) == AFFINITY[2]


@pytest.mark.parametrize(
    ("event", "entry", "flags", "mpidr"),
    [
        (1, ENTRY, 0, 0),
        (1 << 31, ENTRY, 0, 0),
        (1 << 32 | SHARED, ENTRY, 0, 0),
        (SHARED, 0, 0, 0),
        (SHARED, ENTRY + 2, 0, 0),
        (SHARED, ENTRY, 2, 0),
        (SHARED, ENTRY, 1 << 32, 0),
        (SHARED, ENTRY, 1, 2),
        (PRIVATE, ENTRY, 3, 0),
        (PRIVATE, ENTRY, 1, 2),
        (SHARED, 0x800, t.REL, 0),
        (SHARED, ENTRY, t.REL | t.RM_PE, AFFINITY[1]),
        (PRIVATE, ENTRY, t.REL, 0),
    ],
)
def test_register_refuses(guest, event, entry, flags, mpidr):
    assert guest.x0("EVENT_REGISTER", event, entry, 0, flags, mpidr) == t.INVALID_PARAMETERS
    assert guest.status(SHARED) == guest.status(PRIVATE) == 0


def test_the_highest_instruction_can_be_an_entry(guest):
    assert guest.x0("EVENT_REGISTER", SHARED, (1 << 64) - 4, 0, 0, 0) == 0


def test_private_events_are_registered_per_pe(guest):
    guest.ready(PRIVATE, vcpu=1)
    assert [guest.status(PRIVATE, vcpu) for vcpu in range(4)] == [0, 3, 0, 0]
    assert guest.sdei.accepts(PRIVATE)
    guest.unmask(0, 1)
    assert guest.sdei.signal(PRIVATE) == 1
    assert guest.sdei.dispatch(0, at()) is None
    assert guest.sdei.dispatch(1, at()) is not None
    assert [guest.status(PRIVATE, vcpu) for vcpu in range(4)] == [0, 7, 0, 0]


def test_only_el1_is_a_client(guest):
    for pstate in (0x0, 0x10, 0x13, 0x9):
        assert guest("VERSION", state=at(pstate=pstate)).x0 == t.NOT_SUPPORTED
    for pstate in (0x5, 0x4, N | 0x3C5):
        assert guest("VERSION", state=at(pstate=pstate)).x0 == t.VERSION_1_1


def test_other_functions_are_not_supported(guest):
    for function in (0xC400_001F, 0xC400_0033, 0xC400_003F, 0x8400_0020, 0):
        assert guest.sdei.call(0, function, (), at()) == CallResult(t.NOT_SUPPORTED)
    # The identifier is W0
    assert guest.sdei.call(0, 0xFFFF_FFFF_0000_0000 | t.VERSION, (), at()).x0 == t.VERSION_1_1


# -- dispatch and completion


def test_dispatch_sets_the_registers_of_a_handler(guest):
    guest.ready(SHARED, argument=0xABCD)
    guest.unmask(0)
    dispatch = guest.run(SHARED, state=at(0x400000, N | EL0))
    assert dispatch == Dispatch(SHARED, (SHARED, 0xABCD, 0x400000, N | EL0), ENTRY, N | HANDLER)
    assert guest.sdei.running(0) == (SHARED,)
    assert guest.status(SHARED) == 7
    assert not guest.sdei.pending(SHARED)


def test_sctlr_decides_pan_and_ssbs(guest):
    guest.ready(SHARED)
    guest.unmask(0)
    span, dssbs = 1 << 23, 1 << 44
    for sctlr, pstate in ((span | dssbs, 0x3C5 | 1 << 12), (0, HANDLER), (span, 0x3C5)):
        guest.sdei.signal(SHARED)
        assert guest.sdei.dispatch(0, at(pstate=EL0, sctlr=sctlr)).pstate == pstate
        done = guest("EVENT_COMPLETE_AND_RESUME", RESUME, state=at(sctlr=sctlr))
        assert done.registers.pstate == pstate


def test_context_reads_what_was_interrupted(guest):
    guest.ready(SHARED)
    guest.unmask(0)
    x = (*range(17), (1 << 64) - 2)
    assert guest.x0("EVENT_CONTEXT", 0) == t.DENIED
    guest.run(SHARED, state=at(x=x))
    assert [guest.x0("EVENT_CONTEXT", i) for i in range(18)] == [*range(17), -2]
    for index in (18, 1 << 32, (1 << 64) - 1):
        assert guest.x0("EVENT_CONTEXT", index) == t.INVALID_PARAMETERS
    assert guest.x0("EVENT_CONTEXT", 0, vcpu=1) == t.DENIED


def test_complete_restores(guest):
    guest.ready(SHARED)
    guest.unmask(0)
    state = at(0x1234, N | EL0)
    guest.run(SHARED, state=state)
    done = guest("EVENT_COMPLETE", t.EV_HANDLED, state=at(ENTRY + 64, HANDLER, (0,) * 18))
    assert done == CallResult(None, Registers(state.x, 0x1234, N | EL0), completed=SHARED)
    assert done.after(at(ENTRY + 64, HANDLER, (0,) * 18)) == state
    assert (guest.status(SHARED), guest.sdei.running(0)) == (3, ())
    assert guest.x0("EVENT_COMPLETE", 0) == t.DENIED


def test_complete_with_failure_is_told(guest):
    guest.ready(SHARED)
    guest.unmask(0)
    guest.run(SHARED)
    assert guest("EVENT_COMPLETE", t.EV_FAILED).failed


def test_complete_and_resume_looks_like_an_exception(guest):
    guest.ready(SHARED)
    guest.unmask(0)
    state = at(0x1234, N | EL0)
    guest.run(SHARED, state=state)
    for address in (0, RESUME + 1, RESUME + 2):
        assert guest.x0("EVENT_COMPLETE_AND_RESUME", address) == t.DENIED
    assert guest.status(SHARED) == 7
    done = guest("EVENT_COMPLETE_AND_RESUME", RESUME)
    assert done.registers == Registers(state.x, RESUME, N | HANDLER, elr=0x1234, spsr=N | EL0)
    assert not done.failed
    assert guest.status(SHARED) == 3


def test_reply_is_part_of_what_a_dispatch_interrupts(guest):
    guest.ready(SHARED)
    guest.sdei.signal(SHARED)
    result = guest("PE_UNMASK")
    assert result.wanted == (0,)
    assert result.after(at(serror=5, vbar=6, sctlr=7)) == at(x=(0, *range(101, 118)), serror=5, vbar=6, sctlr=7)
    assert CallResult(-3).after(at()).x[0] == (1 << 64) - 3


def test_masked_pe_gets_nothing_and_a_shared_event_goes_elsewhere(guest):
    guest.ready(SHARED)
    assert guest.sdei.signal(SHARED) is None
    assert guest.sdei.dispatch(0, at()) is None
    assert guest("PE_UNMASK", vcpu=2).wanted == (2,)
    assert guest("PE_UNMASK", vcpu=1).wanted == (1,)  # the calling vCPU is out already
    assert guest("PE_MASK", vcpu=1).wanted == (2,)
    assert guest("PE_MASK", vcpu=2).wanted == ()
    guest.unmask(3)
    assert guest.sdei.wanted() == (3,)
    assert guest.sdei.dispatch(3, at()).event == SHARED
    assert guest.sdei.wanted() == ()


def test_signal_prefers(guest):
    guest.ready(SHARED)
    guest.unmask(0, 1, 2)
    assert guest.sdei.signal(SHARED) == 0
    assert guest.sdei.signal(SHARED, 2) == 2
    assert guest.sdei.signal(SHARED, 3) == 0  # masked
    guest.sdei.withdraw(SHARED)
    guest.ready(PRIVATE, vcpu=0)
    guest.ready(CRITICAL)
    guest.run(PRIVATE, 0)
    assert guest.sdei.signal(SHARED) == 1  # 0 is busy
    assert guest.sdei.signal(CRITICAL) == 1  # an idle PE rather than one to interrupt
    guest.x0("PE_MASK", vcpu=1)
    guest.x0("PE_MASK", vcpu=2)
    assert guest.sdei.signal(SHARED) is None
    assert guest.sdei.signal(CRITICAL) == 0


def test_where_a_pending_event_can_run(guest):
    def where(event):
        return [vcpu for vcpu in range(4) if guest.sdei.can_run(event, vcpu)]

    guest.ready(SHARED)
    for vcpu in range(4):
        guest.ready(PRIVATE, vcpu=vcpu)
    guest.unmask(0, 2)
    assert where(SHARED) == where(PRIVATE) == []  # nothing is pending
    guest.sdei.signal(SHARED)
    guest.sdei.signal(PRIVATE, 1)
    guest.sdei.signal(PRIVATE, 2)
    assert (where(SHARED), where(PRIVATE)) == ([0, 2], [2])
    guest.run(PRIVATE, 0)
    assert (where(SHARED), where(PRIVATE)) == ([2], [2])
    assert guest.sdei.dispatch(2, at()).event == PRIVATE
    assert where(SHARED) == []


def test_rm_pe_goes_to_its_pe_only(guest):
    guest.ready(SHARED, flags=1, mpidr=AFFINITY[3], argument=0xABCD)
    guest.unmask(0, 1, 2)
    assert guest.sdei.signal(SHARED, 0) is None
    assert guest.sdei.dispatch(0, at()) is None
    assert guest("PE_UNMASK", vcpu=3).wanted == (3,)
    assert guest.sdei.dispatch(3, at(0x1000)) == Dispatch(SHARED, (SHARED, 0xABCD, 0x1000, 0x5), ENTRY, HANDLER)


def test_critical_interrupts_normal_and_nothing_else_nests(guest):
    for event in (SHARED, CRITICAL, PRIVATE, PRIVATE_CRITICAL):
        guest.ready(event)
    guest.unmask(0)
    guest.run(SHARED, state=at(0x1000, EL0))
    assert guest.sdei.signal(PRIVATE, 0) is None
    assert guest.sdei.dispatch(0, at()) is None
    inner = guest.run(CRITICAL, state=at(0x2000, HANDLER, (9,) * 18))
    assert inner == Dispatch(CRITICAL, (CRITICAL, 7, 0x2000, HANDLER), ENTRY, HANDLER)
    assert guest.sdei.running(0) == (SHARED, CRITICAL)
    assert guest.x0("EVENT_CONTEXT", 0) == 9
    assert guest.sdei.signal(PRIVATE_CRITICAL, 0) is None
    assert guest.sdei.dispatch(0, at()) is None

    done = guest("EVENT_COMPLETE", 0)
    assert (done.completed, done.registers.pc) == (CRITICAL, 0x2000)
    assert done.wanted == (0,)
    assert guest.sdei.dispatch(0, done.after(at())).event == PRIVATE_CRITICAL
    assert guest("EVENT_COMPLETE", 0).wanted == ()  # the normal one waits for the normal one
    done = guest("EVENT_COMPLETE", 0)
    assert (done.completed, done.registers.pc, done.wanted) == (SHARED, 0x1000, (0,))
    assert guest.sdei.dispatch(0, done.after(at())).event == PRIVATE


def test_critical_events_go_first_then_the_oldest(guest):
    for event in (SHARED, PRIVATE, CRITICAL):
        guest.ready(event)
    for event in (PRIVATE, SHARED, CRITICAL):
        guest.sdei.signal(event, 0)
    guest.unmask(0)
    order = []
    while (dispatch := guest.sdei.dispatch(0, at())) is not None:
        order.append(dispatch.event)
        guest("EVENT_COMPLETE", 0)
    assert order == [CRITICAL, PRIVATE, SHARED]


def test_an_event_that_cannot_run_holds_up_none_behind_it(guest):
    guest.ready(SHARED)
    guest.ready(CRITICAL)
    assert guest.x0("EVENT_DISABLE", SHARED) == 0
    guest.sdei.signal(SHARED)
    guest.sdei.signal(CRITICAL)
    guest.unmask(0)
    assert guest.sdei.dispatch(0, at()).event == CRITICAL
    guest("EVENT_COMPLETE", 0)
    assert guest.sdei.dispatch(0, at()) is None
    assert guest("EVENT_ENABLE", SHARED).wanted == (0,)


def test_what_runs_on_a_pe_is_in_the_way_there_only(guest):
    for vcpu in range(4):
        guest.ready(PRIVATE, vcpu=vcpu)
        guest.ready(PRIVATE_CRITICAL, vcpu=vcpu)
    guest.ready(SHARED)
    guest.ready(CRITICAL)
    guest.unmask(0, 1, 2, 3)
    guest.run(PRIVATE, 1)
    guest.run(CRITICAL, 3)
    guest.run(PRIVATE_CRITICAL, 2)
    assert [guest.sdei.signal(PRIVATE, vcpu) for vcpu in range(4)] == [0, None, None, None]
    assert [guest.sdei.signal(PRIVATE_CRITICAL, vcpu) for vcpu in range(4)] == [0, 1, None, None]
    assert guest.sdei.signal(SHARED, 2) == 0
    done = guest("EVENT_COMPLETE", 0, vcpu=2)
    assert (done.completed, done.wanted) == (PRIVATE_CRITICAL, (2,))
    assert [guest.sdei.signal(PRIVATE_CRITICAL, vcpu) for vcpu in range(4)] == [0, 1, 2, None]
    assert guest.sdei.dispatch(3, at()) is None
    assert guest.sdei.dispatch(2, at()).event == PRIVATE_CRITICAL


def test_an_event_signalled_while_it_runs_runs_again(guest):
    guest.ready(SHARED)
    guest.unmask(0, 1)
    guest.run(SHARED)
    assert guest.sdei.signal(SHARED) is None
    assert guest.sdei.dispatch(1, at()) is None
    done = guest("EVENT_COMPLETE", 0)
    assert done.wanted == (0,)
    assert guest.sdei.dispatch(0, at()).event == SHARED


def test_signals_between_register_and_enable_wait_for_enable(guest):
    guest.unmask(0)
    assert guest.x0("EVENT_REGISTER", SHARED, ENTRY, 0, 0, 0) == 0
    assert not guest.sdei.accepts(SHARED)
    assert guest.sdei.signal(SHARED) is None
    assert guest("EVENT_ENABLE", SHARED).wanted == (0,)
    assert guest.sdei.accepts(SHARED)
    guest.run(SHARED)
    assert guest.sdei.accepts(SHARED)


def test_what_register_and_unregister_discard_is_told(guest):
    guest.unmask(0)
    assert guest.sdei.signal(SHARED) is None
    assert guest("EVENT_REGISTER", SHARED, ENTRY, 0, 0, 0).discarded == (SHARED,)
    assert not guest.sdei.pending(SHARED)
    guest.sdei.signal(SHARED)
    assert guest("EVENT_DISABLE", SHARED).discarded == ()
    assert guest("EVENT_UNREGISTER", SHARED).discarded == (SHARED,)
    assert not guest.sdei.pending(SHARED)
    assert guest("EVENT_ENABLE", SHARED).x0 == t.DENIED


def test_withdraw(guest):
    guest.ready(PRIVATE, vcpu=2)
    guest.sdei.signal(PRIVATE, 2)
    assert guest.sdei.pending(PRIVATE)
    assert guest.sdei.withdraw(PRIVATE) is True
    assert guest.sdei.withdraw(PRIVATE) is False
    assert guest("PE_UNMASK", vcpu=2).wanted == ()


def test_what_is_withdrawn_or_discarded_is_that_event_only(guest):
    guest.unmask(0)
    for event in (SHARED, CRITICAL):
        assert guest.x0("EVENT_REGISTER", event, ENTRY, 0, 0, 0) == 0
        guest.sdei.signal(event)
    assert guest.sdei.withdraw(SHARED) is True
    assert guest.sdei.withdraw(SHARED) is False
    assert guest("EVENT_UNREGISTER", SHARED).discarded == ()
    assert guest.sdei.pending(CRITICAL)
    assert guest("EVENT_ENABLE", CRITICAL).wanted == (0,)


def test_private_signal_without_a_pe_finds_one(guest):
    assert guest.sdei.signal(PRIVATE) is None
    guest.ready(PRIVATE, vcpu=2)
    assert guest.sdei.signal(PRIVATE) is None  # masked: it waits where it is registered
    assert guest("PE_UNMASK", vcpu=2).wanted == (2,)
    assert guest.sdei.dispatch(2, at()).event == PRIVATE
    assert not guest.sdei.pending(PRIVATE)  # it was signalled once, and moved


def test_private_signal_without_a_pe_takes_the_nearest_to_running(guest):
    guest.unmask(0, 1, 2)
    assert guest.x0("EVENT_REGISTER", PRIVATE, ENTRY, 7, 0, 0, vcpu=1) == 0
    guest.ready(PRIVATE, vcpu=2)
    guest.ready(PRIVATE, vcpu=3)
    assert guest.sdei.signal(PRIVATE) == 2
    assert guest("PE_MASK", vcpu=2).wanted == ()
    guest.x0("EVENT_DISABLE", PRIVATE, vcpu=2)
    guest.x0("EVENT_DISABLE", PRIVATE, vcpu=3)
    assert guest.sdei.signal(PRIVATE) is None  # it moved to 1, the first that is registered
    assert guest("EVENT_ENABLE", PRIVATE, vcpu=1).wanted == (1,)


def test_private_signal_without_a_pe_goes_where_nothing_is_in_its_way(guest):
    for event in (PRIVATE, PRIVATE_CRITICAL):
        for vcpu in (1, 2):
            guest.ready(event, vcpu=vcpu)
    guest.ready(SHARED)
    guest.ready(CRITICAL)
    guest.unmask(1, 2)
    guest.run(SHARED, 1)
    assert guest.sdei.signal(PRIVATE) == 2
    assert guest.sdei.signal(PRIVATE_CRITICAL) == 1  # it interrupts the handler of a normal one
    guest.sdei.withdraw(PRIVATE_CRITICAL)
    guest.run(CRITICAL, 1)
    assert guest.sdei.signal(PRIVATE_CRITICAL) == 2
    guest.sdei.set_absent(2)
    assert guest.sdei.signal(PRIVATE_CRITICAL) is None
    assert guest("EVENT_COMPLETE", 0, vcpu=1).wanted == (1,)


def test_private_signal_without_a_pe_waits_for_its_own_handler(guest):
    guest.ready(PRIVATE, vcpu=2)
    guest.unmask(0, 1, 2)
    guest.run(PRIVATE, 2)
    assert guest.sdei.signal(PRIVATE) is None
    assert guest("EVENT_COMPLETE", 0, vcpu=2).wanted == (2,)
    guest.sdei.dispatch(2, at())
    assert guest.x0("EVENT_DISABLE", PRIVATE, vcpu=2) == 0
    assert guest.sdei.signal(PRIVATE) is None
    guest("EVENT_COMPLETE", 0, vcpu=2)
    assert guest("EVENT_ENABLE", PRIVATE, vcpu=2).wanted == (2,)


@pytest.mark.parametrize("event", [SHARED, PRIVATE])
def test_accepts_only_what_is_registered_and_enabled(guest, event):
    seen = [guest.sdei.accepts(event)]
    for call, *args in (("REGISTER", ENTRY, 0, 0, 0), ("ENABLE",), ("DISABLE",), ("ENABLE",), ("UNREGISTER",)):
        assert guest.x0(f"EVENT_{call}", event, *args, vcpu=2) == 0
        seen.append(guest.sdei.accepts(event))
    assert seen == [False, False, True, False, True, False]


def test_idle(guest):
    guest.ready(SHARED)
    guest.unmask(0)
    assert guest.sdei.idle
    guest.sdei.signal(SHARED)
    assert not guest.sdei.idle
    guest.sdei.dispatch(0, at())
    assert guest.sdei.idle


def test_registers_that_were_not_given_are_zero(guest):
    guest.ready(SHARED)
    guest.unmask(0)
    guest.run(SHARED, state=at(x=(1, 2, 3)))
    assert guest("EVENT_COMPLETE", 0).registers.x == (1, 2, 3, *[0] * 15)


def test_event_0_is_signalled_by_the_client(guest):
    guest.ready(0, vcpu=1)
    assert guest("EVENT_SIGNAL", 0, AFFINITY[1]).wanted == ()
    assert guest.sdei.wanted() == ()
    assert guest("PE_UNMASK", vcpu=1).wanted == (1,)
    dispatch = guest.sdei.dispatch(1, at())
    assert dispatch.x[0] == 0
    guest("EVENT_COMPLETE", 0, vcpu=1)
    assert guest("EVENT_SIGNAL", 0, MPIDRS[1]) == CallResult(0, wanted=(1,))
    for event, mpidr in ((1, 0), (SHARED, 0), (1 << 32, 0), (0, 2), (0, 0xFF_FFFF_FFFF)):
        assert guest.x0("EVENT_SIGNAL", event, mpidr) == t.INVALID_PARAMETERS


def test_a_signal_to_another_pe_is_wanted_beside_what_waits_already(guest):
    guest.ready(0, vcpu=1)
    guest.ready(SHARED)
    guest.unmask(0, 1)
    assert guest.sdei.signal(SHARED) == 0
    assert guest("EVENT_SIGNAL", 0, AFFINITY[1]) == CallResult(0, wanted=(0, 1))


def test_event_0_of_a_pe_that_did_not_register_it_is_gone(guest):
    assert guest.x0("EVENT_SIGNAL", 0, AFFINITY[0]) == 0
    result = guest("EVENT_REGISTER", 0, ENTRY, 0, 0, 0)
    assert (result.x0, result.discarded) == (0, ())  # nobody but the client signalled it
    guest.unmask(0)
    assert guest("EVENT_ENABLE", 0).wanted == ()


def test_an_event_that_lost_its_pe_to_another_is_wanted_elsewhere(guest):
    guest.ready(SHARED)
    guest.ready(PRIVATE)
    guest.unmask(0, 3)
    assert guest.sdei.signal(SHARED) == 0
    assert guest.sdei.signal(PRIVATE) == 0
    assert guest.sdei.dispatch(0, at()).event == PRIVATE  # those of the PE go first
    assert guest.sdei.wanted() == (3,)


def test_a_handler_that_could_not_be_entered_does_not_run(guest):
    for event in (SHARED, PRIVATE, CRITICAL):
        guest.ready(event)
    guest.unmask(0)
    guest.run(SHARED)
    guest.run(CRITICAL)
    guest.sdei.signal(PRIVATE, 0)
    assert guest.sdei.abandon(0) == ()
    assert (guest.sdei.running(0), guest.status(CRITICAL), guest.sdei.pending(CRITICAL)) == ((SHARED,), 3, False)
    assert guest.sdei.abandon(0) == (0,)
    assert (guest.sdei.running(0), guest.status(SHARED)) == ((), 3)
    assert guest.sdei.dispatch(0, at()).event == PRIVATE
    assert guest.sdei.abandon(1) == ()


def test_a_vcpu_that_is_out_already_is_asked_before_others(guest):
    guest.ready(SHARED)
    guest.unmask(0, 1, 2)
    guest.run(SHARED, 1)
    assert guest.sdei.signal(SHARED) is None  # its handler runs
    assert guest.sdei.abandon(1) == (1,)
    assert (guest.sdei.wanted(), guest.sdei.wanted(2)) == ((0,), (2,))
    assert guest.sdei.set_absent(2) == (0,)
    assert guest.sdei.set_absent(2, False) == (2,)


def test_an_absent_pe_gets_nothing(guest):
    guest.ready(SHARED)
    guest.ready(PRIVATE)
    guest.unmask(0, 2)
    assert guest.sdei.set_absent(0) == ()
    assert guest.sdei.signal(SHARED) == guest.sdei.signal(SHARED, 0) == 2
    assert guest.sdei.signal(PRIVATE) is None
    assert guest.sdei.dispatch(0, at()) is None
    assert guest.sdei.set_absent(2) == ()
    assert guest.sdei.wanted() == ()
    assert guest.sdei.set_absent(2, False) == (2,)
    assert guest.sdei.set_absent(0, False) == (0,)
    assert guest.sdei.dispatch(0, at()).event == PRIVATE
    assert guest.sdei.set_absent(0) == (2,)
    assert guest.sdei.running(0) == (PRIVATE,)  # what runs, runs on
    assert guest("EVENT_COMPLETE", 0).completed == PRIVATE


def test_a_private_event_rather_waits_where_somebody_is(guest):
    guest.ready(PRIVATE, vcpu=0)
    guest.ready(PRIVATE, vcpu=1)
    guest.sdei.set_absent(0)
    assert guest.sdei.signal(PRIVATE) is None
    assert guest("PE_UNMASK", vcpu=1).wanted == (1,)
    guest.sdei.set_absent(1)
    assert guest.sdei.signal(PRIVATE) is None
    assert guest.sdei.pending(PRIVATE)


# -- interrupts


def test_bind(guest):
    assert guest.x0("INTERRUPT_BIND", SPI) == SLOT
    assert guest.x0("INTERRUPT_BIND", SPI, vcpu=3) == SLOT  # as before
    assert guest.x0("INTERRUPT_BIND", PPI) == PRIVATE_SLOT
    assert guest.x0("INTERRUPT_BIND", SPI_2) == SLOT_2
    assert guest.x0("INTERRUPT_BIND", KEPT) == t.DENIED
    assert guest.x0("INTERRUPT_BIND", PPI + 1) == t.OUT_OF_RESOURCE
    for intid in (32, 39, 1019, 4097, 5119, 16, 31, 1056, 1119):
        assert guest.x0("INTERRUPT_BIND", intid) == t.OUT_OF_RESOURCE
    for intid in (0, 15, 1020, 1023, 1024, 1055, 1120, 4095, 5120, 8192, 1 << 32 | SPI, (1 << 64) - 1):
        assert guest.x0("INTERRUPT_BIND", intid) == t.INVALID_PARAMETERS
    assert [guest.x0("EVENT_GET_INFO", SLOT, info) for info in range(4)] == [1, 1, 0, t.DENIED]
    assert [guest.x0("EVENT_GET_INFO", PRIVATE_SLOT, info) for info in range(4)] == [0, 1, 0, t.INVALID_PARAMETERS]


@pytest.mark.parametrize(("intid", "event"), [(16, PRIVATE_SLOT), (1119, PRIVATE_SLOT), (32, SLOT), (5119, SLOT)])
def test_a_ppi_is_private_and_an_spi_shared(guest, intid, event):
    assert guest.x0("INTERRUPT_BIND", intid) == event


def test_a_slot_without_an_interrupt_cannot_be_registered(guest):
    assert guest.x0("EVENT_REGISTER", SLOT, 0, 0, 0, 0) == t.INVALID_PARAMETERS
    assert guest.x0("EVENT_REGISTER", SLOT, ENTRY, 0, 0, 0) == t.DENIED
    assert guest.x0("EVENT_ROUTING_SET", SLOT, 0, 0) == t.INVALID_PARAMETERS
    assert guest.x0("EVENT_ENABLE", SLOT) == t.DENIED
    assert guest.status(SLOT) == 0
    assert guest.x0("INTERRUPT_BIND", SPI) == SLOT
    assert guest.x0("EVENT_REGISTER", SLOT, ENTRY, 0, 0, 0) == 0
    assert guest.x0("EVENT_ROUTING_SET", SLOT, 1, AFFINITY[3]) == 0


def test_an_interrupt_that_is_being_handled_is_neither_registered_nor_released(guest):
    assert guest.x0("INTERRUPT_BIND", SPI) == SLOT
    assert guest.x0("EVENT_REGISTER", SLOT, 0, 0, 0, 0, active={SPI}) == t.INVALID_PARAMETERS
    assert guest.x0("EVENT_REGISTER", SLOT, ENTRY, 0, 0, 0, active={SPI}) == t.DENIED
    assert guest.status(SLOT) == 0
    assert guest.x0("INTERRUPT_RELEASE", SLOT, active={SPI}) == t.DENIED
    assert guest.x0("SHARED_RESET", active={SPI}) == t.DENIED
    assert guest.x0("INTERRUPT_BIND", SPI) == SLOT
    assert guest.x0("EVENT_REGISTER", SLOT, ENTRY, 0, 0, 0, active={SPI_2}) == 0


def test_release(guest):
    for event in (0, SHARED, PRIVATE, SLOT, 1, 1 << 40):
        assert guest.x0("INTERRUPT_RELEASE", event) == t.INVALID_PARAMETERS
    assert guest.x0("INTERRUPT_BIND", PPI) == PRIVATE_SLOT
    guest.ready(PRIVATE_SLOT, vcpu=2)
    assert guest.x0("INTERRUPT_RELEASE", PRIVATE_SLOT) == t.DENIED  # another PE has registered it
    guest.unmask(2)
    guest.run(PRIVATE_SLOT, 2)
    assert guest.x0("EVENT_UNREGISTER", PRIVATE_SLOT, vcpu=2) == t.PENDING
    assert guest.x0("INTERRUPT_RELEASE", PRIVATE_SLOT) == t.DENIED
    guest("EVENT_COMPLETE", 0, vcpu=2)
    assert guest.x0("INTERRUPT_RELEASE", PRIVATE_SLOT) == 0
    assert guest.x0("INTERRUPT_RELEASE", PRIVATE_SLOT) == t.INVALID_PARAMETERS
    assert guest.x0("INTERRUPT_BIND", PPI + 1) == PRIVATE_SLOT


def test_a_bound_interrupt_is_an_event_while_it_is_registered(guest):
    def events(intid):
        return [guest.sdei.event_of_interrupt(intid, vcpu) for vcpu in range(4)]

    assert guest.x0("INTERRUPT_BIND", PPI) == PRIVATE_SLOT
    assert guest.x0("INTERRUPT_BIND", SPI) == SLOT
    assert events(PPI) == events(SPI) == events(77) == [None] * 4
    guest.ready(PRIVATE_SLOT, vcpu=1)
    guest.ready(SLOT, vcpu=1)
    assert events(PPI) == [None, PRIVATE_SLOT, None, None]
    assert events(SPI) == [SLOT] * 4
    guest.unmask(0, 1)
    assert guest.sdei.signal(PRIVATE_SLOT, 1) == 1
    assert guest.sdei.dispatch(1, at()).event == PRIVATE_SLOT
    assert guest.x0("EVENT_UNREGISTER", SLOT) == 0
    assert events(SPI) == [None] * 4


def test_shared_reset_releases_what_nobody_has_registered(guest):
    for intid in (PPI, SPI, SPI_2):
        assert guest.x0("INTERRUPT_BIND", intid) > 0
    guest.ready(SLOT)
    guest.ready(PRIVATE_SLOT, vcpu=1)
    guest.unmask(0)
    guest.run(SLOT)
    assert guest.x0("SHARED_RESET") == t.DENIED  # nothing is released then
    assert guest.x0("INTERRUPT_BIND", SPI_2) == SLOT_2
    guest("EVENT_COMPLETE", 0)
    assert guest.x0("SHARED_RESET") == t.DENIED  # a private event keeps its interrupt
    assert guest.x0("INTERRUPT_RELEASE", PRIVATE_SLOT) == t.DENIED
    assert guest.x0("INTERRUPT_RELEASE", SLOT) == guest.x0("INTERRUPT_RELEASE", SLOT_2) == t.INVALID_PARAMETERS
    assert guest.x0("PRIVATE_RESET", vcpu=1) == 0
    assert guest.x0("SHARED_RESET") == 0
    assert guest.x0("INTERRUPT_RELEASE", PRIVATE_SLOT) == t.INVALID_PARAMETERS


# -- resets


def test_private_reset_is_for_the_calling_pe(guest):
    guest.ready(PRIVATE, vcpu=0)
    guest.ready(PRIVATE, vcpu=1)
    guest.ready(0)
    guest.ready(SHARED)
    guest.sdei.signal(PRIVATE, 0)
    result = guest("PRIVATE_RESET")
    assert (result.x0, result.discarded) == (0, (PRIVATE,))
    assert [guest.status(event) for event in (0, PRIVATE, SHARED)] == [0, 0, 3]
    assert guest.status(PRIVATE, 1) == 3
    assert guest.x0("PRIVATE_RESET") == 0


def test_reset_is_denied_while_a_handler_runs_and_unregisters_it_then(guest):
    guest.ready(PRIVATE)
    guest.ready(0)
    guest.unmask(0)
    guest.run(PRIVATE)
    assert guest.x0("PRIVATE_RESET") == t.DENIED
    assert [guest.status(event) for event in (0, PRIVATE)] == [0, 4]
    assert guest.x0("PRIVATE_RESET") == t.DENIED
    guest("EVENT_COMPLETE", 0)
    assert guest.status(PRIVATE) == 0
    assert guest.x0("PRIVATE_RESET") == 0


def test_a_reset_tells_all_that_it_discards(guest):
    for event in (PRIVATE, PRIVATE_CRITICAL):
        guest.ready(event)
    guest.unmask(0)
    guest.run(PRIVATE)
    for event in (PRIVATE_CRITICAL, PRIVATE):
        guest.sdei.signal(event, 0)
    result = guest("PRIVATE_RESET")
    assert (result.x0, result.discarded) == (t.DENIED, (PRIVATE, PRIVATE_CRITICAL))  # one of them runs
    guest("EVENT_COMPLETE", 0)
    assert guest("PRIVATE_RESET") == CallResult(0)


def test_a_reset_is_denied_though_the_running_event_waits_again(guest):
    guest.ready(PRIVATE)
    guest.unmask(0)
    guest.run(PRIVATE)
    guest.sdei.signal(PRIVATE, 0)
    assert guest("PRIVATE_RESET") == CallResult(t.DENIED, discarded=(PRIVATE,))


def test_shared_reset_is_for_all(guest):
    guest.ready(SHARED)
    guest.ready(CRITICAL)
    guest.ready(PRIVATE)
    guest.unmask(2)
    guest.run(CRITICAL, 2)
    assert guest.x0("SHARED_RESET") == t.DENIED
    assert [guest.status(event) for event in (SHARED, CRITICAL, PRIVATE)] == [0, 4, 3]
    guest("EVENT_COMPLETE", 0, vcpu=2)
    assert guest.x0("SHARED_RESET") == 0


def test_a_pe_that_is_switched_on_starts_over(guest):
    for event in (SHARED, PRIVATE, CRITICAL):
        guest.ready(event)
    guest.ready(PRIVATE, vcpu=1)
    guest.unmask(0)
    guest.run(PRIVATE)
    guest.run(CRITICAL)
    guest.sdei.signal(PRIVATE, 0)
    guest.sdei.signal(PRIVATE_CRITICAL, 1)
    guest.sdei.signal(SHARED)
    guest.x0("EVENT_SIGNAL", 0, AFFINITY[0])
    assert guest.sdei.reset_pe(0) == (PRIVATE,)
    assert guest.sdei.pending(PRIVATE_CRITICAL)
    assert guest.sdei.pending(SHARED)
    assert (guest.sdei.running(0), guest.sdei.masked(0)) == ((), True)
    assert [guest.status(event) for event in (SHARED, PRIVATE, CRITICAL)] == [3, 0, 3]
    assert guest.status(PRIVATE, 1) == 3


def test_a_shared_event_of_a_pe_that_is_switched_on_goes_on(guest):
    guest.ready(SHARED)
    guest.unmask(0, 2)
    guest.run(SHARED)
    assert guest.sdei.signal(SHARED) is None
    assert guest.sdei.reset_pe(0) == ()
    assert guest.sdei.wanted() == (2,)


def test_a_private_event_is_gone_on_a_pe_that_is_switched_on_and_there_only(guest):
    for vcpu in (1, 2, 3):
        guest.ready(PRIVATE, vcpu=vcpu)
    guest.sdei.reset_pe(2)
    guest.sdei.reset_pe(1)
    assert [guest.status(PRIVATE, vcpu) for vcpu in range(4)] == [0, 0, 0, 3]
    assert guest.sdei.signal(PRIVATE) is None  # it waits where it is registered
    assert guest("PE_UNMASK", vcpu=3).wanted == (3,)
    assert guest.sdei.reset_pe(3) == (PRIVATE,)
    assert not guest.sdei.accepts(PRIVATE)


def test_only_the_pe_that_wakes_is_masked(guest):
    guest.unmask(0, 1, 2, 3)
    guest.sdei.wake_pe(2)
    assert [guest.sdei.masked(vcpu) for vcpu in range(4)] == [False, False, True, False]


def test_a_pe_that_wakes_is_masked_and_keeps_all_else(guest):
    guest.ready(PRIVATE)
    guest.unmask(0)
    guest.run(PRIVATE)
    guest.sdei.signal(PRIVATE, 0)
    guest.sdei.wake_pe(0)
    assert (guest.sdei.masked(0), guest.sdei.running(0), guest.status(PRIVATE)) == (True, (PRIVATE,), 7)
    assert guest("EVENT_COMPLETE", 0).wanted == ()
    assert guest("PE_UNMASK").wanted == (0,)


# -- the caller's mistakes


def test_events_go_from_1_to_31_bits():
    sdei = SdeiDispatcher([EventDescription((1 << 31) - 1), EventDescription(1, True)], [0])
    assert [sdei.call(0, t.EVENT_STATUS, (event,), at()).x0 for event in (1, (1 << 31) - 1)] == [0, 0]


def test_constructor_refuses():
    for events in ([(0, False, False)], [(-1,)], [(1 << 31,)], [(5,), (5, True)]):
        with pytest.raises(InputError, match="SDEI events"):
            SdeiDispatcher([EventDescription(*event) for event in events], [0])
    with pytest.raises(InputError, match="normal priority"):
        SdeiDispatcher([EventDescription(5, True, True, True)], [0])
    for version in (0, 2 << 48, 1 << 48 | 2 << 32, 1 << 63 | 1 << 48):
        with pytest.raises(InputError, match="SDEI version"):
            SdeiDispatcher([], [0], version=version)
    for mpidrs in ([], [0, 0x8000_0000]):
        with pytest.raises(InputError, match="SDEI PEs"):
            SdeiDispatcher([], mpidrs)


def test_callers_mistakes_raise(guest):
    for wrong in (
        lambda: guest.sdei.signal(0),
        lambda: guest.sdei.signal(1),
        lambda: guest.sdei.signal(SHARED, 4),
        lambda: guest.sdei.accepts(1),
        lambda: guest.sdei.can_run(1, 0),
        lambda: guest.sdei.can_run(SHARED, -1),
        lambda: guest.sdei.can_run(PRIVATE, 4),
        lambda: guest.sdei.withdraw(1),
        lambda: guest.sdei.running(-1),
        lambda: guest.sdei.set_absent(4),
        lambda: guest.sdei.reset_pe(-1),
        lambda: guest.sdei.event_of_interrupt(SPI, 4),
        lambda: guest.sdei.dispatch(-1, at()),
        lambda: guest.sdei.pending(1),
        lambda: guest.sdei.dispatch(4, at()),
        lambda: guest.sdei.call(4, t.VERSION, (), at()),
    ):
        with pytest.raises(StateError):
            wrong()
