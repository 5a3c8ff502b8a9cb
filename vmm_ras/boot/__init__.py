"""What a guest finds when it starts without UEFI firmware: device tree, EFI tables, kernel, initrd, ACPI; pure bytes.

An arm64 Linux takes ACPI tables only from an EFI system table, and that only from a device tree in which nothing but
``/chosen`` stands.  So the three are made here as an EFI stub would have left them (Linux
``Documentation/arch/arm/uefi.rst``), and the kernel starts at its own entry point.
"""
