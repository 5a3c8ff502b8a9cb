"""The tiny-guest matrix: real KVM and real hwpoison on an emulated arm64 host, asserted line by line.

The scenarios run on that host (``tiny_matrix`` and its kin) with the product's own KVM adapter; here their assertions
are collected.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from vmm_ras.lab.apt import run as command
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.host import Host
from vmm_ras.lab.host_packages import HostLab
from vmm_ras.lab.report import Report
from vmm_ras.lab.tiny_guest import IMAGE, RAM
from vmm_ras.lab.tiny_matrix import MARK, SCENARIOS

SECONDS = 600.0
"""For one kernel; on two idle processors it takes about a tenth of that."""


def build(lab: HostLab) -> bytes:
    """The tiny guest's image, assembled anew if its source is newer.  Raises Unavailable."""
    source = Path(__file__).with_name("guest") / "tiny.S"
    target = lab.folder / "guest" / IMAGE
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        whole, partial = target.with_suffix(".elf"), target.with_suffix(".new")
        flags = f"-nostdlib -static -march=armv8.2-a -Wl,-Ttext={RAM:#x},--build-id=none".split()
        what = "the tiny guest cannot be assembled"
        command([str(lab.compiler), *flags, "-o", str(whole), str(source)], lab.environment, what)
        copy = lab.compiler.with_name(lab.compiler.name.replace("gcc", "objcopy"))
        command([str(copy), "-O", "binary", str(whole), str(partial)], lab.environment, what)
        partial.rename(target)
    return target.read_bytes()


def run(lab: HostLab, only: Sequence[str] = (), heard: Callable[[str], object] = lambda line: None) -> Report:
    """Run the scenarios (of these names, or all) on one kernel; ``heard`` is told each that held.  Raises Failure."""
    facts = {"Host kernel": lab.kernel.version, "Host": "emulated, arm64, two processors"}
    report, start = Report(f"Lab: KVM of Linux {lab.kernel.series}, tiny guest", facts), time.monotonic()
    wrong: list[Failure] = []

    def take(line: str) -> None:
        if not line.startswith(MARK):
            return
        said = orjson.loads(line.removeprefix(MARK))
        if "failure" in said:
            wrong.append(Failure(said["failure"], said["detail"]))
            return
        report.rows += [tuple(row) for row in said["rows"]]
        report.times.append((said["step"], said["seconds"]))
        heard(f"{said['step']}: {len(said['rows'])} assertions held, {said['seconds']:.1f} s")

    host = Host(lab)
    names = " ".join(shlex.quote(name) for name in only)
    script = f"insmod /mods/hwpoison-inject.ko && exec python3 -m vmm_ras.lab.tiny_matrix {names}\n"
    done = host.run({IMAGE: build(lab)}, script, seconds=SECONDS, heard=take)
    if wrong:
        raise Failure(f"{wrong[0]}; {host.keep(done)}", wrong[0].detail)
    ran, wanted = [name for name, _ in report.times], [n for n, _ in SCENARIOS if not only or n in only]
    if done.code or ran != wanted:
        raise Failure(
            f"the matrix ends with code {done.code} behind {ran[-1:]}; {host.keep(done)}", done.text()[-3000:]
        )
    report.facts["Host kernel"] = f"{lab.kernel.version} ({done.release})"
    report.facts["Wall-clock time"] = f"{time.monotonic() - start:.1f} s"
    return report
