"""Every way in which strace prints a delivery, from real captures (fixtures/traces/ORIGIN.md) and by hand."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from vmm_ras.errors import InputError
from vmm_ras.events import Code, HostSignal
from vmm_ras.traces import BadLine, open_trace

FIXTURES = Path(__file__).parents[2] / "fixtures" / "traces"
AR, AO = Code.AR, Code.AO

# What mceerr.c queues in its mode "mixed": code, address, lsb.
MIXED = [
    (AO, 0x7F3A40004000, 12),
    (AR, 0x7F3A80010000, 16),
    (AR, 0x7F4AC0200000, 21),
    (AR, 0, 12),
    (AO, 0x7F5BD2E01000, 12),
    (AR, 0x7F3A80010000, 16),
    (AO, 0x7F4AFFFFF000, 12),
]
THREADS = [0, 1, 3, 2, 0, 4, 0]
"""The thread of each, as its distance from the main thread's id."""


def read(text: str | bytes, **options):
    data = text if isinstance(text, bytes) else text.encode()
    trace = open_trace("-", stdin=BytesIO(data), **options)
    return list(trace), trace


def signals(text: str):
    entries, trace = read(text)
    assert trace.bad == 0, entries
    return [item for _, _, item in entries]


def one(text: str) -> HostSignal:
    (item,) = signals(text)
    assert type(item) is HostSignal
    return item


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("mixed-*.strace*")), ids=lambda path: path.name)
def test_captures_of_mixed_agree(path):
    with open_trace(path) as trace:
        entries = list(trace)
    items = [item for _, _, item in entries]
    assert [(item.code, item.hva, item.lsb) for item in items] == MIXED
    assert (trace.format, trace.bad, trace.other, trace.info) == ("strace", 0, 2, 0)
    assert [item.tid - items[0].tid for item in items] == THREADS
    assert trace.compressed is (path.suffix == ".gz")
    assert len({line for line, _, _ in entries}) == len(MIXED)


def test_line_numbers_are_those_of_the_file():
    path = FIXTURES / "mixed-f.strace"
    lines = path.read_bytes().split(b"\n")
    with open_trace(path) as trace:
        for number, _, item in trace:
            address = b"NULL" if item.hva == 0 else b"%#x" % item.hva
            assert b"--- SIGBUS" in lines[number - 1]
            assert b"si_addr=%s," % address in lines[number - 1]


def test_times_of_the_captures():
    def times(name):
        with open_trace(FIXTURES / name) as trace:
            return [(at, item.time) for _, at, item in trace]

    wall = times("mixed-f-ttt.strace")
    assert all(at == time and at > 1.7e9 for at, time in wall)
    of_day = times("mixed-f-tt.strace")
    assert all(0 < at < 86400 and time is None for at, time in of_day)
    relative = times("mixed-f-r.strace")
    assert 0 < relative[0][0] < 0.01
    assert all(time is None for _, time in relative)
    for clock in wall, of_day, relative:
        # The program sleeps 5 ms before each of the seven, and once more in between.
        assert 0.035 <= clock[-1][0] - clock[0][0] < 1
    assert all(at is None for at, _ in times("mixed-f-o.strace"))
    assert {at % 1 for at, _ in times("mixed-f-t-r-n-i-o.strace")} == {0.0}


def test_relative_times_add_up_over_all_lines():
    path = FIXTURES / "single-r-all.strace"
    lines = path.read_text().splitlines()
    with open_trace(path) as trace:
        entries = list(trace)
    for number, at, _ in entries:
        assert at == pytest.approx(sum(float(line.split()[0]) for line in lines[:number]), abs=1e-9)
    assert len(entries) == 3
    assert entries[0][1] > 0.001


def test_the_demo_trace():
    with open_trace(FIXTURES / "qemu-like.strace", strict=True) as trace:
        entries = list(trace)
    items = [item for _, _, item in entries]
    assert len(items) == 18
    assert {item.code for item in items} == {AR, AO}
    assert {item.lsb for item in items} == {12, 16, 21}
    main = items[0].tid
    assert all((item.tid == main) == (item.code is AO) for item in items)
    assert len({item.hva for item in items}) < len(items)
    assert len({item.hva >> 30 for item in items}) == 3
    assert all(at == item.time for _, at, item in entries)


def test_a_real_vmm_and_real_poison():
    with open_trace(FIXTURES / "qemu-kvm.strace") as trace:
        items = [item for _, _, item in trace]
    assert [(item.code, item.hva, item.lsb, item.tid) for item in items] == [
        (AR, 0x7F911004F000, 12, 185),
        (AR, 0x7F911004F000, 12, 185),
        (AR, 0x7F9110071000, 12, 185),
    ]
    with open_trace(FIXTURES / "hwpoison.strace") as trace:
        assert [item.code for _, _, item in trace] == [AO, AR]


