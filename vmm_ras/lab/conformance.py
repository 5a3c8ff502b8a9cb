"""Scenario files on the model and on a real Linux, side by side: whoever of them ends otherwise is told apart.

Scenarios share a boot as long as the guest lives.  Those in which it panics, by the model's word, come last, with a
boot of their own each.  A scenario that fails leaves a folder: what the console printed, what the monitor was asked,
the blocks, and the report.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vmm_ras.effects import Posted
from vmm_ras.lab import initrd, observations
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.guest_firmware import MEMORY, files_of
from vmm_ras.lab.observations import Row, Sweep, chosen, short
from vmm_ras.lab.packages import Lab
from vmm_ras.lab.qemu import Qemu
from vmm_ras.lab.script_stage import VCPUS, QemuStage, firmware
from vmm_ras.profiles import PROFILES
from vmm_ras.scenario.model_stage import ModelStage
from vmm_ras.scenario.play import Result, Seen, play
from vmm_ras.traces.script import Script

APPEND, RANDOM = "nokaslr loglevel=1", "kpti=on loglevel=1"
KERNEL_BASE = {"6.1": 0xFFFF_8000_0800_0000}
LATER_BASE = 0xFFFF_8000_8000_0000
"""Virtual address of the first byte of a kernel's image without KASLR: of 6.1, and of later ones."""


class Boot:
    """One guest, booted when it is first needed, and again where it died."""

    def __init__(self, lab: Lab, *, random: bool = False) -> None:
        """``random``: its kernel has KASLR and KPTI on."""
        self.lab, self.built, self.random = lab, firmware(), random
        self.qemu: Qemu | None = None
        self.stage: QemuStage | None = None
        self.version = self.release = ""
        self.boots = 0

    def up(self) -> QemuStage:
        """The stage of a guest that runs.  Raises LabError."""
        if self.stage is None:
            lab, series = self.lab, self.lab.kernel.series
            self.qemu = Qemu(
                lab, initrd.build(lab), files_of(self.built), gpa=self.built.description.machine.memory[0].gpa,
                memory=MEMORY, vcpus=VCPUS, gic=3, append=RANDOM if self.random else APPEND,
                options=("-device", "virtio-rng-pci") if self.random else (),
            )  # fmt: skip
            base = KERNEL_BASE.get(series, LATER_BASE)
            image = lab.kernel.image.read_bytes()
            stage = QemuStage(self.qemu, f"linux-{series}", image, None if self.random else base, self.built)
            self.release = stage.boot()
            if self.random:
                self._check(stage, base)
            self.version, self.stage = f"{self.qemu.monitor.version} ({self.qemu.monitor.package})", stage
            self.boots += 1
        return self.stage

    def _check(self, stage: QemuStage, linked: int) -> None:
        found = re.search(r"detected: Kernel page table isolation \(KPTI\)", stage.log)
        text = int(stage.linux.run("grep -m 1 -w -e _text -e _stext /proc/kallsyms").split()[0], 16)
        assert stage.base is not None
        if (
            found is None or stage.base == linked or text - stage.base not in {0, 0x1_0000}
        ):  # the image's head is 64 KiB
            raise Failure(
                f"KASLR and KPTI are not on: the kernel is at {stage.base:#x}, its text at {text:#x}", stage.log
            )

    def about(self) -> dict[str, Any]:
        """What is said of a run."""
        return {
            "kernel": self.lab.kernel.version, "release": self.release, "qemu": self.version, "boots": self.boots,
        }  # fmt: skip

    def down(self) -> None:
        """End it; the next scenario gets another."""
        if self.qemu is not None:
            self.qemu.close()
        self.qemu = self.stage = None


