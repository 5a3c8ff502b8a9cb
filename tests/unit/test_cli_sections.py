"""`cper show` and `cper encode` over every section type: whole blocks, bare bodies, hostile ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cper.section import MODULES, section_class
from tests.command_line import cli, tree_paths
from tests.fuzz.test_fuzz_sections import seeds
from tests.golden.linux import LINUX

BLOCKS = {
    name: bytes.fromhex(vector["block"])
    for path in sorted((LINUX / "sections").glob("*.json"))
    for name, vector in json.loads(path.read_text()).items()
}


@pytest.mark.parametrize(
    "name", ["pcie-corr-present", "procgen-all", "fwref-rev2-tail", "pcidev", "ia-all", "mem2-all"]
)
def test_a_block_is_shown_and_encoded_again(name: str, tmp_path: Path) -> None:
    path, again = tmp_path / "block", tmp_path / "again"
    path.write_bytes(BLOCKS[name])
    text = cli("cper", "show", path, "--json").stdout
    cli("cper", "encode", "-", "-o", again, stdin=text)

    assert again.read_bytes() == BLOCKS[name]
    [entry] = json.loads(text)["entries"]
    assert "section" in entry
    shown = cli("cper", "show", path).stdout.decode()
    paths = {path for path in leaves(entry["section"]) if not path.endswith("trailing")}
    assert paths
    assert {f"entries[0].section.{path}" for path in paths} - tree_paths(shown) == set()


def leaves(value: object, path: str = "") -> set[str]:
    """The paths of what JSON holds, as ``cper show`` writes them; lists of numbers are one field."""
    if isinstance(value, dict):
        return {p for key, inner in value.items() for p in leaves(inner, f"{path}.{key}" if path else key)}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {p for index, inner in enumerate(value) for p in leaves(inner, f"{path}[{index}]")}
    return set() if value == [] and path.endswith(("registers", "contexts")) else {path}


@pytest.mark.parametrize("guid", MODULES, ids=lambda g: MODULES[g].partition(":")[2])
def test_a_bare_section_is_shown_and_encoded_again(guid, tmp_path: Path) -> None:
    cls = section_class(guid)
    bodies = [body for body in seeds(guid) if len(body) >= cls.SIZE] or [bytes(cls.SIZE)]
    path, again, name = tmp_path / "bare", tmp_path / "again", MODULES[guid].partition(":")[2]
    path.write_bytes(bodies[0])
    text = cli("cper", "show", path, "--type", name, "--json").stdout
    cli("cper", "encode", "-", "--type", name, "-o", again, stdin=text)

    assert again.read_bytes() == bodies[0]
    assert name.encode() in cli("cper", "show", path, "--type", name).stdout


@pytest.mark.parametrize("guid", MODULES, ids=lambda g: MODULES[g].partition(":")[2])
def test_a_body_that_is_too_short_is_one_line(guid, tmp_path: Path) -> None:
    path, name = tmp_path / "short", MODULES[guid].partition(":")[2]
    path.write_bytes(b"\xff")
    done = cli("cper", "show", path, "--type", name, code=1)

    assert len(done.stderr.splitlines()) == 1
    assert f"vmm-ras: {section_class(guid).__name__}".encode() in done.stderr


def test_json_that_contradicts_itself_is_one_line(tmp_path: Path) -> None:
    text = b'{"head": {"registers_valid": true, "memory_number": 3}}'
    done = cli("cper", "encode", "-", "--type", "PciComponent", "-o", tmp_path / "no", stdin=text, code=1)

    assert done.stderr.decode().splitlines() == [
        "vmm-ras: PciComponent.head.memory_number at 0x20: 3 memory_registers need 48 bytes, 0 given"
    ]
