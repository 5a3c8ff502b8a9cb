"""Intel's compiler, which knows nothing of us, disassembles every table and compiles it to the same bytes."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from acpi.firmware import build
from acpi.firmware_presets import FIRMWARE_PRESETS, describe, virt_machine, with_sources
from acpi.hest import NotificationType
from acpi.image import SourceDescription
from acpi.machine import EventDevice, Uart
from acpi.table import TableHeader

IASL = shutil.which("iasl")
pytestmark = pytest.mark.skipif(IASL is None, reason="iasl is not installed")
COMPLAINT = re.compile(r"\*\*\*\*|[Ii]ncorrect|[Ii]nvalid|Warning +\d|Error +\d|Unknown|Could not")


def descriptions():
    for name in FIRMWARE_PRESETS:
        yield pytest.param(describe(name, vcpus=2), id=name)
    base = describe("minimal-vmm", vcpus=17)
    kinds = [NotificationType.SEA, NotificationType.SDEI, NotificationType.GSIV, NotificationType.GPIO_SIGNAL]
    sources = [SourceDescription(i, kind, vector=50 if i else 0) for i, kind in enumerate(kinds)]
    yield pytest.param(
        replace(
            with_sources(base, *sources, SourceDescription(9, NotificationType.POLLED, poll_interval_ms=5, version=1)),
            machine=replace(base.machine, uart=Uart(0x10_0900_0000, 33), event_device=EventDevice(5000), conduit="smc"),
            boot_errors=bytes(64),
        ),
        id="everything",
    )
    selected = virt_machine(event_device=EventDevice(41, 0x10_0908_0000, 1 << 20))
    yield pytest.param(
        replace(with_sources(base, *sources[:1], sources[3]), machine=selected), id="selector above 4 GiB"
    )


@pytest.mark.parametrize("description", list(descriptions()))
def test_every_table_is_disassembled_and_recompiled(description, tmp_path):
    firmware = build(description)
    for name, raw in firmware.aml(firmware.image()).items():
        (tmp_path / name).write_bytes(raw)
        stem = name.removesuffix(".aml")
        said = run("-d", name, cwd=tmp_path)
        source = (tmp_path / f"{stem}.dsl").read_text()
        assert not COMPLAINT.search(said + source), f"{name}: {COMPLAINT.search(said + source)}"
        said = run("-z", "-p", f"new-{stem}", f"{stem}.dsl", cwd=tmp_path)
        assert "0 Errors, 0 Warnings" in said
        again = (tmp_path / f"new-{stem}.aml").read_bytes()
        if stem == "dsdt":  # a compiler signs what it compiles with its own name
            assert unsigned(again) == unsigned(raw), name
        else:
            assert again == raw, name


def unsigned(table):
    """The table without the compiler's name and the checksum that it changes."""
    out = bytearray(table)
    for name in ("checksum", "creator_id", "creator_revision"):
        row = TableHeader.at(name)
        out[row.offset : row.offset + row.size] = bytes(row.size)
    return bytes(out)


def run(*arguments, cwd):
    done = subprocess.run(
        [IASL, *arguments], cwd=cwd, check=False, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
