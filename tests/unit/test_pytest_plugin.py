"""The plugin as its users meet it: a failing scenario shows why, a wrong description gives one clear line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vmm_ras.cli.timeline
import vmm_ras.scenario  # noqa: F401  # pytester forgets modules that only the inner run loaded

pytest_plugins = "pytester"
ROOT = Path(__file__).parents[2]
TRACE = ROOT / "fixtures" / "traces" / "qemu-like.strace"


@pytest.fixture
def run(pytester: pytest.Pytester):
    """Run a test file; the lines that pytest printed, and the counts."""

    def go(text: str, *words: str, **outcomes: int) -> str:
        pytester.makepyfile(text)
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--strict-markers", *words)
        result.assert_outcomes(**outcomes)
        return result.stdout.str()

    return go


def test_a_failing_scenario_prints_reason_and_timeline(run) -> None:
    out = run(
        """
        def test_it(machine, guest):
            guest.masks_serror(vcpu=0)
            machine.consumes(page=3, vcpu=1)
            machine.passes(seconds=2)
            assert machine.told(page=3).by("sdei")
        """,
        failed=1,
    )

    assert "assert page 3 (gpa 0x40003000) was told by sea (source 0, rule consumed), not by sdei" in out
    timeline = out.partition("vmm-ras timeline")[2].splitlines()
    assert [line.split(maxsplit=2)[1:] for line in timeline[1:8]] == [
        ["guest", "vCPU 0 masks SErrors"],
        ["host", "BUS_MCEERR_AR: vCPU 1 consumes page 3 (gpa 0x40003000), 4 KiB"],
        ["core", "rule consumed decides about page 3 (gpa 0x40003000), 0x1000 bytes, AR: tell"],
        ["core", "SEA for vCPU 1, ESR 0x92000410"],
        ["core", "block of 172 bytes for source 0 (sea, vCPU 1) by rule consumed: page 3 (gpa 0x40003000)"],
        ["guest", "offlined the page (source 0)"],
        ["core", "source 0 is acknowledged"],
    ]
    assert "2 s pass" in out


def test_a_passing_scenario_prints_nothing(run) -> None:
    out = run("def test_it(machine):\n    assert machine.consumes(page=3)", "-rA", passed=1)

    assert "timeline" not in out


def test_blocks_are_compared_field_by_field(run) -> None:
    out = run(
        """
        from acpi.ghes import StatusBlock

        def test_block(machine):
            machine.consumes(page=3)
            block = machine.told(page=3).block
            other = bytearray(block)
            other[108:116] = (0x40004000).to_bytes(8, "little")
            assert block == bytes(other)

        def test_section(machine):
            machine.consumes(page=3)
            section = machine.told(page=3).section
            assert section == section.model_copy(update={"node": 7})

        def test_other_things():
            assert b"abc" == b"abd"
        """,
        failed=3,
    )

    assert "entries[0].section.physical_address: 0x40003000 != 0x40004000" in out
    assert "first different byte: 0x6d" in out
    assert "node: None != 7" in out
    assert "At index 2 diff" in out, "what is not ours is left to pytest"


def test_marker_option_and_policy(run, pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("polled.toml").write_text(
        'version = 1\n[[rule]]\nname = "all"\ndeliver = ["sea", "polled"]\n'
    )
    run(
        """
        import pytest

        pytestmark = pytest.mark.machine(guest="generic", vcpus=2)

        def test_option(machine):
            assert len(machine.runner.place.threads) == 2
            assert machine.runner.sources[-1].source_id == 5, "preset all, by option"

        @pytest.mark.machine(vcpus=3, policy="polled.toml", page_size="64K", ram="2G", style="qemu")
        def test_closest_marker(machine):
            assert len(machine.runner.place.threads) == 3
            machine.loses(page=1)
            assert machine.told(page=1).by("polled")
            assert machine.page(1).gpa == 0x4001_0000
            assert machine.told(page=1).says(fru_text=None, error_type="unknown")

        @pytest.mark.machine(policy="default")
        def test_default(machine):
            assert machine.runner.policy is None

        class TestOwn:
            @pytest.fixture
            def policy(self):
                from vmm_ras.policy import load_policy
                return load_policy('version = 1\\n[[rule]]\\nname = "r"\\ndeliver = ["gsiv"]\\n')

            def test_override(self, machine):
                machine.loses(page=1)
                assert machine.told(page=1).by("gsiv")
        """,
        "--ras-preset=all",
        "--ras-guest=linux",
        "--ras-vcpus=7",
        "--ras-policy=polled.toml",
        passed=4,
    )


@pytest.mark.parametrize(
    ("mark", "line"),
    [
        (
            'prest="all"',
            "@pytest.mark.machine(prest='all'): unknown argument 'prest', expected preset, guest, policy, ",
        ),
        ('"all"', "@pytest.mark.machine('all'): by keyword only, expected preset, guest, policy, page_size, "),
        ('preset="none"', "@pytest.mark.machine: preset 'none': expected one of default, all, qemu-7.2, "),
        ('guest="bsd"', "@pytest.mark.machine: guest 'bsd': expected one of "),
        ("vcpus=0", "@pytest.mark.machine: vcpus 0: expected 1 to 512"),
        ('page_size="8K"', "@pytest.mark.machine: page_size '8K': expected one of 4K, 16K, 64K"),
        ('ram="much"', "@pytest.mark.machine: ram 'much': expected bytes, as a number or like '64K'"),
        ("ram=4097", "@pytest.mark.machine: ram 4097: expected whole pages, at most 1T"),
        ("sdei=1", "@pytest.mark.machine: sdei 1: expected True or False"),
        ('style="x"', "@pytest.mark.machine: style 'x': expected one of native, qemu"),
        ('policy="gone.toml"', "gone.toml: no such file beside test_a_wrong_description_gives_one_line.py, in "),
        ("policy=5", "5: expected the path of a file"),
    ],
)
def test_a_wrong_description_gives_one_line(run, mark: str, line: str) -> None:
    out = run(f"import pytest\n@pytest.mark.machine({mark})\ndef test_it(machine):\n    pass\n", "--tb=short", errors=1)

    said = out.partition("ERROR at setup of test_it")[2].splitlines()[1:]
    assert said[0].startswith(line), said[0]
    assert said[1].startswith("===") or "short test summary" in said[1], "one line"


@pytest.mark.parametrize(
    ("fixture", "line"),
    [
        ("'version = 1'", "the policy fixture: rule: is missing"),
        ("5", "the policy fixture gave 5: expected a Policy, TOML text, a Path or None"),
        ("__import__('pathlib').Path('/nowhere.toml')", "/nowhere.toml: No such file or directory"),
    ],
)
def test_a_wrong_policy_gives_one_line(run, fixture: str, line: str) -> None:
    out = run(
        f"import pytest\n@pytest.fixture\ndef policy():\n    return {fixture}\ndef test_it(machine):\n    pass\n",
        errors=1,
    )

    assert out.partition("ERROR at setup of test_it")[2].splitlines()[1] == line


def test_a_trace_is_replayed(run, pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("mine.strace").write_bytes(TRACE.read_bytes())
    broken = '{"event":"trace","version":1}\n{"event":"signal"}\n{"event":"unlocated","what":"somewhere"}\n'
    pytester.path.joinpath("broken.jsonl").write_text(broken)
    out = run(
        """
        import pytest

        def test_told(trace):
            assert trace("mine.strace").loses_nothing()
            assert [r.code for r in trace("mine.strace").rows][:2] == ["AO", "AR"]

        @pytest.mark.machine(preset="qemu-7.2")
        def test_not_told(trace):
            assert trace("mine.strace").loses_nothing()

        def test_no_trace(trace):
            trace("test_a_trace_is_replayed.py")

        def test_unread(trace):
            assert trace("broken.jsonl").loses_nothing()
        """,
        passed=1,
        failed=3,
    )

    assert "assert <mine.strace: 18 events, 0 lost, 5" in out
    assert "assert <broken.jsonl: 0 events, 0 lost, 0 unseen, 0 panic, 1 bad line, 1 without a place>" in out
    assert "no way open" not in out
    assert "vmm-ras timeline" in out
    assert out.count("→ not told yet") > 2
    assert "test_a_trace_is_replayed.py: not a trace, expected " in out


def test_a_long_timeline_shows_its_end(run) -> None:
    test = "def test_it(machine):\n    machine.loses(page=0, size='16M')\n    machine.settles()\n    assert 0"
    out = run(test, failed=1)

    assert "lines before" in out
    shown = out.partition("vmm-ras timeline")[2].partition("short test summary")[0].splitlines()
    assert 400 <= len(shown) <= 403


def test_importing_the_plugin_loads_nothing_of_the_core() -> None:
    code = "import sys, vmm_ras.pytest_plugin; print(sorted(m for m in sys.modules if m.startswith(('vmm', 'acpi'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.strip() == "['vmm_ras', 'vmm_ras.pytest_plugin']"


def test_only_the_plugin_imports_pytest() -> None:
    found = [p.name for p in (ROOT / "vmm_ras").rglob("*.py") if "import pytest" in p.read_text()]

    assert found == ["pytest_plugin.py"]
