"""`vmm-ras snapshot`: a file at any point of a trace, and the same later rows from it in another process."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from acpi.presets import PRESETS
from tests.command_line import cli, process
from vmm_ras.errors import InputError, SnapshotError
from vmm_ras.replay import TABLES, Replay
from vmm_ras.replay_state import Position, rest, resume, save
from vmm_ras.snapshot.container import Part, decode, encode
from vmm_ras.traces import open_trace

TRACES = Path(__file__).parents[2] / "fixtures" / "traces"
STRACE, ACTIONS, SIGNALS = (TRACES / name for name in ("qemu-like.strace", "guest-actions.jsonl", "signals.jsonl"))


def replay(preset: str = "default") -> Replay:
    return Replay(PRESETS[preset].place(TABLES))


@pytest.mark.parametrize("preset", ["default", "all"])
@pytest.mark.parametrize("trace", [STRACE, ACTIONS, SIGNALS], ids=lambda p: p.stem)
def test_after_every_event_the_later_rows_are_the_same(trace: Path, preset: str) -> None:
    whole = replay(preset)
    with open_trace(str(trace)) as entries:
        rows = list(whole.run(entries))
    for after in range(len(rows) + 2):
        with open_trace(str(trace)) as entries:
            saved = save(replay(preset), entries, after)
        run, position = resume(saved.data)
        assert saved.events == min(after, len(rows))
        with open_trace(str(trace)) as entries:
            later = list(run.run(rest(entries, position)))

        assert [*saved.rows, *later] == rows
        assert run.summary == whole.summary
        assert run.notices == whole.notices


def held(thing: object) -> set[str]:
    """The attributes that are set, of a compiled object too."""
    return {name for name in dir(thing) if hasattr(thing, name)}


def test_a_replay_that_was_put_back_has_all_that_a_new_one_has() -> None:
    one = replay()

    two, position = resume(save(one, [], 0).data)

    assert held(two) == held(one) - {"image"}
    assert held(two.ledger) == held(one.ledger)
    assert held(two.guest) == held(one.guest)
    assert held(two.guest.os) == held(one.guest.os)
    assert held(two.notifier) == held(one.notifier)
    assert position == Position()


def test_rows_that_wait_travel_and_are_finished_there(tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    lines = [
        '{"event":"trace","version":1,"clock":"relative"}',
        '{"event":"guest","action":"ack-delay","ms":null}',
        *(
            f'{{"event":"signal","code":"AO","hva":{0x7F0000000000 + n * 4096},"lsb":12,"tid":1,"time":{n}}}'
            for n in range(9)
        ),
        '{"event":"guest","action":"ack-delay","ms":0}',
        *(
            f'{{"event":"signal","code":"AR","hva":{0x7F0000000000 + n * 4096},"lsb":12,"tid":{n},"time":{n}}}'
            for n in range(20, 29)
        ),
    ]
    trace.write_text("\n".join(lines) + "\n")
    whole = cli("replay", trace, "--json")
    rows = whole.stdout.splitlines()
    for after in (1, 5, 9, 12):
        file = tmp_path / f"{after}.snap"
        done = orjson.loads(cli("snapshot", "save", trace, "--after", str(after), "-o", file, "--json").stdout)
        later = cli("snapshot", "restore", file, trace, "--json")

        assert done["events"] == after
        assert done["pending"]["idle"] is False
        assert later.stdout.splitlines() == rows[done["rows"] :]
        assert later.stderr == whole.stderr
        assert done["rows"] < after


@pytest.fixture
def snap(tmp_path: Path) -> Path:
    file = tmp_path / "vm.snap"
    cli("snapshot", "save", STRACE, "--after", "6", "-o", file)
    return file


def test_another_process_goes_on(snap: Path) -> None:
    whole = cli("replay", STRACE, "--json").stdout.splitlines()

    later = process("snapshot", "restore", snap, STRACE, "--json").stdout.splitlines()

    assert later == whole[6:]
    text = cli("snapshot", "restore", snap, STRACE).stdout.decode()
    shown = cli("replay", STRACE).stdout.decode()
    assert text.splitlines()[-20:] == shown.splitlines()[-20:]
    assert len(cli("snapshot", "restore", snap, STRACE, "--quiet").stdout) < len(text)


def test_another_trace_is_refused(snap: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.strace"
    other.write_bytes(STRACE.read_bytes().replace(b"BUS_MCEERR_AO", b"BUS_MCEERR_AR"))

    for trace in (other, ACTIONS):
        assert b"of another trace" in cli("snapshot", "restore", snap, trace, code=1).stderr
    with pytest.raises(InputError):
        rest([], Position(1, 2))


def test_show_tells_parts_and_what_is_owed(snap: Path) -> None:
    text = cli("snapshot", "show", snap).stdout.decode()
    shown = orjson.loads(cli("snapshot", "show", snap, "--json").stdout)

    parts = {part["name"]: part for part in shown["parts"]}
    assert list(parts) == [part.name for part in decode(snap.read_bytes())]
    assert not parts["replay"]["mandatory"]
    assert parts["sdei"]["mandatory"]
    assert all(name in text for name in parts)
    assert "guest linux-7.2" in text
    assert shown["holes"]
    assert shown["pending"]["pages"]["acked"] == len(shown["holes"]) or shown["pending"]
    assert cli("snapshot", "show", "-", "--json", stdin=snap.read_bytes()).stdout.count(b"CRC") == 0


def test_show_tells_what_a_deaf_guest_is_owed(tmp_path: Path) -> None:
    file, trace = tmp_path / "f", tmp_path / "t.jsonl"
    lines = ['{"event":"trace","version":1,"clock":"relative"}', '{"event":"guest","action":"ack-delay","ms":null}']
    for n, (code, tid) in enumerate((("AR", 1), ("AR", 2), ("AO", 9), ("AO", 9))):
        hva = 0x7F0000000000 + n * 4096
        lines.append(f'{{"event":"signal","code":"{code}","hva":{hva},"lsb":12,"tid":{tid},"time":{n / 10}}}')
    trace.write_text("\n".join(lines) + "\n")

    text = cli("snapshot", "save", trace, "--after", "4", "-o", file).stdout.decode()

    assert cli("snapshot", "show", file).stdout.decode().endswith(text.partition("\n")[2])
    assert "vCPU 1: consumed error gpa 0x40001000 pages 1 state held" in text
    assert "source 0 (sea): 1 entry not acknowledged, overdue at" in text
    assert "rule found: 1 page not told yet" in text


def test_verify(snap: Path, tmp_path: Path) -> None:
    assert b"fine: 14 parts" in cli("snapshot", "verify", snap).stdout
    assert orjson.loads(cli("snapshot", "verify", snap, "--json").stdout)["fine"]
    data = bytearray(snap.read_bytes())
    data[-3] ^= 4
    bad = tmp_path / "bad"
    bad.write_bytes(data)
    for command in ("verify", "show"):
        done = cli("snapshot", command, bad, code=1)
        assert done.stderr.count(b"\n") == 1
        assert b"its CRC-32C is" in done.stderr
        assert not done.stdout
    cli("snapshot", "verify", tmp_path / "none", code=1)


def test_diff(snap: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    cli("snapshot", "save", STRACE, "--after", "7", "-o", other)

    assert cli("snapshot", "diff", snap, snap, "--fail-on", "differ").stdout == b"no difference\n"
    text = cli("snapshot", "diff", snap, other, "--fail-on", "differ", code=4).stdout.decode()
    found = orjson.loads(cli("snapshot", "diff", snap, other, "--json").stdout)
    assert "replay.seq: 6 -> 7\n" in text
    assert {"path": "replay.seq", "one": 6, "two": 7} in found
    assert b"expected differ" in cli("snapshot", "diff", snap, other, "--fail-on", "x", code=2).stderr


def test_what_is_damaged_in_a_replays_own_part_is_refused(snap: Path) -> None:
    parts = {part.name: part for part in decode(snap.read_bytes())}
    for name, changes in {
        "replay": [
            {"rows": [{"seq": 0}]}, {"by_source": [[1, [99]]]}, {"summary": {"kinds": [1]}},
            {"summary": {"events": "x"}}, {"summary": {"events": 1, "kinds": []}}, {"digest": -1}, {"now": None},
            {"bare": [1]}, {"published": [[1, "zz"]]}, {"more": 1},
        ],
        "model": [
            {"regions": []}, {"regions": [[0, 1 << 62]]}, {"holes": [[0, 1]]}, {"programs": [[99, []]]},
            {"programs": [[0, []], [0, []]]}, {"stops": [-1]}, {"programs": [[0, [[1, [-1]]]]]}, {"os": {}},
        ],
    }.items():  # fmt: skip
        for change in changes:
            body = orjson.dumps(orjson.loads(parts[name].body) | change)
            with pytest.raises(SnapshotError, match=f"part '{name}'"):
                resume(encode([*(p for p in parts.values() if p.name != name), Part(name, body)]))
    for missing in ("replay", "model", "model-memory", "vcpus"):
        with pytest.raises(SnapshotError, match=f"part '{missing}'"):
            resume(encode(p for p in parts.values() if p.name != missing))


def test_bad_words_are_usage_errors(tmp_path: Path) -> None:
    cli("snapshot", "save", STRACE, code=2)
    cli("snapshot", "save", STRACE, "--after", "-1", "-o", tmp_path / "f", code=2)
    assert (
        b"note: the trace has 18 events"
        in cli("snapshot", "save", STRACE, "--after", "99", "-o", tmp_path / "f").stderr
    )
    cli("snapshot", "save", STRACE, "--after", "1", "-o", tmp_path / "none" / "f", code=3)
