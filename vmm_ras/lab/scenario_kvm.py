"""Scenario files on Linux on KVM: an emulated arm64 host whose memory is really lost, and our VMM on it.

They share one boot of the host, and of the guest as long as it lives.  A scenario that fails leaves a folder: what
the guest's console and the host printed, the guest's kernel log, the blocks, and the report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from cper.words import counted
from vmm_ras.lab import observations
from vmm_ras.lab.errors import Failure, LabError, Unavailable
from vmm_ras.lab.host import Host
from vmm_ras.lab.host_packages import HostPackages
from vmm_ras.lab.kvm_stage import refusal
from vmm_ras.lab.linux_kvm import HOST_MEMORY, Pair, prepare
from vmm_ras.lab.observations import Row, Sweep, chosen, short
from vmm_ras.scenario.model_stage import ModelStage
from vmm_ras.scenario.play import Result, Seen, play
from vmm_ras.traces.script import Script

HOSTS = {"7.2": "7.2"}
"""A guest's kernel series to the host's, where it is not ``HOST``."""
HOST = "6.12"
"""Its KVM lets SDEI calls come to us; that of 6.1 does not."""
SECONDS, SECONDS_EACH = 600.0, 300.0
"""For the boots, and for a scenario: a busy machine takes ten times as long as an idle one."""
SCRIPT = "dmesg -n 1; python3 -m vmm_ras.lab.scenario_kvm_inner"
Said = Callable[[str], object]


class Nested:
    """A host and its guest; the host boots for every :meth:`play`."""

    def __init__(self, packages: HostPackages, kernel: str, evidence: Path, said: Said = lambda line: None) -> None:
        """``kernel``: the guest's series.  ``said`` is told how far it is.  Raises Unavailable."""
        self.pair: Pair = prepare(packages, HOSTS.get(kernel, HOST), kernel)
        self.kernel, self.evidence, self._said = kernel, evidence / f"kvm-{kernel}", said
        self.boots, self.release = 0, ""

    def about(self) -> dict[str, Any]:
        """What is said of a run."""
        return {
            "kernel": self.pair.guest.kernel.version, "release": self.release, "host": self.pair.host.kernel.version,
            "boots": self.boots,
        }  # fmt: skip

    def play(self, scenarios: Sequence[Script]) -> Iterator[Row]:
        """Play them, none of which :func:`refusal` refuses.  Raises LabError, InputError."""
        assert not any(refusal(s) for s in scenarios)
        guest, pair = f"linux-{self.kernel}", self.pair
        played = [(s, play(s, ModelStage(guest))) for s in scenarios]
        played.sort(key=lambda item: not item[1].seen.alive)  # a guest that panics costs a boot
        wanted = [(s.name, Path(s.name).read_text(), model.seen.plain()) for s, model in played]
        files = {
            "Image": pair.guest.kernel.image.read_bytes(), "root.cpio.gz": pair.root,
            "scenarios.json": json.dumps({"guest": guest, "scenarios": wanted}).encode(),
        }  # fmt: skip
        left = {scenario.name: (scenario, model) for scenario, model in played}
        host, heard, serial = Host(pair.host, memory=HOST_MEMORY), list[str](), ""
        seconds = SECONDS + SECONDS_EACH * len(wanted)
        self._said(f"Linux {pair.host.kernel.version} boots, the host")
        try:
            with closing(host.lines(files, SCRIPT, seconds=seconds)) as lines:
                for line in lines:
                    kind, _, text = line.partition(" ")
                    if kind == "ROW":
                        row = json.loads(text)
                        yield self._row(*left.pop(row["name"]), row, heard)
                        self._said(f"{len(played) - len(left)} of {len(played)} played")
                    elif kind == "FAILED":
                        failed = json.loads(text)
                        serial = failed["serial"]
                        raise (Unavailable if failed["host"] else Failure)(failed["error"], failed["detail"])
                    elif kind == "BOOT":
                        self.boots, self.release = self.boots + 1, json.loads(text)
                        self._said(f"Linux {self.release} is up, the guest")
                    else:
                        heard.append(line)
            if left:
                raise Failure(f"{len(played) - len(left)} of {counted(len(played), 'scenario')} played")
        except LabError as error:
            detail = error.detail or "\n".join(heard[-60:])
            folder = _keep(self.evidence / "boot", "Boot", f"{error}\n\n{detail}", heard, serial)
            raise type(error)(f"{pair.name}: {error}; see {folder}", detail) from None

    def _row(self, scenario: Script, model: Result, row: dict[str, Any], heard: Sequence[str]) -> Row:
        failed = [f"model: {text}" for text in model.failed] + [f"kernel: {text}" for text in row["failed"]]
        seen = Seen({}, {}, False) if row["seen"] is None else Seen.of_plain(row["seen"])
        if row["seen"] is not None:
            failed += [f"kernel: {text} as on the model" for text in seen.differences(model.seen)]
        result = Result(scenario, model.guest, tuple(failed), seen, row["timeline"])
        folder = None
        if failed:
            report = [*failed, "", row.get("detail", ""), "", "## Kernel", "", row["timeline"], ""]
            folder = _keep(
                self.evidence / short(scenario.name), f"{scenario.name} on Linux {self.release} on KVM",
                "\n".join([*report, "## Model", "", model.timeline]), heard, row.get("serial", ""),
            )  # fmt: skip
            (folder / "kernel.log").write_text(row.get("log", ""))
            for number, (source, block) in enumerate(row.get("blocks", ())):
                (folder / f"block-{number}-source{source}.bin").write_bytes(bytes.fromhex(block))
        return Row(result, model.seen, row["seconds"], folder, row["traced"])


def _keep(folder: Path, title: str, report: str, heard: Sequence[str], serial: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "serial.log").write_text(serial)
    (folder / "host.log").write_text("".join(f"{line}\n" for line in heard))
    (folder / "report.md").write_text(f"# {title}\n\n{report}\n")
    return folder


def series_of(
    nested: Nested, folder: Path, only: str, out: Path | None, verbose: bool, say: Said, *, resume: bool = False
) -> bool:
    """Play the scenarios of a folder that can be; whether all ended as on the model.  Raises LabError, InputError.

    ``out`` and ``resume`` as in ``observations.play``.
    """
    found = [s for s in chosen(folder, only) if not refusal(s)]
    machine = f" on KVM of {nested.pair.host.kernel.version}"
    sweep = Sweep(nested.kernel, nested.pair.guest.kernel.version, machine, nested.play, nested.about)
    return observations.play(sweep, found, out, say, whole=not only, resume=resume, verbose=verbose)


__all__ = ["Nested", "refusal", "series_of"]
