"""The kernel's own words, in each form in which dmesg and journalctl print them (fixtures/traces/ORIGIN.md)."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from vmm_ras.errors import InputError
from vmm_ras.events import Code, HostSignal
from vmm_ras.traces import BadLine, open_trace

FIXTURES = Path(__file__).parents[2] / "fixtures" / "traces"
SENT = "Memory failure: 0x8a3c1: Sending SIGBUS to qemu-system-aar:2412 due to hardware memory corruption"
UPTIMES = [17.906487, 32.498429, 37.965673, 40.520113]
EPOCH = 1795221612
"""When that kernel was booted, by dmesg --time-format=iso."""


def read(text: str, **options):
    trace = open_trace("-", stdin=BytesIO(text.encode()), **options)
    return list(trace), trace


@pytest.mark.parametrize(
    ("name", "epoch", "step", "wall"),
    [
        ("dmesg.log", 0, 1e-6, False),
        ("dmesg-d.log", 0, 1e-6, False),
        ("dmesg-x.log", 0, 1e-6, False),
        ("dmesg-raw.log", 0, 1e-6, False),
        ("dmesg-T.log", EPOCH, 1, False),
        ("dmesg-iso.log", EPOCH, 1e-6, True),
        ("journalctl-short-monotonic.log", 0, 1e-6, False),
        ("journalctl-short-unix.log", EPOCH, 1e-6, True),
        ("journalctl-short-iso.log", EPOCH, 1, True),
        ("journalctl-short-full.log", EPOCH, 1, True),
        ("journalctl-short.log", 974767212, 1, False),  # the year is not shown: 2000 stands in
        ("journalctl-short-precise.log", 974767212, 1e-6, False),
    ],
)
def test_captures_agree(name, epoch, step, wall):
    with open_trace(FIXTURES / name, strict=True) as trace:
        entries = list(trace)
    assert trace.format == "kernel-log"
    items = [item for _, _, item in entries]
    assert [(item.code, item.hva, item.lsb, item.tid) for item in items] == [
        (Code.AO, 0x4AB7000, 12, 180),
        (Code.AO, 0x722B000, 12, 182),
        (Code.AO, 0x723C000, 12, 182),
        (Code.AO, 0x724D000, 12, 182),
    ]
    # Four "recovery action for", and x86's "MCE: Killing", which names no page frame.
    assert (trace.bad, trace.other, trace.info) == (0, 0, 5)
    for (_, at, item), uptime in zip(entries, UPTIMES, strict=True):
        assert at - epoch == pytest.approx(uptime if step < 1 else int(uptime), abs=step)
        assert item.time == (at if wall else None)


def test_older_words():
    with open_trace(FIXTURES / "kernel-composed.log") as trace:
        entries = list(trace)
    assert [(line, item.hva >> 12, item.tid) for line, _, item in entries] == [
        (8, 0x8A3C1, 2412),
        (11, 0x1840200, 3000),
        (13, 0xB4365, 3768),
        (15, 0x8A3C2, 2415),
    ]
    assert (trace.bad, trace.info) == (0, 7)


def test_the_page_shift_is_the_callers():
    (entry,), _ = read(SENT + "\n", page_shift=16)
    assert entry == (1, None, HostSignal(Code.AO, 0x8A3C1 << 16, 16, 2412, None))


@pytest.mark.parametrize("comm", ["a", "CPU 1/KVM", "x:y: 12", "due to", "Memory failure: ", ") [pid 3]"])
def test_any_name_of_a_thread(comm):
    (entry,), _ = read(f"[    1.5] Memory failure: 0x1: Sending SIGBUS to {comm}:7 due to hardware memory corruption\n")
    assert entry == (1, 1.5, HostSignal(Code.AO, 0x1000, 12, 7, None))


@pytest.mark.parametrize(
    ("lead", "at", "time"),
    [
        ("", None, None),
        ("[ 8123.456700] ", 8123.4567, None),
        ("[ 8123.456700][ T2412] ", 8123.4567, None),
        ("[Fri Jun 31 00:05:00 2026] ", None, None),
        ("2026-03-01T12:00:00.5Z host kernel: ", 1772366400.5, 1772366400.5),
        ("2026-03-01T13:00:00+01:00 host kernel: [   12.500000] ", 1772366400.0, 1772366400.0),
        ("2026-03-01T12:00:00 host kernel: ", 1772366400.0, None),
        ("2026-13-01T12:00:00Z host kernel: ", None, None),
        ("Mar  9 19:48:24 defiant kernel: [77187.055103] ", 77187.055103, None),
    ],
)
def test_what_may_stand_before(lead, at, time):
    (entry,), _ = read(f"{lead}{SENT}\n")
    assert entry[1:] == (at, HostSignal(Code.AO, 0x8A3C1000, 12, 2412, time))


def test_somebody_else_who_says_it_is_not_the_kernel():
    text = (
        f"Nov 21 00:05:00 host kernel: x\nNov 21 00:05:00 host app[12]: {SENT}\n2026-03-01T12:00:00Z host app: {SENT}\n"
    )
    entries, trace = read(text)
    assert (entries, trace.bad, trace.info) == ([], 0, 0)


@pytest.mark.parametrize(
    "line",
    [
        "Memory failure: 0x8a3c1: Sending SIGBUS to qemu-system-aar:2412 due to hard",
        "Memory failure: 0x8a3c1: Sending SIGBUS to qemu",
        "Memory failure: 0x8a3c1: Sending SIGBUS",
        "Memory failure: 0x8a3c1: Killing app due to hardware memory corruption",
        "Memory failure: 0xfffffffffffff1: Sending SIGBUS to app:1 due to hardware memory corruption",
        "Memory failure: 0x11112222333344445: Sending SIGBUS to app:1 due to hardware memory corruption",
        "Memory failure: 0x8a3�: Sending SIGBUS to app:1 due to hardware memory corruption",
    ],
)
def test_a_notification_that_makes_no_sense_is_bad(line):
    entries, trace = read(f"[    1.000000] x\n[    2.000000] {line}\n")
    assert [(number, type(item)) for number, _, item in entries] == [(2, BadLine)]
    assert trace.bad == 1
    with pytest.raises(InputError, match=r"^<stdin>:2: .*expected"):
        read(f"[    1.000000] x\n[    2.000000] {line}\n", strict=True)


def test_the_largest_page_frame():
    (entry,), _ = read("Memory failure: 0xfffffffffffff: Sending SIGBUS to app:1 due to hardware memory corruption")
    assert entry[2].hva == 0xFFFFFFFFFFFFF000
