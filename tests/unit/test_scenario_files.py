"""Scenario files: what is read, what is refused and with which words, what the command line says."""

# ruff: noqa: E501  # lines of files

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import conformance_tables
from tests.command_line import cli
from vmm_ras.errors import InputError
from vmm_ras.events import MemoryFault
from vmm_ras.policy import default_policy, load_policy
from vmm_ras.scenario import bound
from vmm_ras.scenario.model_stage import ModelStage
from vmm_ras.scenario.play import Seen, play
from vmm_ras.traces import script

pytest_plugins = "pytester"
ROOT = conformance_tables.ROOT
EXAMPLE = ROOT / "docs/examples/consumed.scenario.jsonl"
HEAD = '{"event":"scenario","version":1,"about":"a test"}\n'
PAGE = '{"event":"page","name":"a","owner":"reader","vcpu":1}\n'
WRONG = {
    "": "empty, expected a scenario",
    PAGE: "1: expected event 'scenario' in the first line, and there only",
    HEAD + HEAD: "2: expected event 'scenario' in the first line, and there only",
    HEAD + "{": "2: not JSON at column 2 (unexpected end of data), expected an object",
    HEAD + "[]": "2: an array, expected an object",
    HEAD + '{"event":"page","name":"a"}': "2: owner is missing, expected it in this event",
    HEAD + '{"event":"page","name":"A","owner":"reader"}': "2: name is 'A', expected",
    HEAD + PAGE + PAGE: "3: page 'a' is there already",
    HEAD + '{"event":"page","name":"a","owner":"reader","vcpu":2}': "2: vcpu is 2, expected one below 2",
    HEAD + '{"event":"page","name":"a","owner":"reader","pages":2}': "2: pages, expected it of nobody's memory only",
    HEAD + '{"event":"signal","code":"AO","page":"b"}': "2: no page is called 'b'",
    HEAD + '{"event":"page","name":"a","owner":"nobody"}\n{"event":"signal","code":"AR","page":"a"}': "3: page 'a' has no owner",
    HEAD + PAGE + '{"event":"record","source":"sea","block":"01"}': "3: page is missing, expected the one whose owner",
    HEAD + PAGE + '{"event":"record","source":"polled","block":{}}': "3: block: ",
    HEAD + PAGE + '{"event":"record","source":"polled","block":"00","patch":{"0x1":"00"}}': "3: patch at 0x1: the block has 1 byte",
    HEAD + PAGE + '{"event":"expect","page":"a","acked":true}': "3: an expectation: offlined or reported or signal or told of page",
    HEAD + PAGE + '{"event":"expect","page":"a"}': "3: an expectation: ",
    HEAD + '{"event":"expect","alive":1}': "2: alive is 1, expected",
    HEAD + '{"event":"wait","seconds":61}': "2: seconds is 61, expected",
    HEAD + '{"event":"boom"}': "2: event is 'boom', expected one of",
    HEAD + '{"event":"settle","more":1}': "2: unknown key 'more'",
    HEAD + '{"event":"reset","replaced":1}': "2: replaced is 1, expected",
    HEAD + PAGE + '{"event":"reset"}\n{"event":"signal","code":"AR","page":"a"}': "4: page 'a' has no owner after the reset",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_line_is_one_clear_line(text):
    with pytest.raises(InputError) as error:
        script.read(text.encode(), "f")
    assert str(error.value).startswith("f:")
    assert WRONG[text] in str(error.value)
    assert "\n" not in str(error.value)


@given(st.binary(max_size=200), st.sampled_from(["", HEAD, HEAD + PAGE]))
def test_no_bytes_make_it_fail_otherwise(data, before):
    try:
        script.read(before.encode() + data, "f")
    except InputError as error:
        assert "\n" not in str(error)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda c: st.lists(c, max_size=4) | st.dictionaries(st.sampled_from(["event", "page", "name", "owner", "block", "source", "header", "entries"]), c, max_size=5)))  # fmt: skip
def test_no_json_makes_it_fail_otherwise(value):
    try:
        script.read((HEAD + PAGE + json.dumps(value)).encode(), "f")
    except InputError as error:
        assert "\n" not in str(error)


