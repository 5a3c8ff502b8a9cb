"""Formats by content, gzip by magic, standard input, and memory that does not grow with the trace."""

from __future__ import annotations

import gzip
import os
import threading
import tracemalloc
from io import BytesIO, RawIOBase
from pathlib import Path

import pytest

from vmm_ras.errors import InputError
from vmm_ras.events import HostSignal
from vmm_ras.traces import BadLine, open_trace
from vmm_ras.traces.lines import CHUNK, LONGEST

FIXTURES = Path(__file__).parents[2] / "fixtures" / "traces"
LINE = b'{"event":"signal","code":"AR","hva":139637976727552,"lsb":12,"tid":1,"time":0.5}\n'
DELIVERY = b"--- SIGBUS {si_signo=SIGBUS, si_code=BUS_MCEERR_AR, si_addr=0x7f3c7622f000, si_addr_lsb=0xc} ---\n"
QMP = (
    b'{"event": "MEMORY_FAILURE", "data": {"recipient": "guest", "action": "inject", '
    b'"flags": {"action-required": true}}}\n'
)
SENT = b"[    1.0] Memory failure: 0x1: Sending SIGBUS to a:1 due to hardware memory corruption\n"


def read(data: bytes, **options):
    trace = open_trace("-", stdin=BytesIO(data), **options)
    return list(trace), trace


FORMATS = {
    ".strace": "strace", ".gz": "strace", ".log": "kernel-log", ".jsonl": "jsonl", ".ftrace": "ftrace",
    ".perf": "perf-script", ".qmp": "qmp", ".stderr": "qemu-log", ".virsh": "libvirt", ".db": "rasdaemon",
}  # fmt: skip


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.*")), ids=lambda path: path.name)
def test_the_format_is_found_by_content(path, tmp_path):
    want = FORMATS.get(path.suffix)
    misnamed = tmp_path / ("trace.log" if path.suffix == ".gz" else "trace.gz")
    misnamed.write_bytes(path.read_bytes())
    if want is None:  # sources
        with pytest.raises(InputError, match=r"trace\.gz: not a trace, expected strace"):
            open_trace(misnamed)
        return
    with open_trace(misnamed) as trace:
        plain = list(trace)
    assert (trace.format, trace.bad) == (want, 0)
    assert plain or path.name == "rasdaemon-0.6.8.db"
    if want == "rasdaemon":
        with pytest.raises(InputError, match="a database in a pipe or in gzip"):
            read(gzip.compress(path.read_bytes()))
        with pytest.raises(InputError, match="a database in a pipe or in gzip"):
            read(path.read_bytes())
    elif not trace.compressed:
        zipped, again = read(gzip.compress(path.read_bytes()))
        assert again.compressed
        assert zipped == plain


def test_gzip_copy_is_the_same_trace():
    with open_trace(FIXTURES / "mixed-f-ttt.strace") as plain, open_trace(FIXTURES / "mixed-f-ttt.strace.gz") as zipped:
        assert list(plain) == list(zipped)


@pytest.mark.parametrize(
    ("data", "want"),
    [
        (b"strace: Process 12 attached with 5 threads\n", "strace"),
        (b'noise\n\nexecve("/bin/true", ["true"], 0x7ffd /* 9 vars */) = 0\n', "strace"),
        (b"12 +++ exited with 0 +++\n", "strace"),
        (b"--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED} ---\n", "strace"),
        (b"--- stopped by SIGSTOP ---\n", "strace"),
        (b'12 <... read resumed>"", 5) = 0\n', "strace"),
        (b"UEFI firmware (version X)\n\n[    0.000000] Linux version 6.1\n", "kernel-log"),
        (b"{1}[Hardware Error]: event severity: recoverable\n", "kernel-log"),
        (b"Memory failure: 0x1: Sending SIGBUS to a:1 due to hardware memory corruption\n", "kernel-log"),
        (b"-- Boot 0123 --\nMar  9 19:48:24 host kernel: x\n", "kernel-log"),
        (b"\xef\xbb\xbf" + LINE, "jsonl"),
        (b"oops\n  " + LINE, "jsonl"),
        (b"{}\n", "jsonl"),
        (b"", "empty"),
        (b"\n\r\n  \n", "empty"),
    ],
)
def test_formats(data, want):
    _, trace = read(data)
    assert trace.format == want


