"""Every case that fuzzing ever found, and every seed, once more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import cper_target

FOUND = sorted((Path(__file__).parents[2] / "fixtures" / "fuzz" / "cper").glob("*-*"))


def test_found_cases():
    for case in FOUND:
        cper_target.check(case.read_bytes())


def test_seeds_are_of_every_kind():
    seeds = cper_target.seeds()
    assert {seed[0] for seed in seeds} == set(range(cper_target.KINDS))
    for seed in seeds[::5]:
        cper_target.check(seed)


def test_the_target_can_fail(monkeypatch):
    monkeypatch.setattr(cper_target, "SECONDS", -1)
    with pytest.raises(AssertionError, match=" s"):
        cper_target.check(b"\0CPER")
