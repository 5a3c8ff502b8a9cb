"""The protocol of QMP without a socket: the reader, the session, what QEMU says in the same places."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine import Machine
from vmm_ras.effects import Decided, Escalate, OwnMemory, Release
from vmm_ras.events import Code, GuestAbort, MemoryFault
from vmm_ras.qmp.events import event_of
from vmm_ras.qmp.json_reader import MAX_DEPTH, JsonReader, Malformed
from vmm_ras.qmp.session import HIGH_WATER, Command, Session, State, state_table_markdown
from vmm_ras.traces import open_trace

CAPABILITIES = b'{"execute":"qmp_capabilities"}'
ENOUGH = 64


def values(*parts: bytes, size: int = 1 << 16) -> list[Any]:
    """All that a reader makes of these pieces."""
    reader = JsonReader(size)
    found = []
    for part in parts:
        reader.feed(part)
        while (value := reader.next()) is not None:
            found.append(value)
    return found


def said(session: Session) -> list[Any]:
    """The messages that the client is to get, each on a line; they are taken."""
    lines = bytes(session.outgoing).split(b"\r\n")
    session.outgoing.clear()
    assert lines.pop() == b""
    return [orjson.loads(line) for line in lines]


def ready() -> Session:
    session = Session("test")
    session.receive(CAPABILITIES)
    assert session.next() is None
    said(session)
    return session


# -- the reader

MESSAGES = [
    {"execute": "qmp_capabilities"},
    {"execute": "x", "arguments": {"text": 'quotes " and \\ and {[}] and \n'}, "id": [1, {"a": None}]},
    {},
    [1, 2, [3]],
    {"é": "ü\u20ac"},
]


@given(st.lists(st.sampled_from(MESSAGES), max_size=5), st.sampled_from([b"", b"\n", b" \r\n\t"]), st.data())
def test_values_are_found_however_the_stream_is_cut(messages: list[Any], between: bytes, data: st.DataObject) -> None:
    stream = between.join(orjson.dumps(m) for m in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert values(*parts) == messages


HOSTILE = st.lists(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b'"', b"\\", b"\n", b"\xff", b"x", b" ", b"1", b":", b'{"a":1}', b'{"a":"']
    ),
    max_size=60,
).map(b"".join)


@given(HOSTILE, st.data())
def test_whatever_comes_the_cuts_make_no_difference(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert (
        values(*parts, size=ENOUGH) == values(stream, size=ENOUGH) == values(*[bytes([b]) for b in stream], size=ENOUGH)
    )


@given(HOSTILE)
def test_after_any_nonsense_a_newline_and_the_reset_byte_help(stream: bytes) -> None:
    found = values(stream[:50], b"\n\xff", b'{"good":1}')

    assert found[-1] == {"good": 1}


@pytest.mark.parametrize(
    ("stream", "reasons"),
    [
        (b"hello\n{}", ["expected an object", {}]),
        (b"1 2 3 {}", ["expected an object", {}]),
        (b"one\ntwo\n", ["expected an object", "expected an object"]),
        (b'{"a": "broken\n{}', ["a newline in a string", {}]),
        (b'{"a": \xff{}', ["the value was given up", {}]),
        (b"{]{}", ["JSON parse error", {}]),
        (b"}{}", ["expected an object", {}]),
        (b'{"a": NaN}{}', ["JSON parse error", {}]),
        (b'{"a": "\xc3"}{}', ["JSON parse error", {}]),
        (b'{"a"\xff\xff\xff{}', ["the value was given up", {}]),
    ],
)
def test_what_is_wrong_is_said_and_reading_goes_on(stream: bytes, reasons: list[Any]) -> None:
    found = values(stream)

    assert len(found) == len(reasons)
    for value, reason in zip(found, reasons, strict=True):
        if isinstance(reason, str):
            assert isinstance(value, Malformed)
            assert reason in value.reason
            assert not value.fatal
        else:
            assert value == reason


@pytest.mark.parametrize("stream", [b'{"a": "' + b"x" * 100, b"[" * (MAX_DEPTH + 1), b'{"a":' + b" " * 100 + b"1}"])
def test_what_is_too_large_or_too_deep_ends_the_stream(stream: bytes) -> None:
    found = values(stream, b'"}{}', size=80)

    assert [value.fatal for value in found] == [True]


def test_a_stream_of_nonsense_takes_no_memory() -> None:
    reader = JsonReader(1 << 16)
    for _ in range(1000):
        reader.feed(b"x" * 10_000)
        while reader.next() is not None:
            pass
    assert len(reader._data) == 0


# -- the session


def test_the_greeting_comes_first() -> None:
    (greeting,) = said(Session("vmm-ras 0"))

    assert greeting["QMP"]["capabilities"] == []
    assert greeting["QMP"]["version"]["package"] == "vmm-ras 0"
    assert set(greeting["QMP"]["version"]["qemu"]) == {"major", "minor", "micro"}


def test_a_command_is_carried_out_after_negotiation_and_its_id_comes_back() -> None:
    session = Session("test")
    session.receive(CAPABILITIES + b'{"execute": "query-x", "arguments": {"a": 1}, "id": {"n": 7}}')

    command = session.next()
    assert command == Command("query-x", {"a": 1}, {"id": {"n": 7}})
    session.reply(command, [1])

    assert said(session)[1:] == [{"return": {}}, {"return": [1], "id": {"n": 7}}]


@pytest.mark.parametrize(
    ("sent", "kind", "reason"),
    [
        ({"execute": "query-x"}, "CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'"),
        ({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}, "GenericError", "not available"),
        ({"exec-oob": "x"}, "GenericError", "lacks member 'execute'"),
        ({"execute": 1}, "GenericError", "'execute' must be a string"),
        ({"execute": "x", "arguments": []}, "GenericError", "'arguments' must be an object"),
        ({"execute": "x", "more": 1}, "GenericError", "member 'more' is unexpected"),
        ([], "GenericError", "QMP input must be a JSON object"),
    ],
)
def test_what_is_refused_before_negotiation_leaves_it_open(sent: Any, kind: str, reason: str) -> None:
    session = Session("test")
    said(session)
    session.receive(orjson.dumps(sent))

    assert session.next() is None

    (answer,) = said(session)
    assert answer["error"]["class"] == kind
    assert reason in answer["error"]["desc"]
    session.receive(CAPABILITIES)
    session.next()
    assert said(session) == [{"return": {}}]
    assert session.state is State.READY


def test_a_second_negotiation_is_refused() -> None:
    session = ready()
    session.receive(b'{"execute": "qmp_capabilities", "id": 1}')
    session.next()

    (answer,) = said(session)

    assert answer == {"error": {"class": "CommandNotFound", "desc": answer["error"]["desc"]}, "id": 1}
    assert "already complete" in answer["error"]["desc"]


def test_a_client_may_close_its_side_before_it_has_its_replies() -> None:
    session = Session("test")
    session.receive(CAPABILITIES + b'{"execute":"a"}{"execute":"b"}{"exec')
    session.receive(b"")

    names = []
    while (command := session.next()) is not None:
        names.append(command.name)
        session.reply(command, {})

    assert names == ["a", "b"]
    assert session.state is State.CLOSED
    assert len(said(session)) == 4


def test_nothing_is_read_after_something_fatal() -> None:
    session = ready()
    session.receive(b"[" * 100 + b'{"execute":"x"}')

    assert session.next() is None

    assert session.state is State.CLOSED
    assert "nested deeper" in said(session)[0]["error"]["desc"]


def test_a_client_that_does_not_read_gets_no_more_to_do() -> None:
    session = ready()
    session.receive(b'{"execute":"a"}' * 10)
    command = session.next()
    assert command is not None
    session.reply(command, "x" * (HIGH_WATER + 1))

    assert session.next() is None
    assert session.full

    session.outgoing.clear()
    assert session.next() is not None


def test_events_come_after_negotiation_with_their_time() -> None:
    session = Session("test")
    assert not session.notify("E", {}, 1.5)
    session = ready()

    assert session.notify("E", {"a": 1}, 1700000000.25)

    stamp = {"seconds": 1700000000, "microseconds": 250000}
    assert said(session) == [{"event": "E", "data": {"a": 1}, "timestamp": stamp}]


def test_events_that_a_client_does_not_take_are_dropped_and_counted() -> None:
    session = ready()
    while session.notify("E", {"text": "x" * 1000}, 0.0):
        assert len(session.outgoing) < HIGH_WATER + 2000
    assert not session.notify("E", {}, 0.0)
    session.outgoing.clear()

    session.notify("E", {}, 0.0)
    session.notify("E", {}, 0.0)

    assert [m["data"] for m in said(session)] == [{"dropped": 2}, {}]


def told(code: Code, what: str, gpa: int = 0x4000_1000) -> Any:
    return event_of(Decided(1, code, gpa, 4096, "a-rule", what))


@pytest.mark.parametrize(
    ("code", "what", "action"),
    [
        (Code.AR, "tell", "inject"), (Code.AO, "known", "inject"), (Code.AR, "bare", "inject"),
        (Code.AO, "on-touch", "inject"), (Code.AO, "ignored", "ignore"), (Code.AR, "reset", "reset"),
        (Code.AR, "stop", "fatal"), (Code.AO, "migrate", "ignore"),
    ],
)  # fmt: skip
def test_memory_failure_in_qemus_words(code: Code, what: str, action: str) -> None:
    name, data = told(code, what)

    assert name == "MEMORY_FAILURE"
    assert data == {
        "recipient": "guest", "action": action, "flags": {"action-required": code is Code.AR, "recursive": False},
        "gpa": 0x4000_1000, "size": 4096, "rule": "a-rule", "what": what,
    }  # fmt: skip


def test_an_event_says_no_address_that_nobody_knows() -> None:
    assert "gpa" not in told(Code.AR, "bare", -1)[1]
    m = Machine()
    name, data = next(filter(None, map(event_of, m.receive(GuestAbort(1, 0x92000410)))))
    assert (name, data["action"], "gpa" in data) == ("MEMORY_FAILURE", "inject", False)


def test_a_log_of_events_is_a_trace() -> None:
    session = ready()
    session.notify(*told(Code.AO, "tell"), 1700000000.0)
    log = bytes(session.outgoing)

    with open_trace("-", stdin=BytesIO(log)) as entries:
        ((_, at, item),) = list(entries)

    assert (at, item) == (1700000000.0, MemoryFault(0x4000_1000, 4096, 1700000000.0))


def test_the_vmms_own_memory_and_what_an_orchestrator_must_know() -> None:
    own = event_of(OwnMemory(1, Code.AR, 0x7000, 12, 5))
    assert own is not None
    assert (own[1]["recipient"], own[1]["action"], own[1]["hva"], own[1]["size"]) == (
        "hypervisor",
        "fatal",
        0x7000,
        4096,
    )
    assert event_of(Escalate(1, 3, "report", "why")) == (
        "RAS_ESCALATION", {"source": 3, "action": "report", "reason": "why"},
    )  # fmt: skip
    assert event_of(Release(1, 0)) is None


def test_the_table_of_the_session_stands_in_the_documentation() -> None:
    assert state_table_markdown() in (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
