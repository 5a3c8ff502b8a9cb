"""SDEI in numbers (Arm DEN0054, 1.0 and 1.1): calls, return codes, and the table of handler states (6.1).

Whatever changes the state of an event's handler is a cell of TABLE; docs/sdei-states.md is drawn from it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

# Function identifiers (5.1): SMC64/HVC64 fast calls of the standard secure service
VERSION: Final = 0xC400_0020
EVENT_REGISTER: Final = 0xC400_0021
EVENT_ENABLE: Final = 0xC400_0022
EVENT_DISABLE: Final = 0xC400_0023
EVENT_CONTEXT: Final = 0xC400_0024
EVENT_COMPLETE: Final = 0xC400_0025
EVENT_COMPLETE_AND_RESUME: Final = 0xC400_0026
EVENT_UNREGISTER: Final = 0xC400_0027
EVENT_STATUS: Final = 0xC400_0028
EVENT_GET_INFO: Final = 0xC400_0029
EVENT_ROUTING_SET: Final = 0xC400_002A
PE_MASK: Final = 0xC400_002B
PE_UNMASK: Final = 0xC400_002C
INTERRUPT_BIND: Final = 0xC400_002D
INTERRUPT_RELEASE: Final = 0xC400_002E
EVENT_SIGNAL: Final = 0xC400_002F
FEATURES: Final = 0xC400_0030
PRIVATE_RESET: Final = 0xC400_0031
SHARED_RESET: Final = 0xC400_0032
FUNCTION_BASE: Final = 0xC400_0020
FUNCTION_COUNT: Final = 0x20
"""Identifiers set aside for SDEI: what a VMM forwards to the dispatcher."""

VERSION_1_0: Final = 1 << 48
"""Major 62:48, minor 47:32, vendor 31:0."""
VERSION_1_1: Final = 1 << 48 | 1 << 32

# Return codes (5.2), in X0 as signed 64-bit numbers
SUCCESS: Final = 0
NOT_SUPPORTED: Final = -1
INVALID_PARAMETERS: Final = -2
DENIED: Final = -3
PENDING: Final = -5
OUT_OF_RESOURCE: Final = -10

# Arguments
RM_ANY: Final = 0
RM_PE: Final = 1
EV_HANDLED: Final = 0
EV_FAILED: Final = 1
INFO_EV_TYPE: Final = 0
INFO_EV_SIGNALED: Final = 1
INFO_EV_PRIORITY: Final = 2
INFO_EV_ROUTING_MODE: Final = 3
INFO_EV_ROUTING_AFF: Final = 4
SIGNALED_YES: Final = 0
SIGNALED_NO: Final = 1
REL: Final = 1 << 1
"""Flag of EVENT_REGISTER in 1.1: the entry point is an offset.  No dispatcher of ours has it."""
FEATURE_BIND_SLOTS: Final = 0
FEATURE_RELATIVE_MODE: Final = 1
"""Since 1.1."""
SAVED_REGISTERS: Final = 18
"""X0 to X17: saved on dispatch, readable with EVENT_CONTEXT, restored on completion."""
MAX_NESTING: Final = 2
"""A critical event may interrupt the handler of a normal one; nothing else nests."""

# Handler state bits, as EVENT_STATUS reports them
REGISTERED: Final = 1
ENABLED: Final = 2
RUNNING: Final = 4

_U: Final = 0
_G: Final = REGISTERED
_GE: Final = REGISTERED | ENABLED
_R: Final = RUNNING
_RG: Final = RUNNING | REGISTERED
_RGE: Final = RUNNING | REGISTERED | ENABLED
STATES: Final = {
    _U: "unregistered",
    _G: "registered",
    _GE: "registered, enabled",
    _R: "unregistered, running",
    _RG: "registered, running",
    _RGE: "registered, enabled, running",
}
"""The states that exist: a handler that is not registered is never enabled, so 2 and 6 are none."""


class Action(IntEnum):
    """What a handler's state decides on, in the order of TABLE's columns.  DISPATCH is the platform's own."""

    REGISTER = 0
    RELEASE = 1
    ENABLE = 2
    DISABLE = 3
    UNREGISTER = 4
    ROUTING_SET = 5
    CONTEXT = 6
    COMPLETE = 7
    COMPLETE_AND_RESUME = 8
    DISPATCH = 9


