"""ftrace, trace-cmd and perf: what was captured of one machine by each agrees, and no signal gets a page by guess."""

from __future__ import annotations

import gzip
from io import BytesIO
from pathlib import Path

import pytest

from vmm_ras.errors import InputError
from vmm_ras.events import Code, HostSignal
from vmm_ras.traces import BadLine, Unlocated, open_trace
from vmm_ras.traces.tracepoints import JOIN_WITHIN, LOST, NO_PAGE, NOT_SENT, WAITING_MAX

FIXTURES = Path(__file__).parents[2] / "fixtures" / "traces"
HEAD = "# tracer: nop\n"


def captured(name: str):
    with open_trace(FIXTURES / name, strict=True) as trace:
        entries = list(trace)
    assert trace.bad == 0
    return entries, trace


def read(*lines: str, **options):
    trace = open_trace("-", stdin=BytesIO((HEAD + "\n".join(lines)).encode()), **options)
    return [(number - 1, at, item) for number, at, item in trace], trace


def signal(at: float, task: int, tid: int, code: int = 5, res: int = 0, comm: str = "qemu") -> str:
    return (
        f"  python3-{task}  [000] d..1. {at:.6f}: signal_generate: sig=7 errno=0 code={code} comm={comm} pid={tid} "
        f"grp=0 res={res}"
    )


def failure(at: float, task: int, pfn: int, page: str = "dirty LRU page") -> str:
    text = f"pfn {pfn:#x}: recovery action for {page}: Failed"
    return f"  python3-{task}  [000] ..... {at:.6f}: memory_failure_event: {text}"


def delivered(at: float, task: int) -> str:
    return f"  x-{task}  [000] d..1. {at:.6f}: signal_deliver: sig=7 errno=0 code=4 sa_handler=1 sa_flags=4000004"


def shape(entries):
    return [item if isinstance(item, HostSignal) else (item.code, item.tid) for _, _, item in entries]


QEMU_6_1 = [
    HostSignal(Code.AO, 0x122BB000, 12, 143),
    (Code.AR, 147),
    (Code.AR, 147),
    HostSignal(Code.AO, 0x122CC000, 12, 143),
    HostSignal(Code.AO, 0x122DD000, 12, 143),
    (Code.AR, 147),
]
"""Pages and threads by that machine's own log: poison 0x50000, read twice, 0x61000, 0x72000, read once."""


@pytest.mark.parametrize(
    "name", ["linux-6.1.ftrace", "linux-6.1-tgid.ftrace", "linux-6.1-noirq.ftrace", "linux-6.1-report-t.ftrace"]
)
def test_what_linux_6_1_printed(name):
    entries, trace = captured(name)
    assert trace.format == "ftrace"
    assert trace.addresses == "hpa"
    # hwpoison on itself: AO when the page was lost, AR (without another memory_failure_event) when it was read.
    assert shape(entries) == [HostSignal(Code.AO, 0xE309000, 12, 138), (Code.AR, 138), *QEMU_6_1]
    times = [at for _, at, _ in entries]
    assert times == sorted(times)
    assert 25 < times[0] < 26
    assert any("mce_record" in note for note in trace.notes)


@pytest.mark.parametrize("name", ["linux-6.1.perf", "linux-6.1-ns.perf", "linux-6.1-fields.perf", "linux-6.1-sym.perf"])
def test_what_perf_printed_of_it(name):
    entries, trace = captured(name)
    assert trace.format == "perf-script"
    assert shape(entries) == QEMU_6_1
    assert entries[0][1] == pytest.approx(33.15105, abs=1e-6)


LINUX_6_12 = [
    HostSignal(Code.AR, 0x102C05000, 12, 181),
    HostSignal(Code.AR, 0x10C558000, 12, 182),
    HostSignal(Code.AO, 0x114EB0000, 12, 186),
    (Code.AR, 189),
    (Code.AR, 189),
    HostSignal(Code.AO, 0x114EC1000, 12, 186),
    HostSignal(Code.AO, 0x114ED2000, 12, 186),
    (Code.AR, 189),
    HostSignal(Code.AO, 0x104E61000, 12, 200),
]


@pytest.mark.parametrize("name", ["", "-latency", "-report", "-report-l", "-report-R"])
def test_what_linux_6_12_printed(name):
    entries, trace = captured(f"linux-6.12{name}.ftrace")
    assert shape(entries) == LINUX_6_12
    assert 24 < entries[0][1] < 25
    assert trace.info == 7
    assert any(note.startswith("huge pages") for note in trace.notes) == (name != "-report-R")  # -R shows a number


@pytest.mark.parametrize("name", ["linux-6.12.perf", "linux-6.12-ns.perf"])
def test_perf_of_linux_6_12_agrees(name):
    assert shape(captured(name)[0]) == LINUX_6_12[2:]


