"""Whatever clients send, in whatever order and however they hang up, the service answers the others."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
from functools import cache
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service import Service, service
from vmm_ras.errors import RasError
from vmm_ras.io.serve_model import ModelMachine
from vmm_ras.qmp.commands import COMMANDS, Commands
from vmm_ras.qmp.session import HIGH_WATER, Session

GPA = 0x4000_0000
CPER = "AQAAAAAAAAAAAAAAAAAAAAMAAAA="
"""An empty, informational status block."""
NAMES = (
    "vm", "name", "cper", "source", "vcpu", "gpa", "hva", "lsb", "code", "esr", "dfsc", "ea", "set", "far", "event",
    "vsesr", "aet", "rule", "size", "path", "property", "memory", "policy", "preset", "sdei-events", "x",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20)
    | st.sampled_from([0, 1, 3, 7, 12, GPA, 0x7F00_0000_0000, "vm0", "AO", "AR", "uer", "ueo", "found", CPER,
                       "/machine/unattached/device[0]", "type"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
ARGUMENTS = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5)


@cache
def shared() -> Commands:
    """A service with a VM that all examples share."""
    commands = Commands("fuzz", lambda: 0.0, ModelMachine.of)
    commands.execute("vm-add", {"name": "vm0", "preset": "all", "vcpus": 4, "sdei-events": [{"number": 7}]})
    return commands


@given(st.sampled_from([name for name in COMMANDS if name not in {"vm-add", "vm-del"}]), ARGUMENTS)
def test_any_arguments_give_a_value_or_one_line(name: str, arguments: dict[str, Any]) -> None:
    try:
        orjson.dumps(shared().execute(name, arguments))
    except RasError as error:
        assert str(error)
        assert "\n" not in str(error)


@given(ARGUMENTS)
def test_any_vm_is_made_or_refused_in_one_line(arguments: dict[str, Any]) -> None:
    commands = Commands("fuzz", lambda: 0.0, ModelMachine.of)
    try:
        commands.execute("vm-add", {"name": "a"} | arguments)
    except RasError as error:
        assert "\n" not in str(error)
        assert not commands.machines


@given(st.lists(st.binary(max_size=200) | JSON.map(lambda v: orjson.dumps({"execute": v, "arguments": v})), max_size=8))
def test_any_stream_gives_messages_of_the_protocol(parts: list[bytes]) -> None:
    session = Session("fuzz")
    session.receive(b'{"execute":"qmp_capabilities"}')
    for part in [*parts, b""]:
        session.receive(part)
        while (command := session.next()) is not None:
            assert type(command.name) is str
            session.reply(command, None)
        assert len(session.outgoing) < HIGH_WATER + 4096
    for line in bytes(session.outgoing).split(b"\r\n")[:-1]:
        assert set(orjson.loads(line)) <= {"QMP", "return", "error", "id"}


# -- conversations


class Hostile:
    """Conversations of clients that know no manners, several at a time; every answer must be one of the protocol."""

    def __init__(self, service: Service, seed: int) -> None:
        self.service, self.r = service, random.Random(seed)
        self.open: list[socket.socket] = []
        self.kinds = dict.fromkeys(("begun", "half-closed", "reset", "hung up", "ended by the service"), 0)

    def run(self, conversations: int) -> None:
        r = self.r
        while self.kinds["begun"] < conversations or self.open:
            if self.kinds["begun"] < conversations and len(self.open) < 8 and r.random() < 0.4:
                self.open.append(self.service.connection())
                self.kinds["begun"] += 1
                if r.random() < 0.7:
                    self._send(self.open[-1], b'{"execute":"qmp_capabilities"}')
            elif self.open:
                raw = r.choice(self.open)
                if r.random() < 0.35:
                    self.open.remove(raw)
                    self._end(raw)
                elif not self._send(raw, self._piece()):
                    self.open.remove(raw)
                    self.kinds["ended by the service"] += 1
                    raw.close()

    def _send(self, raw: socket.socket, data: bytes) -> bool:
        raw.setblocking(False)
        try:
            while data:
                data = data[raw.send(data) :]
        except BlockingIOError:
            pass  # it does not read any more, because we do not
        except OSError:
            return False
        return True

    def _piece(self) -> bytes:
        r = self.r
        good = orjson.dumps(self._command())
        return bytes(
            r.choice(
                (
                    lambda: good,
                    lambda: good * r.randint(1, 40),
                    lambda: good[: r.randrange(len(good))],
                    lambda: good[r.randrange(len(good)) :],
                    lambda: bytes(b ^ (r.random() < 0.02) << r.randrange(8) for b in good),
                    lambda: r.randbytes(r.randrange(200)),
                    lambda: r.choice((b"{", b"[", b'"', b"\\", b"\xff", b"\n")) * r.choice((1, 5, 40, 5000)),
                    lambda: b'{"execute":"' + b"x" * r.choice((10, 70_000, 300_000)),
                    lambda: b'{"a":' * r.randrange(60),
                )
            )()
        )

    def _command(self) -> dict[str, Any]:
        r = self.r
        given: dict[str, Any] = {"vm": r.choice(("bad", "bad", "nobody", 7))}
        given |= {
            "inject-memory-error": {
                "gpa": GPA + (r.randrange(1 << 12) << 12), "code": r.choice(("AO", "AR")), "lsb": r.choice((0, 12, 16)),
            },
            "inject-ghes-v2-error": {"cper": r.choice((CPER, "", "A" * 1000, "/" * 9000, None))},
            "inject-record": {"cper": CPER, "source": r.randrange(8), "vcpu": r.randrange(5)},
            "inject-sea": {"vcpu": r.randrange(5), "dfsc": r.randrange(64)},
            "inject-serror": {"vcpu": r.randrange(5), "aet": "ueo"},
            "inject-sdei-event": {"event": r.choice((0, 7, 0x324)), "vcpu": r.randrange(5)},
        }.get(name := r.choice([n for n in COMMANDS if n not in {"vm-add", "vm-del"}]), {})  # fmt: skip
        return {"execute": name, "arguments": given, "id": r.choice((None, 1, [{}], "x" * 100))}

    def _end(self, raw: socket.socket) -> None:
        kind = self.r.choice(("half-closed", "reset", "hung up"))
        self.kinds[kind] += 1
        raw.settimeout(20)
        with raw, contextlib.suppress(ConnectionError):
            if kind == "reset":
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif kind == "half-closed":
                raw.shutdown(socket.SHUT_WR)
                data = b""
                while part := raw.recv(1 << 16):
                    data += part
                for line in data.split(b"\r\n"):
                    assert not line or {"QMP", "return", "error", "event"} & set(orjson.loads(line)), line


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_hostile_conversations_leave_the_service_answering() -> None:
    """A few hundred; with the profile `fuzz` ten thousand.  Another VM is told errors meanwhile, and all of them."""
    conversations = 10_000 if settings.default is not None and settings.default.max_examples > 1000 else 300
    like: dict[str, Any] = {"preset": "all", "sdei-events": [{"number": 7}]}
    with service("bad", "good", **like) as s:
        before = descriptors()
        hostile = Hostile(s, 5)
        told = 0
        for begun in range(50, conversations + 1, 50):
            hostile.run(begun)
            with s.client() as client:
                decided = client.ask("inject-memory-error", vm="good", gpa=GPA + (told << 12), code="AR", vcpu=told & 3)
                assert decided["outcome"] == "tell"
                told += 1
        with s.client() as client:
            status = client.ask("query-ras", vm="good")
            assert client.ask("query-ras", vm="bad")["vm"] == "bad"
        assert status["pages"] == {"unreported": 0, "posted": 0, "acked": told}
        assert status["model"]["outcomes"] == {"offlined": told}
        assert min(hostile.kinds.values()) > 0, hostile.kinds
        assert hostile.kinds["begun"] == conversations
        for _ in range(100):
            with s.client() as client:
                client.ask("query-status", vm="good")
            if descriptors() <= before:
                break
        assert descriptors() <= before + 1, "connections are left open"
