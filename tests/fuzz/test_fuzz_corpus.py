"""Every case that fuzzing ever found, and every seed, once more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acpi import document
from cper.pci_bus import PciBus
from tests.fuzz import cper_target
from vmm_ras.cli import _report
from vmm_ras.cli.cper_input import explained
from vmm_ras.errors import InputError

FOUND = sorted((Path(__file__).parents[2] / "fixtures" / "fuzz" / "cper").glob("*-*"))


@pytest.mark.parametrize("case", FOUND, ids=lambda path: path.name)
def test_found_cases(case):
    cper_target.check(case.read_bytes(), all_laws=True)


def test_there_are_found_cases():
    assert FOUND


def test_seeds_are_of_every_target():
    seeds = cper_target.seeds()
    assert {cper_target.kind_of(seed[0]) for seed in seeds} == set(range(len(cper_target.NAMES)))
    for seed in seeds[::5]:
        cper_target.check(seed, all_laws=True)


@given(st.binary(min_size=1, max_size=14))
def test_a_kept_case_does_the_same(data):
    kept = cper_target.lasting(data)
    name = cper_target.NAMES[cper_target.kind_of(data[0])]
    assert cper_target.NAMES[cper_target.kind_of(kept[0])] == {
        "changed_document": "json_document", "changed_libcper": "libcper_json",
    }.get(name, name)  # fmt: skip
    cper_target.check(kept, all_laws=True)


def test_the_target_can_fail(monkeypatch):
    monkeypatch.setattr(cper_target, "SECONDS", -1)
    with pytest.raises(AssertionError, match=" s"):
        cper_target.check(b"\0CPER")


@pytest.mark.parametrize("what", ["kind", "type", "section"])
def test_what_an_error_quotes_is_told_in_one_printable_line(what, tmp_path, capsys):
    good = document.of_section(PciBus, bytes(72))
    hostile = "\x1b[31m\u202e\n" + "x" * 100_000
    wrong = good | {what: {hostile: 1} if what == "section" else hostile}
    with pytest.raises(ValueError, match="x") as found:
        document.encode(wrong, 1 << 20)

    assert _report(InputError(explained(found.value, tmp_path))) == 1
    line = capsys.readouterr().err.removesuffix("\n")
    assert line.isprintable()
    assert len(line) < 4000
