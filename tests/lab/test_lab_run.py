"""The parts of a run that need no QEMU: adapter, model, report, packages, command line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from acpi.firmware import build
from acpi.firmware_presets import MIB, describe
from vmm_ras.effects import ArmAck, Escalate, InjectSea, PollAck, RaiseLine, Release, WriteGuest
from vmm_ras.errors import GuestError
from vmm_ras.events import AckRead, Code, Done, Failed, GuestAbort, HostSignal
from vmm_ras.io.qemu.adapter import QemuGuest
from vmm_ras.io.qemu.machine import SharedRam
from vmm_ras.lab import __main__ as command
from vmm_ras.lab import apt, packages, smoke
from vmm_ras.lab.errors import Failure, Unavailable
from vmm_ras.lab.model_run import play
from vmm_ras.lab.packages import Packages
from vmm_ras.lab.report import Report
from vmm_ras.lab.second_boot import HOST
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier

RAM = 0x4000_0000


@pytest.fixture
def ram():
    found = SharedRam(RAM, MIB)
    yield found
    found.close()


def test_shared_ram(ram):
    ram.write(RAM + 0x123, b"hello")
    assert ram.read(RAM + 0x122, 7) == b"\0hello\0"
    for gpa, size in ((RAM - 1, 1), (RAM + MIB, 1), (RAM + MIB - 1, 2), (0, 8)):
        with pytest.raises(GuestError):
            ram.read(gpa, size)
        with pytest.raises(GuestError):
            ram.write(gpa, bytes(size))


class TestAdapter:
    @pytest.fixture
    def lines(self):
        return []

    @pytest.fixture
    def guest(self, ram, lines):
        qtest = SimpleNamespace(set_line=lambda *values: lines.append(values))
        qemu = SimpleNamespace(
            ram=ram, qtest=qtest, interrupt_controller=lambda: "/gic",
            debugger=SimpleNamespace(poll=time.sleep),
        )  # fmt: skip
        image = build(describe("minimal-vmm", memory=MIB)).image()
        image.write(ram.write)
        notifier = Notifier(image.sources, MemoryMap([MemorySlot(1 << 40, RAM, MIB)]), threads={7: 0})
        return QemuGuest(qemu, notifier, gpio_gsiv=123)

    def test_memory(self, guest, ram):
        ram.write(RAM, (0xFF).to_bytes(8, "little"))
        out = guest.perform([ArmAck(1, 0, RAM, 0x11), WriteGuest(2, 0, RAM + 8, b"abc"), PollAck(3, 0, RAM, 8)])
        assert out == [AckRead(3, 0, 0xEE), Done(3)]
        assert ram.read(RAM + 8, 3) == b"abc"

    def test_an_effect_that_fails_takes_the_later_ones_of_its_source_with_it(self, guest, ram):
        out = guest.perform([
            WriteGuest(1, 0, RAM + MIB, b"x"), WriteGuest(2, 0, RAM, b"y"), WriteGuest(3, 1, RAM + 1, b"z"),
        ])  # fmt: skip
        assert isinstance(out[0], Failed)
        assert (out[0].effect, out[1]) == (1, Done(3))
        assert ram.read(RAM, 2) == b"\0z"

    def test_a_vcpu_that_nobody_stopped(self, guest):
        assert guest.perform([InjectSea(1, 0, 0, 0x9200_0410, None), Release(2, 0)])[0].effect == 1

    def test_an_interrupt_is_a_pulse(self, guest, lines):
        guest.perform([RaiseLine(1, 1, "gsiv", 122)])
        assert lines == [("/gic", 90, True), ("/gic", 90, False)]
        guest.perform([RaiseLine(2, 1, "gpio", 0)])
        assert lines[2:] == [("/gic", 91, True), ("/gic", 91, False)]

    def test_a_found_page_is_told_and_acknowledged(self, guest, ram, lines):
        source = next(s for s in guest.notifier.sources.values() if s.way == "gsiv").placed
        guest.receive(HostSignal(Code.AO, (1 << 40) + 0x5000, 12, 99, 1.0))
        assert len(lines) == 2
        assert ram.read(source.ack, 8) == bytes(8)
        assert ram.read(source.block, 4) != bytes(4)
        with pytest.raises(Failure, match="1 block posted and acknowledged: nothing within"):
            guest.settle(1, 0.05)
        ram.write(source.ack, (1).to_bytes(8, "little"))
        posted = guest.settle(1, 5)
        assert [e.delivery for e in posted] == ["gsiv"]
        assert posted[0].pages == ((RAM + 0x5000, 4096),)

    def test_a_core_that_is_at_its_end(self, guest):
        guest.seen.append(Escalate(1, 0, "report", "no acknowledgement"))
        with pytest.raises(Failure, match="no acknowledgement"):
            guest.settle(1, 5)


def test_the_model_takes_what_the_lab_plays():
    image = build(describe("minimal-vmm", memory=512 * MIB, vcpus=2)).image()
    memory = MemoryMap([MemorySlot(HOST, RAM, 512 * MIB)])
    threads = {smoke.FIRST_THREAD + i: i for i in range(2)}
    events = [
        HostSignal(Code.AO, HOST + 0x10_0000, 12, 0, 1.0),
        HostSignal(Code.AR, HOST + 0x20_0000, 12, smoke.FIRST_THREAD + 1, 2.0),
        GuestAbort(0, 0x9200_0010, 0x1000),
    ]
    found = play(image, 2, lambda sources: Notifier(sources, memory, vcpus=2, threads=threads), events)
    assert [e.delivery for e in found.posted] == ["gsiv", "sea"]
    assert found.consumed == [e.block for e in found.posted]
    assert found.outcomes == ["offlined", "offlined", "objerr"]


class TestReport:
    def test_what_it_holds(self, tmp_path):
        report = Report("Lab: Linux 6.1, smoke", {"QEMU": "7.2 | Debian"})
        with report.step("Boot"):
            report.check(True, "it boots", "LAB-UP")
            report.equal(3, 3, "three of them")
            found = report.line("[ 1.0] one\n[ 2.0] two: 0x2a\n", r"two: (\w+)", "it says two")
        assert found.group(1) == "0x2a"
        report.write(tmp_path / "deep" / "report.md")
        text = (tmp_path / "deep" / "report.md").read_text()
        for part in (
            "# Lab: Linux 6.1, smoke", "| QEMU | 7.2 \\| Debian |", "## Boot (0.0 s)", "| it boots | `LAB-UP` |",
            "| three of them | `3` |", "| it says two | `two: 0x2a` |", "3 assertions held",
        ):  # fmt: skip
            assert part in text

    def test_what_does_not_hold(self):
        report = Report("x")
        with report.step("Boot"):
            with pytest.raises(Failure, match=r"Boot: not so: it boots \(dark\)"):
                report.check(False, "it boots", "dark")
            with pytest.raises(Failure, match="three of them: 2, expected 3"):
                report.equal(2, 3, "three of them")
            with pytest.raises(Failure, match="no line with 'two'"):
                report.line("one\n", "two", "it says two")
            with pytest.raises(Failure, match=r"\.\.\. \(400 characters\)"):
                report.equal(bytes(200), b"", "bytes")
        assert report.rows == []


class TestPackages:
    def test_a_host_without_apt(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(Unavailable, match="apt-get is not installed"):
            Packages(tmp_path / "cache").prepare("6.1")

    def test_a_series_that_nobody_has(self, tmp_path):
        with pytest.raises(Unavailable, match=r"'5\.10' is none of 6\.1, 6\.12"):
            Packages(tmp_path).prepare("5.10")
        assert list(tmp_path.iterdir()) == []

    def test_a_cache_that_cannot_be(self, tmp_path):
        (tmp_path / "cache").write_text("a file")
        with pytest.raises(Unavailable, match="cannot be filled"):
            Packages(tmp_path / "cache").prepare("6.1")

    def test_where_the_cache_is(self, monkeypatch):
        monkeypatch.setenv("VMM_RAS_LAB_CACHE", "/somewhere")
        assert str(packages.cache_folder()) == "/somewhere"
        monkeypatch.delenv("VMM_RAS_LAB_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
        assert str(packages.cache_folder()) == "/cache/vmm-ras-lab"

    @pytest.fixture
    def fake_apt(self, tmp_path, monkeypatch):
        """An apt whose archive holds one kernel, in a metapackage, as Debian has it."""
        programs = tmp_path / "bin"
        programs.mkdir()
        scripts = {
            "apt-get": """case "$*" in
                *indextargets*) echo "$INDEX";;
                *download*) echo "$*" > asked; touch got.deb;;
            esac""",
            "apt-cache": "printf '%s\\n' \"$SHOW\"",
            "dpkg-deb": "exit 0",
        }
        for name, script in scripts.items():
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("INDEX", "http://mirror.example/debian/|Debian|Packages")
        monkeypatch.setenv(
            "SHOW",
            "Package: linux-image-cloud-arm64\nVersion: 6.12.95-1~bpo12+1\n"
            "Depends: linux-image-6.12.95+deb12-cloud-arm64 (= 6.12.95-1~bpo12+1)\n\n"
            "Package: linux-image-cloud-arm64\nVersion: 6.1.176-1\n"
            "Depends: linux-image-6.1.0-50-cloud-arm64 (= 6.1.176-1)",
        )
        return apt.Apt(tmp_path / "apt", "bookworm")

    def test_the_source_is_the_hosts_own_mirror(self, fake_apt):
        line = (fake_apt.folder / "sources.list").read_text()
        assert line.startswith("deb [arch=arm64")
        assert line.endswith("http://mirror.example/debian/ bookworm main\n")

    @pytest.mark.parametrize(
        ("version", "wanted"),
        [
            ("6.1", "linux-image-6.1.0-50-cloud-arm64=6.1.176-1"),
            ("6.12", "linux-image-6.12.95+deb12-cloud-arm64=6.12.95-1~bpo12+1"),
        ],
    )
    def test_the_package_behind_the_metapackage(self, fake_apt, version, wanted):
        assert fake_apt.newest("linux-image-cloud-arm64", version).name == "got.deb"
        assert (fake_apt.folder / "archives" / "asked").read_text().strip().endswith(f"download {wanted}")

    def test_a_version_that_is_not_there(self, fake_apt):
        with pytest.raises(Unavailable, match=r"7\.2 is not in the archive"):
            fake_apt.newest("linux-image-cloud-arm64", "7.2")

    def test_a_host_without_a_source_of_debian(self, tmp_path, fake_apt, monkeypatch):
        monkeypatch.setenv("INDEX", "http://other.example/ubuntu/|Ubuntu|Packages")
        with pytest.raises(Unavailable, match="no source of Debian packages"):
            apt.Apt(tmp_path / "other", "bookworm")

    def test_what_a_command_complains_of_is_one_line(self):
        script = "echo W: first >&2; echo E: Unable to fetch >&2; echo more >&2; exit 100"
        with pytest.raises(Unavailable, match=r"^lists: E: Unable to fetch$"):
            apt.run(["sh", "-c", script], None, "lists")
        start = time.monotonic()
        with pytest.raises(Unavailable, match="no end after 0 s"):
            apt.run(["sleep", "20"], None, "lists", 0.1)
        assert time.monotonic() - start < 60


class TestCommandLine:
    @pytest.fixture
    def prepared(self, monkeypatch):
        monkeypatch.setattr(Packages, "prepare", lambda self, series: SimpleNamespace(
            kernel=SimpleNamespace(series=series, version=f"{series}.1")))  # fmt: skip
        monkeypatch.setattr("vmm_ras.lab.qemu.end_on_signals", lambda: None)

    def run(self, *arguments):
        with pytest.raises(SystemExit) as caught:
            command.app(["smoke", *arguments])
        return caught.value.code

    def test_passed(self, prepared, monkeypatch, capsys, tmp_path):
        monkeypatch.setattr(smoke, "run", lambda lab: Report(f"Lab {lab.kernel.series}"))
        assert self.run("--report", str(tmp_path)) == 0
        assert sorted(p.name for p in tmp_path.iterdir()) == ["smoke-linux-6.1.md", "smoke-linux-6.12.md"]
        assert "smoke: passed" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("error", "code", "said"),
        [
            (Failure("Boot: not so"), 1, "smoke: FAILED: Boot: not so"),
            (Unavailable("no qemu"), 3, "smoke: not possible here: no qemu"),
            (OSError("no memory"), 3, "smoke: not possible here: no memory"),
            (KeyboardInterrupt(), 130, "smoke: interrupted"),
        ],
    )
    def test_not_passed(self, prepared, monkeypatch, capsys, tmp_path, error, code, said):
        def fail(lab):
            raise error

        monkeypatch.setattr(smoke, "run", fail)
        assert self.run("--kernel", "6.1", "--report", str(tmp_path)) == code
        assert capsys.readouterr().err.splitlines() == [said]
        assert list(tmp_path.iterdir()) == []

    def test_packages_that_cannot_be_had(self, tmp_path):
        done = subprocess.run(
            [sys.executable, "-m", "vmm_ras.lab", "smoke"], capture_output=True, text=True, timeout=60, check=False,
            env={"PATH": str(tmp_path), "VMM_RAS_LAB_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip
        assert done.returncode == 3
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("smoke: not possible here: apt-get is not installed")
