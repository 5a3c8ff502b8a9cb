"""`vmm-ras doctor`: one clear line for everything that a host has or lacks."""

from __future__ import annotations

import functools
import importlib
import json
import platform
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from tests.kvm_host import Host
from vmm_ras.io.kvm import ioctl, system
from vmm_ras.kvm.hosts import HOSTS

doctor = importlib.import_module("vmm_ras.cli.doctor")
app = typer.Typer()
app.command()(doctor.doctor)


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def by_name(findings):
    return {f.name: f for f in findings}


@pytest.fixture(params=HOSTS, ids=str)
def arm(request, monkeypatch):
    """An arm64 host with the KVM of this kernel."""
    host = Host(HOSTS[request.param])
    monkeypatch.setattr(ioctl, "fcntl", host)
    monkeypatch.setattr(system, "Kvm", functools.partial(system.Kvm, "/dev/null"))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    texts = {"/proc/sys/vm/memory_failure_recovery": "1", "/proc/sys/vm/memory_failure_early_kill": "0",
             "/proc/self/status": "CapEff:\t0000000000200000\n"}  # fmt: skip
    monkeypatch.setattr(doctor, "_text", texts.get)
    return host


def test_what_kvm_of_each_kernel_can_do(arm):
    found = by_name(doctor.live())
    assert found["SDEI calls"].there == arm.profile.smccc_filter
    assert found["relayed aborts"].there == arm.profile.sea_exit
    assert found["writable MIDR_EL1"].there == arm.profile.implementation_ids_writable
    assert all(f.there for f in found.values() if f.needed)
    assert found["CAP_SYS_ADMIN"].there


def test_an_arm64_host_is_good_for_guests(arm):
    done = run("--for", "live")
    assert done.exit_code == 0
    assert "live: possible" in done.stdout


@pytest.mark.parametrize(
    ("path", "text", "name", "said"),
    [
        ("/proc/sys/vm/memory_failure_recovery", "0", "memory failure handling", "the kernel panics"),
        ("/proc/sys/vm/memory_failure_recovery", None, "memory failure handling", "CONFIG_MEMORY_FAILURE is off"),
        ("/proc/self/status", "CapEff:\t0000000000000000\n", "CAP_SYS_ADMIN", "no memory can be lost on purpose"),
    ],
)
def test_what_is_missing_is_said(arm, monkeypatch, path, text, name, said):
    texts = doctor._text
    monkeypatch.setattr(doctor, "_text", lambda wanted: text if wanted == path else texts(wanted))
    found = by_name(doctor.live())[name]
    assert not found.there
    assert said in found.said
    assert (run("--for", "live").exit_code == 3) == found.needed


def test_a_host_without_kvm(arm, monkeypatch, tmp_path):
    monkeypatch.setattr(system, "Kvm", functools.partial(system.Kvm.func, str(tmp_path / "kvm")))
    done = run("--for", "live")
    assert done.exit_code == 3
    line = next(line for line in done.stdout.splitlines() if line.startswith("live: not possible here"))
    assert line.endswith("kvm: No such file or directory")


def test_another_architecture(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert by_name(doctor.live())["architecture"] == ("live", "architecture", False, True, "x86_64, arm64 is needed")
    assert run("--for", "live").exit_code == 3


def test_a_host_that_can_do_nothing(monkeypatch, tmp_path):
    """No archive, no program, no memory: one line for each purpose, exit code 3, and no traceback."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VMM_RAS_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(doctor, "_text", lambda path: None)
    done = run()
    assert done.exit_code == 3
    lines = done.stdout.splitlines()
    assert lines[-2].startswith("live: not possible here: architecture: riscv64")
    assert lines[-1].startswith("lab: not possible here: qemu-system-aarch64: qemu-system-arm; ")
    assert run("--for", "lab").exit_code == 3


def test_json(arm):
    done = run("--json")
    found = json.loads(done.stdout)
    assert found["can"]["live"] is True
    assert {f["name"] for f in found["findings"]} >= {"/dev/kvm", "GICv3", "apt"}
    assert all(set(f) == {"purpose", "name", "there", "needed", "said"} and f["said"] for f in found["findings"])


def test_the_command_on_this_host():
    done = subprocess.run(
        [sys.executable, "-m", "vmm_ras.cli", "doctor"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (0, 3)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].startswith("lab: ")
