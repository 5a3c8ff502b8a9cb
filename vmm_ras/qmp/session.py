"""One client's session (QEMU's docs/interop/qmp-spec): greeting, negotiation of capabilities, commands, events.

Bytes go in by :meth:`Session.receive`, commands come out of :meth:`Session.next`, and what the client is to get lies in
``Session.outgoing``.  What the client may do when is TABLE.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, NamedTuple

import orjson

from vmm_ras.qmp.json_reader import JsonReader, Malformed

QEMU_VERSION: Final = {"major": 10, "minor": 2, "micro": 0}
"""The QEMU whose commands these are: clients look for inject-ghes-v2-error from 10.2 on."""
HIGH_WATER: Final = 256 << 10
"""Bytes that may wait for a client that does not read: beyond it no command of it is taken, and no event is kept."""
GENERIC, NOT_FOUND, NO_DEVICE = "GenericError", "CommandNotFound", "DeviceNotFound"


class State(Enum):
    """Where the session stands."""

    NEGOTIATING = "negotiating"
    READY = "ready"
    CLOSED = "closed"
    """Nothing more is read; what is outgoing may still be sent."""


class Input(Enum):
    """What a client can send."""

    CAPABILITIES = "qmp_capabilities"
    COMMAND = "any other command"
    MALFORMED = "something that is no command"
    FATAL = "something after which nothing can be read"
    END = "the end of its stream"


class Answer(Enum):
    """What it gets for that."""

    RETURN = "an empty return"
    EXECUTE = "what the command returns"
    REFUSE = "GenericError"
    EARLY = "CommandNotFound: expecting capabilities negotiation"
    LATE = "CommandNotFound: negotiation is complete"
    NOTHING = "nothing"


_S, _I, _A = State, Input, Answer
TABLE: Final[dict[State, dict[Input, tuple[State, Answer]]]] = {
    _S.NEGOTIATING: {
        _I.CAPABILITIES: (_S.READY, _A.RETURN),
        _I.COMMAND: (_S.NEGOTIATING, _A.EARLY),
        _I.MALFORMED: (_S.NEGOTIATING, _A.REFUSE),
        _I.FATAL: (_S.CLOSED, _A.REFUSE),
        _I.END: (_S.CLOSED, _A.NOTHING),
    },
    _S.READY: {
        _I.CAPABILITIES: (_S.READY, _A.LATE),
        _I.COMMAND: (_S.READY, _A.EXECUTE),
        _I.MALFORMED: (_S.READY, _A.REFUSE),
        _I.FATAL: (_S.CLOSED, _A.REFUSE),
        _I.END: (_S.CLOSED, _A.NOTHING),
    },
    _S.CLOSED: dict.fromkeys(_I, (_S.CLOSED, _A.NOTHING)),
}
"""State and input to the next state and the answer."""
_WORDS = {
    _A.EARLY: "Expecting capabilities negotiation with 'qmp_capabilities'",
    _A.LATE: "Capabilities negotiation is already complete, command ignored",
}


class Command(NamedTuple):
    """A command to carry out, and to answer with :meth:`Session.reply` or :meth:`Session.refuse`."""

    name: str
    arguments: dict[str, Any]
    id: dict[str, Any]
    """The ``id`` member to send back, if there was one."""


class Session:
    """One client.  ``package``: what the greeting says of the program."""

    def __init__(self, package: str, reader: JsonReader | None = None) -> None:
        self.state = State.NEGOTIATING
        self.version = {"qemu": QEMU_VERSION, "package": package}
        self.outgoing = bytearray()
        """What the client is to get; take from the front what was sent."""
        self.dropped = 0
        """Events that were not kept, because the client did not read; the next one that is kept says how many."""
        self._reader = reader or JsonReader()
        self._ended = False
        self._send({"QMP": {"version": self.version, "capabilities": []}})

    @property
    def full(self) -> bool:
        """Whether the client has to read before it may ask for more."""
        return len(self.outgoing) > HIGH_WATER

    def receive(self, data: bytes) -> None:
        """What the client sent; empty bytes are the end of its stream, which it may close before it has its replies."""
        if data:
            self._reader.feed(data)
        else:
            self._ended = True

    def next(self) -> Command | None:
        """The next command to carry out; None: there is none until more is received, or the session is CLOSED.

        All other input is answered here.
        """
        while self.state is not State.CLOSED and not self.full:
            value = self._reader.next()
            if value is None:
                if self._ended:
                    self._step(Input.END, None)
                return None
            command = self._command(value)
            if isinstance(command, Malformed):
                self._step(Input.FATAL if command.fatal else Input.MALFORMED, command, value)
            elif command.name != Input.CAPABILITIES.value:
                if self._step(Input.COMMAND, command) is Answer.EXECUTE:
                    return command
            elif self.state is State.NEGOTIATING and (unknown := command.arguments.get("enable")):
                self._step(Input.MALFORMED, Malformed(f"Capabilities not available: {str(unknown)[:80]}"), value)
            else:
                self._step(Input.CAPABILITIES, command)
        return None

    def reply(self, command: Command, value: Any) -> None:
        """The command was carried out."""
        self._send({"return": value} | command.id)

    def refuse(self, command: Command, reason: str, kind: str = GENERIC) -> None:
        """The command was not carried out."""
        self._send({"error": {"class": kind, "desc": reason}} | command.id)

    def notify(self, event: str, data: dict[str, Any], time: float) -> bool:
        """Tell the client of an event at ``time``, seconds since the epoch; whether it will hear of it."""
        if self.state is not State.READY:
            return False
        if self.full:
            self.dropped += 1
            return False
        if self.dropped:
            data = data | {"dropped": self.dropped}
            self.dropped = 0
        micro = round(time * 1_000_000)
        stamp = {"seconds": micro // 1_000_000, "microseconds": micro % 1_000_000}
        self._send({"event": event, "data": data, "timestamp": stamp})
        return True

    def _step(self, input: Input, command: Command | Malformed | None, value: object = None) -> Answer:
        self.state, answer = TABLE[self.state][input]
        known = command.id if isinstance(command, Command) else _id(value)
        if answer is Answer.RETURN:
            self._send({"return": {}} | known)
        elif answer is Answer.REFUSE:
            assert isinstance(command, Malformed)
            self._send({"error": {"class": GENERIC, "desc": command.reason}} | known)
        elif answer in _WORDS:
            self._send({"error": {"class": NOT_FOUND, "desc": _WORDS[answer]}} | known)
        return answer

    def _send(self, message: dict[str, Any]) -> None:
        self.outgoing += orjson.dumps(message) + b"\r\n"

    @staticmethod
    def _command(value: object) -> Command | Malformed:
        if isinstance(value, Malformed):
            return value
        if not isinstance(value, dict):
            return Malformed("QMP input must be a JSON object")
        name, arguments = value.get("execute"), value.get("arguments", {})
        if name is None:
            return Malformed("QMP input lacks member 'execute'")
        if not isinstance(name, str):
            return Malformed("QMP input member 'execute' must be a string")
        if not isinstance(arguments, dict):
            return Malformed("QMP input member 'arguments' must be an object")
        for member in value:
            if member not in {"execute", "arguments", "id"}:
                return Malformed(f"QMP input member '{member[:80]}' is unexpected")
        return Command(name, arguments, _id(value))


def _id(value: object) -> dict[str, Any]:
    return {"id": value["id"]} if isinstance(value, dict) and "id" in value else {}


def state_table_markdown() -> str:
    """TABLE for people; docs/serve.md shows it."""
    lines = ["| The client sends | " + " | ".join(s.value for s in State) + " |", "|---" * (len(State) + 1) + "|"]
    for input in Input:
        cells = []
        for state in State:
            after, answer = TABLE[state][input]
            cells.append(answer.value + (f" → {after.value}" if after is not state else ""))
        lines.append(f"| {input.value} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
