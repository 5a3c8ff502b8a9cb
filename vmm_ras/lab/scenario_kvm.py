"""Scenario files on Linux on KVM: an emulated arm64 host whose memory is really lost, and our VMM on it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vmm_ras.lab.conformance import Row, key
from vmm_ras.lab.errors import Failure, Unavailable
from vmm_ras.lab.host import Host
from vmm_ras.lab.host_packages import HostPackages
from vmm_ras.lab.kvm_stage import refusal
from vmm_ras.lab.linux_kvm import HOST_MEMORY, prepare
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


def run(packages: HostPackages, kernel: str, scenarios: Sequence[Script], evidence: Path) -> Iterator[Row]:
    """Play them, none of which :func:`refusal` refuses, on a guest of this series.  Raises LabError, InputError."""
    assert not any(refusal(s) for s in scenarios)
    guest = f"linux-{kernel}"
    played = [(s, play(s, ModelStage(guest))) for s in scenarios]
    played.sort(key=lambda pair: not pair[1].seen.alive)  # a guest that panics costs a boot
    pair = prepare(packages, HOSTS.get(kernel, HOST), kernel)
    wanted = [(s.name, Path(s.name).read_text(), model.seen.plain()) for s, model in played]
    files = {
        "Image": pair.guest.kernel.image.read_bytes(), "root.cpio.gz": pair.root,
        "scenarios.json": json.dumps({"guest": guest, "scenarios": wanted}).encode(),
    }  # fmt: skip
    rows: dict[str, Any] = {}
    failed: dict[str, Any] = {}
    releases: list[str] = []

    def heard(line: str) -> None:
        kind, _, text = line.partition(" ")
        if kind == "ROW":
            row = json.loads(text)
            rows[row["name"]] = row
        elif kind == "FAILED":
            failed.update(json.loads(text))
        elif kind == "BOOT":
            releases.append(json.loads(text))

    host = Host(pair.host, memory=HOST_MEMORY)
    done = host.run(files, SCRIPT, seconds=SECONDS + SECONDS_EACH * len(wanted), heard=heard)
    for scenario, model in played:
        if scenario.name in rows:
            yield _row(scenario, model, rows[scenario.name], evidence / f"kvm-{kernel}", done.text())
    if failed:
        kind = Unavailable if failed["host"] else Failure
        raise kind(f"{pair.name}: {failed['error']}; {host.keep(done)}", failed["detail"])
    if len(rows) != len(played):
        raise Failure(
            f"{pair.name}: {len(rows)} of {len(played)} scenarios were played; {host.keep(done)}", done.text()[-3000:]
        )


def _row(scenario: Script, model: Result, row: dict[str, Any], evidence: Path, host: str) -> Row:
    failed = [f"model: {text}" for text in model.failed] + [f"kernel: {text}" for text in row["failed"]]
    seen = Seen({}, {}, False) if row["seen"] is None else Seen.of_plain(row["seen"])
    if row["seen"] is not None:
        failed += [f"kernel: {text} as on the model" for text in seen.differences(model.seen)]
    result = Result(scenario, model.guest, tuple(failed), seen, row["timeline"])
    folder = None
    if failed:
        folder = evidence / key(scenario.name).replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        texts = {"serial.log": row.get("serial", ""), "kernel.log": row.get("log", ""), "host.log": host}
        for name, text in texts.items():
            (folder / name).write_text(text)
        for number, block in enumerate(row.get("blocks", ())):
            (folder / f"block-{number}.bin").write_bytes(bytes.fromhex(block))
        report = [
            f"# {scenario.name} on KVM",
            "",
            *failed,
            "",
            row.get("detail", ""),
            "",
            "## Kernel",
            "",
            row["timeline"],
        ]
        (folder / "report.md").write_text("\n".join([*report, "", "## Model", "", model.timeline, ""]))
    return Row(result, model.seen, row["seconds"], folder)


__all__ = ["refusal", "run"]
