"""`vmm-ras acpi`: built, shown, judged, found again."""

from __future__ import annotations

import errno
import json
import re
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import pytest

from acpi.table import Rsdp
from tests.command_line import cli, tree_paths
from vmm_ras.cli import find
from vmm_ras.record import memory_block

ROOT = Path(__file__).parents[2]
PRESETS = ["qemu-7.2", "qemu-10.0", "qemu-11.1", "minimal-vmm", "sea-per-vcpu"]


def memory_of(folder: Path) -> tuple[dict[int, bytes], dict]:
    """What `acpi build` wrote, by its place in guest memory from 0x40000000 on."""
    layout = json.loads((folder / "layout.json").read_text())
    return {r["gpa"] - 0x4000_0000: (folder / r["file"]).read_bytes() for r in layout["regions"]}, layout


@pytest.mark.parametrize("preset", PRESETS)
def test_a_guest_is_built_judged_and_shown(tmp_path: Path, preset: str) -> None:
    layout = json.loads(cli("acpi", "build", preset, "--vcpus", "2", "--out", tmp_path, "--json").stdout)

    assert {"rsdp", "xsdt", "hest", "facp", "dsdt", "apic", "hardware_errors"} <= {r["name"] for r in layout["regions"]}
    assert (tmp_path / "fw_cfg" / "etc_table-loader").read_bytes()
    found = json.loads(cli("acpi", "lint", tmp_path / "aml", "--json").stdout)["findings"]
    assert [f["level"] for f in found if "SEA sources" in f["text"]] == ["warning"] * (preset == "sea-per-vcpu")
    shown = json.loads(cli("acpi", "show", tmp_path / "aml", "--json").stdout)
    assert {t["signature"] for t in shown} >= {"HEST", "FACP", "APIC", "DSDT", "GTDT"}
    text = cli("acpi", "show", tmp_path / "aml").stdout.decode()
    assert "sources[0].notification.type" in tree_paths(text)


def test_the_page_about_tables_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "docs" / "acpi.md").read_text(), re.S)
    lines = "".join(block for block in blocks if "/sys" not in block).splitlines()
    shown = ""
    for line in lines:
        if line.startswith("$ vmm-ras "):
            shown = cli(*line.partition("#")[0].split()[2:]).stdout.decode()
        else:
            assert line in shown.splitlines()
    assert {p.name for p in (tmp_path / "firmware").iterdir()} == {"image", "layout.json", "fw_cfg", "aml"}
    assert len(lines) == 8


def test_what_is_pending_is_found_in_guest_memory(tmp_path: Path) -> None:
    cli("acpi", "build", "minimal-vmm", "--out", tmp_path)
    memory, layout = memory_of(tmp_path)
    block = memory_block([(0x5000_0000, 4096)], number=7)
    at = layout["sources"][1]["block"] - 0x4000_0000
    memory[at] = block
    memory[layout["sources"][1]["ack"] - 0x4000_0000] = b"\0"
    memory[layout["sources"][2]["block"] - 0x4000_0000] = b"\x01" * 20
    image = tmp_path / "memory"
    with image.open("wb") as file:  # 512 MiB, nearly all of it holes
        file.truncate(512 << 20)
        for place, data in memory.items():
            file.seek(place)
            file.write(data)

    found = json.loads(cli("acpi", "find", image, "--json").stdout)

    assert found["rsdp"] == layout["rsdp"]
    assert [s["state"].split(":")[0] for s in found["sources"]] == ["empty", "pending", "malformed"]
    assert [s["armed"] for s in found["sources"]] == [True, False, True]
    section = found["sources"][1]["pending"]["entries"][0]["section"]
    assert section["physical_address"] == 0x5000_0000
    text = cli("acpi", "find", image).stdout.decode()
    assert "pending, awaiting the ack" in text
    assert "0x50000000" in text


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("last", [0, 1 << 20])
def test_only_data_is_searched_and_all_of_it(tmp_path: Path, monkeypatch, tells: bool, last: int) -> None:
    """A sparse image, with data or a hole at its end, on a file system that tells of holes and on one that does not."""
    rsdp = Rsdp(checksum=0, revision=2, length=36, xsdt_address=0x1000, extended_checksum=0).encode()
    rsdp = rsdp[:8] + bytes([-sum(rsdp[:20]) & 0xFF]) + rsdp[9:]
    rsdp = rsdp[:32] + bytes([-sum(rsdp) & 0xFF]) + rsdp[33:]
    places = {0: b"RSD PTR " * 512, 9 << 20: b"x" * 4088 + b"RSD PTR " + rsdp, 20 << 20: bytes(16) + rsdp}
    image = tmp_path / "memory"
    with image.open("wb") as file:
        for place, data in places.items():
            file.seek(place)
            file.write(data)
        file.truncate(file.tell() + last)
    if not tells:
        monkeypatch.setattr(find.os, "lseek", Mock(side_effect=OSError(errno.EINVAL, "no holes here")))

    with find.MemoryImage(image, 0x4000_0000) as memory, image.open("rb") as file:
        assert memory.find_rsdp() == 0x4000_0000 + (9 << 20) + 4096
        found = list(find.extents(file.fileno(), image.stat().st_size))
    data = image.read_bytes()
    assert (
        b"".join(
            bytes(start - end) + data[start:after] for (_, end), (start, after) in pairwise([(0, 0), *found])
        ).ljust(len(data), b"\0")
        == data
    )
    assert (len(found) > 1) == tells


def test_images_without_tables_are_one_line(tmp_path: Path) -> None:
    empty, zero = tmp_path / "empty", tmp_path / "zero"
    empty.write_bytes(b"")
    zero.write_bytes(bytes(4096))

    assert b"empty" in cli("acpi", "find", empty, code=1).stderr
    assert b"no RSDP" in cli("acpi", "find", zero, code=1).stderr
    assert (
        b"outside the image, which begins at 0x40000000 (--base)"
        in cli("acpi", "find", zero, "--rsdp", "0", code=1).stderr
    )


def test_types_tells_what_has_evidence() -> None:
    found = json.loads(cli("acpi", "types", "--json").stdout)

    hest = next(t for t in found if t["name"] == "HEST")
    assert hest["iasl"]
    assert hest["backed"]
    assert "GenericHardwareErrorSourceV2" in cli("acpi", "types").stdout.decode()


def test_bad_tables_are_one_line() -> None:
    for data in (b"", b"HEST", b"HEST" + bytes(40), b"\xff" * 100):
        error = cli("acpi", "show", "-", stdin=data, code=1).stderr
        assert error.count(b"\n") == 1


def test_what_is_not_there_is_not_shown_in_silence(tmp_path: Path) -> None:
    table = Path(__file__).parents[2] / "fixtures/qemu/HEST-qemu11.1.bin"

    assert json.loads(cli("acpi", "show", table, "--only", "hest", "--json").stdout)[0]["signature"] == "HEST"
    assert b"no table SDEI, there are HEST" in cli("acpi", "show", table, "--only", "SDEI", code=1).stderr
    assert b"no table" in cli("acpi", "show", tmp_path, code=1).stderr
