"""How a lab run ends other than well.

LabError
 +-- Unavailable   the host cannot have what the lab needs: exit code 3
 +-- Failure       an assertion did not hold, or the guest did not get there in time: exit code 1
"""

from __future__ import annotations

from vmm_ras.io.qemu.errors import Failure
from vmm_ras.io.qemu.errors import QemuError as LabError


class Unavailable(LabError):
    """A package, a program or a right is not to be had."""


__all__ = ["Failure", "LabError", "Unavailable"]