def test_a_call_that_shows_the_siginfo_is_no_delivery():
    text = (FIXTURES / "waiter-f-ttt.strace").read_text()
    assert text.count("BUS_MCEERR_AO") == 4
    assert "<... rt_sigtimedwait resumed>{si_signo=SIGBUS, si_code=BUS_MCEERR_AO" in text
    assert one(text).hva == 0x7F3A40400000


SIGINFO = "{si_signo=SIGBUS, si_code=BUS_MCEERR_AR, si_addr=0x7f3c7622f000, si_addr_lsb=0xc}"
DELIVERY = f"--- SIGBUS {SIGINFO} ---\n"


@pytest.mark.parametrize(
    "call",
    [
        f"rt_sigqueueinfo(12, SIGBUS, {SIGINFO}) = 0",
        f"rt_tgsigqueueinfo(12, 13, SIGBUS, {SIGINFO}) = 0",
        f"rt_tgsigqueueinfo(12, 13, SIGBUS, {SIGINFO} <unfinished ...>",
        f"rt_sigtimedwait([BUS], {SIGINFO}, NULL, 8) = 7 (SIGBUS)",
        f"<... rt_sigtimedwait resumed>{SIGINFO}, NULL, 8) = 7 (SIGBUS)",
        f"waitid(P_ALL, 0, {SIGINFO}, WEXITED, NULL) = 0",
        f"ptrace(PTRACE_GETSIGINFO, 99, NULL, {SIGINFO}) = 0",
        'read(5, "\\7\\0\\0\\0\\0\\0\\0\\0\\5\\0\\0\\0", 128) = 128',
        f'write(2, "--- SIGBUS {SIGINFO} ---\\n", 90--- SIGBUS {SIGINFO} ---',
    ],
)
@pytest.mark.parametrize("lead", ["", "[pid  4711] ", "4711  ", "[pid  4711] 1763683500.123456 ", "00:10:52 "])
def test_calls(call, lead):
    entries, trace = read(f"{lead}{call}\n+++ exited with 0 +++\n")
    assert entries == []
    assert (trace.format, trace.bad, trace.other) == ("strace", 0, 0)


@pytest.mark.parametrize(
    ("lead", "tid", "at", "time"),
    [
        ("", 0, None, None),
        ("[pid  5248] ", 5248, None, None),
        ("[pid 12345] ", 12345, None, None),
        ("4     ", 4, None, None),
        ("4194304 ", 4194304, None, None),
        ("5248<mceerr> ", 5248, None, None),
        ("[pid  5249<CPU 1/KVM>] ", 5249, None, None),
        ("00:10:52 ", 0, 652.0, None),
        ("00:10:52.668274 ", 0, 652.668274, None),
        ("00:10:52.668274123 ", 0, 652.668274123, None),
        ("1763683500.123456 ", 0, 1763683500.123456, 1763683500.123456),
        ("1763683500 ", 0, 1763683500.0, 1763683500.0),
        ("     0.000126 ", 0, 0.000126, None),
        ("5248  1763683500.123456 ", 5248, 1763683500.123456, 1763683500.123456),
        ("5248  1763683500 ", 5248, 1763683500.0, 1763683500.0),
        ("5248       0.000126 ", 5248, 0.000126, None),
        ("[pid  5248]      0.000126 ", 5248, 0.000126, None),
        ("[pid  5248] 00:10:52 (+     0.000077) ", 5248, 652.0, None),
        ("[pid  5248] 1763683500.5 (+     0.000077) ", 5248, 1763683500.5, 1763683500.5),
        ("00:10:52 [pid  5248] ", 5248, 652.0, None),
        ("[pid  5318] 00:10:53.022048 [ 297] [00007f0086514829] ", 5318, 653.022048, None),
        ("[????????????????] ", 0, None, None),
    ],
)
def test_what_may_stand_before(lead, tid, at, time):
    (entry,), trace = read(lead + DELIVERY)
    assert trace.bad == 0
    assert entry == (1, at, HostSignal(AR, 0x7F3C7622F000, 12, tid, time))


@pytest.mark.parametrize(
    ("siginfo", "want"),
    [
        ("si_code=BUS_MCEERR_AR, si_addr=0x7f3c7622f000", (AR, 0x7F3C7622F000, 12)),
        ("si_code=BUS_MCEERR_AO, si_addr=NULL, si_addr_lsb=0x15", (AO, 0, 21)),
        ("si_code=BUS_MCEERR_AO, si_addr=NULL, si_addr_lsb=21", (AO, 0, 21)),
        ("si_code=BUS_MCEERR_AR, si_addr=0x1000, si_addr_lsb=0x1e", (AR, 0x1000, 30)),
        ("si_code=BUS_MCEERR_AR, si_addr=0x1000, si_addr_lsb=0", (AR, 0x1000, 0)),
        ("si_code=0x4, si_addr=0x1000", (AR, 0x1000, 12)),
        ("si_code=0x4 /* BUS_??? */, si_addr=0x1000", (AR, 0x1000, 12)),
        ("si_code=5, si_addr=4096", (AO, 0x1000, 12)),
        ("si_errno=0, si_code=0x5 /* BUS_??? */, si_addr=0xffffffffffffffff, si_addr_lsb=63", (AO, (1 << 64) - 1, 63)),
        ("si_code=BUS_MCEERR_AR, si_addr=0x1000, si_addr_lsb=0xc, si_new={x=1}", (AR, 0x1000, 12)),
    ],
)
def test_siginfo(siginfo, want):
    item = one(f"--- SIGBUS {{si_signo=SIGBUS, {siginfo}}} ---\n")
    assert (item.code, item.hva, item.lsb) == want


