"""A guest of the small VMM moves: its core and vCPUs, its interrupt controller, its UART, and its memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vmm_ras.errors import HostError, SnapshotError
from vmm_ras.io.kvm import gic_state, moving
from vmm_ras.io.kvm.moving import Arriving, Leaving
from vmm_ras.io.vmm import pl011
from vmm_ras.kvm.one_reg import SYSREGS
from vmm_ras.snapshot import read_snapshot, stream
from vmm_ras.snapshot.container import Part
from vmm_ras.snapshot.made_of import first_error
from vmm_ras.snapshot.parts import plain_part

if TYPE_CHECKING:
    from vmm_ras.io.vmm.running import Running

UART = "pl011"
PARTS = (moving.PART, gic_state.PART, UART)
"""Parts of a snapshot that are read here."""


def _devices(now: Running) -> Iterator[Part]:
    yield gic_state.take(now.gic, _mpidrs(now))
    yield plain_part(UART, now.machine.uart.take())


def _mpidrs(now: Running) -> list[int]:
    return [vcpu.get(SYSREGS["MPIDR_EL1"]) for vcpu in now.vm.vcpus]


def save(now: Running) -> bytes:
    """A snapshot of the guest, without its memory; it goes on.  Raises HostError."""
    return moving.save(now.guest, lambda: _devices(now))


def depart(now: Running) -> Leaving:
    """Freeze the guest for good, and take it apart.  Raises HostError."""
    return moving.depart(now.guest, lambda: _devices(now))


def migrate(now: Running, path: Path) -> int:
    """Write the guest as a stream to a new file, and freeze it for good; how many bytes that is.

    Raises HostError; then there is no file, and the guest goes on.
    """
    try:
        with path.open("xb") as file:
            try:
                with moving.departing(now.guest, lambda: _devices(now)) as leaving:
                    size = stream.send(file.write, leaving.snapshot, leaving.memory())
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                path.unlink()
                raise
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from None
    return size


class Coming:
    """A guest that comes as a stream.  Raises SnapshotError for a snapshot that is none of this VMM's."""

    def __init__(self, read: stream.Read) -> None:
        data, self._memory = stream.receive(read)
        snapshot = read_snapshot(data, PARTS)
        for name in PARTS:
            if name not in snapshot.parts:
                raise SnapshotError(f"snapshot: part {name!r} is missing")
        self.arriving = Arriving(snapshot)
        self._gic = gic_state.read(snapshot.parts[gic_state.PART])
        try:
            self._uart = pl011.State.model_validate_json(snapshot.parts[UART])
        except ValidationError as error:
            raise SnapshotError(f"snapshot: part {UART!r}: {first_error(error)}") from None

    def enter(self, now: Running) -> None:
        """Put the guest into a machine that has not run, and let it go on.

        Raises SnapshotError, GuestError and HostError: then the machine is to be thrown away.
        """
        self.arriving.enter(now.guest, self._memory, now.holes)
        gic_state.put(now.gic, self._gic, _mpidrs(now))
        now.machine.uart.put(self._uart)
        self.arriving.start(now.guest)
