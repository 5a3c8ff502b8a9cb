"""`vmm-ras trace`: what it writes where, and how it exits."""

from __future__ import annotations

import gzip
import json
import os
import pty
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pytest

from vmm_ras.cli import main

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures" / "traces"
COMMAND = [sys.executable, "-m", "vmm_ras.cli"]
SIGNAL = b'{"event":"signal","code":"AR","hva":4096,"lsb":12,"tid":1}\n'


class Done(NamedTuple):
    """What a command wrote."""

    stdout: bytes
    stderr: bytes


@pytest.fixture
def cli(capfdbinary, monkeypatch):
    """The command line, in this process: a process for each takes a second of a busy machine."""

    def run(*words: object, stdin: bytes = b"", code: int = 0) -> Done:
        class Stdin:
            buffer = BytesIO(stdin)

        monkeypatch.setattr("sys.argv", ["vmm-ras", *map(str, words)])
        monkeypatch.setattr("sys.stdin", Stdin)
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        sys.stdout.flush()
        done = Done(*capfdbinary.readouterr())
        assert (exit_.value.code or 0) == code, done.stderr.decode()
        return done

    return run


def test_convert_to_stdout_says_on_stderr_what_is_missing(cli):
    done = cli("trace", "convert", FIXTURES / "linux-6.12.ftrace")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0] == {"event": "trace", "version": 1, "clock": "relative", "addresses": "hpa"}
    assert [line["event"] for line in lines[1:]].count("unlocated") == 3
    text = done.stderr.decode().splitlines()
    assert text[0].endswith("linux-6.12.ftrace: ftrace: 6 signal, 3 unlocated")
    assert text[1].startswith("note: signal events have no address")
    assert all(line.startswith("note: ") for line in text[1:])


@pytest.mark.parametrize("name", ["qemu-10.0.stderr", "rasdaemon-0.8.3.db", "dmesg-iso.log"])
def test_what_was_converted_replays_as_the_source(cli, tmp_path, name):
    out = tmp_path / "native.jsonl"
    cli("trace", "convert", FIXTURES / name, "-o", out)

    def rows(source):
        return [
            {k: v for k, v in json.loads(row).items() if k != "line"}
            for row in cli("replay", source, "--json").stdout.splitlines()
        ]

    assert rows(out) == rows(FIXTURES / name)


def test_gzip_in_gzip_out_and_stdin(cli, tmp_path):
    data = (FIXTURES / "qemu-10.0.stderr").read_bytes()
    plain = cli("trace", "convert", "-", stdin=data).stdout
    assert cli("trace", "convert", "-", stdin=gzip.compress(data)).stdout == plain
    one, two = tmp_path / "one.gz", tmp_path / "two.gz"
    for out in one, two:
        cli("trace", "convert", "-", "--out", out, stdin=data)
        assert gzip.decompress(out.read_bytes()) == plain
    assert one.read_bytes() == two.read_bytes()


def test_json_goes_where_the_lines_do_not(cli, tmp_path):
    out = tmp_path / "o"
    done = cli("trace", "convert", FIXTURES / "qemu-7.2.qmp", "-o", out, "--json")
    counts = json.loads(done.stdout)
    assert (counts["format"], counts["lines"], counts["bad_lines"]) == ("qmp", {"unlocated": 6}, 0)
    assert len(counts["notes"]) == 3
    assert done.stderr == b""
    done = cli("trace", "convert", FIXTURES / "qemu-7.2.qmp", "--json")
    assert done.stdout == out.read_bytes()
    assert json.loads(done.stderr)["lines"] == {"unlocated": 6}


def test_bad_lines_are_told_and_strict_stops(cli, tmp_path):
    bad = b'{"event":"signal"}\n'
    for command in "convert", "stats":
        done = cli("trace", command, "-", stdin=SIGNAL + bad + SIGNAL)
        text = done.stderr.decode()
        assert "line 2: code is missing" in text
        assert "1 bad line\n" in text
        error = cli("trace", command, "-", "--strict", stdin=SIGNAL + bad, code=1).stderr.decode()
        assert error == "vmm-ras: <stdin>:2: code is missing, expected it in this event\n"
    done = cli("trace", "convert", "-", stdin=bad * 30)
    assert done.stderr.count(b": code is missing") == 20
    assert b"30 bad lines, 10 of them not shown" in done.stderr