def test_strace_saw_the_signals_that_have_no_page():
    unplaced = [item for _, _, item in captured("linux-6.12.ftrace")[0] if isinstance(item, Unlocated)]
    seen = [item for _, _, item in captured("qemu-10.0.strace")[0]]
    assert [(item.code, item.tid) for item in unplaced] == [(item.code, item.tid) for item in seen]


def test_rasdaemon_saw_the_same_pages():
    pages = [item.hva for _, _, item in captured("linux-6.12.ftrace")[0] if isinstance(item, HostSignal)]
    assert [item.hva for _, _, item in captured("rasdaemon-0.8.3.db")[0]] == pages


def test_a_pending_signal_swallowed_two():
    entries, trace = captured("linux-6.1-pending.ftrace")
    assert entries[0][2] == HostSignal(Code.AO, 0x38DC000, 12, 121)
    assert [item.what for _, _, item in entries[1:]] == [
        "not sent (already pending): page frame 0x38d6 of the host",
        "not sent (already pending): page frame 0x38d5 of the host",
    ]
    assert f"{NOT_SENT} (2)" in trace.notes


@pytest.mark.parametrize("name", ["overrun", "pipe"])
def test_a_tracer_that_lost_events(name):
    entries, trace = captured(f"linux-6.1-{name}.ftrace")
    assert f"{LOST} (3901)" in trace.notes  # of 4012 written 111 were left
    assert [type(item) for _, _, item in entries] == [HostSignal, Unlocated, Unlocated]
    assert trace.other == 105


def test_the_page_is_that_of_the_task():
    entries, trace = read(
        signal(1.0, 10, 100), signal(1.1, 20, 200), failure(1.2, 20, 2), failure(1.3, 10, 1), page_shift=16
    )
    assert entries == [
        (1, 1.0, HostSignal(Code.AO, 0x10000, 16, 100)),
        (2, 1.1, HostSignal(Code.AO, 0x20000, 16, 200)),
    ]
    assert trace.info == 2


def test_one_failure_may_tell_several_processes():
    entries, _ = read(signal(1.0, 10, 100), signal(1.0, 10, 200), failure(1.1, 10, 1))
    assert [item.tid for _, _, item in entries] == [100, 200]
    assert {item.hva for _, _, item in entries} == {0x1000}


def test_a_delivery_ends_the_wait():
    # KVM's AR; then the same thread takes a machine check, whose page is not that of the first.
    entries, _ = read(signal(1.0, 10, 10, 4), delivered(1.1, 10), signal(1.2, 10, 10, 4), failure(1.3, 10, 1))
    assert [type(item) for _, _, item in entries] == [Unlocated, HostSignal]


def test_of_two_to_itself_the_later_is_the_failures():
    entries, trace = read(signal(1.0, 10, 10, 4), signal(1.2, 10, 10, 4), failure(1.3, 10, 1))
    assert [type(item) for _, _, item in entries] == [Unlocated, HostSignal]
    assert f"{NO_PAGE} (1)" in trace.notes


def test_a_failure_much_later_is_another_one():
    late = 1.0 + JOIN_WITHIN + 0.1
    entries, _ = read(signal(1.0, 10, 100), signal(late - 0.05, 10, 200), failure(late, 10, 1))
    assert [type(item) for _, _, item in entries] == [Unlocated, HostSignal]
    entries, _ = read(signal(1.0, 10, 100), failure(1.0 + JOIN_WITHIN - 0.1, 10, 1))
    assert [type(item) for _, _, item in entries] == [HostSignal]


def test_a_clock_that_is_set_back_ends_the_wait():
    entries, _ = read(signal(5.0, 10, 100), failure(1.0, 10, 1))
    assert [type(item) for _, _, item in entries] == [Unlocated]


@pytest.mark.parametrize(("res", "why"), [(1, "ignored"), (2, "already pending"), (3, "queue full"), (9, "result 9")])
def test_a_signal_that_was_not_sent_is_no_event(res, why):
    entries, trace = read(signal(1.0, 10, 100, res=res), failure(1.1, 10, 0x8A3), signal(1.2, 10, 100, res=res))
    assert [item.what for _, _, item in entries] == [
        f"not sent ({why}): page frame 0x8a3 of the host",
        f"not sent ({why})",
    ]
    assert f"{NOT_SENT} (2)" in trace.notes


def test_a_failure_without_a_signal_is_counted():
    entries, trace = read(failure(1.0, 10, 1))
    assert entries == []
    assert trace.info == 1
    assert "memory_failure_event without a signal: nobody was told, or signals were not traced (1)" in trace.notes


