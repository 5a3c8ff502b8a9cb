"""A service in a thread, as the tests use it."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from vmm_ras.io.qmp_client import QmpClient
from vmm_ras.io.serve import Server
from vmm_ras.io.serve_model import ModelMachine
from vmm_ras.io.serve_socket import UnixListener
from vmm_ras.qmp.commands import Commands


class Service:
    """A running service, the path of its socket, and what it logged."""

    def __init__(self, path: Path, server: Server, commands: Commands, logged: list[str]) -> None:
        self.path, self.server, self.commands, self.logged = path, server, commands, logged

    def client(self, **options: Any) -> QmpClient:
        return QmpClient(self.path, **({"timeout_s": 60.0} | options))

    def connection(self, seconds: float = 60.0) -> socket.socket:
        """A connection that has said nothing yet."""
        raw = socket.socket(socket.AF_UNIX)
        raw.settimeout(seconds)
        raw.connect(str(self.path))
        return raw

    def machine(self, name: str) -> ModelMachine:
        machine = self.commands.machines[name]
        assert isinstance(machine, ModelMachine)
        return machine


@contextlib.contextmanager
def service(*vms: str, **like: Any) -> Iterator[Service]:
    """A service with these VMs, made as vm-add makes them."""
    commands = Commands("vmm-ras test", time.time, ModelMachine.of)
    for name in vms:
        commands.execute("vm-add", {"name": name, "vcpus": 4} | like)
    logged: list[str] = []
    with tempfile.TemporaryDirectory() as folder, UnixListener(Path(folder) / "s") as listener:
        server = Server(commands, [listener.socket], logged.append)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield Service(listener.path, server, commands, logged)
        finally:
            server.stop()
            thread.join(60)
        assert not thread.is_alive()
    assert logged == []


def read_all(raw: socket.socket) -> list[Any]:
    """Every message up to the end of the stream."""
    data = b""
    while part := raw.recv(65536):
        data += part
    return [orjson.loads(line) for line in data.split(b"\r\n") if line]