def test_the_page_size_of_the_host(cli):
    done = cli("trace", "convert", FIXTURES / "rasdaemon-0.8.3.db", "--host-page", "64k")
    assert json.loads(done.stdout.splitlines()[1])["hva"] == 0x102C05 << 16
    cli("trace", "convert", FIXTURES / "rasdaemon-0.8.3.db", "--host-page", "8k", code=2)


def test_stats_for_people_and_programs(cli):
    text = cli("trace", "stats", FIXTURES / "linux-6.12.ftrace").stdout.decode()
    for words in ("ftrace", "signal 6, unlocated 3", "AR 2, AO 4", "by host physical address", "unknown: no map"):
        assert words in text
    plain = json.loads(cli("trace", "stats", FIXTURES / "linux-6.12.ftrace", "--json").stdout)
    assert plain["unlocated"] == {"AR": 3}
    assert plain["pages"]["host"] == 6
    assert plain["notes"]
    mapped = json.loads(
        cli("trace", "stats", FIXTURES / "qemu-10.0.strace", "--map", "0x7f49e404f000:0:4K", "--json").stdout
    )
    assert mapped["unmapped"] == 1
    empty = cli("trace", "stats", "-").stdout.decode()
    assert "empty" in empty
    assert "not told" in empty


def test_stats_of_what_was_generated(cli):
    trace = cli("trace", "generate", "storm", "--seed", 4, "--events", 640).stdout
    plain = json.loads(cli("trace", "stats", "-", "--json", "--storm-size", 64, stdin=trace).stdout)
    assert plain["events"] == 640
    assert plain["storms"]["count"] > 5
    assert plain["unmapped"] == 0
    assert "640" in cli("trace", "stats", "-", stdin=trace).stdout.decode()


def test_generate_gives_the_same_bytes(cli, tmp_path):
    words = ("trace", "generate", "lost", "--seed", 9, "--events", 50, "--vcpus", 3, "--memory", "1G")
    first = cli(*words)
    assert first.stderr == b""
    assert cli(*words).stdout == first.stdout
    out = tmp_path / "t.jsonl"
    done = cli(*words, "-o", out, "--json")
    assert out.read_bytes() == first.stdout
    counts = json.loads(done.stdout)
    assert (counts["scenario"], counts["seed"], counts["memory"], counts["vcpus"]) == ("lost", 9, 1 << 30, 3)
    assert counts["lines"]["signal"] + counts["lines"]["unlocated"] == 50
    assert cli(*words[:4], 10, *words[5:]).stdout != first.stdout
    assert "signal" in cli(*words, "-o", out).stderr.decode()


def test_generate_with_values_of_ones_own(cli, tmp_path):
    words = (
        "--granule",
        "64K",
        "--granule",
        "2M",
        "--late-ack",
        9,
        "--actions",
        1,
        "--ar",
        1,
        "--again",
        0,
        "--interval",
        2,
    )
    done = cli("trace", "generate", "mixed", "--events", 40, *words, "--storm", 4, "-o", tmp_path / "o", "--json")
    counts = json.loads(done.stdout)
    assert (counts["granules"], counts["late_ack_ms"], counts["interval_us"]) == ([16, 21], 9, 2_000_000)
    plain = json.loads(cli("trace", "stats", tmp_path / "o", "--json").stdout)
    assert set(plain["granules"]) == {"16", "21"}
    assert plain["codes"] == {"AR": 40}
    assert sum(plain["trace"][a] for a in ("mask-serror", "el", "sdei", "poll-stop")) == 40


def test_generate_lists_its_scenarios(cli):
    listed = cli("trace", "generate", "--list").stdout.decode().splitlines()
    assert len(listed) == 8
    assert listed[1].startswith("storm ")
    assert set(json.loads(cli("trace", "generate", "--list", "--json").stdout)) == {s.split()[0] for s in listed}
    for name in (line.split()[0] for line in listed):
        cli("trace", "generate", name, "--events", 1)


