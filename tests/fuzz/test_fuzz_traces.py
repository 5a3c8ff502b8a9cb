"""Whatever the bytes are, a trace gives items and counted bad lines, or one error of one line; never anything else."""

from __future__ import annotations

import gzip
import json
import math
from io import BytesIO
from pathlib import Path
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from vmm_ras.errors import InputError
from vmm_ras.events import Code, HostSignal, MemoryFault
from vmm_ras.traces import BadLine, Header, MemorySlot, TraceItem, Unlocated, open_trace
from vmm_ras.traces.stats import Stats
from vmm_ras.traces.write import Writer

FIXTURES = Path(__file__).parents[2] / "fixtures" / "traces"
TEXTS = {".strace", ".log", ".jsonl", ".gz", ".ftrace", ".perf", ".qmp", ".stderr", ".virsh"}
TRACES = [path.read_bytes() for path in sorted(FIXTURES.glob("*")) if path.suffix in TEXTS]
DATABASES = [path.read_bytes() for path in sorted(FIXTURES.glob("*.db"))]
U64 = 1 << 64


def consume(data: bytes, strict: bool = False):
    """Entries, bad lines counted, and the error that ended the trace."""
    entries = []
    trace = None
    try:
        trace = open_trace("-", stdin=BytesIO(data), strict=strict)
        for entry in trace:
            entries.append(entry)
    except InputError as error:
        return entries, trace and trace.bad, str(error)
    return entries, trace.bad, None


def check(data: bytes) -> None:
    entries, bad, error = consume(data)
    assert error is None or (error.isprintable() and "expected" in error)
    before = 0
    for number, at, item in entries:
        assert number >= before  # a line of QEMU's log tells a slot and a signal
        before = number
        assert at is None or (type(at) is float and math.isfinite(at))
        assert type(item) in get_args(TraceItem)
        if isinstance(item, HostSignal):
            assert type(item.code) is Code
            assert 0 <= item.hva < U64
            assert 0 <= item.lsb < 64
            assert 0 <= item.tid < 1 << 34
            assert item.time is None or item.time == at
        if isinstance(item, MemoryFault | MemorySlot):
            assert item.gpa >= 0
            assert 0 < item.size <= U64 - item.gpa
        if isinstance(item, Unlocated):
            assert item.code is None or type(item.code) is Code
            assert item.what.isascii()
            assert item.what.isprintable()
            assert 0 <= item.tid < U64 >> 32
        if isinstance(item, BadLine):
            assert item.reason.isascii()
            assert item.reason.isprintable()
            assert "expected" in item.reason
    converts_to_itself(entries)
    rejected = [(number, item.reason) for number, _, item in entries if isinstance(item, BadLine)]
    assert len(rejected) == (bad or 0)
    strict, _, strict_error = consume(data, strict=True)
    if rejected:
        number, reason = rejected[0]
        assert strict_error == f"<stdin>:{number}: {reason}"
        assert strict == entries[: len(strict)]
        assert len(strict) < len(entries)
    else:
        assert (strict, strict_error) == (entries, error)


def converts_to_itself(entries) -> None:
    """The native trace that is made of it holds the same items, and counting them ends."""
    writer = Writer()
    native = b"".join(writer.lines(entries))
    with open_trace("-", stdin=BytesIO(native), strict=True) as trace:
        again = [(at, item) for _, at, item in trace if not isinstance(item, Header)]
    assert trace.format == "jsonl"
    assert writer.untimed or again == [
        (None if isinstance(item, MemorySlot) else at, item)
        for _, at, item in entries
        if not isinstance(item, BadLine | Header)
    ]
    stats = Stats()
    assert list(stats.take(entries)) == entries
    assert stats.bad == sum(isinstance(item, BadLine) for _, _, item in entries)


@given(st.binary(max_size=400))
def test_any_bytes(data):
    check(data)


@given(st.binary(max_size=200))
def test_any_bytes_after_a_line_of_each_format(data):
    for line in (
        b'{"event":"vcpu","vcpu":0,"tid":1}\n',
        b"+++ exited with 0 +++\n",
        b"[    0.0] Linux\n",
        b"# tracer: nop\n",
        b" a 1 [000] 1.0: ras:memory_failure_event: pfn 0x1: recovery action for dirty LRU page: Failed\n",
        b'{"QMP": {}}\n',
        b"event 'lifecycle' for domain 'vm': Started Booted\n",
        b"qemu-system-x86_64: terminating\n",
    ):
        check(line + data)


@given(st.binary(max_size=200))
def test_any_bytes_that_begin_as_gzip(data):
    check(b"\x1f\x8b\x08\0\0\0\0\0\0\0" + data)


