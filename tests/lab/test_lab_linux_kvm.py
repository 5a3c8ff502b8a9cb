"""The lab's third tier as far as it needs no emulated host: what a run is given, what its lines become, how it ends."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from tests.command_line import cli
from vmm_ras.lab import command, kernel_log, linux_kvm, linux_kvm_guest, linux_kvm_inner, packages
from vmm_ras.lab.errors import Failure, Unavailable
from vmm_ras.lab.host import Host, Run
from vmm_ras.lab.linux_kvm import Pair
from vmm_ras.lab.linux_kvm_command import DEFAULT, PAIRS
from vmm_ras.lab.linux_kvm_command import linux_kvm as lane
from vmm_ras.lab.linux_kvm_timeline import WHERE, Timeline
from vmm_ras.policy import load_policy

MOMENTS = Path(__file__).parents[2] / "fixtures" / "lab" / "linux-kvm-demo.jsonl"


def kernel(series, tmp_path):
    image = tmp_path / "Image"
    image.write_bytes(b"kernel")
    return SimpleNamespace(series=series, version=f"{series}.1-1", image=image)


@pytest.fixture
def pair(tmp_path):
    lab = SimpleNamespace(kernel=kernel("6.12", tmp_path), folder=tmp_path)
    return Pair(lab, lab, b"root")


@pytest.fixture
def host(monkeypatch):
    """A host that prints what it is told to."""
    state = SimpleNamespace(lines=[], files={}, script="")

    def run(self, files, script, *, seconds, heard):
        state.files, state.script = files, script
        for line in state.lines:
            heard(line)
        return Run(0, tuple(state.lines), 12.5, "6.12.1")

    monkeypatch.setattr(Host, "run", run)
    monkeypatch.setattr(Host, "keep", lambda self, done: "the log is there")
    return state


def report(**changes):
    made = {
        "title": "T",
        "facts": {"SDEI": "yes"},
        "rows": [["s", "what", "shown"]],
        "times": [["s", 1.5]],
        "section": "s",
    }
    return f"REPORT {json.dumps(made | changes)}"


class TestRun:
    def test_a_run_that_passed(self, pair, host):
        host.lines = ["noise", 'MOMENT {"at": 1.0, "moment": "madvise"}', report()]
        done = linux_kvm.run(pair, all_serrors=True)
        assert (done.rows, done.times) == ([("s", "what", "shown")], [("s", 1.5)])
        assert list(done.facts)[:2] == ["Host kernel package", "Host kernel"]
        assert done.facts["SDEI"] == "yes"
        assert "1 assertions held" in done.text()
        assert host.files["Image"] == b"kernel"
        assert json.loads(host.files["scenario.json"]) == {"title": "T", "demo": False, "all": True} | {
            "title": "Lab: Linux 6.12 on KVM of Linux 6.12, with memory really lost"
        }
        assert "vmm_ras.lab.linux_kvm_inner" in host.script

    @pytest.mark.parametrize(
        ("lines", "kind", "text"),
        [
            (['FAILED {"error": "so", "detail": "d", "host": false}'], Failure, "6.12-6.12: so; the log is there"),
            (['FAILED {"error": "no KVM", "detail": "", "host": true}'], Unavailable, "no KVM"),
            (["Traceback"], Failure, "without a report; the log is there"),
        ],
    )
    def test_a_run_that_did_not(self, pair, host, lines, kind, text):
        host.lines = lines
        with pytest.raises(kind, match=text):
            linux_kvm.run(pair)

    def test_every_moment_is_heard_of(self, pair, host):
        host.lines = ['MOMENT {"at": 1.0, "moment": "madvise", "hva": 5}', report()]
        heard = []
        linux_kvm.demo(pair, lambda what, values: heard.append((what, values)))
        assert heard == [("madvise", {"at": 1.0, "hva": 5})]
        assert json.loads(host.files["scenario.json"])["demo"] is True


class TestInside:
    """What the scenario takes for granted."""

    def test_the_policy_has_the_rules_that_the_scenario_names(self):
        rules = {rule.name: rule for rule in load_policy(linux_kvm_guest.POLICY).rule}
        assert {"sea", "bare", "sdei", "gsiv", "gpio", "polled", "unheard"} == rules.keys()
        assert all(rules[way].deliver == (way,) for way in ("sea", "sdei", "gsiv", "gpio", "polled"))

    def test_the_syndromes_are_what_they_are_called(self):

        found = linux_kvm_inner.SYNDROMES
        assert found == {
            "ueo": 0x811, "ce": 0x1811, "uc": 0x11, "ueu": 0x411, "uer": 0xC11,
            "uncategorized": 0, "implementation defined": 0x1000000,
        }  # fmt: skip
        assert set(linux_kvm_inner.SURVIVED) | set(linux_kvm_inner.FATAL) == found.keys()

    def test_the_guests_log_program_keeps_whatever_is_asserted_of(self, tmp_path):
        kept = (
            *kernel_log.BOUND[:2], "efi: EFI v2.10 by vmm-ras", *kernel_log.WITH_SDEI,
            "Memory failure: 0x41e9e: recovery action for dirty LRU page: Recovered",
            "ACPI BIOS Error (bug): Could not", "GHES: can't ioremap", "sdei: Failed to get SDEI version: -95",
            "[Firmware Bug]: CPU 1", "GICv3: unable to map",
        )  # fmt: skip
        lines = [re.sub(r"\\d", "1", line).replace("\\", "") for line in kept]
        dropped = [
            "random: crng init done",
            "ACPI: RSDP 0x000000005FFE0000 000024 (v02 VMMRAS)",
            "GICv3: 96 SPIs implemented",
        ]
        program = linux_kvm_guest.programs()[linux_kvm_guest.LOG].decode().splitlines()
        assert program[0] == "#!/bin/busybox sh"
        log = tmp_path / "log"
        log.write_text("\n".join(lines + dropped) + "\n")
        script = program[1].replace("dmesg -c", f"cat {log}")
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == lines
        complaints = [line for line in lines + dropped if kernel_log.COMPLAINTS.search(line)]
        assert set(complaints) <= set(done.stdout.splitlines())


class TestTimeline:
    """Moments of a real run (``vmm-ras lab demo --json`` of Linux 6.12 on 6.12)."""

    @pytest.fixture
    def timeline(self):
        found = Timeline()
        for line in MOMENTS.read_text().splitlines():
            values = json.loads(line)
            found.heard(values.pop("moment"), values)
        return found

    def test_a_page_goes_its_way(self, timeline):
        rows = timeline.rows
        assert {row.who for row in rows} == WHERE.keys()
        order = [
            "owns a page", "the page is lost", "BUS_MCEERR_AR goes to", "stays out", "a CPER record", "SEA",
            "acknowledged", "SIGBUS BUS_MCEERR_AR, with its own address", "never uses the page again",
        ]  # fmt: skip
        at = [next(n for n, row in enumerate(rows) if text in row.what) for text in order]
        assert at == sorted(at)
        times = [row.ms for row in rows[at[1] :]]
        assert times == sorted(times)
        assert times[0] == 0.0 < times[-1]
        assert [row.ms for row in rows[: at[1]]] == [None, None]

    def test_addresses_are_those_of_one_page(self, timeline):
        rows = {
            text: row.detail
            for row in timeline.rows
            for text in ("owns", "page is lost", "CPER", "SEA")
            if text in row.what
        }
        gpa = re.search(r"guest's (0x[0-9a-f]+)", rows["owns"]).group(1)
        va = re.search(r"address (0x[0-9a-f]+)", rows["owns"]).group(1)
        assert gpa in rows["page is lost"]
        assert gpa in rows["CPER"]
        assert f"FAR_EL1 {va}" in rows["SEA"]
        assert "ESR_EL1 0x92000010" in rows["SEA"]

    def test_what_nobody_needs_to_see(self):
        timeline = Timeline()
        timeline.heard("Whatever", {"at": 1.0})
        assert timeline.rows == []

    def test_the_table(self, timeline, monkeypatch):
        monkeypatch.setattr("vmm_ras.lab.linux_kvm.prepare", lambda packages, *series: _named(*series))

        def play(pair, heard):
            for line in MOMENTS.read_text().splitlines():
                values = json.loads(line)
                heard(values.pop("moment"), values)

        monkeypatch.setattr("vmm_ras.lab.linux_kvm.demo", play)
        monkeypatch.setattr("vmm_ras.lab.qemu.end_on_signals", lambda: None)
        done = cli("lab", "demo")
        text = done.stdout.decode()
        for row in timeline.rows:
            assert row.what.split()[0] in text
        assert "Linux 6.12-guest on KVM of Linux 6.12-host" in text
        rows = json.loads(cli("lab", "demo", "--json").stdout)
        assert [row["what"] for row in rows] == [row.what for row in timeline.rows]


def _named(host, guest):
    return Pair(
        SimpleNamespace(kernel=SimpleNamespace(version=f"{host}-host")),
        SimpleNamespace(kernel=SimpleNamespace(version=f"{guest}-guest")), b"",
    )  # fmt: skip


class TestCommands:
    @pytest.fixture(autouse=True)
    def handlers(self, monkeypatch):
        monkeypatch.setattr("vmm_ras.lab.qemu.end_on_signals", lambda: None)

    def test_the_demo_where_nothing_is_to_be_had(self, monkeypatch, tmp_path):
        monkeypatch.setenv("VMM_RAS_LAB_CACHE", str(tmp_path))
        monkeypatch.setenv("PATH", str(tmp_path))
        done = cli("lab", "demo", code=3)
        assert done.stdout == b""
        assert done.stderr.count(b"\n") == 1
        assert b"apt-get is not installed" in done.stderr
        done = cli("lab", "demo", "--kernel", "2.6", code=2)
        assert b"--kernel '2.6': expected one of 6.1, 6.12, 7.2" in done.stderr

    @pytest.mark.parametrize(
        ("error", "code", "text"),
        [
            (Unavailable("no QEMU"), 3, "linux-kvm: not possible here: no QEMU\n"),
            (Failure("not so", "the log"), 1, "linux-kvm: FAILED: not so\n"),
            (
                OSError(12, "Cannot allocate memory"),
                3,
                "linux-kvm: not possible here: [Errno 12] Cannot allocate memory\n",
            ),
            (KeyboardInterrupt(), 130, "linux-kvm: interrupted\n"),
        ],
    )
    def test_how_a_lane_ends(self, error, code, text, capsys):
        def fail():
            with command.lane("linux-kvm"):
                raise error

        with pytest.raises(SystemExit) as ended:
            fail()
        assert (ended.value.code, capsys.readouterr().err) == (code, text)

    def test_the_lane(self, pair, host, monkeypatch, tmp_path):
        host.lines = [report()]
        monkeypatch.setattr("vmm_ras.lab.linux_kvm.prepare", lambda packages, *series: pair)
        monkeypatch.setattr(packages, "cache_folder", lambda: tmp_path)
        app = typer.Typer()
        app.command()(lane)
        done = CliRunner().invoke(app, ["--report", str(tmp_path / "r"), "--verbose"])
        assert done.exit_code == 0, done.output
        assert "1 assertions held" in done.output
        assert (tmp_path / "r" / "linux-kvm-6.12-6.12.md").read_text().startswith("# T\n")
        assert DEFAULT in PAIRS

        def fail(pair, **options):
            raise Failure("x: not so", "the guest's last words")

        monkeypatch.setattr(linux_kvm, "run", fail)
        done = CliRunner().invoke(app, ["--all", "--verbose"])
        assert done.exit_code == 1
        assert "the guest's last words" in done.output
