"""docs/policy.md says all that the language has, and its examples are policies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vmm_ras.io.hook_file import load_hook
from vmm_ras.policy import Rule, When, load_policy

TEXT = Path("docs/policy.md").read_text()


def block(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize(
    "key", [*When.model_fields, *(k for k in Rule.model_fields if k not in {"name", "doc", "when"})]
)
def test_every_key_is_told(key: str) -> None:
    assert re.search(rf"^\| .*`{key}`.* \|", TEXT, re.MULTILINE), key


@pytest.mark.parametrize("text", block("toml"))
def test_every_example_is_a_policy_without_findings(text: str) -> None:
    assert load_policy(text).findings() == []


def test_the_hook_is_one(tmp_path: Path) -> None:
    (source,) = block("python")
    (tmp_path / "hook.py").write_text(source)

    assert callable(load_hook(tmp_path / "hook.py").decide)
