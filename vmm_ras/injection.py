"""Errors that the guest injects into itself (EINJ; ACPI 6.5, 18.6): the device's two callbacks, joined to a core.

Policy says how severe a lost page is, so the guest is offered the severities that policy has for found pages, and an
injection is taken only where every rule that may decide the page has the severity that it asks for: no record tells
another one.  What the trigger makes happen is an event like any other.
"""

from __future__ import annotations

from collections.abc import Callable

from acpi.einj import EinjStatus, ErrorType
from acpi.einj_device import EinjDevice, Injection
from acpi.erst_device import Exchange
from vmm_ras.errors import GuestError
from vmm_ras.events import MemoryFault
from vmm_ras.notifier import Notifier
from vmm_ras.policy import When

SEVERITIES = {
    ErrorType.MEMORY_CORRECTABLE: "corrected",
    ErrorType.MEMORY_UNCORRECTABLE: "recoverable",
    ErrorType.MEMORY_FATAL: "fatal",
}
"""Memory error of EINJ to the severity of a rule."""
LARGEST = 2 << 20
"""Bytes of the largest range that one injection may hit, a huge page of the host: a guest drives no unbounded work."""


class GuestBuffer:
    """Guest memory from ``address`` on as a device's own; ``read(gpa, size)`` and ``write(gpa, data)`` reach it."""

    def __init__(
        self, read: Callable[[int, int], bytes], write: Callable[[int, bytes], object], address: int, size: int
    ) -> None:
        self._read, self._write, self.address, self.size = read, write, address, size

    def read(self, offset: int, size: int) -> bytes:
        """Read ``size`` bytes; fewer at the end.  Raises OSError for memory that is lost."""
        try:
            return self._read(self.address + offset, max(0, min(size, self.size - offset)))
        except GuestError as error:
            raise OSError(str(error)) from None

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data``.  Raises OSError."""
        if not 0 <= offset <= self.size - len(data):
            raise OSError(f"{len(data)} bytes at {offset} do not fit {self.size}")
        try:
            self._write(self.address + offset, data)
        except GuestError as error:
            raise OSError(str(error)) from None


class Injector:
    """An injection device for the guest of ``core``.

    After every access of the guest to the device's registers, give the core what :meth:`take` returns.
    """

    def __init__(self, core: Notifier, memory: Exchange, address: int, registers: int) -> None:
        """``memory``: the device's, which the guest finds at ``address``; ``registers``: where it finds those."""
        self.core = core
        rules = [r for r in core.rules if r.when.code != "AR" and r.action == "tell"]
        offered = [kind for kind, severity in SEVERITIES.items() if any(r.severity == severity for r in rules)]
        self.device = EinjDevice(
            memory, address, registers, self._trigger, plant=self._plant, supported=ErrorType(sum(offered))
        )
        self._events: list[MemoryFault] = []

    def take(self) -> list[MemoryFault]:
        """What the guest made happen since the last call, for the core."""
        found, self._events = self._events, []
        return found

    def severity(self, gpa: int, size: int) -> str | None:
        """How severe policy surely tells a loss of these bytes; None where it depends, or is not told, or not here."""
        if size > LARGEST or not any(s.gpa <= gpa and gpa + size <= s.gpa + s.size for s in self.core.memory.slots):
            return None
        first = gpa >> self.core.page_shift << self.core.page_shift
        here, found = When(code="AO", gpa_from=first, gpa_to=first + 1), set[str]()
        for rule in self.core.rules:
            if rule.when.code == "AR" or not _holds_at(rule.when, first):
                continue
            found.add(rule.severity if rule.action == "tell" else rule.action)
            if rule.when.covers(here):
                break
        return found.pop() if len(found) == 1 else None

    def _plant(self, injection: Injection) -> EinjStatus:
        wanted, place = SEVERITIES.get(injection.error_type), injection.memory_range
        if wanted is None or place is None or self.severity(*place) != wanted:
            return EinjStatus.INVALID_ACCESS
        return EinjStatus.SUCCESS

    def _trigger(self, injection: Injection) -> None:
        place = injection.memory_range
        assert place is not None  # nothing else was planted
        self._events.append(MemoryFault(*place))


def _holds_at(when: When, gpa: int) -> bool:
    return (when.gpa_from or 0) <= gpa < (1 << 64 if when.gpa_to is None else when.gpa_to)
