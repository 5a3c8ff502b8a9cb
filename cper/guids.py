"""Names of the GUIDs that a record holds: section, notification and creator types (UEFI 2.10, N.2.1 and N.2.2).

Sections named here and not in ``cper.section`` have no layout that anybody published as a structure; they stay bytes.
"""

from __future__ import annotations

from uuid import UUID

from cper.section import MODULES

NOTIFICATION_TYPES: dict[str, UUID] = {
    "cmc": UUID("2dce8bb1-bdd7-450e-b9ad-9cf4ebd4f890"),
    "cpe": UUID("4e292f96-d843-4a55-a8c2-d481f27ebeee"),
    "mce": UUID("e8f56ffe-919c-4cc5-ba88-65abe14913bb"),
    "pcie": UUID("cf93c01f-1a16-4dfc-b8bc-9c4daf67c104"),
    "init": UUID("cc5263e8-9308-454a-89d0-340bd39bc98e"),
    "nmi": UUID("5bad89ff-b7e6-42c9-814a-cf2485d6e98a"),
    "boot": UUID("3d61a466-ab40-409a-a698-f362d464b38f"),
    "dmar": UUID("667dd791-c6b3-4c27-8a6b-0f8e722deb41"),
    "sea": UUID("9a78788a-bbe8-11e4-809e-67611e5d46b0"),
    "sei": UUID("5c284c81-b0ae-4e87-a322-b04c85624323"),
    "pei": UUID("09a9d5ac-5204-4214-96e5-94992e752bcd"),
    "cxl": UUID("69293bc9-41df-49a3-b4bd-4fb0db3041f6"),
}
"""Notification Type of a record (Table N.1)."""

BODIES: dict[str, UUID] = {
    "processor_ipf": UUID("e429faf1-3cb7-11d4-bca7-0080c73c8881"),
    "pstore_dmesg": UUID("c197e04e-d545-4a70-9c17-a5549419eb12"),
    "pstore_dmesg_compressed": UUID("4f118707-04dd-4055-b5dd-956d34ddfac6"),
    "linux_mce": UUID("fe08ffbe-95e4-4be7-bc73-4096044a38fc"),
}
"""Section types whose body is a log, or a structure of the kernel or the SAL that wrote it."""

CREATORS: dict[str, UUID] = {
    "linux_pstore": UUID("75a574e3-5052-4b29-8a8e-be2c6490b89d"),
    "linux_fru_memory_poison": UUID("cd5c2993-f4b2-41b2-b5d4-f9c3a0330875"),
}
"""Creators of records in an ERST."""

_NAMES = {guid: name for table in (NOTIFICATION_TYPES, BODIES, CREATORS) for name, guid in table.items()}


def name_of(guid: UUID) -> str | None:
    """What a GUID is called: the class of a section type, or what the tables here and in the record header say."""
    module = MODULES.get(guid)
    return module.partition(":")[2] if module else _NAMES.get(guid)


__all__ = ["BODIES", "CREATORS", "NOTIFICATION_TYPES", "name_of"]