def test_lines_before_the_first_that_tells_are_read_too():
    entries, _ = read(b"oops\n" + LINE)
    assert [(number, type(item)) for number, _, item in entries] == [(1, BadLine), (2, HostSignal)]
    entries, trace = read(b"oops\n" + DELIVERY)
    assert [number for number, _, _ in entries] == [2]
    assert trace.bad == 0


def test_what_is_no_trace_is_one_error(tmp_path):
    for data in b"hello\n", b"\x7fELF\x02\x01\x01\0\n\0\xff", b"[1,2,3]", b"{\n", os.urandom(4096).replace(b"{", b"("):
        with pytest.raises(InputError, match=r"^<stdin>: not a trace, expected"):
            read(data)
    missing = tmp_path / "missing"
    for path, what in (missing, "No such file"), (tmp_path, "Is a directory"), ("a\0b", "null"):
        with pytest.raises(InputError, match=what) as error:
            open_trace(path)
        assert "expected" in str(error.value)


def test_detection_gives_up():
    class Endless(RawIOBase):
        taken = 0

        def read(self, size):
            self.taken += size
            return b"neither\n" * (size // 8)

    stream = Endless()
    with pytest.raises(InputError, match="not a trace"):
        open_trace("-", stdin=stream)
    assert stream.taken < 2 * LONGEST


def test_stdin_is_the_processes_own_unless_told(monkeypatch):
    class Stdin:
        buffer = BytesIO(LINE)

    monkeypatch.setattr("sys.stdin", Stdin)
    with open_trace("-") as trace:
        assert len(list(trace)) == 1
    assert not Stdin.buffer.closed


@pytest.mark.parametrize("line", [LINE, DELIVERY, SENT, QMP], ids=["jsonl", "strace", "kernel-log", "qmp"])
@pytest.mark.parametrize("buffering", [0, -1])
def test_a_live_pipe_is_not_held_back(line, buffering):
    readable, writable = os.pipe()
    entries = []

    def take():
        with open(readable, "rb", buffering=buffering) as stream:
            trace = open_trace("-", stdin=stream)
            for _ in range(3):
                os.write(writable, line)
                entries.append(next(trace))

    os.write(writable, line)
    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(5)
    os.close(writable)
    assert [number for number, _, _ in entries] == [1, 2, 3]


def test_nothing_is_read_ahead():
    class Big(RawIOBase):
        taken = 0

        def read(self, size):
            self.taken += size
            return (LINE * (size // len(LINE) + 1))[:size]

    stream = Big()
    trace = open_trace("-", stdin=stream)
    for count in range(1, 20_000):
        next(trace)
        # One read beyond what these lines need; the line that a chunk cuts short is the stream's, not a bad one's.
        assert stream.taken <= count * len(LINE) + 2 * CHUNK


def peak(data: bytes):
    tracemalloc.start()
    try:
        entries, trace = read(data)
        return entries, trace, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_line_may_be_as_long_as_the_limit():
    filler = LONGEST - len(LINE) + 1
    fits = b" " * filler + LINE
    assert len(fits) == LONGEST + 1
    entries, trace = read(LINE + fits + LINE)
    assert [type(item) for _, _, item in entries] == [HostSignal] * 3
    entries, trace = read(LINE + b" " + fits + LINE)
    assert [(number, type(item)) for number, _, item in entries] == [(1, HostSignal), (2, BadLine), (3, HostSignal)]
    assert trace.bad == 1


@pytest.mark.parametrize("line", [LINE, DELIVERY, SENT], ids=["jsonl", "strace", "kernel-log"])
@pytest.mark.parametrize("end", [b"\n", b""], ids=["in the middle", "at the end"])
def test_an_endless_line_is_a_bad_line(line, end):
    long = line + b"x" * (16 << 20) + end
    entries, _, used = peak(long + (line if end else b""))
    assert [type(item) for _, _, item in entries] == [HostSignal, BadLine] + [HostSignal] * bool(end)
    assert "1048576" in entries[1][2].reason
    assert used < 4 * LONGEST
    with pytest.raises(InputError, match=r"^<stdin>:2: a line of more than 1048576 bytes"):
        read(long, strict=True)


@pytest.mark.parametrize(
    "name", ["linux-6.1.ftrace", "linux-6.1.perf", "qemu-7.2.qmp", "qemu-7.2.stderr", "libvirt-11.3.virsh"]
)
def test_an_endless_line_in_any_format(name):
    data = (FIXTURES / name).read_bytes()
    lines = data.count(b"\n")
    whole, trace = read(data)
    entries, again, used = peak(data + b"x" * (16 << 20))
    assert again.format == trace.format
    assert [entry for entry in entries if entry[0] <= lines] == whole
    assert [(number, type(item)) for number, _, item in entries[len(whole) :]] == [(lines + 1, BadLine)]
    assert again.bad == 1
    assert used < 4 * LONGEST


def test_a_gzip_bomb_streams():
    bomb = gzip.compress(LINE + b"\0" * (48 << 20) + b"\n" + LINE)
    assert len(bomb) < 100_000
    entries, _, used = peak(bomb)
    assert [type(item) for _, _, item in entries] == [HostSignal, BadLine, HostSignal]
    assert used < 4 * LONGEST


def consume(data: bytes):
    """Entries, and the error that ended them."""
    entries = []
    try:
        for entry in open_trace("-", stdin=BytesIO(data)):
            entries.append(entry)
    except InputError as error:
        return entries, str(error)
    return entries, None


def test_a_truncated_gzip_gives_what_it_has_and_one_error():
    lines = [LINE.replace(b"0.5", b"%d.5" % n) for n in range(5000)]
    whole = gzip.compress(b"".join(lines))
    entries, error = consume(whole[: len(whole) // 2])
    assert error == f"<stdin>: gzip data ends after line {len(entries)}, expected its trailer"
    assert 1000 < len(entries) < 4000
    entries, error = consume(whole[:-1])
    assert (len(entries), error) == (5000, "<stdin>: gzip data ends after line 5000, expected its trailer")


def test_a_damaged_gzip_is_one_error():
    whole = gzip.compress(LINE * 10)
    entries, error = consume(whole[:-8] + b"\0\0\0\0" + whole[-4:])
    assert len(entries) == 10
    assert error.startswith("<stdin>: gzip data is damaged after line 10 (CRC check failed")
    entries, error = consume(whole + b"more")
    assert len(entries) == 10
    assert "damaged after line 10" in error
    assert "\n" not in error
    entries, error = consume(b"\x1f\x8b\x08\0\0\0\0\0\0\0" + b"\xff" * 50)
    assert entries == []
    assert "damaged after line 0" in error


def test_gzip_members_follow_each_other():
    entries, error = consume(gzip.compress(LINE[:30]) + gzip.compress(LINE[30:] + LINE) + b"\0" * 20)
    assert error is None
    assert [number for number, _, _ in entries] == [1, 2]


def test_a_stream_that_fails_says_where():
    class Broken(RawIOBase):
        reads = 0

        def read(self, size):
            self.reads += 1
            if self.reads > 2:
                raise OSError(5, "Input/output error")
            return LINE * 3

    trace = open_trace("-", stdin=Broken())
    for _ in range(6):
        next(trace)
    with pytest.raises(InputError, match=r"^<stdin>: cannot read on after line 6: Input/output error"):
        next(trace)


def test_a_file_is_closed(tmp_path):
    path = tmp_path / "trace"
    path.write_bytes(LINE)
    with open_trace(path) as trace:
        stream = trace._stream
        assert not stream.closed
    assert stream.closed
