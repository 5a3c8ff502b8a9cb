"""What a process of the model guest gets, as Linux gives it (arch/arm64/mm/fault.c, mm/memory-failure.c)."""

from dataclasses import replace

import pytest

from vmm_ras.guests.processes import KILLED, NONE, Process
from vmm_ras.profiles import PROFILES

LINUX = PROFILES["linux"]
SEA, WALKS = 0x92000410, [*range(0x13, 0x18), *range(0x1B, 0x20)]
"""Status codes of aborts on a walk, levels -1 to 3: fault_info has SIGKILL for them, and SIGBUS for 0x10 and 0x18."""


def process(**options: bool) -> Process:
    return Process(0x4000_5000, **{"reads": True, "early": False} | options)


@pytest.mark.parametrize(
    ("outcome", "lost", "signal"),
    [
        ("offlined", True, "BUS_MCEERR_AR"),
        ("offlined", False, NONE),  # a page of somebody else
        ("objerr", False, "BUS_OBJERR"),
        ("ignored", False, "SI_KERNEL"),
        ("swallowed", False, NONE),
        ("panic", False, NONE),
    ],
)
def test_an_abort_in_the_process(outcome: str, lost: bool, signal: str) -> None:
    with_handler, without = process(), process(handles=False)
    for one in (with_handler, without):
        one.aborted(outcome, lost, SEA, LINUX)
    assert (with_handler.signal, without.signal) == (signal, NONE if signal == NONE else KILLED)


def test_a_kernel_that_does_not_signal_what_led_to_no_memory_failure() -> None:
    one = process()
    one.aborted("ignored", False, SEA, replace(LINUX, sea_unrecovered=False))
    assert one.signal == NONE


def test_an_abort_in_the_kernel_or_on_a_walk_kills_the_process() -> None:
    for code in range(64):
        one = process()
        one.aborted("objerr", False, 0x92000000 | code, LINUX)
        assert one.signal == (KILLED if code in WALKS else "BUS_OBJERR")
    one = process()
    one.aborted("oops", False, SEA, LINUX)
    assert one.signal == KILLED
    one = process()
    one.aborted("offlined", True, 0x92000014, LINUX)
    assert one.signal == "BUS_MCEERR_AR"


@pytest.mark.parametrize(
    ("reads", "early", "signal"),
    [
        (False, False, NONE),
        (True, False, "BUS_MCEERR_AR"),  # it meets the hole that its page left
        (False, True, "BUS_MCEERR_AO"),
        (True, True, "BUS_MCEERR_AO"),
    ],
)
def test_its_page_is_lost(reads: bool, early: bool, signal: str) -> None:
    one = process(reads=reads, early=early)
    one.loses()
    assert one.signal == signal


def test_its_handler_ends_it() -> None:
    one = process(early=True)
    one.loses()
    one.aborted("objerr", False, SEA, LINUX)
    assert one.signal == "BUS_MCEERR_AO"
