"""A whole trace through core and model guest: rows, order, time, bounded memory."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acpi.ghes import StatusBlock
from acpi.presets import PRESETS
from vmm_ras import replay as module
from vmm_ras import rows as rows_module
from vmm_ras.cli import timeline
from vmm_ras.ledger import crc32c
from vmm_ras.memory import MemorySlot
from vmm_ras.policy import load_policy
from vmm_ras.profiles import PROFILES
from vmm_ras.replay import TABLES, Replay
from vmm_ras.rows import Row
from vmm_ras.traces import Trace, open_trace

FIXTURES = Path(__file__).parents[2] / "fixtures" / "traces"
HVA = 0x7F00_0000_0000


def run(
    lines: Iterable[str], preset: str = "default", guest: str = "linux", **options: Any
) -> tuple[list[Row], Replay]:
    text = "\n".join(['{"event":"trace","version":1,"clock":"relative"}', *lines]) + "\n"
    machine = Replay(PRESETS[preset].place(TABLES), guest=PROFILES[guest], **options)
    return list(machine.run(Trace(io.BytesIO(text.encode()), "t"))), machine


def signal(code: str, page: int, at: float, tid: int = 100, lsb: int = 12) -> str:
    hva = HVA + (page << 12)
    return f'{{"event":"signal","code":"{code}","hva":{hva},"lsb":{lsb},"tid":{tid},"time":{at}}}'


def test_the_captured_trace_is_told_completely() -> None:
    machine = Replay(PRESETS["default"].place(TABLES))
    with open_trace(str(FIXTURES / "qemu-like.strace")) as trace:
        rows = list(machine.run(trace))

    assert [r.seq for r in rows] == list(range(len(rows)))
    assert {r.code for r in rows} == {"AR", "AO"}
    assert {r.delivery for r in rows} == {"sea", "sdei", None}
    for row in rows:
        if row.outcome == "known":
            continue
        assert row.outcome == "offlined"
        assert row.acked
        assert row.block is not None
        assert row.crc32c == crc32c(row.block)
        pages = [e.section().physical_address for e in StatusBlock.decode(row.block).entries]  # type: ignore[union-attr]
        assert row.gpa is not None
        assert row.gpa & -4096 in pages
        assert row.esr == (0x92000410 if row.code == "AR" else None)
    assert machine.summary.failures == {"lost": 0, "unseen": 0, "panic": 0}


def test_every_captured_trace_is_replayed() -> None:
    for path in sorted(FIXTURES.iterdir()):
        if path.suffix in {".strace", ".gz", ".jsonl", ".log"}:
            machine = Replay(PRESETS["all"].place(TABLES))
            with open_trace(str(path)) as trace:
                rows = list(machine.run(trace))
            assert rows, path
            assert machine.summary.events == len(rows)


def test_windows_are_mapped_in_order_of_appearance_and_said() -> None:
    rows, machine = run([signal("AO", 1 << 18 | 5, 1.0), signal("AO", 7, 2.0)])

    assert [r.gpa for r in rows] == [0x4000_5000, 0x8000_7000]
    assert len([n for n in machine.notices if "--map" in n]) == 2


def test_with_a_map_other_addresses_are_the_vmms_own() -> None:
    rows, machine = run(
        [signal("AO", 1, 1.0), signal("AR", 1 << 20, 2.0)], slots=[MemorySlot(HVA, 0x4000_0000, 1 << 20)]
    )

    assert [r.outcome for r in rows] == ["offlined", "own-memory"]
    assert machine.notices == []


def test_memory_and_threads_can_come_with_the_trace() -> None:
    rows, _ = run(
        [
            f'{{"event":"memory","hva":{HVA},"gpa":2147483648,"size":1048576}}',
            '{"event":"vcpu","vcpu":3,"tid":42}',
            signal("AR", 2, 1.0, 42),
        ]
    )

    assert (rows[0].gpa, rows[0].vcpu) == (0x8000_2000, 3)


def test_polling_takes_its_time() -> None:
    rows, machine = run([signal("AO", 1, 0.0), signal("AO", 2, 0.1)], sdei=False)

    assert [r.delivery for r in rows] == ["polled", "polled"]
    assert all(r.acked for r in rows)
    assert machine.now >= 1.0
    assert machine.summary.blocks == 2, "the second page waited for the acknowledgement of the first"


def test_a_guest_that_never_acknowledges_loses_nothing() -> None:
    rows, machine = run(
        ['{"event":"guest","action":"ack-delay","ms":null}', *[signal("AR", n, 1.0 + n * 0.001) for n in range(5)]]
    )

    assert machine.summary.pages["unreported"] + machine.summary.pages["posted"] + machine.summary.pages["acked"] == 5
    assert machine.summary.failures["unseen"] > 0
    assert machine.summary.escalations
    assert not any(r.acked for r in rows if r.delivery == "sea")


def test_a_late_acknowledgement_is_waited_for() -> None:
    rows, _ = run(
        [
            '{"event":"guest","action":"ack-delay","ms":400}',
            signal("AR", 1, 1.0, 100),
            signal("AR", 2, 1.1, 101),
            signal("AR", 3, 1.2, 102),
        ]
    )

    assert [(r.outcome, r.acked) for r in rows] == [("offlined", True)] * 3


def test_kernel_abort_is_an_oops_and_the_page_is_still_told() -> None:
    rows, machine = run(
        ['{"event":"vcpu","vcpu":0,"tid":100}', '{"event":"guest","action":"el","vcpu":0,"el":1}', signal("AR", 1, 1.0)]
    )

    assert (rows[0].outcome, rows[0].esr, rows[0].delivery, rows[0].acked) == ("oops", 0x96000410, "sdei", True)
    assert machine.summary.failures["panic"] == 1


def test_serror_that_stays_masked_is_unseen_until_unmasked() -> None:
    policy = load_policy('version=1\n[[rule]]\nname="all"\ndeliver=["sei"]\n')
    lines = ['{"event":"guest","action":"mask-serror","vcpu":0,"masked":true}', signal("AO", 1, 1.0)]

    rows, machine = run(lines, "all", "generic", policy=policy)
    assert (rows[0].delivery, rows[0].esr, rows[0].acked) == ("sei", 0xBE000811, False)
    assert machine.summary.failures["unseen"] == 1

    unmask = '{"event":"guest","action":"mask-serror","vcpu":0,"masked":false,"time":1.5}'
    rows, machine = run([*lines, unmask], "all", "generic", policy=policy)
    assert (rows[0].outcome, rows[0].acked) == ("offlined", True)


def test_sdei_that_is_registered_late_gets_what_waited() -> None:
    policy = load_policy('version=1\n[[rule]]\nname="all"\ndeliver=["sdei"]\n')
    rows, machine = run(
        [signal("AO", 1, 1.0), '{"event":"guest","action":"sdei","registered":true,"time":2.0}'],
        policy=policy,
        sdei=False,
    )

    assert (rows[0].delivery, rows[0].acked) == ("sdei", True)
    assert list(machine.summary.undelivered) == ["all: sdei: not registered and enabled"]


def test_fatal_records_panic_the_guest() -> None:
    policy = load_policy('version=1\n[[rule]]\nname="all"\ndeliver=["sea","polled"]\nseverity="fatal"\n')
    rows, machine = run([signal("AR", 1, 1.0), signal("AR", 2, 1.1)], policy=policy)

    assert rows[0].outcome == "panic"
    assert machine.summary.panicked
    assert machine.summary.failures["panic"]
    assert not rows[1].acked


def test_poison_under_the_tables_is_survived() -> None:
    slots = [MemorySlot(HVA, TABLES, 1 << 20)]
    rows, machine = run([signal("AO", 1, 1.0), signal("AO", 100, 2.0), signal("AR", 0, 3.0)], slots=slots)

    assert machine.summary.pages["unreported"] >= 1, "registers are gone: nobody can be told, and it is not forgotten"
    assert all(not r.acked for r in rows)


def test_the_window_bounds_the_rows_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 50)
    lines = ['{"event":"guest","action":"poll-stop","stopped":true}', *(signal("AO", n, n * 0.001) for n in range(500))]
    machine = Replay(PRESETS["default"].place(TABLES), sdei=False)
    rows, waiting = [], []
    for row in machine.run(Trace(io.BytesIO("\n".join(lines).encode()), "t")):
        rows.append(row)
        waiting.append(len(machine.ledger.rows))

    assert [r.seq for r in rows] == list(range(500))
    assert max(waiting) == 50
    assert len(machine.ledger.rows) == len(machine.ledger._open) == 0
    assert machine.summary.pages["unreported"] == 499
    assert {r.outcome for r in rows} == {"waiting"}


_number = st.none() | st.integers(0, (1 << 64) - 1)
_seconds = st.floats(0) | st.sampled_from([0.0, 5e-324, 1e-7, 1e15, 1e16, 1e22, 0.1 + 0.2, float("inf")])
_text = (
    st.none() | st.sampled_from(["%", "%d", '"', "\\", "\n", "a,b"]) | st.text(st.characters(exclude_categories=["Cs"]))
)


@given(
    st.lists(_number, min_size=6, max_size=6), st.lists(st.none() | _seconds, min_size=2, max_size=2), _seconds, _text,
    _text, st.none() | st.binary(),
)  # fmt: skip
def test_a_row_is_a_line_of_json(
    numbers: list[int | None], times: list[float | None], at: float, rule: str | None, delivery: str | None,
    block: bytes | None,
) -> None:  # fmt: skip
    row = Row(1, 2, at, "AR", numbers[0], numbers[1], 12, numbers[2])
    row.source_id, row.esr, row.crc32c = numbers[3:]
    row.posted_at, row.acked_at = times
    row.rule, row.delivery, row.block = rule, delivery, block

    assert row.json() == orjson.dumps(row.plain()) + b"\n"
    assert row.json().count(b"\n") == 1, "what a rule is called cannot break the line"


def test_lines_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "_MOST_LINES", 3)
    for lsb in range(64):
        row = Row(1, 2, 0.5, "AO", 1, 2, lsb)
        row.block, row.crc32c = b"", 0
        assert row.json() == row.json() == orjson.dumps(row.plain()) + b"\n"
        assert 1 <= len(rows_module._lines) <= 3


def test_a_page_that_is_lost_again_before_it_is_told_is_told_once() -> None:
    rows, machine = run([signal("AO", 1, 0.0), *(signal("AO", 2, 0.1 + n / 100) for n in range(3))], sdei=False)

    assert [(r.outcome, r.acked) for r in rows] == [("offlined", True)] * 2 + [("known", False)] * 2
    assert machine.ledger._open == {}


def test_bad_lines_are_reported_and_counted() -> None:
    rows, machine = run([signal("AO", 1, 1.0), '{"event":"signal","code":"XX"}', signal("AO", 2, 1.1)])

    assert len(rows) == 2
    assert machine.summary.bad_lines == 1
    assert any(n.startswith("line 3:") for n in machine.notices)


def test_what_the_machine_has_not_is_a_bad_line() -> None:
    lines = ['"abort","vcpu":9,"esr":"0x92000410"', '"vcpu","vcpu":8,"tid":7', '"guest","action":"el","vcpu":8,"el":0',
             '"guest","action":"ack-delay","ms":5,"source_id":77']  # fmt: skip
    rows, machine = run([*(f'{{"event":{line}}}' for line in lines), signal("AO", 1, 1.0)])

    assert [r.outcome for r in rows] == ["ignored", "offlined"], "nobody waits for a vCPU that is not there"
    assert machine.summary.bad_lines == 4
    assert [n.split(":")[0] for n in machine.notices[:4]] == ["line 2", "line 3", "line 4", "line 5"]
    assert machine.notices[3] == "line 5: there is no source 77"


@pytest.mark.parametrize("action", ["stop", "reset", "migrate"])
def test_a_found_page_about_which_the_orchestrator_is_asked_waits_for_a_touch(action: str) -> None:
    rest = '[[rule]]\nname = "rest"\ndeliver = ["sea"]\nsea = { ea = 1 }\n'
    policy = load_policy(f'version = 1\n[[rule]]\nname = "ask"\nwhen = {{ code = "AO" }}\naction = "{action}"\n{rest}')
    rows, machine = run([signal("AO", 1, 1.0), signal("AO", 2, 2.0), signal("AR", 1, 3.0)], policy=policy)

    assert [(r.rule, r.outcome) for r in rows] == [("ask", "on-touch")] * 2 + [("rest", "offlined")]
    assert (machine.summary.failures["unseen"], machine.summary.escalated) == (1, 2)


def test_a_page_that_waits_for_a_touch_is_unseen_and_it_is_said() -> None:
    policy = load_policy('version = 1\n[[rule]]\nname = "all"\ndeliver = ["sea", "sdei"]\nlarge = "touch"\n')
    rows, machine = run([signal("AO", 512, 1.0, lsb=21)], policy=policy)

    assert (rows[0].outcome, machine.summary.failures["unseen"]) == ("on-touch", 512)
    assert "told when it is touched" in timeline.line(rows[0]).plain
    cells = [str(cell) for column in timeline.summary(machine.summary).columns for cell in column.cells]
    assert "when the replay ended, 60 s after the last event" in cells


def test_gzip_is_read_by_content(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(gzip.compress((FIXTURES / "qemu-like.strace").read_bytes()))

    with open_trace(str(path)) as trace:
        assert len(list(Replay(PRESETS["default"].place(TABLES)).run(trace))) == 18


def test_all_vcpus_taken_is_said() -> None:
    rows, machine = run([signal("AR", n, 1.0, 200 + n) for n in range(3)], vcpus=2)

    assert [r.vcpu for r in rows][:2] == [0, 1]
    assert any("--vcpus" in n for n in machine.notices)
    assert all(r.acked for r in rows)
