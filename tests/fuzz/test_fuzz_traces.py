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
from vmm_ras.events import Code, HostSignal
from vmm_ras.traces import BadLine, TraceItem, open_trace

FIXTURES = Path(__file__).parents[2] / "fixtures" / "traces"
TRACES = [
    path.read_bytes() for path in sorted(FIXTURES.glob("*")) if path.suffix in {".strace", ".log", ".jsonl", ".gz"}
]
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
        assert number > before
        before = number
        assert at is None or (type(at) is float and math.isfinite(at))
        assert type(item) in get_args(TraceItem)
        if isinstance(item, HostSignal):
            assert type(item.code) is Code
            assert 0 <= item.hva < U64
            assert 0 <= item.lsb < 64
            assert 0 <= item.tid < 1 << 34
            assert item.time is None or item.time == at
        if isinstance(item, BadLine):
            assert item.reason.isascii()
            assert item.reason.isprintable()
            assert "expected" in item.reason
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


@given(st.binary(max_size=400))
def test_any_bytes(data):
    check(data)


@given(st.binary(max_size=200))
def test_any_bytes_after_a_line_of_each_format(data):
    for line in b'{"event":"vcpu","vcpu":0,"tid":1}\n', b"+++ exited with 0 +++\n", b"[    0.0] Linux\n":
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
