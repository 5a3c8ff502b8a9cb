"""``python -m tests.snapshot_fixtures VERSION``: the snapshots that this version of the product writes, for ever kept.

Files are made once per version whose snapshots differ, and never again: what they show is that later versions read
what earlier ones wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson

from acpi.presets import PRESETS
from tests.walker import World
from vmm_ras.events import TellRecord, TellSerror
from vmm_ras.guests import state
from vmm_ras.replay import TABLES, Replay
from vmm_ras.replay_state import PARTS, save
from vmm_ras.snapshot import pending, read_snapshot, rebuild
from vmm_ras.traces import open_trace

ROOT = Path(__file__).parents[1] / "fixtures"
FOLDER = ROOT / "snapshots"


def made() -> dict[str, bytes]:
    """The snapshots by name: guests that are owed much of each kind."""
    out = {}
    for preset, guest, policy in (
        ("all", "generic", "default"), ("all", "linux", "history"), ("default", "linux", "batch"),
        ("all", "generic", "serror"), ("qemu-11.1", "linux", "host-first"),
    ):  # fmt: skip
        world = World(preset, guest, policy)
        world.acknowledge_late(float("inf"), None)
        world.mask(0)
        for page in range(6):
            world.consumed(page * 3, page % 4, 12)
            world.found(page * 3 + 30, 12 if page % 2 else 16)
        world.m.receive(TellRecord(b"\1" + bytes(63)))
        world.m.receive(TellSerror(0, 0x811))
        m = world.m
        registers = [{0x6030_0000_0013_C020: 0x1100_0000}]
        out[f"{preset}-{guest}-{policy}"] = state.save(
            m.core, m.guest, m.now, sources=m.image.sources, id_registers=registers, lines={"gsiv": [], "ged": 1}
        )
    with open_trace(str(ROOT / "traces" / "guest-actions.jsonl")) as entries:
        out["replay"] = save(Replay(PRESETS["all"].place(TABLES)), entries, 4).data
    return out


def facts_of(data: bytes) -> dict[str, Any]:
    """What every later version must find in a snapshot."""
    core, arrival = rebuild(read_snapshot(data, PARTS))
    owed = pending(core, arrival.vcpus)
    return {
        "holes": [list(hole) for hole in arrival.holes],
        "pages": core.poison.counts[1:],
        "deadline": core.next_deadline(),
        "last_id": core.last_id,
        "unacknowledged": [source["source_id"] for source in owed["sources"]],
        "held": sorted(core.aborts),
        "records": owed["records"],
        "pc": [vcpu["pc"] for vcpu in arrival.vcpus],
        "serror": [vcpu["vsesr"] for vcpu in arrival.vcpus],
        "id_registers": [sorted(map(list, registers.items())) for registers in arrival.id_registers],
    }


def main() -> int:
    """Write the files of a version that has none."""
    folder = FOLDER / sys.argv[1]
    folder.mkdir(parents=True)
    facts = {}
    for name, data in made().items():
        (folder / f"{name}.snap").write_bytes(data)
        facts[name] = facts_of(data)
    lines = [f'"{name}": {orjson.dumps(found).decode()}' for name, found in facts.items()]
    (folder / "facts.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