@pytest.mark.parametrize("lost", ["CPU:1 [LOST 12 EVENTS]", "CPU:0 [EVENTS DROPPED]"])
def test_what_the_tracer_lost_is_said_and_ends_the_wait(lost):
    entries, trace = read(signal(1.0, 10, 100), lost, failure(1.1, 10, 1))
    assert [type(item) for _, _, item in entries] == [Unlocated]
    assert f"{LOST} ({12 if 'LOST' in lost else 1})" in trace.notes


def test_a_buffer_that_ran_over_is_said():
    _, trace = read("# entries-in-buffer/entries-written: 18/30   #P:2")
    assert f"{LOST} (12)" in trace.notes
    _, trace = read("# entries-in-buffer/entries-written: 18/18   #P:2")
    assert len(trace.notes) == 1


def test_other_signals_are_no_memory_failures():
    entries, trace = read(
        signal(1.0, 10, 100, 2), signal(1.0, 10, 100, 0), signal(1.1, 10, 100).replace("sig=7", "sig=11")
    )
    assert (entries, trace.other) == ([], 2)


def test_a_clock_that_counts_no_seconds_is_no_time():
    entries, trace = read(signal(1.0, 10, 100).replace("1.000000", "123456789012"), failure(1.0, 10, 1))
    assert entries == [(1, None, HostSignal(Code.AO, 0x1000, 12, 100))]
    assert any(note.startswith("times without a fraction") for note in trace.notes)


def test_a_line_without_a_task_has_no_page():
    line = "signal:signal_generate: sig=7 errno=0 code=4 comm=a pid=7 grp=0 res=0\n"
    trace = open_trace(
        "-", stdin=BytesIO((line + "ras:memory_failure_event: pfn 0x1: recovery action for x: y").encode())
    )
    assert trace.format == "perf-script"
    assert list(trace) == [(1, None, Unlocated(Code.AR, 7, "the line names no task that generated it"))]


@pytest.mark.parametrize("comm", ["CPU 1/KVM", "a pid=3", "x grp=0 res=1", "-12 [000]", ""])
def test_any_name_of_a_thread(comm):
    lines = signal(1.0, 10, 100, comm=comm), failure(1.0, 10, 1)
    for of_task in "python3", "a-5 [001] 1.0: x", "<...>", "":
        entries, _ = read(*(line.replace("python3", of_task) for line in lines), strict=True)
        assert entries == [(1, 1.0, HostSignal(Code.AO, 0x1000, 12, 100))]


@pytest.mark.parametrize(
    "line",
    [
        signal(1.0, 10, 100).replace("pid=100", "pid=x"),
        signal(1.0, 10, 100).replace("pid=100", "pid=4294967296"),
        signal(1.0, 10, 100)[:-10],
        failure(1.0, 10, 1).replace("0x1", "zero"),
        failure(1.0, 10, 1).replace("0x1", "0xfffffffffffff000"),
        signal(1.0, 10, 100).replace("[000]", "(000"),
    ],
)
def test_a_bad_line_is_told_with_its_number(line):
    entries, trace = read(signal(0.9, 10, 99), line, failure(1.1, 10, 7))
    assert [(number, type(item)) for number, _, item in entries] == [(1, HostSignal), (2, BadLine)]
    assert trace.bad == 1
    with pytest.raises(InputError, match=r"^<stdin>:3: .*expected"):
        read(signal(0.9, 10, 99), line, strict=True)


def test_a_stream_that_breaks_off_gives_what_waits():
    data = gzip.compress((HEAD + signal(1.0, 10, 100) + "\n" + signal(1.1, 20, 200) + "\n").encode())
    trace = open_trace("-", stdin=BytesIO(data[:-1]))
    assert [type(next(trace)[2]) for _ in range(2)] == [Unlocated, Unlocated]
    with pytest.raises(InputError, match="gzip data ends after line 3"):
        next(trace)


def test_what_waits_is_bounded():
    lines = [signal(1.0, 10, n + 1) for n in range(3 * WAITING_MAX)]
    trace = open_trace("-", stdin=BytesIO((HEAD + "\n".join(lines) + "\nx" * 100_000).encode()))
    first = next(trace)
    assert first[0] == 2
    assert isinstance(first[2], Unlocated)
    assert len(list(trace)) == len(lines) - 1


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"PERFILE2\x68\0\0\0\n", "a perf.data file, expected what `perf script` prints of it"),
        (b"\x17\x08Dtracing6\0\0\n", "a trace.dat file, expected what `trace-cmd report` prints of it"),
        (b"LPKSHHRH\0\n", "a journal file, expected what `journalctl -k -o short-unix` prints of it"),
    ],
)
def test_recordings_name_the_command_that_prints_them(data, what):
    with pytest.raises(InputError) as error:
        open_trace("-", stdin=BytesIO(data))
    assert str(error.value) == f"<stdin>: {what}"
