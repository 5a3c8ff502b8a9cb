"""A client of the service, or of QEMU: one command at a time, over a UNIX socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from vmm_ras.errors import HostError, InputError
from vmm_ras.io.closing import Closing
from vmm_ras.qmp.json_reader import JsonReader, Malformed

MAX_REPLY = 16 << 20


class QmpClient(Closing):
    """A connection that is through with negotiation.

    ``timeout_s``: seconds that a reply may take.  ``heard`` is given the events that come in between.  Raises HostError
    where nobody listens or answers, InputError where a command is refused.
    """

    def __init__(
        self, path: str | Path, timeout_s: float = 10.0, heard: Callable[[dict[str, Any]], object] = lambda event: None
    ) -> None:
        self._path, self._timeout, self._heard = path, timeout_s, heard
        self._reader = JsonReader(MAX_REPLY)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            reason = "a path of at most 107 bytes expected" if error.errno is None else error.strerror
            if isinstance(error, ConnectionRefusedError | FileNotFoundError):
                reason = "no service listens there (see `vmm-ras serve`)"
            raise HostError(f"{path}: {reason}") from None
        try:
            self.greeting = self._message()
            if "QMP" not in self.greeting:
                error_ = self.greeting.get("error", {}).get("desc", "no greeting of QMP")
                raise HostError(f"{path}: {error_}")
            self.ask("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def ask(self, command: str, **arguments: Any) -> Any:
        """What a command returns.  Arguments that are None are left out."""
        given = {name.replace("_", "-"): value for name, value in arguments.items() if value is not None}
        message = {"execute": command} | ({"arguments": given} if given else {})
        try:
            self._socket.sendall(orjson.dumps(message))
        except OSError as error:
            raise HostError(f"{self._path}: {error.strerror or 'no answer'}") from None
        while True:
            answer = self._message()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise InputError(f"{command}: {answer['error'].get('desc', 'refused')}")
            self._heard(answer)

    def _message(self) -> dict[str, Any]:
        until = time.monotonic() + self._timeout
        while True:
            value = self._reader.next()
            if isinstance(value, Malformed):
                raise HostError(f"{self._path}: {value.reason}")
            if isinstance(value, dict):
                return value
            try:
                self._socket.settimeout(max(0.001, until - time.monotonic()))
                data = self._socket.recv(65536)
            except TimeoutError:
                raise HostError(f"{self._path}: no answer in {self._timeout:g} s") from None
            except OSError as error:
                raise HostError(f"{self._path}: {error.strerror}") from None
            if not data:
                raise HostError(f"{self._path}: the service closed the connection")
            self._reader.feed(data)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