def test_the_example_of_the_docs_is_the_file():
    text = (ROOT / "docs/scenarios.md").read_text()
    shown = text.split("consumed.scenario.jsonl -->\n```json\n")[1].split("```")[0]
    assert shown == (EXAMPLE).read_text()


def test_every_key_is_explained():
    from vmm_ras.traces import script_models

    text = (ROOT / "docs/scenarios.md").read_text()
    schema = script_models.schema()
    keys = {key for model in schema["$defs"].values() for key in model.get("properties", {})}
    native = {"event", "time", "action", "ms", "source_id", "masked", "registered", "stopped", "number", "guests"}
    assert {key for key in keys - native if f"`{key}`" not in text} == set()


def test_what_differs_between_two_guests_is_said():
    plain = {
        "sources": {"sea": {"bound": True, "acked": True, "cleared": True}},
        "pages": {"a": {"offlined": True, "reported": True, "signal": "none", "told": "sea"}},
        "alive": True,
    }
    one = Seen.of_plain(plain)
    plain["pages"]["a"]["signal"], plain["alive"] = "killed", False
    plain["sources"]["polled"] = {"bound": True, "acked": False, "cleared": True}
    assert one.differences(one) == []
    assert one.differences(Seen.of_plain(plain)) == [
        "source polled: not seen here only",
        "page a: signal is none, not killed",
        "the guest is alive, the other is not so",
    ]


def test_a_failed_expectation_names_its_line_and_shows_the_timeline(tmp_path):
    file = tmp_path / "x.scenario.jsonl"
    file.write_text(
        HEAD + PAGE + '{"event":"signal","code":"AR","page":"a"}\n{"event":"expect","page":"a","told":"sdei"}\n'
    )
    out = cli("scenario", "run", file, code=4).stdout.decode()
    assert "4: page a: told is sea, expected sdei" in out
    assert "BUS_MCEERR_AR: vCPU 1 consumes" in out
    assert "0 of 1 scenario passed" in out
    shown = json.loads(cli("scenario", "run", tmp_path, "--json", code=4).stdout)
    assert shown["failed"] == 1
    assert shown["scenarios"][0]["seen"]["pages"]["a"]["told"] == "sea"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--on", "kvm", "--kernel", "2.6"], 2, "--kernel '2.6': expected one of 6.1, 6.12, 7.2"),
        (["--guest", "windows"], 2, "--guest 'windows': expected one of"),
        (["--on", "qemu", "--kernel", "2.6"], 2, "--kernel '2.6': expected one of 6.1, 6.12, 7.2"),
    ],
)
def test_what_cannot_be_is_one_line(args, code, words):
    assert words in cli("scenario", "run", EXAMPLE, *args, code=code).stderr.decode()


RESET = '{"event":"page","name":"f","owner":"nobody","pages":4}\n{"event":"fault","page":"f","size":16384}\n' \
    '{"event":"signal","code":"AR","page":"a"}\n{"event":"settle"}\n{"event":"reset","replaced":false}\n{"event":"settle"}\n'  # fmt: skip


def test_a_reset_ends_everybody_and_the_next_guest_is_told_of_all_that_stays_lost():
    later = '{"event":"page","name":"z","owner":"early"}\n'
    scenario = script.read((HEAD + PAGE + RESET + later).encode(), "f")
    assert [[page.name for page in boot] for boot in scenario.boots] == [["a", "f"], ["z"]]
    stage = ModelStage("linux-6.12")
    stage.open(scenario)
    for _, item in scenario.steps[2:-3]:
        stage.settle(5) if isinstance(item, script.Settle) else stage.do(item)
    assert (stage.page("a").signal, stage.page("a").offlined) == ("BUS_MCEERR_AR", True)
    ranges = bound.lost_ranges(stage.runner.replay.notifier)
    assert ranges == [MemoryFault(stage.gpas["a"], 4096), MemoryFault(stage.gpas["f"], 16384)]
    stage.do(script.Reset())
    assert (stage.page("a").signal, stage.page("a").offlined) == ("BUS_MCEERR_AR", False)
    assert bound.lost_ranges(stage.runner.replay.notifier) == []
    result = play(scenario, stage)
    assert {name: seen.offlined for name, seen in result.seen.pages.items()} == {"a": True, "f": True, "z": False}
    assert result.timeline.count("-- reset --") == 1
    assert [s.runner.replay.notifier.poison.counts for s in [stage]] == [[0, 0, 0, 5]]


