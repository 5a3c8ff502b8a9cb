"""A guest under QEMU: how it is booted."""

from __future__ import annotations

from vmm_ras.io.qemu.adapter import QemuGuest
from vmm_ras.io.qemu.wait import Deadline
from vmm_ras.lab import records
from vmm_ras.lab.booted import SECONDS, BootedGuest
from vmm_ras.lab.qemu import Qemu
from vmm_ras.lab.report import Report

BOOT_SECONDS = 120.0


class RunningGuest(BootedGuest):
    """A guest under QEMU.  Every method raises Failure."""

    def __init__(self, qemu: Qemu, report: Report) -> None:
        super().__init__(qemu.console, qemu.ram, report)
        self.qemu = qemu

    def boot(self, firmware: QemuGuest | None = None) -> str:
        """Let it boot, while ``firmware`` answers its SDEI calls; what the kernel calls itself."""
        debugger, deadline = self.qemu.debugger, Deadline(BOOT_SECONDS, "the guest boots")
        debugger.resume()
        self.console.expect("EFI stub: Booting", BOOT_SECONDS)
        debugger.interrupt()  # addresses are assigned, and the kernel has not looked yet
        records.turn_on(self.qemu.qtest)
        if firmware is not None:
            firmware.watch_calls(True)
        debugger.resume()
        if firmware is not None:
            while "\nLAB-UP " not in self.console.text:
                deadline.check()
                firmware.pump(0.1)
            debugger.interrupt()
            firmware.watch_calls(False)
            debugger.resume()
        return self.console.line("LAB-UP ", BOOT_SECONDS).removeprefix("LAB-UP ")


__all__ = ["BOOT_SECONDS", "SECONDS", "RunningGuest"]