def run(lab: Lab, scenarios: Sequence[Script], evidence: Path | None = None, boot: Boot | None = None) -> Iterator[Row]:
    """Play them all.  Raises LabError where the guest does not even boot, InputError for what no real guest does."""
    guest = f"linux-{lab.kernel.series}"
    assert guest in PROFILES
    played = [(scenario, play(scenario, ModelStage(guest))) for scenario in scenarios]
    played.sort(key=lambda pair: not pair[1].seen.alive)  # a stable sort: who lives comes first
    boot = boot or Boot(lab)
    try:
        for scenario, model in played:
            yield _one(boot, scenario, model, evidence)
    finally:
        boot.down()


def _one(boot: Boot, scenario: Script, model: Result, evidence: Path | None) -> Row:
    stage, start = _up(boot, evidence), time.monotonic()
    stage.predicted = model.seen
    failed = [f"model: {text}" for text in model.failed]
    try:
        real = play(scenario, stage)
        failed += [f"kernel: {text}" for text in real.failed]
        failed += [f"kernel: {text} as on the model" for text in real.seen.differences(model.seen)]
        failed += [f"kernel: {text}" for text in stage.traced()] if real.seen.alive else []
        seen, timeline, alive = real.seen, real.timeline, real.seen.alive
    except Failure as error:
        failed.append(f"kernel: {error}")
        seen, timeline, alive = Seen({}, {}, False), f"{stage.words()}\n{error.detail}", False
    result = Result(scenario, stage.guest, tuple(failed), seen, timeline)
    folder = None
    if failed and evidence is not None:
        folder = evidence / boot.lab.kernel.series / short(scenario.name)
        _keep(folder, boot, stage, result, model)
    if not alive or failed:
        boot.down()
    return Row(result, model.seen, time.monotonic() - start, folder, alive)


def _up(boot: Boot, evidence: Path | None) -> QemuStage:
    """The stage; of a guest that does not boot there is a folder too."""
    try:
        return boot.up()
    except Failure as error:
        qemu = boot.qemu
        if qemu is None or evidence is None:
            raise
        folder = evidence / boot.lab.kernel.series / "boot"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "serial.log").write_text(qemu.console.text)
        (folder / "qmp.log").write_text("\n".join(qemu.monitor.log))
        (folder / "report.md").write_text(f"# Boot\n\n{error}\n\n{error.detail}\n")
        raise Failure(f"{error}; see {folder}", error.detail) from None


def _keep(folder: Path, boot: Boot, stage: QemuStage, result: Result, model: Result) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    assert boot.qemu is not None
    (folder / "serial.log").write_text(stage.console.text)
    (folder / "kernel.log").write_text(stage.log)
    (folder / "qmp.log").write_text("\n".join(boot.qemu.monitor.log))
    for number, posted in enumerate(e for e in stage.adapter.seen if isinstance(e, Posted)):
        (folder / f"block-{number}-source{posted.source_id}.bin").write_bytes(posted.block)
    report = [f"# {result.scenario.name} on {boot.release}", "", *result.failed]
    report += ["", "## Kernel", "", result.timeline, "", "## Model", "", model.timeline]
    (folder / "report.md").write_text("\n".join(report) + "\n")


def series_of(
    lab: Lab, folder: Path, only: str, out: Path | None, evidence: Path, verbose: bool, say: Callable[[str], object],
    *, resume: bool = False, random: bool = False,
) -> bool:  # fmt: skip
    """Play the scenarios of a folder on one kernel; whether all ended as on the model.  Raises LabError, InputError.

    ``out`` is written after each of them; ``resume``: those that passed by what it holds already are left out.
    ``random``: with KASLR and KPTI.
    """
    found = [s for s in chosen(folder, only) if not s.head.model_only]
    boot = Boot(lab, random=random)
    sweep = Sweep(
        lab.kernel.series, lab.kernel.version, "", lambda scenarios: run(lab, scenarios, evidence, boot), boot.about
    )
    return observations.play(sweep, found, out, say, whole=not only, resume=resume, verbose=verbose)


__all__ = ["Boot", "run", "series_of"]
