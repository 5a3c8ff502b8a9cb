"""What the lab drives `vmm-ras run` with, tried on programs that need no KVM."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.unit.test_cli_terminal import PROGRAM as STANDS_FOR_KVM
from vmm_ras.io.qemu.errors import Failure
from vmm_ras.lab import linux_kvm_live
from vmm_ras.lab import linux_kvm_tool as tool
from vmm_ras.lab.report import Report

GUEST = """
import json, sys, time
def row(**values): print(json.dumps(values), flush=True)
row(kind="console", line="LAB-UP 6.12")
row(kind="host-signal", code="AO", lsb=21)
for line in sys.stdin:
    command, _, mark = line.strip().partition("; echo ")
    row(kind="console", line="ran " + command)
    row(kind="console", line=mark.replace("'", "").replace("$?", "0"))
"""
HOLDER = """
import os, sys, time
fd = os.memfd_create("guest-ram")
os.ftruncate(fd, 4096)
os.pwrite(fd, b"here", 16)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def program(monkeypatch):
    def run(text):
        monkeypatch.setattr(tool, "PROGRAM", (sys.executable, "-c", text))

    return run


def test_rows_and_a_shell(program):
    program(GUEST)
    with tool.Tool("--name", "x") as made:
        assert made.wait("host-signal", 20)["lsb"] == 21
        assert made.console.line("LAB-UP", 20) == "LAB-UP 6.12"
        assert made.console.run("echo on", 20) == "ran echo on\n"
        assert made.runs
        assert tool.processes("--name", "x") == [made.process.pid]
        made.kill()
        assert not made.runs
        assert tool.processes("--name", "x") == []


def test_one_that_ends_is_no_endless_wait(program):
    program("import sys; sys.exit('no such machine')")
    with tool.Tool() as made, pytest.raises(Failure, match="ends with 1: no such machine"):
        made.wait("host-signal", 20)


def test_ram_of_another_process():
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with tool.RamOf(holder.pid, 0x4000_0000, 4096) as ram:
            assert ram.read(0x4000_0010, 4) == b"here"
        holder.kill()
    with pytest.raises(Failure, match="has no guest RAM"):
        tool.RamOf(os.getpid(), 0, 4096)


def test_a_terminal_of_a_program_that_changes_it(program):
    program("import sys, tty, time; tty.setraw(0); sys.stdin.read(1); sys.exit(7)")
    with tool.Terminal() as terminal:
        terminal.until(lambda: terminal.settings() != terminal.before, 20, "raw")
        terminal.check()
        terminal.type(b"x")
        terminal.until(lambda: terminal.process.poll() is not None, 20, "its end")
        with pytest.raises(Failure, match="on a terminal ends with 7"):
            terminal.check()
        assert terminal.settings() != terminal.before
        with pytest.raises(Failure, match="never: nothing within"):
            terminal.until(lambda: False, 0.2, "never")


def test_a_client_waits_for_the_service_and_no_longer_than_for_the_program(tmp_path):
    def ended():
        raise Failure("vmm-ras run ends with 1: no KVM")

    with pytest.raises(Failure, match="no KVM"):
        tool.connected(tmp_path / "none", ended, 20, print)
    with pytest.raises(Failure, match=r"a service at .*: nothing within"):
        tool.connected(tmp_path / "none", lambda: None, 0.3, print)


def test_inject_as_a_program(tmp_path):
    with pytest.raises(Failure, match=r"vmm-ras inject ends with 3: .*no service listens there"):
        tool.inject(tmp_path / "none", seconds=60)


def test_huge_pages_of_this_host():
    total, free = tool.huge_pages()
    assert 0 <= free <= total


def test_killed_and_started_again_on_a_terminal(program, monkeypatch, tmp_path):
    """The steps, with a machine that stands for one with KVM: sockets, processes, signals and terminals are real."""
    program(STANDS_FOR_KVM)
    monkeypatch.setattr(linux_kvm_live, "SOCKET", tmp_path / "run.sock")
    live = linux_kvm_live.Live.__new__(linux_kvm_live.Live)
    live.report, live.events = Report("live"), []
    live.options = ("--kernel", "Image", "--huge", "--socket", str(tmp_path / "run.sock"))
    with tool.Tool(*live.options) as live.tool:
        live.client = tool.connected(tmp_path / "run.sock", live.tool.check, 60, live.events.append)
        live.ram = SimpleNamespace(close=lambda: None)
        live.killed()
        live.again()
    assert [what for _, what, _ in live.report.rows] == [
        "killed, vmm-ras run leaves no process",
        "all of the guest's memory is given back, but for the page that is lost", "its socket file stays",
        "the next one takes its socket over", "Ctrl-A x ends it", "the terminal's settings are what they were",
        "the socket is gone", "and no process is left",
    ]  # fmt: skip
