"""The SDEI dispatcher against TF-A's state table and the header constants, as a guest would see it, and at random."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vmm_ras import sdei_table as t
from vmm_ras.errors import InputError, SnapshotError, StateError
from vmm_ras.events import VcpuState
from vmm_ras.sdei import CallResult, EventDescription, Registers, SdeiDispatcher, is_sdei

ROOT = Path(__file__).parents[2]
CONSTANTS = json.loads((ROOT / "fixtures" / "sdei" / "constants.json").read_text())
LINUX, TFA, ACS = (CONSTANTS[name]["values"] for name in ("linux", "tf-a", "acs"))
STATES = json.loads((ROOT / "fixtures" / "sdei" / "handler_states.json").read_text())

SHARED, CRITICAL, PRIVATE, PRIVATE_CRITICAL = 804, 805, 900, 901
EVENTS = [
    EventDescription(SHARED, True),
    EventDescription(CRITICAL, True, True),
    EventDescription(PRIVATE),
    EventDescription(PRIVATE_CRITICAL, False, True),
]
MPIDRS = [0x8000_0000, 0x8000_0001, 0x8000_0100, 0x81_8000_0000]  # RES1 and affinities up to Aff3
AFFINITY = [0x0, 0x1, 0x100, 0x81_0000_0000]
ENTRY, RESUME = 0xFFFF_8000_0001_0000, 0xFFFF_8000_0801_0280
EL0, EL1H = 0x0, 0x5
N, PAN = 1 << 31, 1 << 22
HANDLER = PAN | 0x3C0 | EL1H  # PSTATE in a handler: SCTLR_EL1 is 0, so PAN is set


def at(pc=0x400000, pstate=EL1H, x=tuple(range(100, 118))):
    return VcpuState(pc, pstate, x)


class Guest:
    """A dispatcher, and calls by name."""

    def __init__(self, pes=4):
        self.sdei = SdeiDispatcher(EVENTS, MPIDRS[:pes])

    def __call__(self, function, *args, vcpu=0, state=None, **kwargs):
        return self.sdei.call(vcpu, getattr(t, function), args, state or at(), **kwargs)

    def x0(self, function, *args, vcpu=0):
        result = self(function, *args, vcpu=vcpu)
        assert result.registers is None
        return result.x0

    def ready(self, event, *, vcpu=0, flags=0, mpidr=0, argument=7):
        assert self.x0("EVENT_REGISTER", event, ENTRY, argument, flags, mpidr, vcpu=vcpu) == 0
        assert self.x0("EVENT_ENABLE", event, vcpu=vcpu) == 0

    def unmask(self, *vcpus):
        for vcpu in vcpus:
            assert self.x0("PE_UNMASK", vcpu=vcpu) == 0

    def status(self, event, vcpu=0):
        return self.x0("EVENT_STATUS", event, vcpu=vcpu)

    def run(self, event, vcpu=0, state=None):
        assert self.sdei.signal(event, vcpu) == vcpu
        dispatch = self.sdei.dispatch(vcpu, state or at())
        assert dispatch is not None
        assert dispatch.event == event
        return dispatch


@pytest.fixture
def guest():
    return Guest()


# -- numbers


def test_function_identifiers_are_those_of_linux_and_tfa():
    calls = {name[5:]: value for name, value in TFA.items() if 0xC400_0020 <= value < 0xC400_0040}
    assert len(calls) == 19
    assert {name: getattr(t, name) for name in calls} == calls
    linux = {name.removeprefix("SDEI_1_0_FN_SDEI_"): v for name, v in LINUX.items() if "_FN_SDEI_" in name}
    assert len(linux) == 17
    assert {name: getattr(t, name) for name in linux} == linux
    assert LINUX["SDEI_1_0_FN_BASE"] == t.FUNCTION_BASE
    assert t.FUNCTION_BASE & LINUX["SDEI_1_0_MASK"] == t.FUNCTION_BASE
    assert all(is_sdei(function) for function in calls.values())
    assert [is_sdei(f) for f in (0xC400_001F, 0xC400_0020, 0xC400_003F, 0xC400_0040)] == [False, True, True, False]


@pytest.mark.parametrize(
    "name", ["SUCCESS", "NOT_SUPPORTED", "INVALID_PARAMETERS", "DENIED", "PENDING", "OUT_OF_RESOURCE"]
)
def test_return_codes_are_those_of_linux(name):
    assert getattr(t, name) == LINUX[f"SDEI_{name}"]


def test_arguments_and_bits_are_those_of_linux_and_tfa():
    for name in ("EV_TYPE", "EV_PRIORITY", "EV_ROUTING_MODE", "EV_ROUTING_AFF"):
        assert getattr(t, f"INFO_{name}") == LINUX[f"SDEI_EVENT_INFO_{name}"] == TFA[f"SDEI_INFO_{name}"]
    assert t.INFO_EV_SIGNALED == LINUX["SDEI_EVENT_INFO_EV_SIGNALED"] == TFA["SDEI_INFO_EV_NOT_SIGNALED"]
    assert ACS["SDEI_EV_SIGNALED_CAN_BE_SIGNALLED"] == t.SIGNALED_YES
    assert ACS["SDEI_EV_SIGNALED_CANNOT_BE_SIGNALLED"] == t.SIGNALED_NO
    assert t.RM_ANY == LINUX["SDEI_EVENT_REGISTER_RM_ANY"] == TFA["SDEI_REGF_RM_ANY"]
    assert t.RM_PE == LINUX["SDEI_EVENT_REGISTER_RM_PE"] == TFA["SDEI_REGF_RM_PE"]
    assert LINUX["SDEI_EV_HANDLED"] == t.EV_HANDLED
    assert LINUX["SDEI_EV_FAILED"] == t.EV_FAILED
    for name in ("REGISTERED", "ENABLED", "RUNNING"):
        assert getattr(t, name) == 1 << LINUX[f"SDEI_EVENT_STATUS_{name}"]
    major, minor = (LINUX[f"SDEI_VERSION_{part}_SHIFT"] for part in ("MAJOR", "MINOR"))
    assert 1 << major | 0 << minor == t.VERSION_1_0


# -- the state table, cell by cell, and as the guest sees it

CELLS = [(int(state), action) for state in STATES["rows"] for action in STATES["columns"]]


def expected(state, action):
    """(next state, return code) of a cell of the transcription."""
    cell = STATES["rows"][str(state)][action]
    if cell == "deny":
        return state, LINUX["SDEI_DENIED"]
    if cell == "PENDING":
        return state, LINUX["SDEI_PENDING"]
    after, _, code = cell.partition(",")
    return state if after == "ok" else int(after[2:]), LINUX["SDEI_PENDING"] if code else LINUX["SDEI_SUCCESS"]


def test_table_covers_the_transcription():
    assert [action.name for action in t.Action] == STATES["columns"]
    assert {str(state) for state in t.TABLE} == set(STATES["rows"])
    assert not set(STATES["impossible"]) & set(t.STATES)
    assert set(t.TABLE) == set(t.STATES)


@pytest.mark.parametrize(("state", "action"), CELLS)
def test_table_cell(state, action):
    after, code = expected(state, action)
    action = t.Action[action]
    moved = t.TABLE[state][action]
    assert t.answer(state, action) == code
    assert (state if moved is None else moved) == after
    assert (moved is None) == (code == t.DENIED or (code == t.PENDING and after == state))


def bring_to(guest, event, state):
    """Lead the event into the state on vCPU 0, by calls and a dispatch only."""
    guest.unmask(0)
    if state & (t.REGISTERED | t.RUNNING):
        assert guest.x0("EVENT_REGISTER", event, ENTRY, 7, 0, 0) == 0
    if state & (t.ENABLED | t.RUNNING):
        assert guest.x0("EVENT_ENABLE", event) == 0
    if state & t.RUNNING:
        guest.run(event)
        if not state & t.REGISTERED:
            assert guest.x0("EVENT_UNREGISTER", event) == t.PENDING
        elif not state & t.ENABLED:
            assert guest.x0("EVENT_DISABLE", event) == 0
    assert guest.status(event) == state


ARGUMENTS = {
    "REGISTER": (ENTRY, 7, 0, 0),
    "ROUTING_SET": (0, 0),
    "ENABLE": (),
    "DISABLE": (),
    "UNREGISTER": (),
}


@pytest.mark.parametrize("event", [SHARED, PRIVATE, PRIVATE_CRITICAL])
@pytest.mark.parametrize(("state", "action"), CELLS)
def test_table_as_the_guest_sees_it(guest, event, state, action):
    bring_to(guest, event, state)
    after, code = expected(state, action)
    if action == "RELEASE":
        # No event is bound to an interrupt here, so the state is never asked.
        after, code = state, t.INVALID_PARAMETERS
        result = guest("INTERRUPT_RELEASE", event)
    elif action == "ROUTING_SET" and event != SHARED:
        after, code = state, t.INVALID_PARAMETERS
        result = guest("EVENT_ROUTING_SET", event, 0, 0)
    elif action in ARGUMENTS:
        result = guest(f"EVENT_{action}", event, *ARGUMENTS[action])
    elif action == "DISPATCH":
        target = guest.sdei.signal(event, 0)
        dispatch = guest.sdei.dispatch(0, at())
        assert (target is not None) == (dispatch is not None) == (code == 0)
        assert guest.sdei.pending(event) == (dispatch is None)
        assert guest.status(event) == after
        return
    elif action == "CONTEXT":
        result = guest("EVENT_CONTEXT", 3)
        code = code or 103
    else:
        result = guest(f"EVENT_{action}", RESUME if "RESUME" in action else 0)
        if code == 0:
            assert result.x0 is None
            assert result.registers is not None
            assert result.completed == event
            assert guest.status(event) == after
            return
    assert result.x0 == code
    assert result.registers is None
    assert result.completed is None
    assert guest.status(event) == after


def test_docs_are_drawn_from_the_table():
    assert (ROOT / "docs" / "sdei-states.md").read_text() == t.state_table_markdown()


# -- calls


def test_version_is_1_0(guest):
    assert guest.x0("VERSION") == 0x0001_0000_0000_0000


def test_no_bind_slots(guest):
    assert guest.x0("FEATURES", 0) == 0
    for feature in (1, 2, 1 << 63):
        assert guest.x0("FEATURES", feature) == t.INVALID_PARAMETERS
    for intid in (16, 31, 32, 1019, 1056, 1119, 4096, 5119):
        assert guest.x0("INTERRUPT_BIND", intid) == t.OUT_OF_RESOURCE
    for intid in (0, 15, 1020, 1023, 1055, 1120, 4095, 5120, 8192, 1 << 32 | 40):
        assert guest.x0("INTERRUPT_BIND", intid) == t.INVALID_PARAMETERS
    for event in (0, SHARED, PRIVATE, 1, 1 << 40):
        assert guest.x0("INTERRUPT_RELEASE", event) == t.INVALID_PARAMETERS


def test_pe_mask_says_whether_it_changed_anything(guest):
    assert guest.x0("PE_MASK") == ACS["SDEI_PE_MASK_ALREADY_MASKED"]  # PEs start masked
    guest.unmask(0)
    assert guest.x0("PE_MASK", vcpu=1) == ACS["SDEI_PE_MASK_ALREADY_MASKED"]
    assert guest.x0("PE_MASK") == ACS["SDEI_PE_MASK_MASKED"]
    assert guest.x0("PE_MASK") == ACS["SDEI_PE_MASK_ALREADY_MASKED"]


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
        assert guest("VERSION", state=at(pstate=pstate)).x0 == t.VERSION_1_0


def test_other_functions_are_not_supported(guest):
    for function in (0xC400_001F, 0xC400_0033, 0xC400_003F, 0x8400_0020, 0):
        assert guest.sdei.call(0, function, (), at()) == CallResult(t.NOT_SUPPORTED)
    # The identifier is W0
    assert guest.sdei.call(0, 0xFFFF_FFFF_0000_0000 | t.VERSION, (), at()).x0 == t.VERSION_1_0


# -- dispatch and completion


def test_dispatch_sets_the_registers_of_a_handler(guest):
    guest.ready(SHARED, argument=0xABCD)
    guest.unmask(0)
    dispatch = guest.run(SHARED, state=at(0x400000, N | EL0))
    assert dispatch.registers == Registers((SHARED, 0xABCD, 0x400000, N | EL0), ENTRY, N | HANDLER)
    assert guest.sdei.running(0) == (SHARED,)
    assert guest.status(SHARED) == 7
    assert not guest.sdei.pending(SHARED)


def test_sctlr_decides_pan_and_ssbs(guest):
    guest.ready(SHARED)
    guest.unmask(0)
    guest.sdei.signal(SHARED)
    span, dssbs = 1 << 23, 1 << 44
    dispatch = guest.sdei.dispatch(0, at(pstate=EL0), sctlr=span | dssbs)
    assert dispatch.registers.pstate == 0x3C5 | 1 << 12
    done = guest("EVENT_COMPLETE_AND_RESUME", RESUME, sctlr=span)
    assert done.registers.pstate == 0x3C5


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
    assert result.after(at()).x == (0, *range(101, 118))
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


def test_rm_pe_goes_to_its_pe_only(guest):
    guest.ready(SHARED, flags=1, mpidr=AFFINITY[3])
    guest.unmask(0, 1, 2)
    assert guest.sdei.signal(SHARED, 0) is None
    assert guest.sdei.dispatch(0, at()) is None
    assert guest("PE_UNMASK", vcpu=3).wanted == (3,)
    assert guest.sdei.dispatch(3, at()).event == SHARED


def test_critical_interrupts_normal_and_nothing_else_nests(guest):
    for event in (SHARED, CRITICAL, PRIVATE, PRIVATE_CRITICAL):
        guest.ready(event)
    guest.unmask(0)
    guest.run(SHARED, state=at(0x1000, EL0))
    assert guest.sdei.signal(PRIVATE, 0) is None
    assert guest.sdei.dispatch(0, at()) is None
    inner = guest.run(CRITICAL, state=at(0x2000, HANDLER, (9,) * 18))
    assert inner.registers == Registers((CRITICAL, 7, 0x2000, HANDLER), ENTRY, HANDLER)
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
    assert dispatch.registers.x[0] == 0
    guest("EVENT_COMPLETE", 0, vcpu=1)
    assert guest("EVENT_SIGNAL", 0, MPIDRS[1]).wanted == (1,)
    for event, mpidr in ((1, 0), (SHARED, 0), (1 << 32, 0), (0, 2), (0, 0xFF_FFFF_FFFF)):
        assert guest.x0("EVENT_SIGNAL", event, mpidr) == t.INVALID_PARAMETERS


def test_event_0_of_a_pe_that_did_not_register_it_is_gone(guest):
    assert guest.x0("EVENT_SIGNAL", 0, AFFINITY[0]) == 0
    result = guest("EVENT_REGISTER", 0, ENTRY, 0, 0, 0)
    assert (result.x0, result.discarded) == (0, ())  # nobody but the client signalled it
    guest.unmask(0)
    assert guest("EVENT_ENABLE", 0).wanted == ()


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


# -- the caller's mistakes


def test_constructor_refuses():
    for events in ([(0, False, False)], [(-1,)], [(1 << 31,)], [(5,), (5, True)]):
        with pytest.raises(InputError, match="SDEI events"):
            SdeiDispatcher([EventDescription(*event) for event in events], [0])
    for mpidrs in ([], [0, 0x8000_0000]):
        with pytest.raises(InputError, match="SDEI PEs"):
            SdeiDispatcher([], mpidrs)


def test_callers_mistakes_raise(guest):
    for wrong in (
        lambda: guest.sdei.signal(0),
        lambda: guest.sdei.signal(1),
        lambda: guest.sdei.signal(SHARED, 4),
        lambda: guest.sdei.accepts(1),
        lambda: guest.sdei.withdraw(1),
        lambda: guest.sdei.running(-1),
        lambda: guest.sdei.dispatch(4, at()),
        lambda: guest.sdei.call(4, t.VERSION, (), at()),
    ):
        with pytest.raises(StateError):
            wrong()


# -- snapshots


def nested():
    guest = Guest()
    guest.ready(PRIVATE)
    guest.ready(CRITICAL, flags=1, mpidr=AFFINITY[0])
    guest.ready(SHARED)
    guest.ready(0, vcpu=3)
    guest.unmask(0, 3)
    guest.run(PRIVATE, state=at(0x1000, N | EL0))
    guest.run(CRITICAL, state=at((1 << 64) - 4, HANDLER, ((1 << 64) - 1,) * 18))
    guest.x0("EVENT_UNREGISTER", PRIVATE)
    guest.sdei.signal(CRITICAL)
    guest.x0("EVENT_SIGNAL", 0, AFFINITY[3])
    return guest.sdei


def restore(snapshot):
    return SdeiDispatcher.restore(snapshot, EVENTS, MPIDRS)


def test_snapshot_survives_json():
    sdei = nested()
    snapshot = json.loads(json.dumps(sdei.snapshot()))
    again = restore(snapshot)
    assert again.snapshot() == sdei.snapshot() == snapshot
    snapshot["masked"][0] = True  # what was handed over is not ours any more
    assert not again.masked(0)
    assert again.running(0) == (PRIVATE, CRITICAL)
    assert again.call(0, t.EVENT_COMPLETE, (0,), at()) == sdei.call(0, t.EVENT_COMPLETE, (0,), at())


def set_path(value, path, new):
    *way, last = path
    for step in way:
        value = value[step]
    if new is ...:
        del value[last]
    else:
        value[last] = new


@pytest.mark.parametrize(
    ("path", "new", "said"),
    [
        (("version",), 2, "version: expected 1"),
        (("version",), ..., "version: missing"),
        (("extra",), 2, "top: expected no other fields"),
        (("events", 1, 0), 5, "events: not the events"),
        (("mpidrs", 0), 5, "mpidrs: not the PEs"),
        (("masked",), [True], "masked: expected 4 booleans"),
        (("masked", 1), 1, "masked: expected 4 booleans"),
        (("handlers",), {}, "handlers: expected a list"),
        (("handlers", 0), [], "handlers[0]: expected an object"),
        (("handlers", 0, "state"), ..., "handlers[0].state: missing"),
        (("handlers", 0, "event"), 7, "handlers[0].event: no event 7"),
        (("handlers", 0, "event"), "x", "handlers[0].event: expected an unsigned"),
        (("handlers", 0, "vcpu"), 4, "handlers[0].vcpu: expected a vCPU below 4"),
        (("handlers", 0, "vcpu"), None, "handlers[0].vcpu: expected a vCPU below 4"),
        (("handlers", 0, "vcpu"), True, "handlers[0].vcpu: expected a vCPU below 4"),
        (("handlers", 1, "vcpu"), 0, "handlers[1].vcpu: a shared event has no vCPU"),
        (("handlers", 0, "state"), 2, "handlers[0].state: no state 2"),
        (("handlers", 0, "state"), 6, "handlers[0].state: no state 6"),
        (("handlers", 0, "state"), 0, "handlers[0].state: no state 0"),
        (("handlers", 0, "state"), True, "handlers[0].state: expected an unsigned"),
        (("handlers", 0, "entry"), 8, "handlers[0]: a handler that is not registered"),
        (("handlers", 2, "entry"), 0, "handlers[2].entry: no address"),
        (("handlers", 2, "entry"), 1 << 64, "handlers[2].entry: expected an unsigned"),
        (("handlers", 2, "routing"), 2, "handlers[2].routing: expected 0 or 1"),
        (("handlers", 2, "affinity"), 1, "handlers[2].affinity: no PE"),
        (("handlers", 1, "affinity"), 2, "handlers[1].affinity: no PE"),
        (("handlers", 3, "routing"), 1, "handlers[3].routing: a private event is not routed"),
        (("handlers", 2, "state"), 7, "handlers[2].state: it runs, but on no vCPU"),
        (("handlers", 1, "state"), 3, "contexts[0][1].event: the handler of event 805 does not run"),
        (("handlers", 2, "event"), CRITICAL, "handlers[2]: given twice"),
        (("pending", 0), [CRITICAL], "pending[0]: expected [event, vCPU or null]"),
        (("pending", 0), [CRITICAL, 0], "pending[0].vcpu: a shared event"),
        (("pending", 1), [CRITICAL, None], "pending[1]: given twice"),
        (("contexts",), [[]], "contexts: expected 4 lists"),
        (("contexts", 1), None, "contexts[1]: expected a list"),
        (("contexts", 0, 0, "x", 17), -1, "contexts[0][0].x[17]: expected an unsigned"),
        (("contexts", 0, 0, "x"), [0], "contexts[0][0].x: expected 18 registers"),
        (("contexts", 0, 0, "pc"), 1.0, "contexts[0][0].pc: expected an unsigned"),
        (("contexts", 0, 0, "pstate"), 0x3C9, "contexts[0][0].pstate: neither EL0 nor EL1"),
        (("contexts", 0, 0, "event"), 7, "contexts[0][0].event: no event 7"),
        (("contexts", 0, 0, "event"), CRITICAL, "contexts[0][1].event: event 805 runs twice"),
    ],
)
def test_a_bad_snapshot_is_refused_by_field(path, new, said):
    snapshot = nested().snapshot()
    set_path(snapshot, path, new)
    with pytest.raises(SnapshotError) as caught:
        restore(snapshot)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_snapshot_nesting_is_checked():
    snapshot = nested().snapshot()
    snapshot["contexts"][0].reverse()
    with pytest.raises(SnapshotError, match="a critical event interrupts a normal one"):
        restore(snapshot)
    for first, second in ((SHARED, PRIVATE), (CRITICAL, PRIVATE_CRITICAL)):
        guest = Guest()
        for event in (first, second):
            guest.ready(event)
        guest.unmask(0, 1)
        guest.run(first)
        guest.ready(second, vcpu=1)
        guest.run(second, 1)
        flat = guest.sdei.snapshot()
        flat["contexts"][0] += flat["contexts"].pop(1)
        flat["contexts"].insert(1, [])
        for handler in flat["handlers"]:
            if handler["event"] == second:
                handler["state"] = 7 if handler["vcpu"] == 0 else 3
        with pytest.raises(SnapshotError, match="a critical event interrupts a normal one"):
            restore(flat)
    snapshot["contexts"][0] *= 2
    with pytest.raises(SnapshotError, match="4 handlers: at most 2 nest"):
        restore(snapshot)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from([None, "version", "events", "mpidrs", "masked", "handlers", "pending", "contexts"]),
)
def test_any_snapshot_is_taken_or_refused(junk, where):
    snapshot = nested().snapshot()
    if where is None:
        snapshot = junk
    else:
        snapshot[where] = junk
    try:
        restore(snapshot)
    except SnapshotError:
        pass
    else:
        assert where in ("pending", "handlers") or snapshot == nested().snapshot()


# -- at random

NUMBERS = [0, SHARED, CRITICAL, PRIVATE, PRIVATE_CRITICAL]
U64 = st.integers(0, (1 << 64) - 1)
hostile = st.sampled_from([0, 1, 2, 3, 4, 17, 18, 32, 1 << 31, 1 << 32, (1 << 64) - 1, ENTRY, RESUME]) | U64
events = st.sampled_from(NUMBERS)
pes = st.integers(0, 2)
FUNCTIONS = [value for name, value in vars(t).items() if name.isupper() and isinstance(value, int) and is_sdei(value)]


class Walk(RuleBasedStateMachine):
    """Any calls, signals and dispatches; beside it a dispatcher that is taken apart and put together all the time."""

    @initialize()
    def start(self):
        self.sdei = SdeiDispatcher(EVENTS, MPIDRS[:3])
        self.twin = SdeiDispatcher(EVENTS, MPIDRS[:3])
        # What the client was told, kept apart from the dispatcher
        self.masked = [True] * 3
        self.saved = [[], [], []]
        assert all(self.sdei.masked(vcpu) for vcpu in range(3))

    def both(self, act):
        result = act(self.sdei)
        assert act(self.twin) == result
        return result

    def call(self, vcpu, function, *args):
        state = at(0x4000 + 4 * len(self.saved[vcpu]), HANDLER)
        result = self.both(lambda sdei: sdei.call(vcpu, function, args, state))
        if function == t.PE_MASK:
            assert result.x0 == int(not self.masked[vcpu])
            self.masked[vcpu] = True
        elif function == t.PE_UNMASK:
            self.masked[vcpu] = False
        if result.registers is None:
            assert result.completed is None
            assert -(1 << 63) <= result.x0 < 1 << 63
        else:
            event, interrupted = self.saved[vcpu].pop()
            assert result.completed == event
            if function == t.EVENT_COMPLETE:
                assert result.registers == Registers(interrupted.x, interrupted.pc, interrupted.pstate)
            else:
                assert (result.registers.elr, result.registers.spsr) == (interrupted.pc, interrupted.pstate)
                assert result.registers.x == interrupted.x
        return result

    @rule(vcpu=pes, function=st.sampled_from(FUNCTIONS) | U64, args=st.lists(hostile, max_size=7))
    def any_call(self, vcpu, function, args):
        self.call(vcpu, function, *args)

    @rule(
        vcpu=pes,
        event=events,
        function=st.sampled_from([f for f in FUNCTIONS if t.EVENT_ENABLE <= f <= t.EVENT_STATUS]),
    )
    def event_call(self, vcpu, event, function):
        self.call(vcpu, function, event)

    @rule(vcpu=pes, event=events, flags=st.integers(0, 1), pe=pes)
    def set_up(self, vcpu, event, flags, pe):
        self.call(vcpu, t.EVENT_REGISTER, event, ENTRY, 7, flags, MPIDRS[pe])
        self.call(vcpu, t.EVENT_ENABLE, event)

    @rule(vcpu=pes, on=st.booleans())
    def mask(self, vcpu, on):
        self.call(vcpu, t.PE_MASK if on else t.PE_UNMASK)

    @rule(vcpu=pes, to=pes)
    def client_signal(self, vcpu, to):
        assert self.call(vcpu, t.EVENT_SIGNAL, 0, MPIDRS[to]).x0 == 0

    @rule(event=st.sampled_from(NUMBERS[1:]), vcpu=st.none() | pes)
    def signal(self, event, vcpu):
        target = self.both(lambda sdei: sdei.signal(event, vcpu))
        assert self.sdei.pending(event)
        if target is not None:
            assert target in self.sdei.wanted(vcpu)
            assert self.sdei.accepts(event)

    @rule(event=st.sampled_from(NUMBERS[1:]))
    def withdraw(self, event):
        self.both(lambda sdei: sdei.withdraw(event))
        assert not self.sdei.pending(event)

    @rule(vcpu=pes)
    def dispatch(self, vcpu):
        wanted = vcpu in self.sdei.wanted(vcpu)
        before = [self.sdei.call(vcpu, t.EVENT_STATUS, (event,), at()).x0 for event in NUMBERS]
        running = self.sdei.running(vcpu)
        state = at(0x8000 + len(running), HANDLER if running else N | EL0, tuple(range(vcpu, vcpu + 18)))
        result = self.both(lambda sdei: sdei.dispatch(vcpu, state))
        assert (result is not None) == wanted
        if result is None:
            return
        assert not self.masked[vcpu]
        assert before[NUMBERS.index(result.event)] == 3
        critical = result.event in (CRITICAL, PRIVATE_CRITICAL)
        assert not running or (critical and running[0] not in (CRITICAL, PRIVATE_CRITICAL) and len(running) == 1)
        assert result.registers.x == (result.event, 7, state.pc, state.pstate) or result.registers.x[1] != 7
        assert (result.registers.elr, result.registers.spsr) == (None, None)
        assert result.registers.pstate & 0x3DF == 0x3C5
        self.saved[vcpu].append((result.event, state))

    @rule(vcpu=pes)
    def switch_on(self, vcpu):
        self.both(lambda sdei: sdei.reset_pe(vcpu))
        self.masked[vcpu] = True
        self.saved[vcpu].clear()
        assert vcpu not in self.sdei.wanted()

    @rule()
    def take_apart_and_put_together(self):
        self.twin = SdeiDispatcher.restore(json.loads(json.dumps(self.twin.snapshot())), EVENTS, MPIDRS[:3])

    @invariant()
    def sound(self):
        if not hasattr(self, "sdei"):
            return
        assert self.sdei.snapshot() == self.twin.snapshot()
        for vcpu in range(3):
            running = self.sdei.running(vcpu)
            assert running == tuple(event for event, _ in self.saved[vcpu])
            assert len(running) <= 2
            assert self.sdei.masked(vcpu) == self.masked[vcpu]
            for event in NUMBERS:
                status = self.sdei.call(vcpu, t.EVENT_STATUS, (event,), at()).x0
                assert status in (0, 1, 3, 4, 5, 7)
                shared = event in (SHARED, CRITICAL)
                runs = [pe for pe in range(3) if event in self.sdei.running(pe) and (shared or pe == vcpu)]
                assert len(runs) == (status >> 2)
        for vcpu in self.sdei.wanted():
            assert not self.masked[vcpu]


Walk.TestCase.settings = settings(stateful_step_count=40, deadline=None)
TestWalk = Walk.TestCase
