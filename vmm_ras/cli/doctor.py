"""`vmm-ras doctor`: what this host can do, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Annotated, NamedTuple

import typer

from vmm_ras.cli.common import Json, print_json, print_table

LAB_MEMORY = 3000
"""MiB that a run of the lab takes."""


class Purpose(str, Enum):
    """What a host may be wanted for."""

    live = "live"
    lab = "lab"


class Finding(NamedTuple):
    """One thing that a host has or lacks."""

    purpose: str
    name: str
    there: bool
    needed: bool
    """Whether the purpose cannot do without it."""
    said: str
    """What was found; where it is missing, what that means or what helps."""


def doctor(
    for_: Annotated[
        Purpose | None, typer.Option("--for", help="Exit with 3 unless this host can do that.  [default: either]")
    ] = None,
    json_: Json = False,
) -> None:
    """Say what this host can do: guests on KVM with real memory errors (live), the emulated ones of the lab.

    Exit codes: 0 it can do what is asked for, 3 it cannot.  Example: vmm-ras doctor --for live
    """
    findings = [*live(), *lab()]
    missing = {p.value: [f for f in findings if f.purpose == p.value and f.needed and not f.there] for p in Purpose}
    wanted = [for_.value] if for_ is not None else [p.value for p in Purpose]
    if json_:
        print_json({"can": {p: not m for p, m in missing.items()}, "findings": [f._asdict() for f in findings]})
    else:
        _show(findings, missing)
    if all(missing[purpose] for purpose in wanted):
        raise typer.Exit(3)


def _show(findings: list[Finding], missing: dict[str, list[Finding]]) -> None:
    from rich.table import Table

    table = Table("for", "what", "here", "found", box=None, pad_edge=False, header_style="bold")
    for f in findings:
        here = "yes" if f.there else "no" if f.needed else "without"
        style = "" if f.there else "red" if f.needed else "yellow"
        table.add_row(f.purpose, f.name, here, f.said, style=style)
    print_table(table)
    for purpose, lacking in missing.items():
        what = "; ".join(f"{f.name}: {f.said}" for f in lacking)
        print(f"{purpose}: " + (f"not possible here: {what}" if lacking else "possible"))


# -- guests on this host's KVM -------------------------------------------------------------


def live() -> Iterator[Finding]:
    """What a guest on this host's own KVM takes, and what its errors take."""
    import platform
    import sys

    machine = platform.machine()
    yield _found("live", "architecture", machine in {"aarch64", "arm64"}, machine, f"{machine}, arm64 is needed")
    if sys.platform != "linux":
        yield Finding("live", "Linux", False, True, f"{sys.platform}: signals and KVM are Linux'")
        return
    yield from _kvm(machine in {"aarch64", "arm64"})
    yield from _memory_failure()
    yield from _rights()


def _kvm(arm64: bool) -> Iterator[Finding]:
    from vmm_ras.errors import HostError
    from vmm_ras.io.kvm.system import Kvm
    from vmm_ras.io.kvm.vm import Vm
    from vmm_ras.kvm import events, ioctls

    try:
        kvm = Kvm()
    except HostError as error:
        yield Finding("live", "/dev/kvm", False, True, str(error))
        return
    with kvm:
        yield Finding("live", "/dev/kvm", True, True, f"API version {ioctls.API_VERSION}")
        if not arm64:
            return  # the other numbers mean other things there
        with Vm(kvm) as vm:
            for name, number, needed, without in (
                ("vCPU events", events.CAP_VCPU_EVENTS, True, "no SError can be injected or moved"),
                ("external aborts", events.CAP_ARM_INJECT_EXT_DABT, False, "SEAs have no FAR: registers are set"),
                ("SError syndromes", events.CAP_ARM_INJECT_SERROR_ESR, False, "no FEAT_RAS: SErrors say nothing"),
                ("immediate exit", ioctls.CAP_IMMEDIATE_EXIT, True, "accesses in flight cannot be completed"),
                ("relayed aborts", events.CAP_ARM_SEA_TO_USER, False, "a guest's own SEA stays with the host"),
                ("memory faults", ioctls.CAP_MEMORY_FAULT_INFO, False, "only SIGBUS tells of lost memory"),
                ("writable MIDR_EL1", events.CAP_ARM_WRITABLE_IMP_ID_REGS, False, "guests see this host's CPU"),
            ):
                there = vm.capability(number) > 0
                yield Finding("live", name, there, needed, f"capability {number}" if there else without)
            yield Finding("live", "SDEI calls", vm.forward_calls(), False, "SMCCC filter: from Linux 6.4 on")
            yield Finding("live", "GICv3", vm.has_device(ioctls.DEV_TYPE_ARM_VGIC_V3), False, "in the kernel")


