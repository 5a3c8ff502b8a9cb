"""Scenarios on KVM: which cannot be played there, and what becomes of what the emulated host says of the others."""

import json
from types import SimpleNamespace

import pytest

from tests import conformance_tables
from vmm_ras.events import Code, HostSignal
from vmm_ras.lab import scenario_kvm
from vmm_ras.lab.errors import Failure, Unavailable
from vmm_ras.lab.kvm_stage import UNHEARD, KvmStage, _with_unheard, refusal
from vmm_ras.policy import default_policy
from vmm_ras.scenario.model_stage import ModelStage
from vmm_ras.scenario.play import play
from vmm_ras.traces import script

SCENARIOS = conformance_tables.scenarios()
PLAYED = ("sea/el0-reader-vcpu1", "severity/gsiv-fatal", "channel/gsiv-early")
REFUSED = {
    "sea/bare-reader": "where a process of the guest is to take",
    "sea/other-page-early": "where a process of the guest is to take",
    "sea/relayed": "where a process of the guest is to take",
    "sea/el1-then-gsiv": "at a moment of our choice",
    "serror/corrected-el1": "at a moment of our choice",
    "granule/gsiv-8k": "the host loses 4 KiB pages",
    "channel/gsiv-reader": "is used by who reads it",
    "channel/polled-unhandled": "is used by who reads it",
    "reset/offlined-kept": "replaces what was lost",
    "unread/never-acknowledged": "a real guest acknowledges when it does",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_kvm_cannot_do_is_said(name):
    assert REFUSED[name] in refusal(SCENARIOS[name])


def test_most_scenarios_can_be_played():
    assert sum(not refusal(s) for s in SCENARIOS.values()) >= 100
    assert not any(refusal(SCENARIOS[name]) for name in PLAYED)


class Emulated:
    """In the place of the emulated host: says what it is told to."""

    def __init__(self, lines):
        self.said, self.files = lines, None

    def __call__(self, lab, *, memory):
        return self

    def lines(self, files, command, *, seconds):
        self.files = files
        yield "a word of the host"
        yield from self.said


@pytest.fixture
def scenarios(tmp_path):
    paths = [conformance_tables.SCENARIOS / f"{name}.scenario.jsonl" for name in PLAYED]
    return [script.read(path.read_bytes(), str(path)) for path in paths]


def row(scenario, **other):
    seen = play(scenario, ModelStage("linux-6.12")).seen.plain()
    return {
        "name": scenario.name,
        "failed": [],
        "seen": seen,
        "traced": seen["alive"],
        "timeline": "t",
        "seconds": 2.0,
    } | other


def played(monkeypatch, scenarios, lines, tmp_path, said=()):
    said = said or []
    host = Emulated(lines)
    kernel = SimpleNamespace(image=conformance_tables.PAGE, series="6.12", version="6.12.95-1")
    pair = SimpleNamespace(
        host=SimpleNamespace(kernel=kernel), guest=SimpleNamespace(kernel=kernel), root=b"root", name="6.12-6.12"
    )
    monkeypatch.setattr(scenario_kvm, "Host", host)
    monkeypatch.setattr(scenario_kvm, "prepare", lambda packages, host, guest: pair)
    return host, scenario_kvm.Nested(None, "6.12", tmp_path, said.append).play(scenarios)


def test_who_ends_otherwise_leaves_a_folder(monkeypatch, scenarios, tmp_path):
    bad = row(scenarios[2], serial="s", log="k", blocks=[(4, "00ff")], detail="d")
    bad["seen"]["pages"]["a"]["offlined"] = False
    lines = [f"ROW {json.dumps(r)}" for r in (row(scenarios[0]), bad, row(scenarios[1]))]
    host, rows = played(monkeypatch, scenarios, ['BOOT "6.12"', *lines], tmp_path)
    rows = list(rows)
    wanted = json.loads(host.files["scenarios.json"])
    assert [name for name, _, _ in wanted["scenarios"]] == [scenarios[i].name for i in (0, 2, 1)], "who dies comes last"
    assert [r.result.failed for r in rows] == [(), ("kernel: page a: offlined is False, not True as on the model",), ()]
    folder = rows[1].evidence
    assert {p.name for p in folder.iterdir()} == {
        "serial.log",
        "kernel.log",
        "host.log",
        "report.md",
        "block-0-source4.bin",
    }
    assert (folder / "block-0-source4.bin").read_bytes() == b"\0\xff"


def test_a_host_that_ends_early(monkeypatch, scenarios, tmp_path):
    """What was played is told all the same, and the rest leaves a folder."""
    lines = [f"ROW {json.dumps(row(scenarios[0]))}"]
    rows = played(monkeypatch, scenarios, lines, tmp_path)[1]
    assert next(rows).result.failed == ()
    with pytest.raises(Failure, match=r"6.12-6.12: 1 of 3 scenarios played; see .*kvm-6.12/boot"):
        next(rows)
    assert (tmp_path / "kvm-6.12/boot/host.log").read_text() == "a word of the host\n"
    for host, kind in ((True, Unavailable), (False, Failure)):
        failed = json.dumps({"error": "no KVM", "detail": "why", "host": host, "serial": "the guest's words"})
        with pytest.raises(kind, match="no KVM"):
            list(played(monkeypatch, scenarios, [f"FAILED {failed}"], tmp_path)[1])
        assert (tmp_path / "kvm-6.12/boot/serial.log").read_text() == "the guest's words"
        assert "no KVM\n\nwhy" in (tmp_path / "kvm-6.12/boot/report.md").read_text()


def test_what_was_played_is_kept_and_not_played_again(monkeypatch, scenarios, tmp_path):
    said, out = [], tmp_path / "out"
    by_name = {s.name: s for s in scenarios}
    lines = ['BOOT "6.12.95"', *(f"ROW {json.dumps(row(s))}" for s in scenarios)]
    played(monkeypatch, scenarios, lines, tmp_path)
    nested = scenario_kvm.Nested(None, "6.12", tmp_path)
    folder, only = conformance_tables.SCENARIOS, f"^({'|'.join(PLAYED)})$"
    assert scenario_kvm.series_of(nested, folder, only, out, False, said.append)
    assert "3 of 3 scenarios end as on the model, 1 boot," in said[-1]
    held = json.loads((out / "linux-6.12.json").read_text())
    assert sorted(held["scenarios"]) == sorted(PLAYED)
    assert held["about"]["host"] == "6.12.95-1"
    assert scenario_kvm.series_of(nested, folder, only, out, False, said.append, resume=True)
    assert "0 of 0 scenarios" in said[-1]
    assert set(by_name) == {str(folder / f"{name}.scenario.jsonl") for name in PLAYED}


def test_what_is_to_be_used_is_not_told_as_found():
    stage = KvmStage.__new__(KvmStage)
    stage._used = {0x40005}
    lost = SimpleNamespace(code=Code.AO, gpa=0x4000_5000)
    assert stage._decide(lost, None) == UNHEARD.name
    assert stage._decide(SimpleNamespace(code=Code.AR, gpa=0x4000_5000), None) is None
    assert stage._decide(SimpleNamespace(code=Code.AO, gpa=0x4000_6000), None) is None
    assert _with_unheard(default_policy()).rule[-1].action == "ignore"
    assert not UNHEARD.when.gpa_to or UNHEARD.when.gpa_to == 1


def test_what_is_heard_of_the_machine():
    stage = KvmStage.__new__(KvmStage)
    stage._heard = []
    signal = HostSignal(Code.AO, 0x1000, 12, 1)
    for item in (signal, SimpleNamespace(id=3), SimpleNamespace(vcpu=0)):
        stage._hear(item)
    assert stage._heard[0] == signal
    assert len(stage._heard) == 2
