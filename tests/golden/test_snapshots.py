"""Snapshots of every released version stay readable for ever, and mean what they meant."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.snapshot_fixtures import FOLDER, facts_of, made
from vmm_ras.guests import state
from vmm_ras.replay_state import PARTS, resume
from vmm_ras.snapshot import read_snapshot

FILES = sorted(FOLDER.glob("*/*.snap"))


def test_every_version_has_its_fixtures() -> None:
    assert {file.parent.name for file in FILES} >= {"0.1.0"}
    for folder in {file.parent for file in FILES}:
        assert {f.stem for f in folder.glob("*.snap")} == orjson.loads((folder / "facts.json").read_bytes()).keys()


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_it_is_read_and_means_what_it_meant(file: Path) -> None:
    data = file.read_bytes()
    facts = orjson.loads((file.parent / "facts.json").read_bytes())[file.stem]

    assert facts_of(data) == facts
    core, guest, _ = state.resume(read_snapshot(data, PARTS))
    assert sum(facts["pages"]) > 0
    if file.stem != "replay":
        assert facts["held"]
        assert facts["unacknowledged"]
    now = core.next_deadline() or 0.0
    guest.os.ack_delay = {}
    for _ in range(400):
        guest.os.advance(now)
        guest.drive(core, core.expire(now), now)
        due = core.next_deadline()
        if due is None:
            break
        now = max(now, min(due, guest.os.next_time(now)))
    assert not core.aborts, "a vCPU that was held is let go"


@pytest.mark.parametrize("file", [f for f in FILES if f.stem == "replay"], ids=lambda f: f.parent.name)
def test_its_replay_goes_on(file: Path) -> None:
    run, position = resume(file.read_bytes())

    assert (run.seq, position.entries > 4) == (4, True)
    run.settle()
    assert run.summary.blocks > 0


def test_the_newest_ones_are_what_is_written_now() -> None:
    """Where this fails the format has changed: a reader must still take the old files, and new ones are to be kept."""
    newest = max({file.parent for file in FILES}, key=lambda f: tuple(map(int, f.name.split("."))))
    for name, data in made().items():
        parts = read_snapshot((newest / f"{name}.snap").read_bytes(), PARTS).raw
        assert list(read_snapshot(data, PARTS).raw) == list(parts), name
