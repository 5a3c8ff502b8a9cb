"""The command line as its users run it: output, JSON, exit codes, one line for bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from acpi.ghes import Entry, StatusBlock
from cper.memory import PlatformMemory
from cper.record import Record
from tests.command_line import cli, process, tree_paths
from vmm_ras.cli import COMMANDS
from vmm_ras.cli.common import print_table
from vmm_ras.ledger import crc32c

ROOT = Path(__file__).parents[2]
TRACE = ROOT / "fixtures" / "traces" / "qemu-like.strace"
FIELDS = {
    "seq": int, "code": str, "gpa": int, "lsb": int, "rule": str, "delivery": str, "source_id": int, "esr": int,
    "block": str, "crc32c": int, "outcome": str, "acked": bool,
}  # fmt: skip


def test_replay_as_json_lines(tmp_path: Path) -> None:
    done = cli("replay", TRACE, "--json", "--out", tmp_path / "out")

    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 18
    for row in rows:
        for name, kind in FIELDS.items():
            assert row[name] is None or type(row[name]) is kind, (name, row[name])
    assert json.loads(done.stderr.splitlines()[-1])["failures"] == {"lost": 0, "unseen": 0, "panic": 0}
    digests = dict(reversed(line.split()) for line in (tmp_path / "out" / "blocks.crc32c").read_text().splitlines())
    blocks = {p: (tmp_path / "out" / p).read_bytes() for p in digests}
    assert all(f"{crc32c(data):08x}" == digests[p] for p, data in blocks.items())
    assert {r["block"] for r in rows if r["block"]} <= {d.hex() for d in blocks.values()}
    layout = json.loads((tmp_path / "out" / "image.json").read_text())
    assert {r["name"] for r in layout["regions"]} == {"rsdp", "xsdt", "hest", "hardware_errors"}
    cli("hest", "show", tmp_path / "out" / "hest.bin")


def test_replay_for_people() -> None:
    text = cli("replay", TRACE).stdout.decode()

    assert "→ rule consumed → block 172 B" in text
    assert "SEA source 0 vcpu 0 ESR 0x92000410 → guest offlined the page → ack" in text
    assert "no map given" in text
    assert "0 lost, 0 unseen, 0 panic" in text


def test_replay_from_standard_input_and_quietly() -> None:
    text = cli("replay", "-", "--quiet", stdin=TRACE.read_bytes()).stdout.decode()

    assert "→ rule" not in text
    assert "18 (7 AO, 11 AR)" in text


def test_fail_on(tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_text(
        '{"event":"guest","action":"ack-delay","ms":null}\n'
        '{"event":"signal","code":"AR","hva":139637976727552,"lsb":12,"tid":1}\n'
    )

    cli("replay", trace, "--fail-on", "lost,panic")
    cli("replay", trace, "--fail-on", "unseen", code=4)
    assert b"expected lost, unseen or panic" in cli("replay", trace, "--fail-on", "lots", code=2).stderr


def test_map_and_strict(tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_text('{"event":"signal","code":"AO","hva":4096}\nrubbish\n')

    done = cli("replay", trace, "--map", "0x1000:0x80000000:1M", "--json")
    assert json.loads(done.stdout)["gpa"] == 0x80000000
    assert b"line 2" in done.stderr
    error = cli("replay", trace, "--strict", code=1).stderr.decode()
    assert error.startswith(f"vmm-ras: {trace}:2: ")
    assert error.count("\n") == 1
    for bad in ("1:2", "x:0:4K", "0:0:0", "0:0:-1", "0:0:1", "0:1:4K", "1:0:4K"):
        assert b"--map" in cli("replay", trace, "--map", bad, code=2).stderr
    cli("replay", trace, "--page-size", "64K")


def test_a_trace_in_a_pipe_is_read_from_its_first_line(tmp_path: Path) -> None:
    trace, pipe = tmp_path / "t.jsonl", tmp_path / "pipe"
    trace.write_text('{"event":"signal","code":"AO","hva":4096}\n')
    os.mkfifo(pipe)
    writer = subprocess.Popen(["cp", trace, pipe])

    assert json.loads(cli("replay", pipe, "--json").stdout)["gpa"] == 0x40001000
    assert writer.wait(10) == 0


def test_blocks_of_a_replay_before_are_gone(tmp_path: Path) -> None:
    cli("replay", ROOT / "fixtures/traces/qemu-like.strace", "--out", tmp_path)
    many = len(list((tmp_path / "blocks").iterdir()))
    cli("replay", ROOT / "fixtures/traces/single.strace", "--out", tmp_path)

    listed = [line.split()[1] for line in (tmp_path / "blocks.crc32c").read_text().splitlines()]
    assert 0 < len(listed) < many
    assert sorted(listed) == sorted(f"blocks/{f.name}" for f in (tmp_path / "blocks").iterdir())


def test_replay_of_a_scenario(tmp_path: Path) -> None:
    scenario = ROOT / "fixtures/scenarios/burst/eight-gpio.scenario.jsonl"

    cli("replay", scenario, "--out", tmp_path)
    assert len(list((tmp_path / "blocks").iterdir())) == 2
    for option in (["--map", "0:0:4K"], ["--no-sdei"], ["--vcpus", "2"], ["--preset", "all"], ["--page-size", "4k"]):
        error = cli("replay", scenario, *option, code=2).stderr.decode()
        assert "is a scenario, which describes its machine itself" in error
    for command in (["policy", "explain"], ["trace", "stats"], ["trace", "convert"]):
        assert b"a scenario, expected a trace" in cli(*command, scenario, code=1).stderr


def test_errors_without_a_place_are_in_the_summary() -> None:
    trace = ROOT / "fixtures/traces/qemu-kvm.ftrace"

    *said, summary = cli("replay", trace, "--json").stderr.splitlines()
    assert json.loads(summary)["unlocated"] == 3
    assert any(line.startswith(b"note: ") for line in said), "the summary comes last"
    assert "3 errors of which the trace does not say where" in cli("replay", trace).stdout.decode()


@pytest.mark.parametrize("preset", ["default", "all", "qemu-7.2", "qemu-10.0", "qemu-11.1"])
def test_hest_build_and_show(tmp_path: Path, preset: str) -> None:
    table, image = tmp_path / "HEST", tmp_path / "image"
    built = json.loads(
        cli(
            "hest", "build", "--preset", preset, "--errors", "0x5c410000", "-o", table, "--image", image, "--json"
        ).stdout
    )

    shown = json.loads(cli("hest", "show", table, "--json").stdout)
    assert [s["source_id"] for s in shown["sources"]] == [s["source_id"] for s in built["sources"]]
    assert shown["sources"][0]["error_status_address"]["address"] == 0x5C410000
    assert image.read_bytes()[:8] == b"RSD PTR "
    assert "sources[0].notification.type" in tree_paths(cli("hest", "show", table).stdout.decode())


def test_cper_show_and_encode_are_inverse(tmp_path: Path) -> None:
    memory = PlatformMemory(physical_address=0x1000, node=3, bank_group=2)
    for name, data in (
        ("block", StatusBlock.of([Entry.of(memory, fru_text="DIMM 3")]).encode()),
        ("record", Record.of([memory, memory]).encode()),
    ):
        path, again = tmp_path / name, tmp_path / (name + ".again")
        path.write_bytes(data)
        text = cli("cper", "show", path, "--json").stdout
        cli("cper", "encode", "-", "-o", again, stdin=text)
        assert again.read_bytes() == data
        assert "physical_address" in cli("cper", "show", path).stdout.decode()
    bare, again = tmp_path / "bare", tmp_path / "bare.again"
    bare.write_bytes(memory.encode())
    text = cli("cper", "show", bare, "--type", "PlatformMemory", "--json").stdout
    cli("cper", "encode", "-", "--type", "memory", "-o", again, stdin=text)
    assert again.read_bytes() == bare.read_bytes()


def test_policy_show_and_check(tmp_path: Path) -> None:
    text = cli("policy", "show").stdout
    mine = tmp_path / "mine.toml"
    mine.write_bytes(text)

    assert b"3 rules, 0 findings" in cli("policy", "check", mine).stdout
    assert json.loads(cli("policy", "show", mine, "--json").stdout)["rule"][0]["name"] == "consumed-in-kernel"
    mine.write_bytes(text + b'[[rule]]\nname = "late"\ndeliver = ["sea"]\n')
    assert (
        b"rule 4 'late' is never reached: rule 2 'consumed' and rule 3 'found' hold first"
        in cli("policy", "check", mine, code=1).stdout
    )
    mine.write_bytes(b"version = 1\n[[rule]\n")
    assert cli("policy", "check", mine, code=1).stderr.decode().startswith(f"vmm-ras: {mine}:2: ")
    mine.write_bytes(b"\xff\n")
    assert b"not UTF-8" in cli("policy", "show", mine, code=1).stderr
    mine.write_bytes(text.replace(b'deliver = ["sea", "sdei"', b'sea = { dfsc = 0x20 }\ndeliver = ["sea", "sdei"', 1))
    assert b"rule 2 'consumed': sea: " in cli("policy", "check", mine, code=1).stderr


@pytest.mark.parametrize(
    ("words", "stdin", "wanted"),
    [
        (["cper", "show", "-"], b"", "ErrorStatusHeader"),
        (["cper", "show", "-"], b"CPER", "Record.header"),
        (["cper", "show", "-"], b"\1" * 40, "StatusBlock.header.data_length at 0xc"),
        (["cper", "show", "/nowhere"], b"", "/nowhere: No such file"),
        (["hest", "show", "-"], b"XSDT" + bytes(60), "expected 'HEST'"),
        (["cper", "encode", "-", "-o", "/dev/null"], b"{", "not JSON"),
        (["cper", "encode", "-", "-o", "/dev/null"], b"[]", "an object expected"),
        (["cper", "encode", "-", "-o", "/dev/null"], b"{}", "'header'"),
        (["cper", "encode", "-", "-o", "/dev/null"], b'{"header":{"severity":"bad"}}', "severity"),
        (["replay", "/nowhere"], b"", "/nowhere"),
        (["replay", "-"], b"hello\nworld\n", "not a trace"),
        (["replay", "-"], b"\x1f\x8b\x08broken", "gzip"),
    ],
)
def test_bad_input_gets_one_line(words: list[str], stdin: bytes, wanted: str) -> None:
    error = cli(*words, stdin=stdin, code=1).stderr.decode()

    assert error.startswith("vmm-ras: ")
    assert error.count("\n") == 1
    assert wanted in error


def test_a_table_cuts_no_word_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "30")
    table = Table("name", "where")
    words = ["GenericHardwareErrorSourceV2", "/root/.cache/vmm-ras-lab/tools/usr/bin/aarch64-linux-gnu-gcc", "a", "b"]
    table.add_row(*words[:2])
    table.add_row(words[2], f"{words[3]} {words[1]}")
    print_table(table)

    shown = capsys.readouterr().out
    assert all(word in shown for word in [*words, "name", "where"])


def test_names_in_brackets_are_names(tmp_path: Path) -> None:
    (tmp_path / "[").mkdir()
    for name in ("[bold]x", "[/b]x"):
        policy, table = tmp_path / name, Path(f"{tmp_path / name}.bin")
        policy.write_bytes(cli("policy", "show").stdout)
        cli("hest", "build", "-o", table)
        assert name.encode() in cli("compare", TRACE, "--policy", policy).stdout
        assert table.name.encode() in cli("acpi", "show", table).stdout


@pytest.mark.parametrize("encoding", ["utf-8:strict", "latin-1:strict", "ascii:strict"])
def test_what_a_terminal_cannot_show_ends_nothing(tmp_path: Path, encoding: str) -> None:
    policy = Path(os.fsdecode(os.fsencode(tmp_path / "p") + b"\xff"))
    policy.write_bytes(cli("policy", "show").stdout + "# Wörter\n".encode())
    environment = {**os.environ, "PYTHONIOENCODING": encoding}

    def run(*words: str | Path) -> bytes:
        return subprocess.run(
            [sys.executable, "-m", "vmm_ras.cli", *map(str, words)], env=environment, capture_output=True, check=True
        ).stdout

    assert b"0 lost, 0 unseen, 0 panic" in run("replay", TRACE)
    assert run("policy", "show", policy) == policy.read_bytes()
    assert (os.fsencode(policy) in run("policy", "check", policy)) == (encoding == "utf-8:strict")


def test_names_that_are_not_utf_8_are_json_too(tmp_path: Path) -> None:
    trace, policy, block = (
        Path(os.fsdecode(os.fsencode(tmp_path / n) + b"\xff")) for n in ("trace", "policy", "block")
    )
    trace.write_bytes(TRACE.read_bytes())
    policy.write_bytes(cli("policy", "show").stdout)
    block.write_bytes(StatusBlock.of([Entry.of(PlatformMemory(node=1))]).encode())

    for words, name in (
        (("trace", "stats", trace), trace),
        (("trace", "convert", trace, "-o", f"{trace}.out"), trace),
        (("compare", trace, "--policy", policy), trace),
        (("policy", "check", policy), policy),
        (("cper", "decode", block), block),
    ):
        found = json.loads(cli(*words, "--json").stdout)
        assert str(name) in (found.get("file"), found.get("trace"))
    for options in ([], ["--columns", "file,node", "--of", "PlatformMemory"]):
        assert os.fsencode(block) in cli("cper", "decode", block, *options).stdout


def test_version() -> None:
    assert cli("--version").stdout.decode().split()[0] == "vmm-ras"


def test_usage_errors_exit_with_2() -> None:
    for command in (["replay"], ["policy", "explain"]):
        assert b"one of them" in cli(*command, "-", "--policy", "-", stdin=b"version = 1", code=2).stderr
    assert b"a file expected" in cli("compare", TRACE, "--policy", "-", stdin=b"version = 1", code=2).stderr
    beyond = cli("replay", TRACE, "--map", "0:0xfffffffffffff000:1G", code=2).stderr
    assert beyond == b"vmm-ras: --map: memory slot 0x0:0xfffffffffffff000:0x40000000: outside the guest address space\n"
    assert b"overlaps" in cli("replay", TRACE, "--map", "0:0:1G", "--map", "1G:0:1G", code=2).stderr
    cli("replay", code=2)
    cli("nonsense", code=2)
    cli("cper", "show", "-", "--type", "Nothing", code=2)


def test_an_unwritable_file_is_the_hosts_fault() -> None:
    cli("hest", "build", "-o", "/nowhere/HEST", code=3)


def test_hest_build_where_it_cannot_be(tmp_path: Path) -> None:
    for words, wanted in (
        (["--errors", "3"], "not within 64 bits"),
        (["--errors", "0xffffffffffffffff"], "not within 64 bits"),
        (["--tables", "0x40000000"], "where the tables of --image begin, and there is none"),
        (["--tables", "0x40000000", "--errors", "0x40000000", "--image", tmp_path / "i"], "overlaps the tables"),
        (["--tables", "0", "--errors", "0xf00000000", "--image", tmp_path / "i"], "67108864 at most"),
    ):
        assert wanted in cli("hest", "build", "-o", tmp_path / "h", *words, code=2).stderr.decode()
    cli("hest", "build", "-o", tmp_path / "h", "--tables", "0x40100000", "--errors", "0x40000000", "--image",
        tmp_path / "i")  # fmt: skip
    assert len(json.loads(cli("acpi", "find", tmp_path / "i", "--json").stdout)["sources"]) == 3


@pytest.mark.parametrize("words", [[], ["replay"], ["hest"], ["hest", "build"], ["hest", "show"], ["cper", "show"],
                                   ["cper", "encode"], ["policy", "show"], ["policy", "check"]])  # fmt: skip
def test_help_has_an_example_and_the_json_switch(words: list[str]) -> None:
    text = cli(*words, "--help").stdout.decode()

    if not words:
        assert "Exit codes: 0 done" in text
    elif len(words) > 1 or words == ["replay"]:
        assert "Example: vmm-ras" in text
        assert "--json" in text


def test_help_imports_nothing_heavy() -> None:
    heavy = ("pydantic", "construct", "rich.console", "orjson")
    code = f"import sys, vmm_ras.cli; print([m for m in {heavy} if m in sys.modules])"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"[]"


def test_a_process_says_what_a_call_says() -> None:
    words = ("replay", "-", "--json")
    data = TRACE.read_bytes()

    assert process(*words, stdin=data).stdout == cli(*words, stdin=data).stdout
    assert process("replay", "/nowhere", code=1).stderr == cli("replay", "/nowhere", code=1).stderr


def test_policy_explain_says_which_rules_were_tried() -> None:
    rows = [json.loads(line) for line in cli("policy", "explain", TRACE, "--json").stdout.splitlines()]

    assert len(rows) == 18
    consumed = next(r for r in rows if r["code"] == "AR")
    assert consumed["decisions"][0] == {
        "code": "AR", "rule": "consumed", "by": "rules",
        "tried": [
            {"rule": "consumed-in-kernel", "reason": "el = 1, but el is 0"},
            {"rule": "consumed", "reason": None},
        ],
    }  # fmt: skip
    own = [r for r in rows if r["outcome"] == "own-memory"]
    assert all(r["decisions"] == [] for r in own), "nothing was decided about the VMM's own memory"
    told = subprocess.run(
        [sys.executable, "-m", "vmm_ras.cli", "policy", "explain", TRACE],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True,
    ).stdout  # fmt: skip
    assert told.startswith(b"no map given"), "what is said of an event comes before it"
    text = cli("policy", "explain", TRACE).stdout.decode()
    assert "    AR  consumed-in-kernel       el = 1, but el is 0\n    AR  consumed                 holds" in text


def test_an_explanation_names_the_hook_and_all_decisions_of_an_event(tmp_path: Path) -> None:
    hook = tmp_path / "hook.py"
    hook.write_text(
        "def decide(lost, view):\n    return 'found' if lost.code.name == 'AO' and lost.lsb > 12 else None\n"
    )
    trace = tmp_path / "t.jsonl"
    trace.write_text(
        '{"event":"trace","version":1}\n{"event":"memory","hva":0,"gpa":1073741824,"size":1073741824}\n'
        '{"event":"vcpu","vcpu":0,"tid":7}\n{"event":"signal","code":"AR","hva":4096,"lsb":16,"tid":7}\n'
    )

    (row,) = (
        json.loads(line) for line in cli("policy", "explain", trace, "--hook", hook, "--json").stdout.splitlines()
    )

    assert [(d["code"], d["rule"], d["by"]) for d in row["decisions"]] == [
        ("AR", "consumed", "rules"),
        ("AO", "found", "hook"),
    ]
    done = cli("replay", trace, "--hook", hook, "--json")
    assert json.loads(done.stdout.splitlines()[0])["rule"] == "consumed"


def test_a_hook_that_fails_is_told_of_in_a_replay(tmp_path: Path) -> None:
    hook = tmp_path / "hook.py"
    hook.write_text("def decide(lost, view):\n    return 1 / 0\n")

    done = cli("replay", TRACE, "--hook", hook, "--json")

    assert b"the hook raised ZeroDivisionError: division by zero; the rules decide\n" in done.stderr
    assert done.stderr.count(b"ZeroDivisionError") == 1


def test_overlaps_are_notes_and_contradictions_are_findings(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    text = (
        'version = 1\n[[rule]]\nname = "low"\nwhen = { gpa_to = 4096 }\naction = "ignore"\n'
        '[[rule]]\nname = "large"\nwhen = { lsb_min = 21 }\naction = "stop"\n'
        '[[rule]]\nname = "rest"\ndeliver = ["sea", "polled"]\n'
    )
    file.write_text(text)
    done = cli("policy", "check", file)
    assert b"note: rules 1 'low' and 2 'large' overlap" in done.stdout
    assert b"3 rules, 0 findings, digest " in done.stdout
    file.write_text(
        text.replace('name = "rest"', 'name = "rest"\nreport = "first"\nlarge = "touch"\nwhen = { lsb_max = 12 }')
        + text[12:].replace('"low"', '"b"').replace('"large"', '"c"').replace('"rest"', '"d"')
    )
    done = cli("policy", "check", file, "--json", code=1)
    assert any("contradicts itself: large" in f for f in json.loads(done.stdout)["findings"])


def test_the_list_of_commands_is_whole_and_loads_none() -> None:
    script = (
        "import sys, vmm_ras.cli as cli\n"
        "sys.argv = ['vmm-ras', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print('LOADED', *[m for m in sys.modules if m.startswith('vmm_ras.')])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    shown, _, loaded = done.stdout.partition("LOADED ")

    assert set(loaded.split()) == {"vmm_ras.cli", "vmm_ras.cli.common"}
    assert "..." not in shown.partition("Commands:")[2], "each says what it does in one line"
    for name in COMMANDS:
        assert f"\n  {name} " in shown
        help_ = cli(name, "--help").stdout.decode()
        assert f"vmm-ras {name} [" in help_
        assert "..." not in help_.partition("Commands:")[2], "nor is any of theirs cut"
    assert b"Did you mean 'replay'?" in cli("replai", code=2).stderr


def test_what_is_said_of_a_trace_does_not_pile_up(tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    faults = "".join(f'{{"event":"fault","gpa":{(1 << 50) + (n << 12)},"size":4096}}\n' for n in range(50))
    trace.write_text('{"event":"signal","code":"AO","hva":4096}\nrubbish\n' + faults)

    said = cli("replay", trace, "--json").stderr.splitlines()
    assert [line.split(b":")[0] for line in said[:2]] == [b"no map given", b"line 2"]
    assert json.loads(said[-1])["undelivered"] == {"no guest memory there": 50}
