"""Hypothesis profiles; and a skip is a failure unless its reason stands in ``skips.txt``."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=30, derandomize=True, **COMMON)
settings.register_profile("ci", settings.get_profile("default"))
settings.register_profile("fuzz", max_examples=5000, print_blob=True, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

pytest.register_assert_rewrite("tests.golden.linux", "tests.laws.schema")

SKIPS = Path(__file__).with_name("skips.txt")


def allowed_skips() -> set[str]:
    """The reasons that may skip a test."""
    lines = (line.strip() for line in SKIPS.read_text().splitlines())
    return {line for line in lines if line and not line.startswith("#")}


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    """A skip, or an expected failure, whose reason is not listed becomes a failure."""
    if not report.skipped:
        return
    reason = getattr(report, "wasxfail", None)
    if reason is None:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = text.removeprefix("Skipped: ")
    else:
        reason = reason.removeprefix("reason: ")
        del report.wasxfail
    if reason not in allowed_skips():
        report.outcome = "failed"
        report.longrepr = f"skipped, but tests/skips.txt does not allow it: {reason!r}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    _refuse(report)
    return report


def pytest_terminal_summary(terminalreporter):
    """How many mutants the evidence killed, summed over the structures of tests/laws/test_mutation.py."""
    total: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                total.update({k: v for k, v in report.user_properties if k.startswith("mutants")})
    if total:
        terminalreporter.write_line(", ".join(f"{key}: {count}" for key, count in sorted(total.items())))
