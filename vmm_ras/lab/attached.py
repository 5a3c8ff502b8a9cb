"""`vmm-ras attach` to a QEMU that was started with named sockets: address randomisation and page table isolation on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vmm_ras.io.qemu.wait import Channel, Deadline
from vmm_ras.lab import initrd, kernel_log
from vmm_ras.lab.console import Console
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.guest_firmware import GPIO_GSIV, MEMORY, files_of
from vmm_ras.lab.packages import Lab
from vmm_ras.lab.qemu import CPU
from vmm_ras.lab.report import Report
from vmm_ras.lab.script_stage import VCPUS, firmware

APPEND = "kpti=on loglevel=1"
LINK_BASE = {"6.1": 0xFFFF_8000_0800_0000}
LATER_LINK_BASE = 0xFFFF_8000_8000_0000
SECONDS = 60.0
_POLICY = 'version = 1\n[[rule]]\nname = "consumed"\nwhen = {{ code = "AR" }}\ndeliver = ["sea"]\n' \
    '[[rule]]\nname = "found"\ndeliver = ["{way}"]\n'  # fmt: skip


def run(lab: Lab) -> Report:
    """Boot, attach for each way, and look at what the guest did.  Raises LabError; nothing of the run is left."""
    series = lab.kernel.series
    report = Report(f"Lab: Linux {series}, attached to")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        process = subprocess.Popen(
            _command(lab, folder), env=lab.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=(folder / "complaints").open("wb"), start_new_session=True,
        )  # fmt: skip
        stack.callback(process.wait)
        stack.callback(process.kill)
        console = Console(Channel(_connect(folder / "console", process, folder), "console"))
        stack.callback(console.close)
        with report.step("Boot"):
            report.facts["Kernel"] = console.line("LAB-UP ", 180).removeprefix("LAB-UP ")
            log = console.run("dmesg")
            base = int(console.run("grep -m 1 -w _text /proc/kallsyms").split()[0], 16)
            linked = LINK_BASE.get(series, LATER_LINK_BASE)
            report.check(
                base & -(1 << 21) != linked, "the kernel's addresses are random (KASLR)", f"_text is at {base:#x}"
            )
            report.line(log, r"detected: Kernel page table isolation \(KPTI\)", "KPTI is on")
        with report.step("The sources"):
            said = _attach(folder)
            report.equal(len(said["sources"]), 8, "every source is found by the guest's own tables")
        for way in ("polled", "gsiv", "gpio"):
            with report.step(f"A found page, told by {way}"):
                victim = kernel_log.victim(_start(console, way, "he"))
                told = _attach(folder, "--lose", f"{victim.pa:#x}", "--policy", str(_policy(folder, way)))["told"]
                report.equal([(t["delivery"], t["acked"]) for t in told], [(way, True)], "told, and acknowledged")
                line = console.line(f"SIGBUS {way} ", SECONDS)
                report.check(f"code=5 addr={victim.va:#x} " in line, "the process gets BUS_MCEERR_AO", line)
        for vcpu in range(VCPUS):
            with report.step(f"A consumed page on vCPU {vcpu}, told by an SEA"):
                victim = kernel_log.victim(_start(console, f"sea{vcpu}", f"hs{vcpu}"))
                args = ("--consume", f"{victim.pa:#x}", "--vcpu", str(vcpu), "--policy", str(_policy(folder, "polled")))
                told = _attach(folder, *args)["told"]
                report.equal([(t["delivery"], t["acked"]) for t in told], [("sea", True)], "told, and acknowledged")
                line = console.line(f"SIGBUS sea{vcpu} ", SECONDS)
                report.check(f"code=4 addr={victim.va:#x} " in line, "the process gets BUS_MCEERR_AR", line)
        with report.step("Afterwards"):
            report.equal(console.run("echo on").split(), ["on"], "the guest goes on without us")
    return report


def _command(lab: Lab, folder: Path) -> list[str]:
    command = [
        *lab.prefix, str(lab.qemu), "-machine", "virt,acpi=off,gic-version=3,memory-backend=ram",
        "-object", f"memory-backend-file,id=ram,size={MEMORY},share=on,mem-path={folder}/ram",
        "-m", f"size={MEMORY >> 20}M", "-cpu", CPU, "-smp", str(VCPUS), "-nodefaults", "-no-user-config",
        "-display", "none", "-no-reboot", "-bios", str(lab.edk2), "-kernel", str(lab.kernel.image),
        "-initrd", f"{folder}/initrd", "-append", f"console=ttyAMA0 rdinit=/init {APPEND}",
        "-device", "virtio-rng-pci", "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
        "-chardev", f"socket,id=gdb,path={folder}/gdb,server=on,wait=off", "-gdb", "chardev:gdb",
        "-qtest", f"unix:{folder}/qtest,server=on,wait=off", "-qtest-log", "/dev/null", "-accel", "tcg",
        "-chardev", f"socket,id=console,path={folder}/console,server=on,wait=on", "-serial", "chardev:console",
    ]  # fmt: skip
    (folder / "initrd").write_bytes(initrd.build(lab))
    for name, data in files_of(firmware()).items():
        path = folder / name.replace("/", "-")
        path.write_bytes(data)
        command += ["-fw_cfg", f"name={name},file={path}"]
    return command


def _connect(path: Path, process: subprocess.Popen[bytes], folder: Path) -> socket.socket:
    deadline = Deadline(SECONDS, "QEMU starts")
    while True:
        end = socket.socket(socket.AF_UNIX)
        try:
            end.connect(os.fspath(path))
            return end
        except OSError:
            end.close()
            if process.poll() is not None:
                raise Failure(f"QEMU does not start: {(folder / 'complaints').read_text()[-300:]}") from None
            deadline.check()
            time.sleep(0.05)


def _policy(folder: Path, way: str) -> Path:
    path = folder / f"{way}.toml"
    path.write_text(_POLICY.format(way=way))
    return path


def _attach(folder: Path, *args: str) -> dict[str, list[dict[str, object]]]:
    command = [
        sys.executable, "-m", "vmm_ras.cli", "attach", "--qmp", f"{folder}/qmp", "--gdb", f"{folder}/gdb",
        "--qtest", f"{folder}/qtest", "--ram", f"{folder}/ram", "--gpio-gsiv", str(GPIO_GSIV), "--json",
        "--seconds", "30", *args,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise Failure(f"vmm-ras attach ends with {done.returncode}: {done.stderr.strip()}", done.stdout)
    found: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
    return found


def _start(console: Console, name: str, flags: str) -> str:
    start = len(console.text)
    console.type(f"victim {name} {flags} &")
    return re.sub(r"\r", "", console.line(f"VICTIM {name} ", SECONDS, start))
