"""What the documents say of the code is made from the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import layouts

ROOT = Path(__file__).parents[2]


def test_the_layout_tables_are_those_of_the_declarations() -> None:
    assert layouts.PAGE.read_text() == layouts.text(), "run python -m tests.layouts"


PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / link).exists(), link
    if page in {"README.md", "CONTRIBUTING.md"}:
        for path in re.findall(r"`((?:vmm_ras|acpi|cper|tests|fixtures|docs)/[\w./-]+)`", text):
            assert (ROOT / path).exists(), path


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))

    for page in ("README.md", "CONTRIBUTING.md"):
        assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", (ROOT / page).read_text())) <= targets


def test_what_a_replay_prints_is_explained() -> None:
    from vmm_ras.rows import LOST, OUTCOMES, Row
    from vmm_ras.summary import Summary

    page = (ROOT / "docs" / "replay.md").read_text()
    named = set(re.findall(r"`([\w-]+)`", page))
    assert {*Row(0, 0, 0.0, "AR", None, None, 12).plain(), *Summary().plain(), *Summary().failures, *OUTCOMES} <= named
    assert set(re.findall(r"`([\w-]+)`", page.split("`lost` counts events", 1)[1].split(";")[0])) == LOST


TESTING = (ROOT / "docs" / "testing-policies.md").read_text()


def test_the_examples_are_shown_as_they_are() -> None:
    shown = dict(re.findall(r"<!-- example: (\S+) -->\n```python\n(.*?)```", TESTING, re.S))

    files = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/examples/test_*.py"))
    assert sorted(shown) == files
    assert len(files) == 5
    assert all((ROOT / file).read_text() == text for file, text in shown.items())


def test_every_word_of_the_vocabulary_is_explained() -> None:
    from vmm_ras.scenario import Guest, Machine, Page, Telling

    words = {w for c in (Machine, Guest, Page, Telling) for w in vars(c) if not w.startswith("_")}
    own = {"guest", "runner", "machine", "gpa", "thread", "where", "posted", "why_not", "taken_back"}
    times = {"happened_at", "posted_at", "acked_at"}
    assert len(words) > 40
    assert {w for w in words - own - times if not re.search(rf"[.`]{w}\b", TESTING)} == set()
