"""What if: figures and fates side by side, the distribution of times, the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acpi.presets import PRESETS
from tests.command_line import cli
from vmm_ras.cli import main
from vmm_ras.cli.compare import MOST_TOLD, _Told
from vmm_ras.compare import FIGURES, Comparison, Fate, Run, Times
from vmm_ras.events import Code, HostSignal
from vmm_ras.memory import MemorySlot
from vmm_ras.policy import load_policy
from vmm_ras.profiles import PROFILES
from vmm_ras.replay import TABLES, Replay
from vmm_ras.traces.items import AckDelay, BadLine, VcpuThread

TRACE = Path(__file__).parents[2] / "fixtures" / "traces" / "qemu-like.strace"
HVA = 0x7F00_0000_0000
POLLED = 'version = 1\n[[rule]]\nname = "all"\ndeliver = ["sea", "polled"]\n'
FATAL = 'version = 1\n[[rule]]\nname = "all"\ndeliver = ["sea", "polled"]\nseverity = "fatal"\n'
NOTHING = 'version = 1\n[[rule]]\nname = "all"\naction = "ignore"\n'


def run(policy: str, text: str | None, guest: str = "linux") -> Run:
    replay = Replay(
        PRESETS["default"].place(TABLES), policy=None if text is None else load_policy(text), guest=PROFILES[guest],
        slots=[MemorySlot(HVA, 0x4000_0000, 1 << 30)],
    )  # fmt: skip
    return Run(policy, guest, replay)


def entries(*items: tuple[float, object]) -> list[tuple[int, float | None, object]]:
    return [(1, None, VcpuThread(0, 100))] + [(n + 2, at, item) for n, (at, item) in enumerate(items)]


def ao(page: int) -> HostSignal:
    return HostSignal(Code.AO, HVA + (page << 12), 12, 1)


def ar(page: int) -> HostSignal:
    return HostSignal(Code.AR, HVA + (page << 12), 12, 100)


def played(runs: list[Run], trace: list, keep: int = 10) -> Comparison:
    comparison = Comparison(runs, keep)
    events = sum(isinstance(item, HostSignal) for _, _, item in trace)
    assert list(comparison.play([iter(trace) for _ in runs])) == list(range(events))
    return comparison


@given(st.lists(st.floats(0, 1e6) | st.sampled_from([0.0, 0.001, 0.5, 1.0]), min_size=1), st.floats(0.01, 1))
def test_percentiles_are_times_that_occurred_close_below_the_exact_ones(values: list[float], fraction: float) -> None:
    times = Times()
    for value in values:
        times.add(value)

    exact = sorted(values)[max(1, -int(-fraction * len(values) // 1)) - 1]
    found = times.at(fraction)
    assert found in values
    assert exact * (1 - 1 / 512) <= found <= exact
    assert (times.count, times.least, times.greatest) == (len(values), min(values), max(values))


def test_times_take_bounded_memory() -> None:
    times = Times()
    for n in range(100_000):
        times.add(n / 99_999)

    assert len(times._slots) < 512 * 18
    assert times.at(0.5) == pytest.approx(0.5, rel=0.002)
    assert Times().at(0.5) is None


def test_figures_of_policies_side_by_side() -> None:
    c = played([run("default", None), run("polled", POLLED)], entries((0, ao(1)), (0.25, ar(2)), (0.6, ao(3))))

    by_key = {figure.key: cells for figure, cells in c.table()}
    assert list(by_key) == [f.key for f in FIGURES]
    assert by_key["told"] == [(3, 3), (3, 3)]
    assert by_key["offlined"] == [(3, 3), (3, 3)]
    assert by_key["signalled"] == [(1, 1), (1, 1)]
    assert by_key["report_max"] == [(0.0, 0.0), (pytest.approx(1.4), 0.0)], "it waited for the first one's block"
    assert by_key["report_p50"] == [(0.0, 0.0), (pytest.approx(1.0), 0.0)]
    assert c.differing == 2
    assert c.differs()
    assert [(e.line, e.gpa, e.fates) for e in c.examples] == [
        (2, 0x4000_1000, (Fate("sdei", "offlined", True), Fate("polled", "offlined", True))),
        (4, 0x4000_3000, (Fate("sdei", "offlined", True), Fate("polled", "offlined", True))),
    ]


def test_what_is_bad_is_counted() -> None:
    trace = entries((0, ar(1)), (1, ao(2)), (2, AckDelay(None, None)), (3, ar(3)), (40, ao(4)))
    c = played([run("default", None), run("fatal", FATAL), run("nothing", NOTHING)], trace[:3] + trace[4:])

    default, fatal, nothing = (r.figures() for r in c.runs)
    assert (default["panicked"], fatal["panicked"], nothing["panicked"]) == (0, 1, 0)
    assert (default["unseen"], fatal["unseen"], nothing["unseen"]) == (0, 3, 0)
    assert (default["offlined"], fatal["offlined"], nothing["offlined"]) == (4, 0, 0)
    assert (default["escalations"], fatal["escalations"]) == (0, 2)
    assert (default["signalled"], fatal["signalled"]) == (2, 0), "a guest that panicked signals nobody"
    assert (fatal["lost"], fatal["oopses"]) == (0, 0)
    assert (nothing["told"], nothing["untold"], default["untold"], fatal["untold"]) == (0, 4, 0, 3)
    assert nothing["report_max"] is None
    never = played([run("default", None), run("again", None)], trace)
    assert not never.differs()
    assert never.runs[0].figures()["escalations"] == 2
    assert never.runs[0].figures()["told"] == 2


def test_each_policy_is_compared_under_the_same_guest() -> None:
    runs = [run(p, t, g) for p, t in (("default", None), ("fatal", FATAL)) for g in ("linux", "generic")]
    assert Comparison(runs).base == (0, 1, 0, 1)
    assert Comparison(runs[:2]).base == (0, 0), "one policy: the guests are compared"


def test_only_so_many_events_are_kept() -> None:
    c = played([run("default", None), run("nothing", NOTHING)], entries(*((n / 10, ao(n)) for n in range(20))), keep=3)

    assert (c.differing, len(c.examples)) == (20, 3)


# -- the command line --------------------------------------------------------------------------------


@pytest.fixture
def polled(tmp_path: Path) -> Path:
    path = tmp_path / "polled.toml"
    path.write_text(POLLED)
    return path


def test_the_table_marks_differences(polled: Path) -> None:
    text = cli("compare", TRACE, "--policy", polled, "--events", "2").stdout.decode()
    lines = {line[:32].strip(): line[32:].split() for line in text.splitlines()}

    assert lines["events"] == ["18", "18"]
    assert any("time to report: max" in line and "(+" in line for line in text.splitlines())
    assert "events fared differently" in text
    assert "sdei, offlined, acked" in text
    assert "polled, offlined, acked" in text
    assert "more (--events)" in text


def test_json_and_conditions(polled: Path) -> None:
    words = ("compare", TRACE, "--policy", "default", "--policy", polled, "--guest", "linux", "--guest", "generic")
    found = json.loads(cli(*words, "--json", "--events", "2").stdout)

    assert [(r["policy"], r["guest"], r["compared_with"]) for r in found["runs"]] == [
        ("default", "linux", 0), ("default", "generic", 1), (str(polled), "linux", 0), (str(polled), "generic", 1),
    ]  # fmt: skip
    assert found["differs"] is True
    assert found["differing_events"] > len(found["events"]) == 2
    assert set(found["runs"][0]["figures"]) == {f.key for f in FIGURES}
    assert found["runs"][0]["summary"]["failures"] == {"lost": 0, "unseen": 0, "panic": 0}
    cli(*words, "--fail-on", "lost,unseen,panic", code=0)
    cli(*words, "--fail-on", "lost,differ", code=4)


def test_standard_input_is_read_once_for_all() -> None:
    words = ("compare", "-", "--guest", "linux", "--guest", "generic", "--json")
    found = json.loads(cli(*words, stdin=TRACE.read_bytes()).stdout)

    assert [r["figures"]["events"] for r in found["runs"]] == [18, 18]
    assert b"<stdin>" in cli(*words, stdin=b"hello\nworld\n", code=1).stderr


def test_of_many_bad_lines_the_first_are_told_as_they_come(tmp_path: Path) -> None:
    lines = [TRACE.read_bytes().splitlines()[0], *(b"--- SIGBUS %d" % n for n in range(60))]
    (tmp_path / "trace").write_bytes(b"\n".join(lines) + b"\n")
    said = cli("compare", tmp_path / "trace", "--guest", "linux", "--guest", "generic").stderr.decode().splitlines()
    assert said[0].startswith("no map given: ")
    assert [line.split(":")[0] for line in said[1:20]] == [f"line {n}" for n in range(2, 21)]
    assert said[20] == "41 more notices (vmm-ras replay tells all)"
    assert all(line.startswith("note: ") for line in said[21:])


def test_notices_of_no_run_pile_up(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run("a", POLLED), run("b", NOTHING), run("c", FATAL)]
    told, most = _Told(runs[0]), 0

    def bad(of: Run) -> Iterator[tuple[int, float | None, object]]:
        nonlocal most
        for n in range(500):
            most = max(most, *(len(r.replay.notices) for r in runs))
            yield n, None, BadLine("no event")
        most = max(most, len(of.replay.notices))

    assert list(Comparison(runs).play([told.reading(r, bad(r)) for r in runs])) == []
    told.end()
    assert most <= 1
    assert [r.replay.summary.bad_lines for r in runs] == [500, 500, 500]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == MOST_TOLD + 1
    assert said[-1] == "480 more notices (vmm-ras replay tells all)"


def test_the_same_figures_as_replay(polled: Path) -> None:
    one = json.loads(cli("replay", TRACE, "--policy", polled, "--json").stderr.splitlines()[-1])
    two = json.loads(cli("compare", TRACE, "--policy", polled, "--json").stdout)["runs"][1]["summary"]

    assert two == one


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["TRACE"], 2, "compare what? give --policy FILE, or --guest twice"),
        (["TRACE", "--policy", "default"], 2, "compare what? give --policy FILE, or --guest twice"),
        (["TRACE", "--guest", "linux", "--guest", "bsd"], 2, "--guest 'bsd': expected one of "),
        (["TRACE", "--policy", "/nowhere"], 1, "/nowhere: No such file or directory"),
        (["TRACE", "--policy", "/dev/null"], 1, "/dev/null: "),
        (["/nowhere", "--guest", "linux", "--guest", "generic"], 1, "/nowhere: "),
        (["TRACE", "--guest", "linux", "--guest", "generic", "--fail-on", "x"], 2, "--fail-on 'x': expected lost, "),
        (["TRACE", *(w for n in range(17) for w in ("--policy", str(n)))], 2, "17 policies under 1 guests: at most 16"),
    ],
)
def test_bad_words_get_one_line(
    words: list[str], code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["vmm-ras", "compare", *(str(TRACE) if w == "TRACE" else w for w in words)])
    with pytest.raises(SystemExit) as exit_:
        main()

    error = capsys.readouterr().err
    assert exit_.value.code == code
    assert error.startswith(f"vmm-ras: {line}")
    assert error.count("\n") == 1


def test_help_has_an_example_and_the_exit_codes() -> None:
    text = cli("compare", "--help").stdout.decode()

    assert "Example: vmm-ras compare" in text
    assert "Exit codes: 0 done" in text
    assert "--json" in text
