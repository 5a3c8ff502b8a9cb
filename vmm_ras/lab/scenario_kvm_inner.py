"""Scenario files inside an emulated arm64 host, on a Linux guest of our VMM.

``python3 -m vmm_ras.lab.scenario_kvm_inner``, with the kernel, the initrd and ``scenarios.json`` beside it.  It prints
lines of JSON: what became of each scenario (ROW), or why no other is played (FAILED).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from vmm_ras.effects import Posted
from vmm_ras.errors import HostError, RasError
from vmm_ras.lab.errors import LabError
from vmm_ras.lab.kvm_stage import KvmStage
from vmm_ras.scenario.play import Seen, play
from vmm_ras.traces import script

WANTED = Path("scenarios.json")


def say(kind: str, value: object) -> None:
    """A line for whoever started the host."""
    sys.stdout.write(f"{kind} {json.dumps(value)}\n")
    sys.stdout.flush()


def one(stage: KvmStage, text: str, name: str, predicted: dict[str, Any]) -> bool:
    """Play a scenario; whether the guest can play another."""
    start, detail = time.monotonic(), ""
    stage.predicted = Seen.of_plain(predicted)
    try:
        result = play(script.read(text.encode(), name), stage)
        failed, seen, timeline = list(result.failed), result.seen.plain(), result.timeline
        failed += stage.traced() if result.seen.alive else []
    except RasError as error:
        failed, seen, timeline, detail = [str(error)], None, stage.words(), getattr(error, "detail", "")
    differs = seen is None or bool(Seen.of_plain(seen).differences(stage.predicted))
    lives = seen is not None and bool(seen["alive"])
    row: dict[str, Any] = {
        "name": name, "failed": failed, "seen": seen, "traced": lives, "timeline": timeline,
        "seconds": time.monotonic() - start,
    }  # fmt: skip
    if failed or differs:
        blocks = [(item.source_id, item.block.hex()) for item in stage.seen if isinstance(item, Posted)]
        row |= {"detail": detail, "serial": stage.console.text[-30000:], "log": stage.log[-30000:], "blocks": blocks}
    say("ROW", row)
    return lives and not failed and not differs


def main() -> int:
    """Play what ``scenarios.json`` asks for."""
    sys.setswitchinterval(0.0005)  # a vCPU that leaves the guest shall not wait for who only looks at the console
    wanted, console = json.loads(WANTED.read_text()), None
    try:
        stage = KvmStage(wanted["guest"])
        console = stage.console
        try:
            up = False
            for name, text, predicted in wanted["scenarios"]:
                if not up:
                    if stage.machine.boots:
                        stage.linux.reset()
                        stage.machine.halt()
                    say("BOOT", stage.boot())
                up = one(stage, text, name, predicted)
        finally:
            stage.close()
    except (RasError, OSError) as error:
        host = isinstance(error, HostError) and not isinstance(error, LabError)
        serial = "" if console is None else console.text[-30000:]
        say("FAILED", {"error": str(error), "detail": getattr(error, "detail", ""), "host": host, "serial": serial})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
