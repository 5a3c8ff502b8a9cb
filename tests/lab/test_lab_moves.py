"""The lane of guests that move: the line between two hosts, and what the hosts say, with programs in QEMU's place."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path

import orjson
import pytest

from vmm_ras.lab import cpio, moves, moves_linux, moves_linux_inner
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.host_packages import HostKernel, HostLab
from vmm_ras.lab.moves import Line
from vmm_ras.lab.moves_inner import PIECE, Wire
from vmm_ras.lab.moves_scenarios import SCENARIOS
from vmm_ras.lab.tiny_matrix import MARK


class Serial:
    """A pseudo terminal in place of a host's serial line, with ``Line`` at its other end."""

    def __init__(self, coming=b""):
        self.line = Line(coming)
        self.master, self.slave = os.openpty()
        self.stop = threading.Event()
        self.wire = Wire(os.ttyname(self.slave))
        self.thread = threading.Thread(target=self.carry)
        self.thread.start()

    def carry(self):
        ends = {self.master: self.line.theirs.fileno(), self.line.theirs.fileno(): self.master}
        while not self.stop.is_set():
            for fd in select.select(list(ends), [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    os.write(ends[fd], os.read(fd, 1024))

    def close(self):
        self.stop.set()
        self.thread.join()
        for fd in (self.master, self.slave):
            os.close(fd)
        self.line.theirs.close()


@pytest.fixture
def serial():
    made = []

    def make(coming=b""):
        made.append(Serial(coming))
        return made[-1]

    yield make
    for one in made:
        one.close()


class TestLine:
    def test_all_bytes_arrive_as_they_are(self, serial):
        coming = bytes(range(256)) * 50 + b"\x03\x04\x11\x13\r\n"
        there = serial(coming)
        got = b""
        while len(got) < len(coming):
            got += there.wire.read(1000)
        assert got == coming
        there.wire.close()
        assert there.line.close() == b""

    def test_what_goes_out_is_kept(self, serial):
        out = bytes(range(256)) * 40
        there = serial()
        there.wire.write(out)
        end = threading.Event()
        for _ in range(1000):
            if len(there.line.went) == len(out):
                break
            end.wait(0.01)
        assert there.line.close() == out

    def test_first_in_then_out(self, serial):
        there = serial(b"x" * (PIECE + 1))
        got = b""
        while len(got) < PIECE + 1:
            got += there.wire.read(100)
        there.wire.write(b"out+")
        end = threading.Event()
        for _ in range(1000):
            if len(there.line.went) == 4:
                break
            end.wait(0.01)
        assert there.line.close() == b"out+"

    def test_what_is_not_taken_is_said(self):
        line = Line(b"x" * 10)
        line.theirs.close()
        with pytest.raises(Failure, match="not all was taken"):
            line.close()

    def test_who_asks_for_something_else(self):
        line = Line(b"x" * 10)
        line.theirs.sendall(b"?")
        line._thread.join(10)
        with pytest.raises(Failure, match="byte 0x3f where the host asks for more"):
            line.close()
        line.theirs.close()

    def test_too_much(self, monkeypatch):
        monkeypatch.setattr(moves, "MAX_STREAM", 100)
        line = Line(b"")
        line.theirs.sendall(bytes(101))
        line._thread.join(10)
        with pytest.raises(Failure, match="more than"):
            line.close()
        line.theirs.close()


@pytest.fixture
def labs(tmp_path, monkeypatch):
    """``labs(series, lines)``: a host whose QEMU prints these lines, and writes its name to its serial line."""
    monkeypatch.setattr(moves, "build", lambda lab: b"image")

    def make(series, lines, code=0, fed=False):
        folder = tmp_path / f"{series}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        root, image = folder / "base.cpio", folder / "Image"
        root.write_bytes(cpio.archive([cpio.directory("bin")]))
        image.write_bytes(b"kernel")
        (folder / "said").write_text("".join(f"{line}\n" for line in lines))
        (folder / "logs").mkdir()
        stream = "import sys,os;fd=int([a for a in sys.argv if a.startswith('socket,id=stream')][0].split('=')[-1])\n"
        (folder / "qemu.py").write_text(f"{stream}{FEED if fed else ''}os.write(fd, b'{series}')\n")
        (folder / "qemu").write_text(
            f'#!/bin/sh\n{sys.executable} {folder}/qemu.py "$@" >{folder}/came\n'
            f"echo 'HOST-UP {series}'; cat {folder}/said; echo 'HOST-DONE {code}'; exec sleep 60\n"
        )
        (folder / "qemu").chmod(0o755)
        kernel = HostKernel(series, f"{series}-1", image, ())
        return HostLab(kernel, folder / "qemu", root, Path("gcc"), (), dict(os.environ), folder)

    return make


FEED = """
import socket
line = socket.socket(fileno=os.dup(fd))
line.sendall(b"+")
size = line.recv(2, socket.MSG_WAITALL)
sys.stdout.buffer.write(line.recv(int.from_bytes(size, "little")))
sys.stdout.flush()
"""
NAMES = [s.name for s in SCENARIOS]


def said(*steps):
    rows = [["x", "it holds", "0x1"]]
    return [MARK + orjson.dumps({"step": step, "seconds": 0.5, "rows": rows}).decode() for step in steps]


class TestRun:
    def test_what_leaves_one_host_arrives_at_the_next(self, labs):
        leaves = [f"{name}: leaves" for name in NAMES]
        arrives = [f"{name}: arrives" for name in NAMES]
        host = MARK + orjson.dumps({"host": {"kernel": "6.12"}}).decode()
        first, second = labs("6.12", [host, *said(*leaves)]), labs("7.2", said(*arrives), fed=True)
        report = moves.run([first, second])
        assert (second.folder / "came").read_bytes() == b"6.12"
        assert len(report.rows) == 2 * len(NAMES)
        assert report.rows[0] == (f"6.12: {NAMES[0]}: leaves", "it holds", "0x1")
        assert (report.facts["Linux 6.12"], report.facts["Linux 7.2"]) == ("6.12-1 (6.12)", "7.2-1 (7.2)")

    def test_one_that_does_not_hold(self, labs):
        failure = MARK + orjson.dumps({"failure": "Held vCPU: leaves: not so", "detail": "why"}).decode()
        with pytest.raises(Failure, match=r"Linux 6\.12: Held vCPU: leaves: not so; the log is") as caught:
            moves.run([labs("6.12", [failure], 1), labs("7.2", [])])
        assert caught.value.detail == "why"

    def test_one_that_did_not_run(self, labs):
        with pytest.raises(Failure, match=r"the host ends with code 0 behind \['Held vCPU: leaves'\]"):
            moves.run([labs("6.12", said("Held vCPU: leaves")), labs("7.2", [])])

    def test_a_kernel_that_forwards_no_calls(self, labs):
        some = [s.name for s in SCENARIOS if not s.calls]
        assert len(some) == len(NAMES) - 1
        first = labs("6.1", said(*[f"{name}: leaves" for name in some]))
        second = labs("7.2", said(*[f"{name}: arrives" for name in some]), fed=True)
        assert len(moves.run([first, second]).rows) == 2 * len(some)


def test_the_command_knows_its_scenarios(tmp_path):
    environment = {"PATH": str(tmp_path), "VMM_RAS_LAB_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "vmm_ras.lab", "moves"]
    for arguments, code, said_ in (
        (["--only", "x"], 2, "expected one of Masked"),
        (["--to", "5.10"], 3, "not possible here"),
    ):
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=120, check=False, env=environment
        )  # fmt: skip
        assert done.returncode == code
        assert said_ in " ".join(done.stderr.split())


def test_socket_is_closed_in_this_process_once_the_host_has_it(labs):
    from vmm_ras.lab.host import Host

    ours, theirs = socket.socketpair()
    lab = labs("6.12", [])
    Host(lab, stream=theirs).run({}, "true")
    assert theirs.fileno() == -1
    ours.close()


class TestLinux:
    """One Linux guest; nothing but the device's memory and what is carried lies between both hosts."""

    def play(self, labs, tmp_path, leaves, arrives, codes=(0, 0)):
        first, second, guest = labs("6.12", leaves, codes[0]), labs("7.2", arrives, codes[1]), labs("6.12", [])
        heard = []
        return moves_linux.run([first, second], guest, b"root", heard.append), heard

    def test_both_hosts_share_the_memory_and_what_is_carried(self, labs, tmp_path):
        carried = MARK + orjson.dumps({"carried": {"kernel": "6.12.95"}}).decode()
        report, heard = self.play(labs, tmp_path, [carried, *said("Linux leaves")], said("arrives", "is told"))
        assert [section for section, _ in report.times] == ["6.12: Linux leaves", "7.2: arrives", "7.2: is told"]
        assert len(heard) == 3
        assert report.facts["Guest kernel"] == "6.12-1 (6.12.95)"
        assert report.facts["Host, arrives"] == "7.2-1 (7.2)"

    def test_one_that_does_not_hold(self, labs, tmp_path):
        failure = MARK + orjson.dumps({"failure": "it does not", "detail": "why"}).decode()
        with pytest.raises(Failure, match=r"Linux 6\.12: it does not; the log is") as caught:
            self.play(labs, tmp_path, [failure], [], (1, 0))
        assert caught.value.detail == "why"

    def test_one_that_says_nothing(self, labs, tmp_path):
        with pytest.raises(Failure, match="the host ends with code 0"):
            self.play(labs, tmp_path, [], [])


class TestMemory:
    """The PCI device's memory as a stream; a file in its place."""

    @pytest.fixture
    def wire(self, tmp_path, monkeypatch):
        place = tmp_path / "0000:00:02.0"
        place.mkdir()
        (place / "resource2_wc").write_bytes(bytes(1 << 16))
        monkeypatch.setattr(moves_linux_inner, "SHARED", 1 << 16)
        monkeypatch.setattr(moves_linux_inner, "DEVICES", tmp_path)
        yield moves_linux_inner.Wire
        assert (place / "enable").read_text() == "1"

    def test_what_one_host_writes_the_next_reads(self, wire):
        one = wire()
        for part in (b"first", b"second" * 100):
            one.write(part)
        two = wire()
        assert [two.read(3), two.read(2), two.read(1 << 20)] == [b"fir", b"st", b"second" * 100]
        assert two.read(1) == b""

    def test_no_more_than_there_is_room_for(self, wire):
        one = wire()
        with pytest.raises(Failure, match="holds no more"):
            one.write(bytes(1 << 16))
