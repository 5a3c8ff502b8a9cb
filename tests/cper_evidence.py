"""`python -m tests.cper_evidence` writes cper/evidence.py from what the fixtures hold; a test keeps it so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from uuid import UUID

from acpi.ghes import StatusBlock
from cper.libcper.record import TYPES
from cper.section import MODULES, Section, section_class
from tests.golden.evidence import FIXTURES, table
from tests.golden.linux import KERNELS, LINUX, blocks, raw
from tests.golden.linux_sections import family, printed
from tests.oracle.environment import VERSION

FILE = Path(__file__).parents[1] / "cper" / "evidence.py"
_NAMES = {
    "linux-cper": "Linux", "edk2-cper": "edk2", "libcper": "libcper", "uefi-apx-n": "UEFI text",
}  # fmt: skip


def offsets(guid: UUID) -> tuple[str, ...]:
    """The header sets to which the section's structure, or its head, is bound by name."""
    cls = section_class(guid)
    assert cls is not None
    main = cls.__name__ if issubclass(cls, Section) else cls.HEAD.__name__  # type: ignore[union-attr]
    files = [header.partition(":")[0] for header in table("structs").get(main, {}).get("headers", [])]
    return tuple(sorted({_NAMES.get(file, file) for file in files}))


def _families() -> list[str]:
    return sorted(path.stem for path in (LINUX / "sections").glob("*.json"))


def kernels() -> dict[UUID, tuple[set[str], set[str]]]:
    """Per section type: whose blocks have such a body, and which kernels named it and printed its fields."""
    out: dict[UUID, tuple[set[str], set[str]]] = {guid: (set(), set()) for guid in MODULES}
    for name in _families():
        for vector, found in family(name).items():
            entries = StatusBlock.decode(bytes.fromhex(found["block"])).entries
            for kernel in found["log"].keys() & set(KERNELS):
                for entry, lines in zip(entries, printed(name, vector, kernel), strict=False):
                    made, read = out.get(entry.header.section_type, (set(), set()))
                    made.add("generator of fixtures/linux")
                    if not any("section type: unknown" in line for line in lines):
                        read.add(f"Linux {kernel}")
    for name in blocks():
        if not name.startswith("mem-"):
            continue
        for entry in StatusBlock.decode(raw(name)).entries:
            made, read = out.get(entry.header.section_type, (set(), set()))
            made.add("generator of fixtures/linux")
            read |= {f"Linux {kernel}" for kernel in KERNELS}
    return out


def libcper() -> set[UUID]:
    """Types of which libcper's reading is compared."""
    lines = (FIXTURES / "libcper" / "vectors.jsonl").read_text().splitlines()
    found = {bytes.fromhex(json.loads(line)["record"])[144:160] for line in lines}
    return {guid for guid in TYPES if guid.bytes_le in found}


def libcper_source() -> set[UUID]:
    """Types of which the reading of libcper's source, newer than the module, is compared."""
    vectors = json.loads((FIXTURES / "libcper" / "arm_ras_nvidia.json").read_text()).values()
    return {UUID(vector["section_type"]) for vector in vectors}


def text() -> str:
    """The module."""
    seen, compared, newer = kernels(), libcper(), libcper_source()
    out = [
        '"""What backs each section type: data, made from the fixtures by `python -m tests.cper_evidence`."""', "",
        "from __future__ import annotations", "", "SECTIONS: dict[str, dict[str, tuple[str, ...]]] = {",
    ]  # fmt: skip
    for guid in MODULES:
        cls = section_class(guid)
        assert cls is not None
        made, read = seen[guid]
        foreign = {*made, *(["QEMU 7.2 arm virt"] if cls.__name__ == "PlatformMemory" else [])}
        kinds = {
            "offsets": offsets(guid), "foreign": tuple(sorted(foreign)), "kernel": tuple(sorted(read)),
            "libcper": (VERSION,) if guid in compared else ("7c410e29",) if guid in newer else (),
        }  # fmt: skip
        out.append(f'    "{cls.__name__}": {{')
        for kind, values in kinds.items():
            inner = ", ".join(f'"{value}"' for value in values)
            out += [f'        "{kind}": ({inner}{"," if len(values) == 1 else ""}),'] if values else []
        out.append("    },")
    return "\n".join([*out, "}", '"""Section type to its evidence, by kind; a kind that is not there: none."""', ""])


if __name__ == "__main__":
    FILE.write_text(text())
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(FILE)], check=True)
