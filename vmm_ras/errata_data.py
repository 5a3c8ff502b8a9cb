"""CPU models by their MIDR_EL1, and the errata that Linux works around because of one (arm64 ``cpu_errata.c``).

As of Linux 7.2; an older guest knows fewer, and each can be configured out.  Work-arounds that are chosen by
something else in the first place (Spectre's, those of features) are not here; see ``SAFE``.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

VARIANT_SHIFT, PART_SHIFT, IMPLEMENTER_SHIFT = 20, 4, 24
_ARCHITECTURE: Final = 0xF << 16
_REVISION: Final = 0xF << VARIANT_SHIFT | 0xF


class Range(NamedTuple):
    """Revisions of a model, both ends included."""

    model: int
    """MIDR_EL1 without variant and revision."""
    first: int
    last: int
    """Variant and revision, where MIDR_EL1 has them."""

    def holds(self, midr: int) -> bool:
        """Whether a CPU is one of them."""
        return midr & 0xFFFF_FFFF & ~_REVISION == self.model and self.first <= midr & _REVISION <= self.last


_MODELS: Final = {  # implementer to names and part numbers
    0x41: (
        "Cortex-A53:d03 Cortex-A35:d04 Cortex-A55:d05 Cortex-A57:d07 Cortex-A72:d08 Cortex-A73:d09 "
        "Cortex-A75:d0a Cortex-A76:d0b Neoverse-N1:d0c Cortex-A77:d0d Cortex-A76AE:d0e Neoverse-V1:d40 "
        "Cortex-A78:d41 Cortex-A78AE:d42 Cortex-X1:d44 Cortex-A510:d46 Cortex-A710:d47 Cortex-X2:d48 "
        "Neoverse-N2:d49 Cortex-A78C:d4b Cortex-X1C:d4c Cortex-A715:d4d Cortex-X3:d4e Neoverse-V2:d4f "
        "Cortex-A520:d80 Cortex-A720:d81 Cortex-X4:d82 Neoverse-V3AE:d83 Neoverse-V3:d84 Cortex-X925:d85 "
        "Cortex-A725:d87 Cortex-A720AE:d89 C1-Pro:d8b C1-Ultra:d8c Neoverse-N3:d8e C1-Premium:d90 "
    ),
    0x42: ("Brahma-B53:100 Brcm-VULCAN:516 "),
    0x43: (
        "Thunderx:0a1 Thunderx-81XX:0a2 Thunderx-83XX:0a3 Cavium-THUNDERX2:0af Octx2-98XX:0b1 "
        "Octx2-96XX:0b2 Octx2-95XX:0b3 Octx2-95XXN:0b4 Octx2-95XXMM:0b5 Octx2-95XXO:0b6 "
    ),
    0x46: ("Fujitsu-A64FX:001 "),
    0x48: ("Hisi-TSV110:d01 Hisi-HIP09:d02 Hisi-HIP12:d06 "),
    0x4E: ("Nvidia-DENVER:003 Nvidia-CARMEL:004 Nvidia-OLYMPUS:010 "),
    0x51: (
        "Qualcomm-ORYON-X1:001 Qualcomm-KRYO:200 Qualcomm-FALKOR-V1:800 Qualcomm-KRYO-2XX-GOLD:800 "
        "Qualcomm-KRYO-2XX-SILVER:801 Qualcomm-KRYO-3XX-GOLD:802 Qualcomm-KRYO-3XX-SILVER:803 "
        "Qualcomm-KRYO-4XX-GOLD:804 Qualcomm-KRYO-4XX-SILVER:805 Qualcomm-FALKOR:c00 "
    ),
    0x61: (
        "Apple-M1-ICESTORM:022 Apple-M1-FIRESTORM:023 Apple-M1-ICESTORM-PRO:024 Apple-M1-FIRESTORM-PRO:025 "
        "Apple-M1-ICESTORM-MAX:028 Apple-M1-FIRESTORM-MAX:029 Apple-M2-BLIZZARD:032 Apple-M2-AVALANCHE:033 "
        "Apple-M2-BLIZZARD-PRO:034 Apple-M2-AVALANCHE-PRO:035 Apple-M2-BLIZZARD-MAX:038 "
        "Apple-M2-AVALANCHE-MAX:039 "
    ),
    0x6D: ("Microsoft-AZURE-COBALT-100:d49 "),
    0xC0: ("Ampere1:ac3 Ampere1a:ac4 "),
}
_ERRATA: Final = {  # model, or model:variant.revision-variant.revision
    "ARM 819472": "Cortex-A53:0.0-0.1",
    "ARM 824069": "Cortex-A53:0.0-0.2",
    "ARM 826319": "Cortex-A53:0.0-0.2",
    "ARM 827319": "Cortex-A53:0.0-0.2",
    "ARM 832075": "Cortex-A57:0.0-1.2",
    "ARM 834220": "Cortex-A57:0.0-1.2",
    "ARM 843419": "Cortex-A53:0.0-0.4 Brahma-B53:0.0-0.0",
    "ARM 845719": "Cortex-A53:0.0-0.4 Brahma-B53:0.0-0.0 Qualcomm-KRYO-2XX-SILVER:a.4-a.4",
    "ARM 858921": "Cortex-A73",
    "ARM 1024718": "Cortex-A55 Qualcomm-KRYO-4XX-SILVER:d.e-d.e",
    "ARM 1165522": "Cortex-A76:0.0-2.0",
    "ARM 1286807": "Cortex-A76:0.0-3.0 Qualcomm-KRYO-4XX-GOLD:c.e-f.e",
    "ARM 1319367": "Cortex-A57 Cortex-A72",
    "ARM 1418040": "Cortex-A76:0.0-3.1 Neoverse-N1:0.0-3.1 Qualcomm-KRYO-4XX-GOLD:c.e-f.f",
    "ARM 1463225": "Cortex-A76:0.0-3.1 Qualcomm-KRYO-4XX-GOLD:c.e-f.f",
    "ARM 1508412": "Cortex-A77:0.0-1.0",
    "ARM 1530923": "Cortex-A55:0.0-2.0 Qualcomm-KRYO-4XX-SILVER:d.e-d.e",
    "ARM 1542419": "Neoverse-N1",
    "ARM 1742098": "Cortex-A57:0.1-f.f Cortex-A72",
    "ARM 1902691": "Cortex-A510:0.0-0.1",
    "ARM 2038923": "Cortex-A510:0.0-0.2",
    "ARM 2051678": "Cortex-A510:0.0-0.2",
    "ARM 2054223": "Cortex-A710",
    "ARM 2064142": "Cortex-A510:0.0-0.2",
    "ARM 2067961": "Neoverse-N2 Microsoft-AZURE-COBALT-100",
    "ARM 2077057": "Cortex-A510:0.0-0.2",
    "ARM 2119858": "Cortex-A710 Cortex-X2:0.0-2.0",
    "ARM 2139208": "Neoverse-N2 Microsoft-AZURE-COBALT-100",
    "ARM 2224489": "Cortex-A710 Cortex-X2:0.0-2.0",
    "ARM 2253138": "Neoverse-N2 Microsoft-AZURE-COBALT-100",
    "ARM 2441007": "Cortex-A55",
    "ARM 2441009": "Cortex-A510:0.0-1.1",
    "ARM 2457168": "Cortex-A510:0.0-1.1",
    "ARM 2645198": "Cortex-A715",
    "ARM 2658417": "Cortex-A510:0.0-1.1",
    "ARM 2966298": "Cortex-A520:0.0-0.1",
    "ARM 3117295": "Cortex-A510",
    "ARM 3194386": (
        "Cortex-A76 Cortex-A77 Cortex-A78 Cortex-A78C Cortex-A710 Cortex-A715 Cortex-A720 Cortex-A720AE "
        "Cortex-A725 Cortex-X1 Cortex-X1C Cortex-X2 Cortex-X3 Cortex-X4 Cortex-X925 "
        "Microsoft-AZURE-COBALT-100 Neoverse-N1 Neoverse-N2 Neoverse-N3 Neoverse-V1 Neoverse-V2 Neoverse-V3 "
        "Neoverse-V3AE "
    ),
    "ARM 3821522": "Cortex-A725:0.0-0.2",
    "ARM 4118414": (
        "C1-Premium C1-Ultra Cortex-A76 Cortex-A76AE Cortex-A77 Cortex-A78 Cortex-A78AE Cortex-A78C "
        "Cortex-A710 Cortex-X1 Cortex-X1C Cortex-X2 Cortex-X3 Cortex-X4 Cortex-X925 Neoverse-N1 Neoverse-N2 "
        "Neoverse-V1 Neoverse-V2 Neoverse-V3 Neoverse-V3AE Nvidia-OLYMPUS Microsoft-AZURE-COBALT-100 "
    ),
    "ARM 4193714": "C1-Pro:0.0-1.2",
    "Ampere AC04_CPU_23": "Ampere1a",
    "Ampere AC03_CPU_38": "Ampere1 Ampere1a",
    "Cavium 23154": (
        "Thunderx Thunderx-81XX Thunderx-83XX Octx2-98XX Octx2-96XX Octx2-95XX Octx2-95XXN Octx2-95XXMM Octx2-95XXO "
    ),
    "Cavium 27456": "Thunderx:0.0-1.1 Thunderx-81XX:0.0-0.0",
    "Cavium 30115": "Thunderx:0.0-1.2 Thunderx-81XX:0.0-0.2 Thunderx-83XX:0.0-0.0",
    "HiSilicon 162100125": "Hisi-HIP09",
    "NVIDIA Carmel CNP": "Nvidia-CARMEL",
    "Qualcomm Falkor E1003": "Qualcomm-FALKOR-V1:0.0-0.0",
    "Qualcomm Falkor E1009": "Qualcomm-FALKOR-V1:0.0-0.0",
}
_SYNTAX: Final = re.compile(r"([\w-]+)(?::(\w)\.(\w)-(\w)\.(\w))?( |$)")


def _model(implementer: int, part: int) -> int:
    return implementer << IMPLEMENTER_SHIFT | _ARCHITECTURE | part << PART_SHIFT


MODELS: Final[dict[str, int]] = {
    name: _model(implementer, int(part, 16))
    for implementer, listed in _MODELS.items()
    for name, _, part in (entry.partition(":") for entry in listed.split())
}
"""Name to MIDR_EL1 without variant and revision."""
_NAMES: Final = {model: name for name, model in reversed(MODELS.items())}


def _ranges(text: str) -> tuple[Range, ...]:
    out = []
    for name, v0, r0, v1, r1, _ in _SYNTAX.findall(text):
        first = int(v0, 16) << VARIANT_SHIFT | int(r0, 16) if v0 else 0
        last = int(v1, 16) << VARIANT_SHIFT | int(r1, 16) if v1 else _REVISION
        out.append(Range(MODELS[name], first, last))
    return tuple(out)


ERRATA: Final[dict[str, tuple[Range, ...]]] = {name: _ranges(text) for name, text in _ERRATA.items()}
"""Name, as the vendors number them, to the CPUs that have it."""
FIXED: Final[dict[str, tuple[tuple[int, int], ...]]] = {"ARM 843419": ((MODELS["Cortex-A53"] | 4, 1 << 8),)}
"""Erratum to (MIDR_EL1, bits of REVIDR_EL1 of which any says that it is fixed)."""
CONDITIONS: Final[dict[str, str]] = {
    "ARM 1463225": "the guest's kernel runs at EL2",
    "ARM 1542419": "CTR_EL0.DIC is 1",
    "ARM 4193714": "the guest has SME",
}
"""Erratum to what must hold beside the MIDR for a guest to work around it."""
SAFE: Final[dict[str, tuple[Range, ...]]] = {
    "Spectre v2": _ranges(
        "Cortex-A35 Cortex-A53 Cortex-A55 Brahma-B53 Hisi-TSV110 Qualcomm-KRYO-2XX-SILVER Qualcomm-KRYO-3XX-SILVER "
        "Qualcomm-KRYO-4XX-SILVER"
    ),
    "Spectre v4": _ranges(
        "Cortex-A35 Cortex-A53 Cortex-A55 Brahma-B53 Qualcomm-KRYO-3XX-SILVER Qualcomm-KRYO-4XX-SILVER"
    ),
    "Spectre BHB": _ranges(
        "Cortex-A35 Cortex-A53 Cortex-A55 Cortex-A510 Cortex-A520 Brahma-B53 Qualcomm-KRYO-2XX-SILVER "
        "Qualcomm-KRYO-3XX-SILVER Qualcomm-KRYO-4XX-SILVER"
    ),
}
"""What a CPU is taken to be safe from because of its MIDR.

Linux asks whether *any* CPU that it was told of is in such a list (``proton-pack.c``): one safe model in a pool makes
the guest take them all for safe.
"""


def cpu_name(midr: int) -> str:
    """A CPU for people: ``Neoverse-N1 r3p1``."""
    name = _NAMES.get(midr & 0xFFFF_FFFF & ~_REVISION)
    if name is None:
        name = f"implementer {midr >> IMPLEMENTER_SHIFT & 0xFF:#x} part {midr >> PART_SHIFT & 0xFFF:#x}"
    return f"{name} r{midr >> VARIANT_SHIFT & 0xF}p{midr & 0xF}"


def affects(erratum: str, midr: int, revidr: int = 0) -> bool:
    """Whether Linux works around the erratum on this CPU.  Raises KeyError."""
    if not any(found.holds(midr) for found in ERRATA[erratum]):
        return False
    return not any(midr & 0xFFFF_FFFF == fixed and revidr & bits for fixed, bits in FIXED.get(erratum, ()))
