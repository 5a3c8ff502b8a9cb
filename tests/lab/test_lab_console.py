"""Console, monitor and qtest over socket pairs: what they understand, and that none of them waits for ever."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from vmm_ras.io.qemu.qmp import Monitor, Qtest
from vmm_ras.io.qemu.wait import Channel, Deadline
from vmm_ras.lab.console import Console
from vmm_ras.lab.errors import Failure


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    for end in (ours, theirs):
        end.close()


def answers(end, reply):
    """A thread that answers each line with ``reply(line)``."""

    def serve():
        with end.makefile("rb") as lines:
            for line in lines:
                end.sendall(reply(line))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()


class TestConsole:
    @pytest.fixture
    def console(self, ends):
        found = Console(Channel(ends[0], "console"))
        yield found
        found.close()

    def test_a_line_is_waited_for_until_it_is_whole(self, console, ends):
        ends[1].sendall(b"noise\r\nLAB-UP 6.1")
        with pytest.raises(Failure, match="not printed within"):
            console.line("LAB-UP ", 0.1)
        ends[1].sendall(b".0\r\n")
        assert console.line("LAB-UP ", 2) == "LAB-UP 6.1.0"

    def test_what_came_before_does_not_count(self, console, ends):
        ends[1].sendall(b"VICTIM one\n")
        console.line("VICTIM", 2)
        with pytest.raises(Failure):
            console.line("VICTIM", 0.1, start=len(console.text))

    def test_a_command(self, console, ends):
        answers(ends[1], lambda line: b"out put\n" + line.partition(b"echo '")[2].partition(b"'")[0] + b"0:\n")
        assert console.run("anything", 5) == "out put\n"
        assert console.run("again", 5) == "out put\n"

    def test_a_command_that_fails(self, console, ends):
        answers(ends[1], lambda line: b"oh no\n" + line.partition(b"echo '")[2].partition(b"'")[0] + b"2:\n")
        with pytest.raises(Failure, match="ends with 2") as caught:
            console.run("anything", 5)
        assert caught.value.detail == "oh no\n"

    def test_the_guest_is_gone(self, console, ends):
        ends[1].sendall(b"last words\n")
        ends[1].close()
        start = time.monotonic()
        with pytest.raises(Failure, match="gone") as caught:
            console.line("never", 30)
        assert time.monotonic() - start < 60
        assert "last words" in caught.value.detail

    def test_bytes_that_are_no_text(self, console, ends):
        ends[1].sendall(b"\xff\xfe ok\n")
        assert console.expect("ok", 2)


class TestMonitor:
    GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "Debian 1:7.2"}}}

    @staticmethod
    def reply(line):
        asked = json.loads(line)
        if asked["execute"] == "bad":
            return b'{"error": {"class": "GenericError", "desc": "no such command"}}\r\n'
        found = {"return": asked.get("arguments", {})}
        return b'{"event": "RESUME"}\r\n' + json.dumps(found).encode() + b"\r\n"

    @pytest.fixture
    def monitor(self, ends):
        ends[1].sendall(json.dumps(self.GREETING).encode() + b"\r\n")
        answers(ends[1], self.reply)
        return Monitor(Channel(ends[0], "monitor"))

    def test_it_says_who_it_is_and_answers(self, monitor):
        assert (monitor.version, monitor.package) == ("7.2.22", "Debian 1:7.2")
        assert monitor.ask("qom-list", path="/machine") == {"path": "/machine"}

    def test_a_refusal(self, monitor):
        with pytest.raises(Failure, match="monitor: bad: no such command"):
            monitor.ask("bad")


class TestQtest:
    def test_a_line(self, ends):
        seen = []
        answers(ends[1], lambda line: (seen.append(line), b"IRQ raise 1\nOK\n")[1])
        Qtest(Channel(ends[0], "qtest")).set_line("/machine/gic", 90, True)
        assert seen == [b"set_irq_in /machine/gic unnamed-gpio-in 90 1\n"]

    def test_a_refusal(self, ends):
        answers(ends[1], lambda line: b"FAIL Unknown device\n")
        with pytest.raises(Failure, match="Unknown device"):
            Qtest(Channel(ends[0], "qtest")).set_line("/nothing", 1, False)


class TestChannel:
    def test_nobody_reads(self, ends):
        channel = Channel(ends[0], "console")
        with pytest.raises(Failure, match="takes no data"):
            channel.send(bytes(1 << 24), 0.1)

    def test_nobody_writes(self, ends):
        with pytest.raises(Failure, match="answers nothing"):
            Channel(ends[0], "console").line(0.05)

    def test_a_deadline(self):
        deadline = Deadline(0.0, "this")
        assert deadline.left == 0
        with pytest.raises(Failure, match="this: nothing within 0 s"):
            deadline.check()
