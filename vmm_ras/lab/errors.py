"""How a lab run ends other than well.

LabError
 +-- Unavailable   the host cannot have what the lab needs: exit code 3
 +-- Failure       an assertion did not hold, or the guest did not get there in time: exit code 1
"""

from __future__ import annotations

from vmm_ras.errors import HostError


class LabError(HostError):
    """Base of the lab's errors; the text is one line, and ``detail`` what helps to find out why."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class Unavailable(LabError):
    """A package, a program or a right is not to be had."""


class Failure(LabError):
    """The guest did not do what is asserted of it."""
