"""How it ends when QEMU or its guest does not do what it must.

QemuError
 +-- Failure   an answer did not come in time, or was another one than expected
"""

from __future__ import annotations

from vmm_ras.errors import HostError


class QemuError(HostError):
    """The text is one line, and ``detail`` what helps to find out why."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class Failure(QemuError):
    """The guest, or QEMU, did not do what is expected of it."""
