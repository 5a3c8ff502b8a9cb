"""HEST presets: what known VMMs give their guests, and our own default."""

from __future__ import annotations

from dataclasses import dataclass, field

from acpi.hest import NotificationType
from acpi.image import Image, SourceDescription, TableWords, place

QEMU_WORDS = TableWords("BOCHS ", "BXPC    ", 1, "BXPC", 1)
DEFAULT_SDEI_EVENT = 0x324
"""804: a vendor event number; any that is not 0 will do (Linux refuses 0)."""
DEFAULT_GSIV = 0x35
"""Interrupt of the error device that the ``all`` preset names."""


@dataclass(frozen=True)
class Preset:
    """A set of sources, the words and the revision of the table that describes them."""

    doc: str
    sources: tuple[SourceDescription, ...]
    words: TableWords = field(default_factory=TableWords)
    revision: int = 2

    def place(self, tables: int, errors: int | None = None) -> Image:
        """The preset in guest memory; see :func:`acpi.image.place`."""
        return place(self.sources, tables, errors, self.words, self.revision)


def _qemu(source_id: int, notification: NotificationType) -> SourceDescription:
    return SourceDescription(source_id, notification, block_length=0x400, max_raw_data_length=0x400)


_SEA = SourceDescription(0, NotificationType.SEA, max_sections=26)
_SDEI = SourceDescription(1, NotificationType.SDEI, vector=DEFAULT_SDEI_EVENT, max_sections=26)
_POLLED = SourceDescription(2, NotificationType.POLLED, poll_interval_ms=1000, max_sections=26)

_ALL = (
    _SEA,
    _SDEI,
    _POLLED,
    SourceDescription(3, NotificationType.SEI, max_sections=26),
    SourceDescription(4, NotificationType.GSIV, vector=DEFAULT_GSIV, max_sections=26),
    SourceDescription(5, NotificationType.GPIO_SIGNAL, max_sections=26),
)

PRESETS: dict[str, Preset] = {
    "default": Preset(
        "SEA for what was consumed; SDEI, else polling, for what was found.  4 KiB blocks hold 26 memory entries.",
        (_SEA, _SDEI, _POLLED),
    ),
    "all": Preset(
        "One source for each delivery: SEA, SDEI, polled, SEI, GSIV, GPIO.",
        _ALL,
    ),
    "qemu-7.2": Preset("QEMU 7.2, arm virt with ras=on.", (_qemu(0, NotificationType.SEA),), QEMU_WORDS, 1),
    "qemu-10.0": Preset("QEMU 10.0, arm virt with ras=on.", (_qemu(0, NotificationType.SEA),), QEMU_WORDS, 1),
    "qemu-11.1": Preset(
        "QEMU 11.1, arm virt with ras=on.",
        (_qemu(0, NotificationType.SEA), _qemu(1, NotificationType.GPIO_SIGNAL)),
        QEMU_WORDS,
        1,
    ),
    "conformance": Preset(
        "As ``all``, and a second source for SEA and for polling.",
        (
            *_ALL,
            SourceDescription(6, NotificationType.SEA, max_sections=26),
            SourceDescription(7, NotificationType.POLLED, poll_interval_ms=1000, block_length=0x2000, max_sections=26),
        ),
    ),
}
