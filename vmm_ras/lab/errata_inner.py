"""Inside an emulated arm64 host: a Linux guest that is told of a pool of CPUs, and what it says of them.

``python3 -m vmm_ras.lab.errata_inner MIDR...``, with the kernel and the initrd beside it: the host's own CPU and these.
Prints lines of JSON: SAID what the guest printed, FAILED why there is nothing.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

from vmm_ras.compat.registers import IMPLEMENTATION
from vmm_ras.errata import Cpu, Pool, is_discovery
from vmm_ras.errors import RasError
from vmm_ras.events import GuestCall
from vmm_ras.io.host import describe
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.qemu.wait import Channel
from vmm_ras.io.vmm.console import Console, writer
from vmm_ras.io.vmm.machine import Configuration, VirtualMachine
from vmm_ras.lab import console as shell

KERNEL, INITRD = Path("Image"), Path("root.cpio.gz")
MEMORY = 512 << 20
BOOT_SECONDS, SECONDS = 600.0, 300.0
COMMANDS = {
    "log": "dmesg | grep -E 'target implementation|detected: (ARM err|Broken|SSBS not)|Booting Linux on'",
    "cpuinfo": "grep -E 'CPU (implementer|part|variant|revision)' /proc/cpuinfo",
    "sysfs": "cd /sys/devices/system/cpu/cpu0/regs/identification; grep -H . *el1; cd /",
}


def ask(pool: Pool) -> dict[str, object]:
    """Boot the guest, and ask it.  Raises RasError."""
    ours, theirs = socket.socketpair()
    console = shell.Console(Channel(ours, "guest"))
    calls: list[int] = []

    def heard(item: object) -> None:
        if isinstance(item, GuestCall) and is_discovery(item.function):
            calls.append(item.function)

    configuration = Configuration(KERNEL, INITRD, "loglevel=1 panic=-1", MEMORY, 1, pool=pool)
    machine = VirtualMachine(configuration, Console(writer(theirs.fileno()), theirs.fileno()), heard)
    try:
        machine.start()
        release = console.line("LAB-UP ", BOOT_SECONDS).removeprefix("LAB-UP ")
        said = {name: console.run(command, SECONDS) for name, command in COMMANDS.items()}
    finally:
        machine.close()
        console.close()
        theirs.close()
    return {"release": release, "calls": calls, "pool": pool.plain(), **said}


def main(midrs: list[str]) -> int:
    """Everything."""
    sys.setswitchinterval(0.0005)
    try:
        with Kvm() as kvm:
            own = describe(kvm).registers
        host = Cpu(*(own.get(reg, 0) for reg in IMPLEMENTATION))
        print("SAID " + json.dumps(ask(Pool.of([host, *(Cpu(int(text, 16)) for text in midrs)]))), flush=True)
    except (RasError, OSError) as error:
        print("FAILED " + json.dumps({"error": str(error), "detail": getattr(error, "detail", "")}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
