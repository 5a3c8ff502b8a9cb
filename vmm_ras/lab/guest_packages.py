"""Kernels for the guest that scenarios are played on: those of the smoke test, and Debian's newest."""

from __future__ import annotations

from vmm_ras.lab.errors import Unavailable
from vmm_ras.lab.host_packages import HOST_SUITES, HostPackages
from vmm_ras.lab.packages import SUITES, Kernel, Lab

SERIES = tuple(dict.fromkeys([*SUITES, *HOST_SUITES]))
"""Kernel series that a guest can have."""


class GuestPackages(HostPackages):
    """The cache.  Every method raises Unavailable with one line that says what is not to be had, and why."""

    def prepare(self, series: str) -> Lab:
        """Everything for one kernel series: the cloud kernel, where the series has one of its own in one package."""
        if series in SUITES:
            return super().prepare(series)
        if series not in SERIES:
            raise Unavailable(f"kernel {series!r} is none of {', '.join(SERIES)}")
        lab = super().prepare(next(iter(SUITES)))
        with self._lock():
            found = self._host_kernel(series)
        return lab._replace(kernel=Kernel(series, found.version, found.image))
