"""The service beside VMs that somebody else runs (`vmm-ras run --socket`): in a thread of its own."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from vmm_ras.io.serve import Server
from vmm_ras.io.serve_socket import UnixListener
from vmm_ras.qmp.commands import Commands
from vmm_ras.qmp.machine import Machine


@contextmanager
def serving(path: Path, *machines: Machine) -> Iterator[Server]:
    """Serve these VMs on a socket, as long as the block lasts.  Raises HostError, InputError."""
    commands = Commands(f"vmm-ras {version('vmm-ras')}", time.time)
    for machine in machines:
        commands.add(machine)
    with UnixListener(path) as listener:
        server = Server(commands, [listener.socket])
        thread = threading.Thread(target=server.run, name="service", daemon=True)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # signals are for the VMM's threads
        try:
            thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            yield server
        finally:
            server.stop()
            thread.join()