def test_a_reset_is_not_replayed(tmp_path):
    file = tmp_path / "x.scenario.jsonl"
    file.write_text(HEAD + PAGE + RESET)
    said = cli("replay", file, code=1).stderr.decode()
    assert f"{file}:7: a replay has one boot; vmm-ras scenario run plays resets" in said


def test_what_cannot_be_played_on_kvm_is_left_out_and_it_is_said_why():
    done = cli("scenario", "run", ROOT / "fixtures/scenarios/sea/bare-reader.scenario.jsonl", "--on", "kvm")
    assert "bare-reader.scenario.jsonl: not on kvm: nothing stops a vCPU of KVM where a process" in done.stderr.decode()
    assert done.stdout.decode() == "0 of 0 scenarios passed\n"


def test_nothing_there(tmp_path):
    cli("scenario", "run", tmp_path, code=2)
    assert "No such file" in cli("scenario", "run", tmp_path / "none", code=1).stderr.decode()


def test_replay_plays_what_happens():
    out = cli("replay", EXAMPLE, "--fail-on", "lost,unseen,panic").stdout.decode()
    assert "guest offlined the page" in out
    out = cli("replay", ROOT / "fixtures/scenarios/burst/eight-polled.scenario.jsonl", "--json").stdout.decode()
    assert len([json.loads(line) for line in out.splitlines()]) == 8


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--ram", "/nowhere"], 3, "/nowhere: No such file or directory"),
        (["--ram", str(EXAMPLE)], 3, "monitor /no/socket: No such file or directory"),
        (["--ram", str(EXAMPLE), "--lose", "1", "--consume", "2"], 2, "one of them"),
        (["--ram", str(EXAMPLE), "--source", "1"], 2, "--source says where a --record goes"),
        (["--ram", str(EXAMPLE), "--guest", "dos"], 2, "--guest 'dos': expected one of"),
    ],
)
def test_attach_to_what_is_not_there(args, code, words):
    done = cli("attach", "--qmp", "/no/socket", "--gdb", "/no/socket", *args, code=code)
    assert words in done.stderr.decode()


def test_a_scenario_file_is_a_test(pytester):
    pytester.path.joinpath("good.scenario.jsonl").write_bytes(EXAMPLE.read_bytes())
    bad = HEAD + PAGE + '{"event":"signal","code":"AR","page":"a"}\n{"event":"expect","page":"a","told":"sdei"}\n'
    pytester.path.joinpath("bad.scenario.jsonl").write_text(bad)
    pytester.path.joinpath("worse.scenario.jsonl").write_text("{}")
    pytester.makepyfile(
        """
        def test_by_name(scenario):
            assert not scenario("good.scenario.jsonl").failed
            assert scenario("good.scenario.jsonl").guest == "linux-6.1"
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--ras-guest", "linux-6.1")
    result.assert_outcomes(passed=2, failed=2)
    out = result.stdout.str()
    assert "bad.scenario.jsonl:4: page a: told is sea, expected sdei" in out
    assert "BUS_MCEERR_AR: vCPU 1 consumes" in out.partition("vmm-ras timeline")[2]
    assert "worse.scenario.jsonl:1: event is missing" in out


def test_guest_actions_a_real_guest_cannot_do_are_marked():
    for scenario in conformance_tables.scenarios().values():
        acts = [type(item).__name__ for _, item in scenario.steps]
        assert bool(scenario.head.model_only) == bool({"AckDelay", "MaskSerror"} & set(acts))


def test_the_model_is_deterministic():
    scenario = conformance_tables.scenarios()["burst/every-way-at-once"]
    one, two = (play(scenario, ModelStage("linux-6.12")) for _ in range(2))
    assert one == two
    assert one.timeline == two.timeline


def test_a_scenario_that_names_its_ways_takes_the_same_care_of_kernels_as_the_default_policy() -> None:
    text = bound.policy_text(script.Head("any", deliver=("polled",)))
    assert text is not None

    assert load_policy(text).rule[0].when == default_policy().rule[0].when