READY: Final = _GE
"""The one state in which a handler can be dispatched."""
_x: Final = None
# fmt: off
TABLE: Final[dict[int, tuple[int | None, ...]]] = {
    #     REGISTER RELEASE ENABLE DISABLE UNREGISTER ROUTING_SET CONTEXT COMPLETE ..._AND_RESUME DISPATCH
    _U:   (_G,     _U,     _x,    _x,     _x,        _x,         _x,     _x,      _x,            _x),
    _G:   (_x,     _x,     _GE,   _G,     _U,        _G,         _x,     _x,      _x,            _x),
    _GE:  (_x,     _x,     _GE,   _G,     _U,        _x,         _x,     _x,      _x,            _RGE),
    _R:   (_x,     _x,     _x,    _x,     _x,        _x,         _R,     _U,      _U,            _x),
    _RG:  (_x,     _x,     _RGE,  _RG,    _R,        _x,         _RG,    _G,      _G,            _x),
    _RGE: (_x,     _x,     _RGE,  _RG,    _R,        _x,         _RGE,   _GE,     _GE,           _x),
}
# fmt: on
"""State and action to the next state; None is denied, and changes nothing."""


def answer(state: int, action: Action) -> int:
    """Return code of a call that ``action`` stands for, in ``state``: SUCCESS, DENIED or PENDING.

    UNREGISTER of a running handler is PENDING whether or not it was asked for before: it ends with the handler.
    """
    if action is Action.UNREGISTER and state & RUNNING:
        return PENDING
    return DENIED if TABLE[state][action] is None else SUCCESS


_NO_DISPATCH: Final = {_U: "no", _R: "no"}


def _cell(state: int, action: Action) -> str:
    after = TABLE[state][action]
    if action is Action.DISPATCH:
        return _NO_DISPATCH.get(state, "stays pending") if after is None else f"→ {after}"
    code = answer(state, action)
    if after is None:
        return "denied" if code == DENIED else "PENDING"
    text = "ok" if after == state else f"→ {after}"
    return f"{text}, PENDING" if code == PENDING else text


def state_table_markdown() -> str:
    """The page docs/sdei-states.md: TABLE as a table, and as a state diagram."""
    actions = list(Action)
    lines = [
        "# SDEI handler states",
        "",
        "Drawn from `vmm_ras/sdei_table.py`; a test compares. A shared event has one state, a private one one per PE.",
        "The number is what `SDEI_EVENT_STATUS` answers: bit 0 registered, bit 1 enabled, bit 2 running.",
        "",
        "| State | " + " | ".join(action.name for action in actions) + " |",
        "|---" * (len(actions) + 1) + "|",
    ]
    for state, name in STATES.items():
        cells = " | ".join(_cell(state, action) for action in actions)
        lines.append(f"| {name} ({state}) | {cells} |")
    lines += [
        "",
        "`→ n`: the call succeeds and the state becomes *n*. `ok`: it succeeds and the state stays.",
        "`denied`: SDEI_DENIED. `PENDING`: SDEI_PENDING, the handler is unregistered when it completes.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> s0",
    ]
    lines += [f"    s{state}: {state} {name}" for state, name in STATES.items()]
    for state, row in TABLE.items():
        by_target: dict[int, list[str]] = {}
        for action in actions:
            after = row[action]
            if after is not None and after != state:
                by_target.setdefault(after, []).append(action.name)
        lines += [f"    s{state} --> s{after}: {', '.join(names)}" for after, names in by_target.items()]
    return "\n".join([*lines, "```", ""])
