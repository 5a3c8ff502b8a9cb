"""What the service needs of a VM: little enough for a model guest and for a real one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from vmm_ras.effects import Effect
from vmm_ras.events import Event
from vmm_ras.notifier import Notifier

Watch = Callable[[Sequence[Effect]], None]


class Machine(Protocol):
    """One VM.

    It may also have ``midr`` (MIDR_EL1 of its vCPUs, an int), ``status`` (a RunState of QEMU: ``running``, ``paused``,
    ``guest-panicked``, ``shutdown``), ``plain()`` (more members for query-ras), ``max_lsb`` (log2 of the largest loss
    that it takes from a client), ``save()`` (the VM as a snapshot), ``migrate(path)`` (writes it to a file, and ends
    it); and, where it has no threads of its own, ``next_time()`` and ``advance()``, which the service calls when that
    time, in seconds of the monotonic clock, has come.
    """

    @property
    def name(self) -> str:
        """What clients call it."""
        ...

    @property
    def vcpus(self) -> int:
        """How many."""
        ...

    @property
    def notifier(self) -> Notifier:
        """The core."""
        ...

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held around the core, by whoever looks at it."""
        ...

    watch: Watch | None
    """Called, in any thread and with the lock held, with effects once they were carried out."""

    def submit(self, event: Event) -> Sequence[Effect]:
        """Give the core an event and carry out what it asks for; takes the lock.

        Returns at least the effects that answer the event itself, and any that followed at once.  Raises InputError.
        """
        ...
