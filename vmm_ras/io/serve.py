"""The service: clients on sockets, each with a session, and the VMs that they ask about.  One thread, one selector.

A client gets TURN commands at a time and is not read while it does not read itself, so none keeps the others waiting,
and what is kept for it is bounded.  Events come from any thread.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from vmm_ras.effects import Effect
from vmm_ras.errors import RasError
from vmm_ras.qmp.commands import Commands
from vmm_ras.qmp.events import TOLD, event_of
from vmm_ras.qmp.machine import Machine
from vmm_ras.qmp.session import Command, Session, State
from vmm_ras.qmp.vms import CommandError

MAX_CLIENTS = 64
TURN = 32
"""Commands of one client that are carried out before the others have their turn."""
READ = 64 << 10
"""Bytes that are read of a client at a time."""
PATIENCE_S = 30.0
"""Seconds after which a client is dropped that does not negotiate, or takes nothing of what it is to get."""
MAX_EVENTS = 4096
"""Events of all VMs that may wait to be given to the clients; more are counted as dropped."""
_TOO_MANY = b'{"error": {"class": "GenericError", "desc": "%d clients are connected already"}}\r\n' % MAX_CLIENTS


class _Client:
    """A connection and its session."""

    def __init__(self, connection: socket.socket, session: Session, now: float) -> None:
        self.connection, self.session = connection, session
        self.negotiate_by = now + PATIENCE_S
        self.take_by: float | None = None
        """When it must have taken something of what it is to get; None: there is nothing."""
        self.ended = False
        """Whether its stream has ended; it may still read."""
        self.mask = selectors.EVENT_READ

    @property
    def due(self) -> float | None:
        """When it is dropped, if it does not do what it is waited for."""
        return self.negotiate_by if self.session.state is State.NEGOTIATING else self.take_by


class Server:
    """Serves the VMs of ``commands`` to the clients of the listening sockets.

    ``log`` is given one line for each command that failed by a fault of ours.
    """

    def __init__(
        self, commands: Commands, listeners: Sequence[socket.socket], log: Callable[[str], object] | None = None
    ) -> None:
        self.commands, self.listeners = commands, listeners
        self.dropped = 0
        """Events that a client, or all of them, did not hear of."""
        self._log = log or (lambda line: print(line, file=sys.stderr))
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._waking = threading.RLock()
        """Around the descriptor, so that nobody writes to another that got its number."""
        self._events: deque[tuple[str, dict[str, Any], float]] = deque()
        self._clients: dict[socket.socket, _Client] = {}
        self._busy: dict[socket.socket, _Client] = {}
        """Clients with commands left over from their last turn."""
        self._stopping = False
        self._thread = 0
        commands.added, commands.removed, commands.dropped = self._added, self._removed, lambda: self.dropped
        for machine in commands.machines.values():
            self._added(machine)

    def _added(self, machine: Machine) -> None:
        machine.watch = partial(self._watch, machine.name)

    @staticmethod
    def _removed(machine: Machine) -> None:
        with machine.lock:  # nobody is inside it any more when this returns
            machine.watch = None

    def _watch(self, vm: str, effects: Sequence[Effect]) -> None:
        """Effects were carried out, in whatever thread."""
        for effect in effects:
            if isinstance(effect, TOLD):
                found = event_of(effect)
                if found is None:
                    continue
                if len(self._events) >= MAX_EVENTS:
                    self.dropped += 1
                    continue
                self._events.append((found[0], {"vm": vm} | found[1], self.commands.clock()))
                if threading.get_ident() != self._thread:
                    self.wake()

    def wake(self) -> None:
        """Let the loop look anew.  From any thread, or signal handler."""
        with self._waking:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Let :meth:`run` return.  From any thread, or signal handler."""
        self._stopping = True
        self.wake()

    # -- the loop ------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until :meth:`stop`; then close all connections."""
        selector, self._thread = self._selector, threading.get_ident()
        for listener in self.listeners:
            selector.register(listener, selectors.EVENT_READ)
        selector.register(self._wake, selectors.EVENT_READ)
        try:
            while not self._stopping:
                ready = selector.select(self._timeout())
                for key, mask in ready:
                    client = self._clients.get(key.fileobj)  # type: ignore[call-overload]
                    if client is not None:
                        self._serve(client, mask)
                    elif key.fileobj == self._wake:
                        os.eventfd_read(self._wake)
                for key, _ in ready:
                    if key.fileobj in self.listeners:  # those who hung up have made room by now
                        self._accept(key.fileobj)  # type: ignore[arg-type]
                busy, self._busy = self._busy, {}
                for client in busy.values():
                    self._turn(client)
                self._pass_time()
                self._publish()
        finally:
            for client in list(self._clients.values()):
                self._close(client)
            for machine in self.commands.machines.values():
                self._removed(machine)
            selector.close()
            with self._waking:
                wake, self._wake = self._wake, -1
                os.close(wake)

    def _timeout(self) -> float | None:
        if self._busy:
            return 0.0
        due = [c.due for c in self._clients.values() if c.due is not None]
        for machine in self.commands.machines.values():
            if hasattr(machine, "next_time") and (at := machine.next_time()) is not None:
                due.append(at)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _pass_time(self) -> None:
        now = time.monotonic()
        for machine in list(self.commands.machines.values()):
            if hasattr(machine, "advance"):
                machine.advance()
        for client in [c for c in self._clients.values() if c.due is not None and c.due <= now]:
            self._close(client)

    # -- clients -------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # it is gone again, or there is no descriptor left: the next turn tries again
        connection.setblocking(False)
        if len(self._clients) >= MAX_CLIENTS:
            with contextlib.suppress(OSError):
                connection.send(_TOO_MANY)
            connection.close()
            return
        client = _Client(connection, Session(self.commands.package), time.monotonic())
        self._clients[connection] = client
        self._selector.register(connection, client.mask)
        self._flush(client)

    def _serve(self, client: _Client, mask: int) -> None:
        if mask & selectors.EVENT_READ and not client.ended:
            try:
                data = client.connection.recv(READ)
            except BlockingIOError:
                data = None
            except OSError:
                self._close(client)
                return
            if data is not None:
                client.ended = not data
                client.session.receive(data)
        if client.connection not in self._busy:
            self._turn(client)

    def _turn(self, client: _Client) -> None:
        """Carry out some of the client's commands, and send what it is to get."""
        session = client.session
        for _ in range(TURN):
            command = session.next()
            if command is None:
                break
            self._execute(session, command)
        else:
            self._busy[client.connection] = client
        self._flush(client)

    def _execute(self, session: Session, command: Command) -> None:
        try:
            value = self.commands.execute(command.name, command.arguments)
        except CommandError as error:
            self._publish()
            session.refuse(command, str(error), error.kind)
        except RasError as error:
            self._publish()
            session.refuse(command, str(error))
        except Exception as error:  # a fault of ours: the service goes on, and says so
            self._log(f"vmm-ras: {command.name[:80]}: {type(error).__name__}: {error}".replace("\n", " "))
            session.refuse(command, f"internal error: {type(error).__name__}")
        else:
            if self._events:
                self._publish()  # as with QEMU, what a command made happen is told before its return
            session.reply(command, value)

    def _publish(self) -> None:
        """Give the clients the events that came."""
        while self._events:
            name, data, at = self._events.popleft()
            for client in list(self._clients.values()):
                before = client.session.dropped
                if not client.session.notify(name, data, at):
                    self.dropped += client.session.dropped - before
                elif not client.mask & selectors.EVENT_WRITE:
                    client.take_by = time.monotonic() + PATIENCE_S
                    self._watch_for(client)

    def _flush(self, client: _Client) -> None:
        """Send what can be sent at once."""
        out = client.session.outgoing
        if out:
            try:
                sent = client.connection.send(out)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._close(client)
                return
            del out[:sent]
            if sent or client.take_by is None:
                client.take_by = time.monotonic() + PATIENCE_S if out else None
        if client.session.state is State.CLOSED and not out:
            self._close(client)
        else:
            self._watch_for(client)

    def _watch_for(self, client: _Client) -> None:
        session = client.session
        mask = selectors.EVENT_WRITE if session.outgoing else 0
        if (
            not client.ended
            and not session.full
            and session.state is not State.CLOSED
            and client.connection not in self._busy
        ):
            mask |= selectors.EVENT_READ
        if mask == client.mask:
            return
        if not mask:
            self._selector.unregister(client.connection)
        elif not client.mask:
            self._selector.register(client.connection, mask)
        else:
            self._selector.modify(client.connection, mask)
        client.mask = mask

    def _close(self, client: _Client) -> None:
        self._busy.pop(client.connection, None)
        if self._clients.pop(client.connection, None) is not None:
            if client.mask:
                self._selector.unregister(client.connection)
            client.connection.close()
