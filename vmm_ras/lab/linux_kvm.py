"""A Linux guest on real KVM, whose host really loses memory: an emulated arm64 host, and our VMM on it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

from vmm_ras.lab import initrd
from vmm_ras.lab.errors import Failure, Unavailable
from vmm_ras.lab.host import CPU, CPUS, Host
from vmm_ras.lab.host_packages import HostLab, HostPackages
from vmm_ras.lab.linux_kvm_guest import MEMORY, VCPUS, programs
from vmm_ras.lab.packages import SUITES
from vmm_ras.lab.report import Report

HOST_MEMORY = 2048
"""MiB: the host's root file system, the guest's kernel, and the guest."""
SECONDS, SECONDS_PER_BOOT = 1500.0, 300.0
"""For a run on a busy machine; alone it takes a tenth of that."""
SCRIPT = "mkdir -p /dev/pts; mount -t devpts devpts /dev/pts; dmesg -n 1; python3 -m vmm_ras.lab.linux_kvm_inner"
Said = Callable[[str, dict[str, Any]], None]


class Pair(NamedTuple):
    """A host and its guest, and what the guest boots from."""

    host: HostLab
    guest: HostLab
    """For its kernel."""
    root: bytes
    """Its first root file system."""

    @property
    def name(self) -> str:
        """For people, and for files."""
        return f"{self.host.kernel.series}-{self.guest.kernel.series}"


def prepare(packages: HostPackages, host: str, guest: str) -> Pair:
    """Everything for a host's and a guest's kernel series.  Raises Unavailable."""
    found, theirs = packages.prepare_host(host), packages.prepare_host(guest)
    return Pair(found, theirs, initrd.build(packages.prepare(next(iter(SUITES))), programs()))


def run(pair: Pair, *, all_serrors: bool = False, said: Said = lambda what, values: None) -> Report:
    """Play the scenario; ``said`` is told when each step begins.

    Raises LabError; nothing of the run is left either way.
    """
    title = f"Lab: Linux {pair.guest.kernel.series} on KVM of Linux {pair.host.kernel.series}, with memory really lost"
    limit = SECONDS + (5 * SECONDS_PER_BOOT if all_serrors else 0)
    report, seconds, release = _play(pair, title, all_serrors=all_serrors, seconds=limit, said=said)
    report.facts = {
        "Host kernel package": pair.host.kernel.version,
        "Host kernel": release,
        "Guest kernel package": pair.guest.kernel.version,
        "Host": f"QEMU's arm virt with EL2, {CPU}, {CPUS} CPUs, {HOST_MEMORY} MiB, emulated",
        "Guest": f"vmm-ras' own VMM on /dev/kvm, {VCPUS} vCPUs in threads, GICv3, {MEMORY >> 20} MiB, no UEFI",
        **report.facts,
        "Date": time.strftime("%Y-%m-%d", time.gmtime()),
        "Wall-clock time": f"{seconds:.1f} s",
    }
    return report


def demo(pair: Pair, said: Said) -> None:
    """One page's way from madvise to the guest's process; ``said`` is told each moment.  Raises LabError."""
    _play(pair, "demo", demo=True, seconds=SECONDS, said=said)


def _play(
    pair: Pair, title: str, *, seconds: float, demo: bool = False, all_serrors: bool = False,
    said: Said = lambda what, values: None,
) -> tuple[Report, float, str]:  # fmt: skip
    files = {
        "Image": pair.guest.kernel.image.read_bytes(),
        "root.cpio.gz": pair.root,
        f"vmm_ras-{version('vmm-ras')}.dist-info/METADATA": f"Name: vmm-ras\nVersion: {version('vmm-ras')}\n".encode(),
        "scenario.json": json.dumps({"title": title, "demo": demo, "all": all_serrors}).encode(),
    }
    found: dict[str, Any] = {}

    def heard(line: str) -> None:
        kind, _, text = line.partition(" ")
        if kind == "MOMENT":
            values = json.loads(text)
            said(values.pop("moment"), values)
        elif kind in {"REPORT", "FAILED"}:
            found[kind] = json.loads(text)

    host = Host(pair.host, memory=HOST_MEMORY)
    done = host.run(files, SCRIPT, seconds=seconds, heard=heard)
    if "FAILED" in found:
        failed = found["FAILED"]
        kind = Unavailable if failed["host"] else Failure
        raise kind(f"{pair.name}: {failed['error']}; {host.keep(done)}", failed["detail"])
    if "REPORT" not in found:
        raise Failure(f"{pair.name}: the scenario ended without a report; {host.keep(done)}", done.text()[-3000:])
    report = Report(**found["REPORT"])
    report.rows = [(row[0], row[1], row[2]) for row in report.rows]
    report.times = [(name, float(spent)) for name, spent in report.times]
    return report, done.seconds, done.release
