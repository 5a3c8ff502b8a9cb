"""`vmm-ras run` on a host that cannot, and what it tells of a guest; a guest that runs is the lab's."""

from __future__ import annotations

import json
import platform
import signal
import sys
from pathlib import Path

import pytest

from tests.command_line import cli
from vmm_ras import effects as e
from vmm_ras.cli.run import _Journal
from vmm_ras.events import Code, GuestAbort, HostSignal, MemoryFault, Replaced
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.vmm import journal
from vmm_ras.io.vmm.machine import Ending

HEADERS = Path(__file__).parents[2] / "fixtures/boot/image-headers.json"
NAMES, THREADS = ("vcpu0", "vcpu1"), {7: "vcpu1"}
TOLD = [
    (HostSignal(Code.AR, 0x7F00_0000_1000, 12, 7), "SIGBUS AR at host address 0x7f0000001000, 4096 bytes, in vcpu1"),
    (HostSignal(Code.AO, 0x1000, 21, 8), "SIGBUS AO at host address 0x1000, 2097152 bytes, in a thread"),
    (GuestAbort(1, 0x92000010, None, 0x4000_0000), "vcpu1: the host relays an abort at guest address 0x40000000, ESR"),
    (GuestAbort(0, 0x92000410), "vcpu0: the host relays an abort, ESR 0x92000410"),
    (MemoryFault(0x1000, 4096), "memory is lost at guest address 0x1000, 4096 bytes"),
    (Replaced(0x1000, 4096), "guest address 0x1000, 4096 bytes: good memory again"),
    (
        e.Decided(1, Code.AO, 0x1000, 4096, "found", "tell"),
        "rule found decides about guest address 0x1000, 0x1000 bytes, AO: tell",
    ),
    (
        e.Posted(1, 0, "sea", 1, 5, ((0x1000, 4096), (0x2000, 4096)), bytes(172), "r"),
        "block of 172 bytes for source 0 (sea, vcpu1) by rule r: guest address 0x1000 and 1 more",
    ),
    (e.Posted(1, 0, "polled", None, 5, (), bytes(172), ""), "block of 172 bytes for source 0 (polled)"),
    (e.InjectSea(1, 0, 1, 0x92000010, None), "SEA for vcpu1, ESR 0x92000010"),
    (e.InjectSea(1, None, 0, 0x92000010, None), "SEA for vcpu0, ESR 0x92000010, without a record"),
    (e.InjectSerror(1, None, 0, 0x811), "virtual SError for vcpu0, syndrome 0x811"),
    (e.Acked(1, 2, ()), "source 2 is acknowledged"),
    (e.TakenBack(1, 2, (), "why"), "block of source 2 is taken back: why"),
    (e.Undelivered(1, "r", "why"), "no way of rule r is open: why"),
    (e.Undelivered(1, "", "why"), "why"),
    (e.OwnMemory(1, Code.AO, 0x1000, 12, 1), "hva 0x1000 is the VMM's own memory"),
    (e.Escalate(1, None, "reset", "why"), "asks the orchestrator to reset: why"),
    (e.Report(1, Code.AO, 0x1000, 4096, "r", None), "reports guest address 0x1000 to the orchestrator, AO, rule r"),
    (e.HookFailed(1, "why"), "why"),
    (e.Dropped(1, "record", "why"), "why"),
]


def test_a_host_that_is_none(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    done = cli("run", "--kernel", "Image", code=3)
    assert done.stdout == b""
    assert done.stderr == b"vmm-ras: run needs an arm64 host with KVM; this one is x86_64\n"


class TestOnArm64:
    """As on an arm64 host: what is refused before the host is asked for anything."""

    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch):
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        kept = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
        interval = sys.getswitchinterval()
        yield
        sys.setswitchinterval(interval)
        for name, handler in kept.items():
            signal.signal(name, handler)

    @pytest.mark.parametrize(
        ("options", "code", "text"),
        [
            (["--kernel", "/nowhere/Image"], 1, "/nowhere/Image: No such file"),
            (["--kernel", "README.md"], 1, "README.md: no arm64 Image"),
            (["--kernel", "README.md", "--policy", "/nowhere"], 1, "/nowhere: No such file"),
            (["--kernel", "README.md", "--guest", "beos"], 2, "--guest 'beos': expected one of linux"),
            (["--kernel", "README.md", "--memory", "much"], 2, "--memory 'much': a number expected"),
            (["--kernel", "README.md", "--memory", "1000"], 1, "memory: 1000 bytes are no multiple of 65536"),
        ],
    )
    def test_what_is_refused(self, options, code, text):
        done = cli("run", *options, code=code)
        assert done.stdout == b""
        assert text in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1

    def test_no_kvm(self, monkeypatch, tmp_path):
        header = json.loads(HEADERS.read_text())[0]["header"]
        (tmp_path / "Image").write_bytes(bytes.fromhex(header))
        monkeypatch.setattr("vmm_ras.io.vmm.machine.Kvm", lambda: Kvm("/nowhere/kvm"))
        done = cli("run", "--kernel", tmp_path / "Image", code=3)
        assert (done.stdout, done.stderr) == (b"", b"vmm-ras: /nowhere/kvm: No such file or directory\n")


@pytest.mark.parametrize(("item", "text"), TOLD, ids=lambda v: type(v).__name__ if not isinstance(v, str) else "")
def test_lines_for_people_and_json(item, text):
    assert (journal.line(item, NAMES, THREADS) or "").startswith(text)
    found = journal.plain(item)
    assert found is not None
    assert {key.replace("-", "_") for key in found} == {"kind", *item._fields}
    assert json.loads(json.dumps(found)) == found


def test_the_inner_life_is_not_told():
    for item in (e.Stop(1, 0), e.PollAck(1, 0, 0, 8), e.WriteGuest(1, 0, 0, b"")):
        assert journal.line(item, NAMES, THREADS) is None
        assert journal.plain(item) is None


def test_json_lines(capfdbinary):
    told = _Journal(True, False)
    told.printed(b"[    0.000000] Boot")
    told.printed(b"ing Linux\r\nlogin: ")
    told.heard(TOLD[0][0])
    told.ended(Ending("powered off", "why"))
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [row.pop("at") >= 0 for row in rows] == [True] * 4
    assert rows[0] == {"kind": "console", "line": "[    0.000000] Booting Linux"}
    assert rows[1] == {
        "kind": "host-signal", "code": "AR", "hva": 0x7F00_0000_1000, "lsb": 12, "tid": 7, "time": None,
    }  # fmt: skip
    assert rows[2:] == [
        {"kind": "console", "line": "login: "}, {"kind": "ended", "how": "powered off", "why": "why"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ending", "quiet", "text"),
    [
        (Ending("powered off"), False, "vmm-ras: the guest powered off\n"),
        (Ending("stopped", "by the user"), False, "vmm-ras: the guest was stopped (by the user)\n"),
        (Ending("powered off"), True, ""),
        (Ending("failed", "exit 17"), True, "vmm-ras: the guest failed (exit 17)\n"),
    ],
)
def test_the_end(capsys, ending, quiet, text):
    _Journal(False, quiet).ended(ending)
    assert capsys.readouterr().err == text
