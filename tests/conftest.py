"""Hypothesis profiles; and a skip is a failure unless its reason stands in ``skips.txt``."""

from __future__ import annotations

import gc
import os
from collections import Counter
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, settings

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=30, derandomize=True, **COMMON)
settings.register_profile("ci", settings.get_profile("default"))
settings.register_profile("fuzz", max_examples=5000, print_blob=True, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

pytest.register_assert_rewrite("tests.golden.linux", "tests.laws.schema")

gc.disable()  # until all is collected: modules, declarations and ten thousand items stay

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


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """What was collected is never garbage, so no collector need look at it; and it looks at the rest less often."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def pytest_runtest_protocol(item, nextitem):
    """A worker of xdist tells of a test that passed once, not five times: that was half of what a short test costs."""
    option = item.config.option
    if not hasattr(item.config, "workerinput") or option.durations is not None or option.xmlpath:
        return None
    for report in runtestprotocol(item, log=False, nextitem=nextitem):
        if report.when == "call" or not report.passed or report.sections:
            item.ihook.pytest_runtest_logreport(report=report)
    return True


def pytest_terminal_summary(terminalreporter):
    """How many mutants the evidence killed, summed over the structures of tests/laws/test_mutation.py."""
    total: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                total.update({k: v for k, v in report.user_properties if k.startswith("mutants")})
    if total:
        terminalreporter.write_line(", ".join(f"{key}: {count}" for key, count in sorted(total.items())))
