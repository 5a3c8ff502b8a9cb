"""A Linux guest that moves between emulated hosts with different kernels: it boots on one, and goes on on the other.

The stream goes through a memory file that is the memory of a PCI device of both hosts, one after the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from vmm_ras.lab.errors import Failure
from vmm_ras.lab.host import Host
from vmm_ras.lab.host_packages import HostLab
from vmm_ras.lab.linux_kvm import HOST_MEMORY
from vmm_ras.lab.moves_linux_inner import CARRIED, SHARED
from vmm_ras.lab.report import Report
from vmm_ras.lab.tiny_matrix import MARK

SECONDS = 1200.0
"""For one host."""
STEPS = {"describe": 1, "leave": 1, "arrive": 2}
"""What a host does, and in how many steps of the report."""


def run(hosts: Sequence[HostLab], guest: HostLab, root: bytes, heard: Callable[[str], object]) -> Report:
    """Where the guest goes to an older kernel, that host describes itself before the guest begins.

    ``hosts``: from where, and to where; ``root``: the guest's root file system.  Raises Failure, Unavailable.
    """
    series = [lab.kernel.series for lab in hosts]
    report = Report(f"Lab: Linux {guest.kernel.series} moves from KVM of Linux {series[0]} to that of {series[1]}")
    carried: dict[str, Any] = {}
    shared = os.memfd_create("shared", os.MFD_CLOEXEC)
    try:
        os.ftruncate(shared, SHARED)
        older = [int(number) for number in series[0].split(".")] > [int(number) for number in series[1].split(".")]
        steps = [*([("describe", hosts[1])] if older else []), ("leave", hosts[0]), ("arrive", hosts[1])]
        for what, lab in steps:
            _host(report, lab, guest, root, what, carried, shared, heard)
    finally:
        os.close(shared)
    report.facts["Guest kernel"] = f"{guest.kernel.version} ({carried['kernel']})"
    return report


def _host(
    report: Report, lab: HostLab, guest: HostLab, root: bytes, what: str, carried: dict[str, Any], shared: int,
    heard: Callable[[str], object],
) -> None:  # fmt: skip
    wrong: list[Failure] = []
    before = len(report.times)

    def take(line: str) -> None:
        if not line.startswith(MARK):
            return
        said = orjson.loads(line.removeprefix(MARK))
        if "failure" in said:
            wrong.append(Failure(f"Linux {lab.kernel.series}: {said['failure']}", said["detail"]))
        elif "carried" in said:
            carried.update(said["carried"])
        else:
            step = f"{lab.kernel.series}: {said['step']}"
            report.rows += [(step, asserted, shown) for _, asserted, shown in said["rows"]]
            report.times.append((step, said["seconds"]))
            heard(f"{step}: {len(said['rows'])} assertions held, {said['seconds']:.1f} s")

    files = {
        "Image": guest.kernel.image.read_bytes(), "root.cpio.gz": root, str(CARRIED): orjson.dumps(carried),
    }  # fmt: skip
    host = Host(lab, memory=HOST_MEMORY, shared=(shared, SHARED))
    done = host.run(
        files, f"dmesg -n 1; exec python3 -m vmm_ras.lab.moves_linux_inner {what}\n", seconds=SECONDS, heard=take
    )
    if wrong:
        raise Failure(f"{wrong[0]}; {host.keep(done)}", wrong[0].detail)
    if done.code or len(report.times) - before != STEPS[what]:
        raise Failure(f"the host ends with code {done.code}; {host.keep(done)}", done.text()[-3000:])
    report.facts[f"Host, {what}s"] = f"{lab.kernel.version} ({done.release})"
