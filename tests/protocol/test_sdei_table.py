"""SDEI's numbers against the headers of Linux and TF-A; its state table, cell by cell, and as a guest sees it."""

import json
import re
from pathlib import Path

import pytest

from tests.protocol.sdei_guest import (
    ENTRY,
    PPI,
    PRIVATE,
    PRIVATE_CRITICAL,
    PRIVATE_SLOT,
    RESUME,
    SHARED,
    SLOT,
    SPI,
    Guest,
    at,
)
from vmm_ras import sdei_table as t
from vmm_ras.sdei import is_sdei

ROOT = Path(__file__).parents[2]
CONSTANTS = json.loads((ROOT / "fixtures" / "sdei" / "constants.json").read_text())
LINUX, TFA, ACS, SINCE_1_1 = (CONSTANTS[name]["values"] for name in ("linux", "tf-a", "acs", "sdei-1.1"))
STATES = json.loads((ROOT / "fixtures" / "sdei" / "handler_states.json").read_text())


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


def test_1_1_adds_relative_mode():
    assert SINCE_1_1["SDEI_FEATURE_BIND_SLOTS"] == t.FEATURE_BIND_SLOTS
    assert SINCE_1_1["SDEI_FEATURE_RELATIVE_MODE"] == t.FEATURE_RELATIVE_MODE
    assert 1 << SINCE_1_1["SDEI_EVENT_REGISTER_REL_BIT"] == t.REL
    major, minor = (LINUX[f"SDEI_VERSION_{part}_SHIFT"] for part in ("MAJOR", "MINOR"))
    assert SINCE_1_1["VERSION_MAJOR"] << major | SINCE_1_1["VERSION_MINOR"] << minor == t.VERSION_1_1


# -- the state table, cell by cell, and as the guest sees it


def specified():
    """The table of the facts: state to column to cell, as written there."""
    lines = (ROOT / "fixtures" / "sdei" / "spec_states.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    columns = [name.upper() for name in rows[0][1:]]
    return {int(re.search(r"\((\d)\)", row[0])[1]): dict(zip(columns, row[1:], strict=True)) for row in rows[2:]}


SPEC = specified()
CELLS = [(state, action) for state, row in SPEC.items() for action in row]


def expected(state, action):
    """(next state, return code) that a cell stands for; a dispatch that does not happen is DENIED here."""
    cell = SPEC[state][action]
    after = re.match(r"->(\d)", cell)
    if cell.startswith(("deny", "no")):
        return state, LINUX["SDEI_DENIED"]
    if "PENDING" in cell:
        return int(after[1]) if after else state, LINUX["SDEI_PENDING"]
    assert after or cell.startswith("ok"), cell
    return int(after[1]) if after else state, LINUX["SDEI_SUCCESS"]


def test_the_table_has_the_states_and_columns_of_the_facts():
    assert len(CELLS) == 60
    assert [action.name for action in t.Action] == list(SPEC[0])
    assert set(t.TABLE) == set(t.STATES) == set(SPEC)
    assert not set(STATES["impossible"]) & set(t.STATES)
    for state, name in t.STATES.items():
        for bit, word in ((t.REGISTERED, "registered"), (t.ENABLED, "enabled"), (t.RUNNING, "running")):
            assert (word in name.split(", ")) == bool(state & bit)


def test_two_readers_of_tfa_agree():
    for state, action in CELLS:
        after, _, code = STATES["rows"][str(state)][action].partition(",")
        if after in ("deny", "PENDING"):
            assert expected(state, action) == (state, LINUX["SDEI_PENDING" if after == "PENDING" else "SDEI_DENIED"])
        else:
            code = LINUX["SDEI_PENDING" if code else "SDEI_SUCCESS"]
            assert expected(state, action) == (state if after == "ok" else int(after[2:]), code)


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


@pytest.mark.parametrize("event", [SHARED, PRIVATE, PRIVATE_CRITICAL, SLOT, PRIVATE_SLOT])
@pytest.mark.parametrize(("state", "action"), CELLS)
def test_table_as_the_guest_sees_it(event, state, action):
    guest = Guest()
    bound = event in (SLOT, PRIVATE_SLOT)
    if bound:
        assert guest.x0("INTERRUPT_BIND", SPI if event == SLOT else PPI) == event
    bring_to(guest, event, state)
    after, code = expected(state, action)
    if action == "RELEASE":
        if not bound:  # the state of an event without an interrupt is not asked
            after, code = state, t.INVALID_PARAMETERS
        result = guest("INTERRUPT_RELEASE", event)
    elif action == "ROUTING_SET" and event not in (SHARED, SLOT):
        after, code = state, t.INVALID_PARAMETERS
        result = guest("EVENT_ROUTING_SET", event, 0, 0)
    elif action in ARGUMENTS:
        result = guest(f"EVENT_{action}", event, *ARGUMENTS[action])
    elif action == "DISPATCH":
        target = guest.sdei.signal(event, 0)
        dispatch = guest.sdei.dispatch(0, at())
        assert (target is not None) == (dispatch is not None) == (code == 0)
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


@pytest.mark.parametrize("state", [state for state in SPEC if SPEC[state]["DISPATCH"].startswith("no")])
@pytest.mark.parametrize("event", [SHARED, PRIVATE])
def test_what_is_not_dispatched_stays_pending_where_the_table_says_so(event, state):
    guest = Guest()
    bring_to(guest, event, state)
    assert guest.sdei.signal(event, 0) is None
    if state & t.RUNNING:
        guest("EVENT_COMPLETE", 0)
    if not state & t.REGISTERED:
        assert guest.x0("EVENT_REGISTER", event, ENTRY, 7, 0, 0) == 0
    assert guest.x0("EVENT_ENABLE", event) == 0
    stays = "stay pending" in SPEC[state]["DISPATCH"] or state == t.REGISTERED | t.RUNNING
    assert (guest.sdei.dispatch(0, at()) is not None) == stays


def test_docs_are_drawn_from_the_table():
    assert (ROOT / "docs" / "sdei-states.md").read_text() == t.state_table_markdown()
