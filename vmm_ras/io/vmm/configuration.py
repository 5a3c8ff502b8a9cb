"""What a virtual machine is made of, and how a boot of it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from acpi.description import FirmwareDescription
from vmm_ras.compat.host import Description
from vmm_ras.deciding import Hook
from vmm_ras.errata import Pool
from vmm_ras.io.vmm import platform
from vmm_ras.policy import Policy
from vmm_ras.profiles import PROFILES, GuestProfile
from vmm_ras.sdei_state import EventDescription

HUGE_PAGE = 2 << 20
"""Bytes."""


@dataclass(frozen=True)
class Configuration:
    """What a machine is made of."""

    kernel: Path
    """An uncompressed arm64 ``Image``."""
    initrd: Path | None = None
    command_line: str = ""
    memory: int = 1 << 30
    """Bytes."""
    vcpus: int = 1
    name: str = "guest"
    policy: Policy | None = None
    hook: Hook | None = None
    profile: GuestProfile = PROFILES["linux"]
    pool: Pool | None = None
    """CPUs that the guest is told of; it is shown the chosen one.  Without, it is shown the host's."""
    sdei_events: tuple[EventDescription, ...] = ()
    """What SDEI offers besides the event of its error source."""
    hosts: tuple[Description, ...] = ()
    """Hosts to which the guest is to be able to move: it begins with what they take too."""
    huge: bool = False
    """RAM of the host's 2 MiB pages."""
    describe: Callable[..., FirmwareDescription] = field(default=platform.describe, repr=False)
    """(bytes of RAM, vCPUs, ``sdei``) to all that the ACPI tables say."""


class Ending(NamedTuple):
    """Why a boot ended."""

    how: str
    """``powered off``, ``reset``, ``crashed``, ``stopped`` (from outside, or by policy) or ``failed``."""
    why: str = ""
