"""The emulated host and the tiny-guest lane, with a program in QEMU's place: what is heard, fails, and is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from vmm_ras.lab import __main__ as command
from vmm_ras.lab import cpio, host_packages, tiny
from vmm_ras.lab.errors import Failure, Unavailable
from vmm_ras.lab.host import Host
from vmm_ras.lab.host_packages import HostKernel, HostLab, HostPackages
from vmm_ras.lab.pyc import compiled
from vmm_ras.lab.tiny_matrix import MARK, SCENARIOS

GOOD = "echo 'HOST-UP 6.12.95'; echo one; printf 'two\\r\\n'; echo 'HOST-DONE 3'; exec sleep 60"


@pytest.fixture
def lab(tmp_path):
    """A lab whose QEMU is the shell script that ``lab.program(text)`` writes."""
    root, image, module = (tmp_path / name for name in ("base.cpio", "Image", "hwpoison-inject.ko"))
    root.write_bytes(cpio.archive([cpio.directory("bin")]))
    image.write_bytes(b"kernel")
    module.write_bytes(b"module")
    setpriv = shutil.which("setpriv")
    prefix = (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()
    kernel = HostKernel("6.12", "6.12.95-1", image, (module,))
    return HostLab(kernel, tmp_path / "qemu", root, Path("gcc"), prefix, dict(os.environ), tmp_path)


def program(lab, text):
    lab.qemu.write_text(f"#!/bin/sh\n{text}\n")
    lab.qemu.chmod(0o755)
    return Host(lab)


def gone(process, seconds=10):
    end = time.monotonic() + seconds
    while Path(f"/proc/{process}").exists() and time.monotonic() < end:
        if Path(f"/proc/{process}/stat").read_text().split(") ")[1][0] == "Z":
            return True
        time.sleep(0.02)
    return not Path(f"/proc/{process}").exists()


class TestRun:
    def test_what_the_host_prints(self, lab):
        heard = []
        done = program(lab, GOOD).run({}, "true", heard=heard.append)
        assert (done.code, done.lines, done.release) == (3, ("one", "two"), "6.12.95")
        assert heard == ["one", "two"]
        assert done.text() == "one\ntwo\n"
        assert done.seconds < 30

    def test_what_the_host_is_given(self, lab):
        """One archive behind the other: the base, then the run's files, our packages, and their compiled forms."""
        script = (
            'for a; do case "$last" in -initrd) cp "$a" "$0.initrd";; esac; last="$a"; done; echo "$@" >"$0.command"'
        )
        program(lab, f"{script}\n{GOOD}").run({"deep/file": b"data"}, "echo hello")
        archive = Path(f"{lab.qemu}.initrd").read_bytes()
        assert archive.startswith(lab.root.read_bytes())
        names = [b"t/run.sh", b"t/deep\0", b"t/deep/file", b"t/vmm_ras/notifier.py", b"mods/hwpoison-inject.ko"]
        assert all(name in archive for name in names)
        if sys.version_info[:2] == (3, 11):
            assert b"t/vmm_ras/__pycache__/notifier.cpython-311.pyc" in archive
        command = Path(f"{lab.qemu}.command").read_text()
        assert "virt,virtualization=on,gic-version=3" in command
        assert "size=2048M" in command

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("echo 'HOST-UP 6.1'; echo last words; exit 1", "the other end is gone"),
            ("echo last words; exec sleep 60", "nothing within 1 s"),
        ],
    )
    def test_a_host_that_does_not_come_to_its_end(self, lab, text, why):
        with pytest.raises(Failure, match=why) as caught:
            program(lab, text).run({}, "true", seconds=1)
        kept = lab.folder / "logs" / "host-6.12.log"
        assert str(kept) in str(caught.value)
        assert "last words" in kept.read_text()
        assert "last words" in caught.value.detail

    def test_a_host_that_prints_without_end(self, lab, monkeypatch):
        monkeypatch.setattr("vmm_ras.lab.host.MAX_OUTPUT", 1000)
        with pytest.raises(Failure, match="prints more than"):
            program(lab, "exec yes").run({}, "true", seconds=20)

    def test_no_qemu(self, lab):
        with pytest.raises(Unavailable, match="QEMU cannot be started"):
            Host(lab._replace(prefix=())).run({}, "true")

    def test_nothing_is_left(self, lab):
        before = set(os.listdir("/proc/self/fd"))
        program(lab, f"echo $$ >{lab.folder}/pid; {GOOD}").run({}, "true")
        assert set(os.listdir("/proc/self/fd")) == before
        assert gone(int((lab.folder / "pid").read_text()))

    def test_a_run_that_is_killed(self, lab):
        if not lab.prefix:
            pytest.skip("the lab's packages are not there")
        program(lab, f"echo $$ >{lab.folder}/pid; exec sleep 60")
        code = (
            "import os, pathlib\nfrom vmm_ras.lab.host import Host\n"
            "from vmm_ras.lab.host_packages import HostKernel, HostLab\nfrom pathlib import Path\n"
            f"p = Path({str(lab.folder)!r})\n"
            f"lab = HostLab(HostKernel('6.12', '1', p / 'Image', ()), p / 'qemu', p / 'base.cpio', p, {lab.prefix!r}, "
            "dict(os.environ), p)\nHost(lab).run({}, 'true')\n"
        )
        child = subprocess.Popen([sys.executable, "-c", code])
        end = time.monotonic() + 60
        while not ((lab.folder / "pid").exists() and (lab.folder / "pid").read_text()):
            assert time.monotonic() < end
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert gone(int((lab.folder / "pid").read_text()))