@st.composite
def mutants(draw):
    """Real traces with bytes changed, taken out, doubled, and parts of one put into another."""
    data = bytearray(draw(st.sampled_from(TRACES)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 60)))
        match draw(st.sampled_from(["flip", "cut", "double", "splice", "text"])):
            case "flip":
                if at < len(data):
                    data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at:end]
            case "double":
                data[at:at] = data[at:end]
            case "splice":
                other = draw(st.sampled_from(TRACES))
                start = draw(st.integers(0, len(other)))
                data[at:end] = other[start : start + draw(st.integers(0, 200))]
            case "text":
                words = [
                    b"\n",
                    b"9" * 30,
                    b"-1",
                    b"NULL",
                    b"0x",
                    b'"',
                    b"{",
                    b"}",
                    b"[",
                    b" --- ",
                    b"\xff",
                    b"\0",
                    b"null",
                    b"signal_generate:",
                    b" sig=7 errno=0 code=4 comm=a pid=1 grp=0 res=2",
                    b"CPU:1 [LOST 12 EVENTS]\n",
                    b'"gpa":"0x1000",',
                ]
                data[at:end] = draw(st.sampled_from(words))
    return bytes(data)


@given(mutants())
def test_mutated_traces(data):
    check(data)


@given(mutants(), st.data())
def test_mutated_gzip(data, draw):
    zipped = bytearray(gzip.compress(data, mtime=0))
    at = draw.draw(st.integers(0, len(zipped) - 1))
    zipped[at] ^= 1 << draw.draw(st.integers(0, 7))
    check(bytes(zipped[: draw.draw(st.integers(0, len(zipped)))]))


KEYS = [
    "event",
    "action",
    "code",
    "hva",
    "gpa",
    "gva",
    "lsb",
    "tid",
    "time",
    "vcpu",
    "esr",
    "size",
    "ms",
    "masked",
    "el",
]
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-1, U64),
        st.floats(),
        st.sampled_from(["signal", "guest", "trace", "memory", "AR", "0x10", "el", "ack-delay", ""]),
        st.text(max_size=5),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.sampled_from([*KEYS, "x"]), VALUES, max_size=8), max_size=4))
def test_any_json(lines):
    check(b"\n".join(json.dumps(line).encode("utf-8", "surrogatepass") for line in lines))


QMP_KEYS = ["recipient", "action", "flags", "gpa", "size", "action-required", "recursive"]
QMP_DATA = st.recursive(
    st.one_of(
        st.sampled_from(["guest", "hypervisor", "inject", "ignore", "0x1000", "0xffffffffffffffff", True, False, None]),
        st.integers(-1, U64),
        st.floats(),
    ),
    lambda inner: st.dictionaries(st.sampled_from(QMP_KEYS), inner),
    max_leaves=8,
)


@given(st.lists(st.fixed_dictionaries({"data": QMP_DATA, "timestamp": VALUES}), max_size=4))
def test_any_memory_failure_of_qmp(events):
    lines = [json.dumps({"event": "MEMORY_FAILURE", **event}).encode() for event in events]
    check(b'{"QMP": {}}\n' + b"\n".join(lines))


@st.composite
def broken_databases(draw):
    """A real database with bytes changed, or a piece of it taken out or put elsewhere."""
    data = bytearray(draw(st.sampled_from(DATABASES)))
    pages = len(data) // 4096
    for _ in range(draw(st.integers(1, 8))):
        match draw(st.sampled_from(["byte", "header", "page", "swap", "cut"])):
            case "byte":
                data[draw(st.integers(16, len(data) - 1))] = draw(st.integers(0, 255))
            case "header":
                data[draw(st.integers(16, 108))] = draw(st.integers(0, 255))
            case "page":
                # The first bytes of a page say what is in it, and how much.
                page = draw(st.integers(0, pages - 1)) * 4096
                at = (page or 100) + draw(st.integers(0, 40))
                data[at] = draw(st.integers(0, 255))
            case "swap":
                one, two = (draw(st.integers(1, pages - 1)) * 4096 for _ in range(2))
                data[one : one + 4096] = data[two : two + 4096]
            case "cut" if len(data) > 8192:
                del data[draw(st.integers(4096, len(data))) :]
                data += bytes(-len(data) % 4096)
                pages = len(data) // 4096
                if pages < 2:
                    break
    return bytes(data)


@given(broken_databases())
def test_broken_databases(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "broken.db"
    path.write_bytes(data)
    try:
        with open_trace(path) as trace:
            entries = list(trace)
    except InputError as error:
        assert str(error).startswith(str(path))
        assert str(error).isprintable()
        assert "expected" in str(error)
        return
    assert trace.format == "rasdaemon"
    assert trace.bad == sum(isinstance(item, BadLine) for _, _, item in entries)
    converts_to_itself(entries)