def test_a_trace_is_not_converted_onto_itself(cli, tmp_path):
    trace, link = tmp_path / "t.jsonl", tmp_path / "link"
    link.symlink_to(trace)
    data = (FIXTURES / "signals.jsonl").read_bytes()
    for out in (trace, link):
        trace.write_bytes(data)
        assert b"the trace itself" in cli("trace", "convert", trace, "-o", out, code=2).stderr
        with trace.open("rb") as stdin:
            done = subprocess.run([*COMMAND, "trace", "convert", "-", "-o", out], stdin=stdin, check=False)
        assert done.returncode == 2
        assert trace.read_bytes() == data


def test_a_full_disk_is_one_line():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "trace", "convert", FIXTURES / "signals.jsonl"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (3, b"vmm-ras: No space left on device")


@pytest.mark.parametrize(
    ("words", "code", "wanted"),
    [
        (["convert"], 2, "TRACE"),
        (["convert", "/nowhere"], 1, "/nowhere: No such file"),
        (["convert", FIXTURES / "mceerr.c"], 1, "not a trace, expected strace"),
        (["convert", FIXTURES / "signals.jsonl", "-o", "/nowhere/x"], 3, "/nowhere/x"),
        (["stats", FIXTURES / "signals.jsonl", "--map", "1:2"], 2, "HVA:GPA:SIZE expected"),
        (["stats", FIXTURES / "signals.jsonl", "--map", "0:0:4K", "--map", "0:8192:4K"], 2, "overlaps"),
        (["stats", FIXTURES / "signals.jsonl", "--storm-size", "1"], 2, "storm-size"),
        (["generate", "nothing"], 2, "nothing"),
        (["generate", "--memory", "3"], 1, "memory is 3, expected 4096"),
        (["generate", "hugetlb-1g", "--memory", "1M"], 1, "a granule of 0x40000000 bytes"),
        (["generate", "--ar", "2"], 2, "ar"),
        (["generate", "--granule", "3K"], 2, "a power of two expected"),
        (["generate", "--granule", "1K"], 1, "a granule of 0x400 bytes"),
        (["generate", "--seed", str(1 << 64)], 2, "outside 64 bits"),
        (["generate", "--interval", "inf"], 2, "interval"),
    ],
)
def test_errors_are_one_clear_line(cli, words, code, wanted):
    error = cli("trace", *words, code=code).stderr.decode()
    assert wanted in error
    if code != 2:
        assert error.startswith("vmm-ras: ")
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    "words", ["trace generate --events 200000", "replay TRACE", "replay TRACE --json", "policy explain TRACE"]
)
def test_a_reader_that_goes_away_is_no_error(tmp_path, words):
    trace = tmp_path / "t.jsonl"
    trace.write_bytes(SIGNAL * 5000)
    run = [*COMMAND, *words.replace("TRACE", str(trace)).split()]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert (child.wait(60), b"Traceback" in child.stderr.read()) == (0, False)


def test_a_bar_on_a_terminal_only(tmp_path):
    trace = tmp_path / "t.jsonl"
    trace.write_bytes(SIGNAL * 5000)
    leader, follower = pty.openpty()
    try:
        run = [*COMMAND, "trace", "stats", str(trace), "--json"]
        done = subprocess.run(run, stdout=subprocess.PIPE, stderr=follower, cwd=ROOT, check=True)
        os.close(follower)
        seen = os.read(leader, 65536)
    finally:
        os.close(leader)
    assert json.loads(done.stdout)["events"] == 5000
    assert "━".encode() in seen or b"%" in seen


@pytest.mark.parametrize("words", [[], ["convert"], ["stats"], ["generate"]])
def test_help_has_an_example_and_exit_codes(cli, words):
    text = cli("trace", *words, "--help").stdout.decode()
    assert "Exit codes: 0 done" in text
    if words:
        assert "Example: vmm-ras trace" in text
        assert "--json" in text
