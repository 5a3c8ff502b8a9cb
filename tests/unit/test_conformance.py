"""The conformance suite on the model: what scenarios expect, what kernels did; a wrong statement turns it red."""

import json
from dataclasses import replace

import pytest

from acpi.hest import NotificationType as N
from tests import conformance_tables, scenario_suite
from vmm_ras import profiles
from vmm_ras.errors import InputError
from vmm_ras.lab.kvm_stage import refusal
from vmm_ras.lab.observations import digest
from vmm_ras.profiles import PROFILES
from vmm_ras.scenario.model_stage import ModelStage
from vmm_ras.scenario.play import Seen, play

SCENARIOS = conformance_tables.scenarios()
OBSERVED = conformance_tables.observed()
NESTED = conformance_tables.observed(conformance_tables.OBSERVED / "kvm")
KERNELS = ("6.1", "6.12", "7.2")
WRONG = {
    "notifications": frozenset({N.POLLED, N.SEA, N.SDEI, N.SEI}),
    "claims_sea_at_el1": True,
    "walks_all_sea_sources": False,
    "cache_slots": 0,
    "cache_seconds": 12.5,
    "cache_swallows": frozenset(),
    "printed_blocks": 3,
    "printed_seconds": 30.0,
    "serror_survived": frozenset({"ueo", "ce", "uc", "ueu"}),
    "sea_unrecovered": False,
    "memory_failure_outside_ram": None,
    "arm_error_types": "ordinal",
    "ras": False,
}
"""Statement to what it is not; None: the opposite."""
BLIND = {"sections": "what is printed and nothing else depends on it: docs/conformance.md shows it as unproven"}


def test_the_files_are_made_from_the_table():
    made = scenario_suite.files()
    there = {str(p.relative_to(scenario_suite.FOLDER)): p.read_text() for p in scenario_suite.FOLDER.rglob("*.jsonl")}
    assert there == made, "run python -m tests.scenario_suite"
    assert len(made) >= 100


def test_the_page_is_made_from_the_files():
    assert conformance_tables.PAGE.read_text() == conformance_tables.text(), "run python -m tests.conformance_tables"


@pytest.mark.parametrize("series", KERNELS)
def test_every_expectation_holds_on_the_model_and_it_ends_as_the_kernel_did(series):
    results = {name: play(s, ModelStage(f"linux-{series}")) for name, s in SCENARIOS.items()}
    assert {name: r.failed for name, r in results.items() if r.failed} == {}

    playable = {name for name, s in SCENARIOS.items() if not s.head.model_only}
    compare(OBSERVED[series], results, playable)
    if series in NESTED:
        compare(NESTED[series], results, {name for name, s in SCENARIOS.items() if not refusal(s)})


def compare(observed, results, playable):
    """What a kernel did, with what the model does: of these very scenarios."""
    run = observed["scenarios"]
    assert run.keys() <= playable
    assert {name: row["failed"] for name, row in run.items() if row["failed"]} == {}
    other = [name for name, row in run.items() if row["digest"] != digest(SCENARIOS[name])]
    assert not other, "the scenario was another one then: play it again"
    wrong = {name: results[name].seen.differences(Seen.of_plain(row["seen"])) for name, row in run.items()}
    assert {name: found for name, found in wrong.items() if found} == {}


def test_kernels_played_most_of_them():
    assert {series: len(run["scenarios"]) >= 150 for series, run in OBSERVED.items()} == dict.fromkeys(KERNELS, True)
    assert len(NESTED["6.12"]["scenarios"]) >= 35


def test_what_a_kernel_traced_was_compared_wherever_it_lived():
    for run in (*OBSERVED.values(), *NESTED.values()):
        assert [name for name, row in run["scenarios"].items() if row["seen"]["alive"] and not row.get("traced")] == []


def test_every_statement_is_made_wrong_here():
    assert WRONG.keys() | BLIND.keys() == set(conformance_tables.STATEMENTS)
    proves = {statement for s in SCENARIOS.values() for statement in s.head.proves}
    assert proves == WRONG.keys()


@pytest.mark.parametrize("statement", WRONG)
def test_a_wrong_statement_turns_the_suite_red(statement, monkeypatch):
    right = PROFILES["linux-7.2"]
    value = WRONG[statement] if WRONG[statement] is not None else not getattr(right, statement)
    wrong = replace(right, name="linux-7.2", **{statement: value})
    assert getattr(wrong, statement) != getattr(right, statement)
    monkeypatch.setitem(profiles.PROFILES, "linux-7.2", wrong)
    meant = {name: s for name, s in SCENARIOS.items() if statement in s.head.proves}
    run = OBSERVED["7.2"]["scenarios"]
    red = []
    for name, s in meant.items():
        observed = run.get(name)
        try:
            result = play(s, ModelStage("linux-7.2"))
        except InputError:  # a record for a source that the wrong guest does not bind
            red.append(name)
            continue
        if result.failed or (observed is not None and result.seen.differences(Seen.of_plain(observed["seen"]))):
            red.append(name)
    assert red, f"no scenario that says it proves {statement} notices that it is wrong"


def test_what_kernels_did_is_kept_whole():
    for run in OBSERVED.values():
        for row in run["scenarios"].values():
            assert Seen.of_plain(row["seen"]).plain() == row["seen"]
            assert json.loads(json.dumps(row)) == row
