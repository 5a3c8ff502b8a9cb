"""What backs each section type: data, made from the fixtures by `python -m tests.cper_evidence`."""

from __future__ import annotations

SECTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "ProcessorGeneric": {
        "offsets": ("Linux", "UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "kernel": ("Linux 6.1", "Linux 6.12", "Linux 7.2"),
        "libcper": ("0.0.4",),
    },
    "Ia32X64Processor": {
        "offsets": ("Linux", "UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "libcper": ("0.0.4",),
    },
    "ArmProcessor": {
        "offsets": ("Linux", "UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "kernel": ("Linux 6.1", "Linux 6.12", "Linux 7.2"),
        "libcper": ("0.0.4",),
    },
    "PlatformMemory": {
        "offsets": ("Linux", "UEFI text", "edk2", "libcper"),
        "foreign": ("QEMU 7.2 arm virt", "generator of fixtures/linux"),
        "kernel": ("Linux 6.1", "Linux 6.12", "Linux 7.2"),
        "libcper": ("0.0.4",),
    },
    "PlatformMemory2": {
        "offsets": ("UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "libcper": ("0.0.4",),
    },
    "PciBus": {
        "offsets": ("UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "libcper": ("0.0.4",),
    },
    "PciComponent": {
        "offsets": ("UEFI text", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "libcper": ("0.0.4",),
    },
    "FirmwareErrorRecord": {
        "offsets": ("Linux", "UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "kernel": ("Linux 6.1", "Linux 6.12", "Linux 7.2"),
        "libcper": ("0.0.4",),
    },
    "Pcie": {
        "offsets": ("Linux", "UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "kernel": ("Linux 6.1", "Linux 6.12", "Linux 7.2"),
        "libcper": ("0.0.4",),
    },
    "DmarGeneric": {
        "offsets": ("UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "libcper": ("0.0.4",),
    },
    "DmarVtd": {
        "offsets": ("UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "libcper": ("0.0.4",),
    },
    "DmarIommu": {
        "offsets": ("UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "libcper": ("0.0.4",),
    },
    "FruMemoryPoison": {
        "offsets": ("Linux", "UEFI text"),
        "foreign": ("generator of fixtures/linux",),
    },
    "CcixPer": {
        "offsets": ("UEFI text", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "libcper": ("0.0.4",),
    },
    "CxlProtocol": {
        "offsets": ("Linux", "UEFI text", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "kernel": ("Linux 7.2",),
        "libcper": ("0.0.4",),
    },
    "CxlGeneralMedia": {
        "offsets": ("Linux", "UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "kernel": ("Linux 7.2",),
        "libcper": ("0.0.4",),
    },
    "CxlDram": {
        "offsets": ("Linux", "UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "kernel": ("Linux 7.2",),
        "libcper": ("0.0.4",),
    },
    "CxlMemoryModule": {
        "offsets": ("Linux", "UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "kernel": ("Linux 7.2",),
        "libcper": ("0.0.4",),
    },
    "CxlPhysicalSwitch": {
        "offsets": ("Linux", "UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "libcper": ("0.0.4",),
    },
    "CxlVirtualSwitch": {
        "offsets": ("Linux", "UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "libcper": ("0.0.4",),
    },
    "CxlMldPort": {
        "offsets": ("Linux", "UEFI text", "edk2", "libcper"),
        "foreign": ("generator of fixtures/linux",),
        "libcper": ("0.0.4",),
    },
    "ArmRas": {
        "offsets": ("libcper",),
        "libcper": ("7c410e29",),
    },
    "Nvidia": {
        "offsets": ("Linux", "libcper"),
        "libcper": ("7c410e29",),
    },
    "NvidiaEvent": {
        "offsets": ("libcper",),
        "libcper": ("7c410e29",),
    },
    "Ampere": {
        "offsets": ("rasdaemon",),
    },
    "AmpereBmc": {
        "offsets": ("libcper",),
        "libcper": ("7c410e29",),
    },
    "HisiliconOemType1": {
        "offsets": ("rasdaemon",),
    },
    "HisiliconOemType2": {
        "offsets": ("rasdaemon",),
    },
    "HisiliconPcieLocal": {
        "offsets": ("rasdaemon",),
    },
    "HisiliconCommon": {
        "offsets": ("rasdaemon",),
    },
    "Yitian": {
        "offsets": ("rasdaemon",),
    },
    "JaguarMicroPor": {
        "offsets": ("rasdaemon",),
    },
    "JaguarMicroSmmu": {
        "offsets": ("rasdaemon",),
    },
    "JaguarMicroHacSram": {
        "offsets": ("rasdaemon",),
    },
    "JaguarMicroCmn": {
        "offsets": ("rasdaemon",),
    },
    "JaguarMicroGic": {
        "offsets": ("rasdaemon",),
    },
}
"""Section type to its evidence, by kind; a kind that is not there: none."""
