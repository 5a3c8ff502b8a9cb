"""The native format: what each line means, that its two readers agree, and what the schema and the document say."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm_ras.errors import InputError
from vmm_ras.events import Code, GuestAbort, HostSignal, MemoryFault
from vmm_ras.traces import (
    AckDelay,
    BadLine,
    Header,
    MaskSerror,
    MemorySlot,
    PollStop,
    RunAt,
    SdeiRegistered,
    VcpuThread,
    jsonl,
    jsonl_models,
    open_trace,
)
from vmm_ras.traces.items import Tally

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures" / "traces"
MAX = (1 << 64) - 1
SIGNAL = {"event": "signal", "code": "AR", "hva": 4096, "lsb": 12, "tid": 7, "time": 1.5}


def read(*lines, **options):
    data = b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines)
    trace = open_trace("-", stdin=BytesIO(data), **options)
    return list(trace), trace


def test_every_event():
    with open_trace(FIXTURES / "guest-actions.jsonl", strict=True) as trace:
        items = [item for _, _, item in trace]
    assert trace.format == "jsonl"
    assert items[0] == Header(1, True)
    assert items[1:5] == [
        MemorySlot(0x7F3A40000000, 0x40000000, 0x80000000),
        MemorySlot(0x7F4AC0000000, 0xC0000000, 0x40000000),
        VcpuThread(0, 2412),
        VcpuThread(1, 2413),
    ]
    assert items[5:9] == [
        HostSignal(Code.AO, 0x7F3A41234000, 12, 2411, 1772366400.0),
        HostSignal(Code.AR, 0x7F3A6A7C1000, 12, 2413, 1772366400.25),
        AckDelay(250, None),
        HostSignal(Code.AR, 0x7F3A91003000, 12, 2412, 1772366401.5),
    ]
    assert items[9:13] == [AckDelay(0, 0), MaskSerror(1, True), SdeiRegistered(False), PollStop(True)]
    assert items[14:18] == [
        RunAt(1, 1),
        GuestAbort(1, 0x92000410, None, 0x6A7C1000, 1772366404.5),
        GuestAbort(0, 0x92000010, 0xFFFF80001234, 0x91007000, 1772366404.75),
        MemoryFault(0x51000000, 4096, 1772366405.0),
    ]
    assert items[-2] == AckDelay(None, None)


def test_times_are_the_trace_clock_and_wall_time_only_if_the_header_says_so():
    entries, _ = read(SIGNAL, {**SIGNAL, "time": 2})
    assert [(at, item.time) for _, at, item in entries] == [(1.5, None), (2.0, None)]
    assert all(type(at) is float for _, at, _ in entries)
    for clock, wall in ("relative", False), ("wall", True):
        entries, _ = read({"event": "trace", "version": 1, "clock": clock}, SIGNAL, {**SIGNAL, "time": 2})
        assert [at for _, at, _ in entries] == [None, 1.5, 2.0]
        assert [item.time for _, _, item in entries[1:]] == ([1.5, 2.0] if wall else [None, None])


def test_a_header_comes_first():
    header = {"event": "trace", "version": 1, "clock": "wall"}
    entries, trace = read(b"", header, SIGNAL, header, SIGNAL)
    assert [number for number, _, _ in entries] == [2, 3, 4, 5]
    assert (type(entries[2][2]), trace.bad) == (BadLine, 1)
    entries, _ = read({"event": "vcpu", "vcpu": 0, "tid": 1}, header, SIGNAL)
    assert (type(entries[1][2]), entries[2][2].time) == (BadLine, None)


BAD = [
    ({**SIGNAL, "lsb": 64}, "lsb"),
    ({**SIGNAL, "lsb": -1}, "lsb"),
    ({**SIGNAL, "lsb": 12.0}, "lsb"),
    ({**SIGNAL, "hva": -1}, "hva"),
    ({**SIGNAL, "hva": True}, "hva"),
    ({**SIGNAL, "hva": None}, "hva"),
    ({**SIGNAL, "hva": "4096"}, "hva"),
    ({**SIGNAL, "hva": "0x10000000000000000"}, "hva"),
    ({**SIGNAL, "tid": 1 << 32}, "tid"),
    ({**SIGNAL, "code": "UE"}, "code"),
    ({**SIGNAL, "code": 3}, "code"),
    ({**SIGNAL, "code": 4.0}, "code"),
    ({**SIGNAL, "code": True}, "code"),
    ({**SIGNAL, "code": ["AR"]}, "code"),
    ({**SIGNAL, "time": -0.5}, "time"),
    ({**SIGNAL, "time": "1"}, "time"),
    ({**SIGNAL, "time": True}, "time"),
    ({**SIGNAL, "vcpu": 0}, "vcpu"),
    ({"event": "signal", "code": "AR"}, "hva"),
    ({"event": "signal", "hva": 1}, "code"),
    (b'{"event":"signal","code":"AR","hva":18446744073709551616}', "hva"),
    ({"event": "trace", "version": 2}, "version"),
    ({"event": "trace", "version": 1, "clock": "boot"}, "clock"),
    ({"event": "memory", "hva": 0, "gpa": 0, "size": 0}, "size"),
    ({"event": "memory", "hva": MAX, "gpa": 0, "size": 2}, "size"),
    ({"event": "memory", "hva": 0, "gpa": "0xffffffffffffffff", "size": 2}, "size"),
    ({"event": "fault", "gpa": MAX, "size": 2}, "size"),
    ({"event": "fault", "size": 2}, "gpa"),
    ({"event": "abort", "vcpu": 65536, "esr": 0}, "vcpu"),
    ({"event": "abort", "vcpu": 0}, "esr"),
    ({"event": "vcpu", "vcpu": 0, "tid": 1, "time": 1}, "time"),
    ({"event": "guest"}, "action"),
    ({"event": "guest", "action": "reboot"}, "action"),
    ({"event": "guest", "action": 1}, "action"),
    ({"event": "guest", "action": "ack-delay"}, "ms"),
    ({"event": "guest", "action": "ack-delay", "ms": -1}, "ms"),
    ({"event": "guest", "action": "mask-serror", "vcpu": 0, "masked": 1}, "masked"),
    ({"event": "guest", "action": "el", "vcpu": 0, "el": 2}, "el"),
    ({"event": "interrupt"}, "event"),
    ({"event": None}, "event"),
    ({"event": []}, "event"),
    ({}, "event"),
]


@pytest.mark.parametrize(("line", "key"), BAD, ids=lambda value: None if isinstance(value, str) else str(value)[:60])
def test_a_bad_line_names_its_key_and_is_skipped(line, key):
    entries, trace = read(SIGNAL, line, SIGNAL)
    assert [number for number, _, _ in entries] == [1, 2, 3]
    bad = entries[1][2]
    assert isinstance(bad, BadLine)
    assert re.search(rf"\b{key}\b.*expected", bad.reason)
    assert trace.bad == 1
    with pytest.raises(InputError) as error:
        read(SIGNAL, line, SIGNAL, strict=True)
    assert str(error.value) == f"<stdin>:2: {bad.reason}"


@pytest.mark.parametrize(
    "line",
    [
        b"[1]",
        b"7",
        b"{",
        b'{"event":',
        b'{"a":NaN}',
        b'{"event":"signal","time":1e999}',
        b"\xff\xfe",
        b"null",
        b"--- SIGBUS",
    ]
    + [b'{"event":' + b"[" * n + b"]" * n + b"}" for n in (900, 100000)]
    + [b'{"event":"signal","code":"AR","hva":' + b'{"a":' * 900 + b"1" + b"}" * 901],
    ids=lambda line: line[:20],
)
def test_what_is_no_object_of_ours(line):
    entries, trace = read(SIGNAL, line, SIGNAL)
    assert [type(item) for _, _, item in entries] == [HostSignal, BadLine, HostSignal]
    assert trace.bad == 1


def test_reasons_are_safe_to_print():
    entries, _ = read(SIGNAL, {**SIGNAL, "\x1b[2J\n\u202e" * 50: 1}, {**SIGNAL, "hva": "\x07é\ud83d\ude00"[:2]})
    for _, _, item in entries[1:]:
        assert item.reason.isascii()
        assert item.reason.isprintable()
        assert len(item.reason) < 400


# Signal lines near the border between the two paths: some good, some bad in one key.
numbers = st.one_of(
    st.integers(-2, MAX + 2),
    st.sampled_from([0, 12, 63, 64, 1 << 32, MAX]),
    st.integers(0, MAX).map(hex),
    st.booleans(),
)
loose = st.fixed_dictionaries(
    {"event": st.just("signal"), "code": st.sampled_from(["AR", "AO", 4, 5, 4.0, True, "x", None]), "hva": numbers},
    optional={
        "lsb": st.one_of(st.integers(-1, 65), numbers, st.none(), st.floats(allow_nan=False)),
        "tid": st.one_of(numbers, st.none()),
        "time": st.one_of(st.floats(allow_nan=False), st.integers(-1, 1 << 40), st.none(), st.booleans(), st.just("1")),
        "more": st.none(),
    },
)


@given(loose, st.booleans())
def test_the_quick_path_and_the_models_agree(fields, wall):
    line = json.dumps(fields).encode()
    try:
        slow = jsonl_models.parse(orjson.loads(line), wall)
    except orjson.JSONDecodeError:
        slow = "not JSON"
    header = orjson.dumps({"event": "trace", "version": 1, "clock": "wall" if wall else "relative"})
    _, (number, at, item) = jsonl.read([(1, [header, line])], Tally("x", strict=False))
    assert number == 2
    if isinstance(slow, str):
        assert isinstance(item, BadLine)
    else:
        assert (at, item) == slow
        assert type(item) is HostSignal
        assert type(item.code) is Code
        assert [type(value) for value in (item.hva, item.lsb, item.tid)] == [int, int, int]


def test_ordinary_signals_take_the_quick_path(monkeypatch):
    monkeypatch.setattr(jsonl, "_one", lambda *_: pytest.fail("an ordinary line took the way of the models"))
    del (untimed := dict(SIGNAL))["time"]
    backwards = dict(reversed(SIGNAL.items()))
    extreme = {**SIGNAL, "code": "AO", "hva": MAX, "lsb": 63, "tid": 0, "time": 0.0}
    whole = {**SIGNAL, "time": 2}
    entries, _ = read(SIGNAL, untimed, backwards, extreme, whole)
    assert [(at, item) for _, at, item in entries] == [
        (1.5, HostSignal(Code.AR, 4096, 12, 7, None)),
        (None, HostSignal(Code.AR, 4096, 12, 7, None)),
        (1.5, HostSignal(Code.AR, 4096, 12, 7, None)),
        (0.0, HostSignal(Code.AO, MAX, 63, 0, None)),
        (2.0, HostSignal(Code.AR, 4096, 12, 7, None)),
    ]
    assert type(entries[-1][1]) is float


def definitions():
    return {name: model for name, model in jsonl.schema()["$defs"].items() if "properties" in model}


def test_the_schema_declares_every_event_and_nothing_loose():
    models = definitions()
    events = {model["properties"]["event"]["const"] for model in models.values()}
    assert events == {"trace", "memory", "vcpu", "signal", "abort", "fault", "unlocated", "guest"}
    actions = {model["properties"]["action"]["const"] for model in models.values() if "action" in model["properties"]}
    assert actions == {"ack-delay", "mask-serror", "sdei", "el", "poll-stop"}
    assert all(model["additionalProperties"] is False for model in models.values())
    integer, text = models["SignalLine"]["properties"]["hva"]["anyOf"]
    assert integer == {"type": "integer", "minimum": 0, "maximum": MAX}
    assert re.fullmatch(text["pattern"], "0x7f3a41234000")


def test_the_document_says_what_the_schema_says():
    text = (ROOT / "docs" / "trace-format.md").read_text()
    examples = [line for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    _, trace = read(*(line.encode() for line in examples), strict=True)
    assert trace.bad == 0
    seen = set()
    for line in examples:
        fields = orjson.loads(line)
        seen |= {(fields["event"], fields.get("action"), key) for key in fields}
    for model in definitions().values():
        properties = model["properties"]
        action = properties.get("action", {}).get("const")
        for key in properties:
            if key != "time" or action is None:
                assert (properties["event"]["const"], action, key) in seen, "no example shows it"
            assert f"`{key}`" in text
