"""The second boot: tables from the initrd instead of the firmware's, and what the crash of the first left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from acpi.bert import Bert
from acpi.firmware import Firmware
from acpi.image import Image, find_sources, find_tables
from vmm_ras.events import Code, HostSignal
from vmm_ras.io.qemu.adapter import QemuGuest
from vmm_ras.lab import kernel_log
from vmm_ras.lab.guest_firmware import SDEI_SOURCE, link, upgrades
from vmm_ras.lab.guest_tables import compare_sysfs
from vmm_ras.lab.qemu import Qemu
from vmm_ras.lab.records import RecordStore
from vmm_ras.lab.report import Report
from vmm_ras.lab.running import SECONDS, RunningGuest
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier

HOST = 0x7F00_0000_0000
"""Host address that guest RAM is taken to have: a SIGBUS names host addresses."""


class SecondBoot:
    """One run."""

    def __init__(
        self, qemu: Qemu, firmware: Firmware, first: Image, tables: Mapping[str, bytes], report: Report
    ) -> None:
        """``first``: what the firmware placed in the first boot; ``tables``: what the initrd holds."""
        self.guest, self.report = RunningGuest(qemu, report), report
        self.qemu, self.firmware, self.first = qemu, firmware, first
        self.instead = {data[:4].decode(): data for data in tables.values()}

    @staticmethod
    def tables_for(gic: Literal[2, 3], first: Image) -> Mapping[str, bytes]:
        """The tables for the initrd, by file name, after a first boot."""
        return upgrades(gic, *error_regions(first))

    def play(self, store: RecordStore) -> None:
        """The whole of it."""
        with self.report.step("Second boot: tables from the initrd"):
            self._boot()
        with self.report.step("A found page, told through a source that only the initrd's HEST has"):
            self._found()
        with self.report.step("The crash of the first boot, read and forgotten"):
            self._records(store)

    def _boot(self) -> None:
        guest, report = self.guest, self.report
        guest.boot()
        overrides = tuple(rf"Table Upgrade: override \[{signature}-" for signature in sorted(self.instead))
        guest.check_boot((*overrides, *kernel_log.BOUND, *kernel_log.WITHOUT_SDEI))
        ram = find_tables(guest.ram.read, guest.rsdp())
        report.equal(
            find_sources(guest.ram.read, ram["HEST"][1]), self.first.sources, "edk2 put the error region where it was",
            f"{self.first.region('hardware_errors')[0]:#x}",
        )  # fmt: skip
        built = self.firmware.image_of(link(self.firmware, *error_regions(self.first)))
        compare_sysfs(guest.console, self.firmware, built, report, self.instead)
        self.sources = find_sources(guest.ram.read, self.instead["HEST"])
        guest.check_bound(len(self.sources))

    def _found(self) -> None:
        source = next(s for s in self.sources if s.source_id == SDEI_SOURCE)
        ram, victim = self.guest.ram, self.guest.start("initrd", "he")
        core = Notifier([source], MemoryMap([MemorySlot(HOST, ram.gpa, ram.size)]))
        adapter = QemuGuest(self.qemu, core)
        adapter.receive(HostSignal(Code.AO, HOST + victim.pa - ram.gpa, 12, 0))
        posted = adapter.settle(1, SECONDS)[-1]
        self.report.equal(
            (posted.source_id, posted.delivery), (SDEI_SOURCE, "polled"), "polled, where the firmware says SDEI"
        )
        self.guest.told(posted, source, victim, Code.AO)

    def _records(self, store: RecordStore) -> None:
        console, report = self.guest.console, self.report
        kept = store.records()
        console.run("mount -t pstore pstore /sys/fs/pstore")
        shown = sorted(console.run("ls /sys/fs/pstore").split())
        expected = sorted(f"dmesg-erst-{record.header.record_id}" for record in kept)
        report.equal(shown, expected, "Linux reads the records' identifiers", " ".join(shown))
        first = console.run("head -n 1 -q /sys/fs/pstore/*")
        for part in range(1, len(kept) + 1):
            report.line(first, rf"Panic#1 Part{part}\n", f"and what part {part} says")
        console.run("rm /sys/fs/pstore/*")
        report.equal(len(store.records()), 0, "Linux forgot them, and the device with it", "no records")


def error_regions(image: Image) -> tuple[int, int]:
    """Where the error region and the boot error region lie."""
    _, bert = image.region("BERT")
    return image.region("hardware_errors")[0], Bert.parse(bert).head.boot_error_region


__all__ = ["HOST", "SecondBoot"]
