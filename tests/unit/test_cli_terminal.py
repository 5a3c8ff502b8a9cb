"""`vmm-ras run` on a terminal: it is the guest's while that runs, and what it was before, however that ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import termios
import time

import pytest

PROGRAM = """
import platform, sys, threading
platform.machine = lambda: "aarch64"
import vmm_ras.io.vmm.machine as vmm
from vmm_ras.errors import HostError

class Machine(vmm.Closing):
    "Stands for a machine with KVM; its console and its end are the real ones."
    def __init__(self, configuration, console, heard):
        self.console, self.stopped = console, threading.Event()
        self.vcpu_names, self.name, self.lock = (), "guest", threading.Lock()
        console.deliver = self.typed
        console.start()
    def typed(self, data):
        self.console.print(b"<" + data + b">")
        return len(data)
    def stop(self, why):
        self.why = why
        self.stopped.set()
    def run(self, again, *rest):
        self.console.print(b"up\\n")
        if sys.argv[-1] == "--quiet":
            raise HostError("the host gives up")
        self.stopped.wait()
        return vmm.Ending("stopped", self.why)
    def close(self):
        self.console.close()

vmm.VirtualMachine = Machine
from vmm_ras.cli import main
main()
"""


class Terminal:
    """A terminal with the program on it."""

    def __init__(self, *options):
        self.ours, self.theirs = os.openpty()
        self.before, self.shown = termios.tcgetattr(self.theirs), b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "run", "--kernel", "Image", *options], stdin=self.theirs,
            stdout=self.theirs, stderr=self.theirs, start_new_session=True,
        )  # fmt: skip

    def until(self, holds, seconds=60):
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, self.shown
            if select.select([self.ours], [], [], 0.05)[0]:
                self.shown += os.read(self.ours, 4096)

    @property
    def raw(self):
        return not termios.tcgetattr(self.theirs)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)

    def ended(self):
        self.until(lambda: self.process.poll() is not None)
        self.until(lambda: not select.select([self.ours], [], [], 0)[0])
        assert termios.tcgetattr(self.theirs) == self.before
        return self.process.returncode

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def start():
    made = []

    def run(*options):
        made.append(Terminal(*options))
        return made[-1]

    yield run
    for terminal in made:
        terminal.close()


def test_keys_are_the_guests_but_for_the_escape(start):
    terminal = start()
    terminal.until(lambda: terminal.raw and b"up" in terminal.shown)
    os.write(terminal.ours, b"a\x03\x1a\x04\x01\x01b")  # Ctrl-C, Ctrl-Z, Ctrl-D, and one Ctrl-A
    terminal.until(lambda: b"b>" in terminal.shown)
    assert b"".join(terminal.shown.split(b"up")[1].strip().split(b"><")) == b"<a\x03\x1a\x04\x01b>"
    os.write(terminal.ours, b"\x01")
    os.write(terminal.ours, b"x")
    assert terminal.ended() == 0
    assert b"vmm-ras: the guest was stopped (by the user)\r\n" in terminal.shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_it_and_puts_the_terminal_back(start, number):
    terminal = start()
    terminal.until(lambda: terminal.raw and b"up" in terminal.shown)
    terminal.process.send_signal(number)
    assert terminal.ended() == 0
    assert b"by signal %d" % number in terminal.shown


def test_a_failure_puts_the_terminal_back(start):
    terminal = start("--quiet")
    assert terminal.ended() == 3
    assert terminal.shown.endswith(b"vmm-ras: the host gives up\r\n")
