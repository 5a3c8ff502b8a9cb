"""A run that is ended from outside leaves nothing: no process, no file, no shared memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from vmm_ras.lab.packages import HOST_PROGRAMS, cache_folder

MARK = "VMM_RAS_LAB_TIDY"
SERIES = "6.12"


def processes(mark, word=b""):
    """Process ids of all that inherited the mark and have that word on their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "environ").read_bytes().split(b"\0")
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if f"{MARK}={mark}".encode() in words and word in line:
                found.append(int(folder.name))
    return found


def until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


@pytest.fixture
def start(tmp_path):
    cache = cache_folder()
    path = os.pathsep.join([os.environ["PATH"], str(cache / "tools/usr/bin")])
    kept = [cache / "kernel" / SERIES / "Image", cache / "guest" / "victim", cache / "host"]
    if not all([shutil.which(name, path=path) for name in HOST_PROGRAMS] + [p.exists() for p in kept]):
        pytest.skip("the lab's packages are not there")  # make lab-smoke fetches them
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    shared = set(os.listdir("/dev/shm"))
    environment = os.environ | {MARK: str(tmp_path), "TMPDIR": str(temporary)}

    def run(after, path=""):
        """Run, and end it ``after(processes)``; exit code, and what it says."""
        child = subprocess.Popen(
            [sys.executable, "-m", "vmm_ras.lab", "smoke", "--kernel", SERIES], stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL, env=environment | {"PATH": path + os.environ["PATH"]}, text=True,
        )  # fmt: skip
        after(child)
        said = child.communicate(timeout=60)[1]
        assert until(lambda: not processes(tmp_path), 10), "a process is left"
        assert list(temporary.iterdir()) == []
        assert set(os.listdir("/dev/shm")) <= shared
        return child.returncode, said.splitlines()

    return run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_ended_while_the_guest_boots(start, tmp_path, number, code):
    def end(child):
        assert until(lambda: processes(tmp_path, b"-fw_cfg")), "QEMU does not start"
        time.sleep(0.2)
        child.send_signal(number)

    assert start(end) == (code, ["smoke: interrupted"] if code > 0 else [])


def test_a_qemu_that_dies(start, tmp_path):
    def end(child):
        others = until(lambda: processes(tmp_path, b"-fw_cfg"))  # not one that is only asked for its version
        time.sleep(0.2)
        for process in others:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    code, said = start(end)
    assert code == 1
    assert said[0].startswith("smoke: FAILED: ")
    assert len(said) == 1


def test_a_qemu_that_does_not_start(start, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "qemu-system-aarch64").write_text("#!/bin/sh\necho no such machine >&2\nexit 1\n")
    (programs / "qemu-system-aarch64").chmod(0o755)
    assert start(lambda child: None, f"{programs}:") == (
        1, ["smoke: FAILED: QEMU does not start: no such machine"],
    )  # fmt: skip


def test_a_compiler_that_is_killed_leaves_no_temporary_files(tmp_path):
    """A compiler's driver removes its files at its end, unless it is killed, as by ``subprocess.run`` at SIGINT."""
    compiler, temporary = tmp_path / "gcc", tmp_path / "temporary"
    temporary.mkdir()
    compiler.write_text(f"#!/bin/sh\necho > $TMPDIR/cc.s\ntouch {tmp_path}/compiles\nexec sleep 60\n")
    compiler.chmod(0o755)
    code = (
        "import os, sys; from pathlib import Path; from vmm_ras.lab.packages import Packages\n"
        "Packages(Path(sys.argv[1]))._victim(Path(sys.argv[2]), dict(os.environ))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "cache"), str(compiler)], stderr=subprocess.DEVNULL,
        env=os.environ | {MARK: str(tmp_path), "TMPDIR": str(temporary)},
    )  # fmt: skip
    assert until((tmp_path / "compiles").exists), "the compiler does not start"
    child.send_signal(signal.SIGINT)
    assert child.wait(60) != 0
    assert until(lambda: not processes(tmp_path), 10), "a process is left"
    assert list(temporary.iterdir()) == []
    assert list((tmp_path / "cache" / "guest").iterdir()) == []
