"""The ACPI tables of a whole guest, from one description: RSDP, XSDT, FADT, MADT, GTDT, SPCR, DSDT, HEST, BERT, SDEI.

The same bytes come out in three forms: files of fw_cfg with the linker/loader script that edk2 runs, an image at given
guest physical addresses, and single tables for an operating system that takes them from its initrd.  There is one way
of linking them: the image is what ``acpi.linking`` makes of the script.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import ValidationError

from acpi.blob import Blob, Table
from acpi.description import FirmwareDescription, Revisions
from acpi.hest import Hest
from acpi.image import Image, place_sources
from acpi.linking import (
    BOOT_ERRORS_FILE,
    ERRORS_FILE,
    RSDP_FILE,
    SCRIPT_FILE,
    TABLES_FILE,
    Placed,
    align_up,
    execute,
)
from acpi.loader import LoaderScript
from acpi.machine import FirmwareError, Range, check_free
from acpi.table import Rsdp

GUEST_PAGE = 1 << 16
"""Bytes of the largest guest page: memory of different kinds shares none."""


class Reserved(NamedTuple):
    """Memory that the guest's memory map must not hand out as RAM."""

    name: str
    range: Range
    kind: Literal["ACPI reclaim", "ACPI NVS"]
    """UEFI memory type: reclaim holds tables, NVS what firmware writes while the guest runs."""