@pytest.mark.parametrize(
    "siginfo",
    [
        "si_code=BUS_ADRERR, si_addr=0x7f3c7622f000",
        "si_code=BUS_OBJERR, si_addr=NULL",
        "si_code=0x2, si_addr=0x1000",
        "si_code=0x80, si_addr=0x1000",
        "si_code=SI_USER, si_pid=12, si_uid=0",
        "si_code=SI_QUEUE, si_pid=12, si_uid=0, si_value={int=4, ptr=0x4}",
        "si_code=-6, si_pid=12, si_uid=0",
    ],
)
def test_other_codes_are_counted_and_nothing_else(siginfo):
    entries, trace = read(f"--- SIGBUS {{si_signo=SIGBUS, {siginfo}}} ---\n")
    assert entries == []
    assert (trace.bad, trace.other) == (0, 1)


@pytest.mark.parametrize(
    "delivery",
    [
        "--- SIGBUS {si_signo=SIGBUS, si_code=BUS_MCEERR_AR, si_addr=0x7f3c76",
        "--- SIGBUS (Bus error) @ 0 (0) ---",
        "--- SIGBUS {si_signo=SIGBUS} ---",
        "--- SIGBUS {si_signo=SIGBUS, si_code=BUS_MCEERR_AR} ---",
        "--- SIGBUS {si_signo=SIGBUS, si_code=BUS_MCEERR_AR, si_addr=here} ---",
        "--- SIGBUS {si_signo=SIGBUS, si_code=BUS_MCEERR_AR, si_addr=0x10000000000000000} ---",
        "--- SIGBUS {si_signo=SIGBUS, si_code=BUS_MCEERR_AR, si_addr=18446744073709551616} ---",
        "--- SIGBUS {si_signo=SIGBUS, si_code=BUS_MCEERR_AR, si_addr=0x1000, si_addr_lsb=0x40} ---",
        "--- SIGBUS {si_signo=SIGBUS, si_code=BUS_MCEERR_AR, si_addr=0x1000, si_addr_lsb=-1} ---",
        "--- SIGBUS {si_signo=SIGBUS, si_code=BUS_MCEERR_AR, si_addr=0x1000, si_addr_lsb=big} ---",
        f"--- SIGBUS {SIGINFO} --- and more",
        DELIVERY.strip() + DELIVERY.strip(),
    ],
)
def test_a_delivery_that_makes_no_sense_is_bad(delivery):
    entries, trace = read(f"+++ x +++\n[pid 7] {delivery}\n{DELIVERY}")
    assert [line for line, _, _ in entries] == [2, 3]
    assert isinstance(entries[0][2], BadLine)
    assert "expected" in entries[0][2].reason
    assert (trace.bad, trace.other) == (1, 0)
    with pytest.raises(InputError, match=r"^<stdin>:2: .*expected"):
        read(f"+++ x +++\n[pid 7] {delivery}\n{DELIVERY}", strict=True)


def test_the_day_turns_over_midnight():
    stamps = ["23:59:59.5", "00:00:00.5", "12:00:00.0", "11:59:59.0", "23:59:59.0", "00:00:01"]
    entries, _ = read("".join(f"{stamp} {DELIVERY}" for stamp in stamps))
    assert [at for _, at, _ in entries] == [86399.5, 86400.5, 129600.0, 129599.0, 172799.0, 172801.0]


def test_lines_without_a_delivery_move_the_clock_too():
    text = f"23:59:59 pause() = ? ERESTARTNOHAND\n00:00:01 getpid() = 12\n00:00:02 {DELIVERY}"
    entries, _ = read(text)
    assert [at for _, at, _ in entries] == [86402.0]
    text = f"  0.5 getpid() = 12\n  not a line of strace's\n  9.0 what the program prints\n  0.25 {DELIVERY}"
    entries, _ = read(text)
    assert [at for _, at, _ in entries] == [0.75]


def test_a_line_without_a_time_has_none():
    entries, _ = read(f"1763683500.5 {DELIVERY}{DELIVERY}1763683501.5 {DELIVERY}")
    assert [(at, item.time) for _, at, item in entries] == [(1763683500.5,) * 2, (None, None), (1763683501.5,) * 2]


def test_death_is_told():
    _, trace = read(DELIVERY + "+++ killed by SIGBUS (core dumped) +++\n")
    assert trace.info == 1


def test_line_ends_do_not_matter():
    assert one(DELIVERY.replace("\n", "\r\n")) == one(DELIVERY.rstrip("\n")) == one(DELIVERY)
