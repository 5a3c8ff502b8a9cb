"""A Linux guest that is told of a pool of CPUs: it asks for them, and works around the errata of all."""

from __future__ import annotations

import json
from typing import Any

from vmm_ras.errata import DISCOVER_IMPL_CPUS, DISCOVER_IMPL_VER, Pool
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.host import Host
from vmm_ras.lab.linux_kvm import HOST_MEMORY, Pair
from vmm_ras.lab.report import Report

OTHERS = (0x410FD034, 0x411FD0B1)
"""CPUs beside the host's own: Cortex-A53 r0p4 and Cortex-A76 r1p1, with errata that the host's has not."""
LINES = {
    "ARM 832075": "ARM erratum 832075",
    "ARM 843419": "ARM erratum 843419",
    "ARM 845719": "ARM erratum 845719",
    "ARM 1165522": "ARM errata 1165522, 1319367, or 1530923",
    "ARM 1418040": "ARM erratum 1418040",
    "ARM 1508412": "ARM erratum 1508412",
    "ARM 1742098": "ARM erratum 1742098",
    "ARM 3194386": "SSBS not fully self-synchronizing",
    "ARM 4118414": "Broken broadcast TLBI completion",
}
"""Erratum to what Linux prints where it works around it; those that are chosen by MIDR alone."""
SECONDS = 900.0


def run(pair: Pair) -> Report:
    """Boot the guest on the host, both emulated.  Raises Failure, Unavailable."""
    report = Report(
        "A guest with a pool of CPUs", {"Host": pair.host.kernel.version, "Guest": pair.guest.kernel.version}
    )
    host = Host(pair.host, memory=HOST_MEMORY)
    files = {"Image": pair.guest.kernel.image.read_bytes(), "root.cpio.gz": pair.root}
    script = f"dmesg -n 1; python3 -m vmm_ras.lab.errata_inner {' '.join(map(hex, OTHERS))}\n"
    with report.step("The guest boots, and is asked"):
        done = host.run(files, script, seconds=SECONDS)
        found = {kind: json.loads(text) for kind, _, text in (line.partition(" ") for line in done.lines)
                 if kind in {"SAID", "FAILED"}}  # fmt: skip
        if "SAID" not in found:
            failed = found.get("FAILED", {"error": "the program ended without a word", "detail": done.text()[-3000:]})
            raise Failure(f"{failed['error']}; {host.keep(done)}", failed["detail"])
        _judge(report, found["SAID"])
    return report


def _judge(report: Report, said: dict[str, Any]) -> None:
    pool = Pool.from_plain(said["pool"])
    expected = [DISCOVER_IMPL_VER] + [DISCOVER_IMPL_CPUS] * len(pool.cpus)
    report.equal(said["calls"], expected, "it asks for the version, then for each CPU", said["release"])
    log = said["log"]
    report.line(log, f"Number of target implementation CPUs is {len(pool.cpus)}", "it took all of them")
    told = pool.errata()
    for name, printed in LINES.items():
        because = ", ".join(cpu.name for cpu in told.get(name, ()))
        report.check((printed in log) == (name in told), f"{name} is worked around as predicted", because)
    report.line(log, rf"Booting Linux on .*\[{pool.chosen.midr:#010x}\]", f"it is shown {pool.chosen.name}")
    report.line(said["sysfs"], f"midr_el1:{pool.chosen.midr:#018x}", "sysfs has the chosen CPU's MIDR_EL1")
    report.line(
        said["cpuinfo"], f"CPU part\t: {pool.chosen.midr >> 4 & 0xFFF:#05x}", "/proc/cpuinfo has its part number"
    )