@dataclass(frozen=True)
class Firmware:
    """Built, not yet placed."""

    description: FirmwareDescription
    tables: tuple[Table, ...]
    """In the order of the blob."""
    files: Mapping[str, bytes] = field(repr=False)
    """fw_cfg files by name, the script among them; writable ones are zero."""

    @property
    def script(self) -> LoaderScript:
        """The linker/loader script."""
        return LoaderScript.parse(self.files[SCRIPT_FILE])

    def table(self, signature: str) -> bytes:
        """The first table of a signature before linking: pointers are offsets, checksums 0.  Raises KeyError."""
        for t in self.tables:
            if t.signature == signature:
                return self.files[TABLES_FILE][t.offset : t.offset + t.size]
        raise KeyError(signature)

    def link(self, at: Mapping[str, int]) -> Placed:
        """The files at these addresses, as firmware would leave them.  No rule about memory is checked."""
        return execute(self.script, self.files, at=at)

    def place(self) -> dict[str, int]:
        """Where the files go unless somebody says otherwise: the top of the lowest RAM, in pages of 64 KiB."""
        memory = min(self.description.machine.memory)
        top = memory.end & -GUEST_PAGE
        errors = top - align_up(len(self.files[ERRORS_FILE]), GUEST_PAGE)
        boot = errors - align_up(len(self.files.get(BOOT_ERRORS_FILE, b"")), GUEST_PAGE)
        size = align_up(Rsdp.SIZE, 64) + len(self.files[TABLES_FILE])
        return self._at(boot - align_up(size, GUEST_PAGE), errors, boot)

    def image(self, tables: int | None = None, errors: int | None = None, boot_errors: int | None = None) -> Image:
        """RSDP and tables at ``tables``, the error region at ``errors``, the boot error region at ``boot_errors``.

        What is left out goes to the top of the lowest RAM.  Raises FirmwareError for what overlaps, is not aligned, or
        lies outside RAM or inside a reserved range.
        """
        default = self.place()
        at = self._at(
            default[RSDP_FILE] if tables is None else tables,
            default[ERRORS_FILE] if errors is None else errors,
            default.get(BOOT_ERRORS_FILE, 0) if boot_errors is None else boot_errors,
        )
        self.check(at)
        return self.image_of(self.link(at))

    def image_of(self, placed: Placed) -> Image:
        """The image that a run of the script left behind."""
        base, blob = placed.files[TABLES_FILE]
        errors, error_bytes = placed.files[ERRORS_FILE]
        regions = [("rsdp", placed.rsdp, placed.files[RSDP_FILE][1])]
        regions += [(t.signature.lower(), base + t.offset, blob[t.offset : t.offset + t.size]) for t in self.tables]
        regions.append(("hardware_errors", errors, error_bytes))
        if BOOT_ERRORS_FILE in placed.files:
            regions.append(("boot_errors", *placed.files[BOOT_ERRORS_FILE]))
        hest = next(data for name, _, data in regions if name == "hest")
        return Image(
            tuple(regions), placed.rsdp, place_sources(self.description.sources, errors), Hest.parse(hest)
        )  # fmt: skip

    def check(self, at: Mapping[str, int]) -> None:
        """The rules of placing.  Raises FirmwareError."""
        machine, taken = self.description.machine, list(self.description.machine.devices())
        taken += [("reserved memory", r) for r in machine.reserved]
        aligned = {RSDP_FILE: 16, ERRORS_FILE: 8, TABLES_FILE: 8, BOOT_ERRORS_FILE: 8}
        for name, gpa in at.items():
            r = Range(gpa, len(self.files[name]))
            if gpa % aligned[name]:
                raise FirmwareError(name, str(r), f"is not aligned to {aligned[name]} bytes")
            check_free(name, r, taken)
            if not any(r.within(memory) for memory in machine.memory):
                where = ", ".join(map(str, machine.memory))
                raise FirmwareError(name, str(r), f"is not in RAM ({where})")
            taken.append((name, r))
        kinds = self.reserved(at)
        for index, one in enumerate(kinds):
            for other in kinds[:index]:
                if one.kind != other.kind and one.range.overlaps(other.range):
                    raise FirmwareError(
                        one.name, str(one.range), f"shares a page of {GUEST_PAGE} bytes with {other.name}: {other.kind}"
                    )

    def reserved(self, at: Mapping[str, int]) -> tuple[Reserved, ...]:
        """What the guest's memory map must say, in pages of 64 KiB, for files at these addresses."""
        found = []
        for name, gpa in at.items():
            low = gpa & -GUEST_PAGE
            high = align_up(gpa + len(self.files[name]), GUEST_PAGE)
            nvs = name in {ERRORS_FILE, BOOT_ERRORS_FILE}
            found.append(Reserved(name, Range(low, high - low), "ACPI NVS" if nvs else "ACPI reclaim"))
        return tuple(found)

    def aml(self, image: Image) -> dict[str, bytes]:
        """One file per table for ``kernel/firmware/acpi`` of an initrd; their addresses are those of ``image``.

        RSDP and XSDT are the firmware's own.  Linux (6.1, 6.12) takes no GTDT, RAS2, RASF and SDEI this way, and
        replaces a table that the firmware has only where the OEM revision is higher.
        """
        found: dict[str, bytes] = {}
        for name, _, data in image.regions:
            if name in {"rsdp", "xsdt", "hardware_errors", "boot_errors"}:
                continue
            number = sum(n.startswith(name) for n in found)
            found[f"{name}{number + 1 if number else ''}.aml"] = data
        return found

    def _at(self, tables: int, errors: int, boot_errors: int) -> dict[str, int]:
        at = {RSDP_FILE: tables, TABLES_FILE: align_up(tables + Rsdp.SIZE, 64), ERRORS_FILE: errors}
        return at | ({BOOT_ERRORS_FILE: boot_errors} if BOOT_ERRORS_FILE in self.files else {})


def build(description: FirmwareDescription) -> Firmware:
    """All tables, and the script that links them.  Raises FirmwareError saying what of the description is wrong."""
    blob = Blob(description)
    try:
        blob.run()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise FirmwareError(error.title, place, first["msg"].removeprefix("Value error, ")) from None
    return Firmware(description, tuple(blob.tables), blob.files)


__all__ = ["Firmware", "FirmwareDescription", "FirmwareError", "Reserved", "Revisions", "Table", "build"]