def _memory_failure() -> Iterator[Finding]:
    recovery, early = (_text(f"/proc/sys/vm/memory_failure_{name}") for name in ("recovery", "early_kill"))
    off = "the kernel panics (memory_failure_recovery 0)" if recovery == "0" else "CONFIG_MEMORY_FAILURE is off"
    yield _found("live", "memory failure handling", recovery == "1", "memory_failure_recovery 1", off)
    if early is not None:
        yield Finding("live", "early kill", early == "1", False,
                      f"memory_failure_early_kill {early}; it need not be: a thread of ours asks for it")  # fmt: skip
    huge = _text("/proc/sys/vm/nr_hugepages") or "0"
    yield Finding("live", "huge pages", huge != "0", False, f"nr_hugepages {huge}")


def _rights() -> Iterator[Finding]:
    from pathlib import Path

    status = _text("/proc/self/status") or ""
    effective = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    yield _found("live", "CAP_SYS_ADMIN", bool(effective >> 21 & 1), "memory can be lost on purpose",
                 "no memory can be lost on purpose; errors are heard of all the same", False)  # fmt: skip
    there = Path("/sys/kernel/debug/hwpoison").is_dir()
    yield Finding("live", "hwpoison-inject", there, False,
                  "loses page frames by number" if there else "modprobe hwpoison-inject, and debugfs")  # fmt: skip
    pagemap = _opens("/proc/self/pagemap")
    yield _found("live", "/proc/self/pagemap", pagemap, "pages whose signal was lost are found",
                 "a signal that is lost is a page that nobody hears of", False)  # fmt: skip


# -- the lab -------------------------------------------------------------------------------


def lab() -> Iterator[Finding]:
    """What the lab takes: programs, or an archive to have them from."""
    import os
    import re
    import shutil
    import sys

    from vmm_ras.lab.host_packages import HOST_SUITES, PYTHON
    from vmm_ras.lab.packages import HOST_PROGRAMS, cache_folder

    cache = cache_folder()
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(cache / "tools/usr/bin")])
    fetch = all(shutil.which(program) for program in ("apt-get", "apt-cache", "dpkg-deb"))
    yield _found(
        "lab", "apt", fetch, "Debian packages can be fetched", "no apt-get: nothing more can be fetched", False
    )
    for name, package in HOST_PROGRAMS.items():
        where = shutil.which(name, path=path)
        yield Finding("lab", name, bool(where), not fetch, where or f"will be fetched: {package}" if fetch else package)
    kernels = [series for series in HOST_SUITES if (cache / "host-kernel" / series / "Image").exists()]
    yield Finding("lab", "kernels", len(kernels) == len(HOST_SUITES), not fetch and not kernels,
                  f"{', '.join(kernels) or 'none'} of {', '.join(HOST_SUITES)} in {cache}")  # fmt: skip
    own = ".".join(map(str, sys.version_info[:2]))
    yield Finding("lab", f"Python {PYTHON}", own == PYTHON, False,
                  own if own == PYTHON else f"{own}: the emulated host compiles what it imports")  # fmt: skip
    available = re.search(r"MemAvailable: +(\d+) kB", _text("/proc/meminfo") or "")
    free = int(available.group(1)) >> 10 if available else 0
    yield _found("lab", "memory", free >= LAB_MEMORY, f"{free} MiB available",
                 f"{free} MiB available, {LAB_MEMORY} are needed")  # fmt: skip


def _found(purpose: str, name: str, there: bool, yes: str, no: str, needed: bool = True) -> Finding:
    return Finding(purpose, name, there, needed, yes if there else no)


def _text(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def _opens(path: str) -> bool:
    try:
        with open(path, "rb"):
            return True
    except OSError:
        return False
