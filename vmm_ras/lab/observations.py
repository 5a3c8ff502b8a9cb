"""What kernels did in scenario files, beside what the model does: one file per kernel, a line of JSON per scenario."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cper.words import counted
from vmm_ras.scenario.play import Result, Seen
from vmm_ras.traces import script
from vmm_ras.traces.script import Script


class Row(NamedTuple):
    """One scenario on one kernel."""

    result: Result
    """``failed`` holds what of the expectations was not so, on the model and on the kernel, and where they differ."""
    model: Seen
    seconds: float
    evidence: Path | None = None
    traced: bool = False
    """What the kernel traced was compared too; one that died cannot tell."""


class Sweep(NamedTuple):
    """A kernel on which scenarios are played."""

    series: str
    kernel: str
    """Its package's version."""
    machine: str
    """What it runs on, for people, behind its version; empty: QEMU."""
    play: Callable[[Sequence[Script]], Iterator[Row]]
    """Raises LabError, InputError."""
    about: Callable[[], dict[str, Any]]
    """What is said of the run; ``boots`` among it."""


def short(name: str) -> str:
    """A scenario's folder and file, as the name of one folder."""
    return key(name).replace("/", "-")


def key(name: str) -> str:
    """A scenario's name in tables: its folder and file."""
    path = Path(name)
    return f"{path.parent.name}/{path.name.partition('.')[0]}"


def digest(scenario: Script) -> str:
    """What a scenario is, in 16 digits: all of its lines count, its file's name does not."""
    return hashlib.sha256(repr((scenario.head, scenario.steps)).encode()).hexdigest()[:16]


def passed(before: dict[str, Any], sweep: Sweep, scenario: Script) -> bool:
    """Whether this very scenario has passed on this very kernel, by what :func:`text` wrote, its traces compared."""
    row = before["scenarios"].get(key(scenario.name), {}) if before else {}
    if row.get("digest") != digest(scenario) or before["about"]["kernel"] != sweep.kernel or row["failed"]:
        return False
    return bool(row.get("traced") or not row["seen"]["alive"])


def text(about: dict[str, Any], rows: Sequence[Row], before: dict[str, Any] | None = None) -> str:
    """What a kernel did, a line per scenario; ``before``: what it did in those that were not played now."""
    about = about | {
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "seconds": round(sum(row.seconds for row in rows)),
    }  # fmt: skip
    if before:
        about |= {name: before["about"][name] + about[name] for name in ("boots", "seconds")}
    lines = dict(before["scenarios"]) if before else {}
    lines |= {
        key(row.result.scenario.name): {
            "digest": digest(row.result.scenario), "traced": row.traced, "failed": list(row.result.failed),
            "seen": row.result.seen.plain(),
        }
        for row in rows
    }  # fmt: skip
    body = ",\n".join(f"  {json.dumps(name)}: {json.dumps(lines[name])}" for name in sorted(lines))
    return f'{{\n "about": {json.dumps(about)},\n "scenarios": {{\n{body}\n }}\n}}\n'


def chosen(path: Path, only: str) -> list[Script]:
    """The scenarios of a file or a folder whose names hold the regular expression ``only``.  Raises InputError."""
    paths = sorted(path.rglob("*.scenario.jsonl")) if path.is_dir() else [path]
    return [script.read(p.read_bytes(), str(p)) for p in paths if re.search(only, key(str(p)))]


def play(
    sweep: Sweep, scenarios: Sequence[Script], out: Path | None, say: Callable[[str], object], *, whole: bool,
    resume: bool = False, verbose: bool = False,
) -> bool:  # fmt: skip
    """Play them; whether all ended as on the model.  Raises LabError, InputError.

    The kernel's file in ``out`` is written after each.  ``whole``: these are all that there are, so that it begins
    anew; ``resume``: those that passed by what it holds already are left out.
    """
    start, rows, name = time.monotonic(), list[Row](), f"conformance: Linux {sweep.series}{sweep.machine}"
    path = None if out is None else out / f"linux-{sweep.series}.json"
    before = json.loads(path.read_text()) if path is not None and path.exists() and (resume or not whole) else {}
    if resume:
        scenarios = [s for s in scenarios if not passed(before, sweep, s)]
    for row in sweep.play(scenarios) if scenarios else ():
        rows.append(row)
        played = key(row.result.scenario.name)
        for what in row.result.failed:
            say(f"{name}: {played}: {what}")
        if row.evidence is not None:
            say(f"{name}: {played}: see {row.evidence}")
        elif verbose:
            say(f"{name}: {played}: passed in {row.seconds:.1f} s")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_suffix(".new")
            new.write_text(text(sweep.about(), rows, before))
            new.rename(path)  # whoever ends the run leaves a whole file
    bad = sum(bool(row.result.failed) for row in rows)
    boots = sweep.about()["boots"]
    say(
        f"conformance: Linux {sweep.kernel}{sweep.machine}: {len(rows) - bad} of {counted(len(rows), 'scenario')} end "
        f"as on the model, {counted(boots, 'boot')}, {time.monotonic() - start:.0f} s"
    )
    return not bad