def said(step, rows):
    return MARK + orjson.dumps({"step": step, "seconds": 1.5, "rows": rows}).decode()


class TestTiny:
    @pytest.fixture(autouse=True)
    def image(self, monkeypatch):
        monkeypatch.setattr(tiny, "build", lambda lab: b"image")

    def play(self, lab, lines, code=0):
        (lab.folder / "said").write_text("".join(f"{line}\n" for line in lines))
        program(lab, f"echo 'HOST-UP 6.12.95'; cat {lab.folder}/said; echo 'HOST-DONE {code}'; exec sleep 60")

    def test_every_scenario_counts(self, lab):
        self.play(lab, [said(name, [[name, "it holds", "0x1"]]) for name, _ in SCENARIOS])
        heard = []
        report = tiny.run(lab, heard=heard.append)
        assert [section for section, _, _ in report.rows] == [name for name, _ in SCENARIOS]
        assert len(heard) == len(SCENARIOS)
        assert "| it holds | `0x1` |" in report.text()
        assert report.facts["Host kernel"] == "6.12.95-1 (6.12.95)"

    def test_one_that_does_not_hold(self, lab):
        failure = MARK + orjson.dumps({"failure": "SDEI: not so: it is told", "detail": "why"}).decode()
        self.play(lab, [said("Consumed", []), failure], 1)
        with pytest.raises(Failure, match=r"SDEI: not so: it is told; the log is .*host-6\.12\.log") as caught:
            tiny.run(lab)
        assert caught.value.detail == "why"

    @pytest.mark.parametrize("code", [0, 1])
    def test_one_that_did_not_run(self, lab, code):
        self.play(lab, [said("Consumed", []), "Traceback"], code)
        with pytest.raises(Failure, match=r"the matrix ends with code . behind \['Consumed'\]"):
            tiny.run(lab)

    def test_some(self, lab):
        self.play(lab, [said("SDEI", [])])
        assert tiny.run(lab, ["SDEI"]).times == [("SDEI", 1.5)]


class TestPackages:
    def test_a_series_that_nobody_has(self, tmp_path):
        with pytest.raises(Unavailable, match=r"'5\.10' is none of 6\.1, 6\.12, 7\.2"):
            HostPackages(tmp_path).prepare_host("5.10")
        assert list(tmp_path.iterdir()) == []

    def test_the_libraries_that_we_need(self):
        found = dict(host_packages._libraries())
        assert {"pydantic", "construct", "orjson", "typer", "rich"} <= found.keys()
        assert not {"pytest", "mypy", "vmm-ras"} & found.keys()

    def test_folders_come_before_what_they_hold(self):
        nodes = host_packages._with_parents([cpio.plain_file("a/b/c", b""), cpio.directory("a"), cpio.link("a/d", "c")])
        assert [n.path for n in nodes] == ["a", "a/b", "a/b/c", "a/d"]

    def test_a_link_is_one(self):
        assert b"busybox" in cpio.archive([cpio.link("bin/sh", "busybox")])

    def test_compiled_code_is_that_of_the_source(self, tmp_path):
        source = tmp_path / "module.py"
        source.write_text("VALUE = 42\n")
        nodes = list(compiled("t/module.py", source))
        if sys.version_info[:2] != (3, 11):
            assert nodes == []
            return
        (tmp_path / "found").mkdir()
        (tmp_path / "found" / "module.pyc").write_bytes(nodes[0].data)
        code = f"import sys; sys.path = [{str(tmp_path / 'found')!r}, *sys.path]; import module; print(module.VALUE)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "42\n"
        assert nodes[0].path == "t/__pycache__/module.cpython-311.pyc"


class TestCommandLine:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch, capsys):
        """`python -m vmm_ras.lab tiny` where no packages can be had: exit code, and what it says."""
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("VMM_RAS_LAB_CACHE", str(tmp_path / "cache"))

        def run(*arguments):
            with pytest.raises(SystemExit) as caught:
                command.app(["tiny", *arguments])
            return caught.value.code, capsys.readouterr().err

        return run

    def test_packages_that_cannot_be_had(self, run):
        said = "tiny: not possible here: apt-get is not installed: the lab takes its guest from Debian packages\n"
        assert run() == (3, said)

    def test_scenarios_and_kernels_that_are_none(self, run):
        code, said = run("--only", "nothing")
        assert code == 2
        assert "expected one of Consumed" in " ".join(said.split())
        assert run("--kernel", "5.10")[0] == 3
