"""ACPI Platform Error Interfaces (ACPI 6.5, chapter 18): the tables a guest's firmware owes it, read and built.

One file per table; ``ghes`` holds the Generic Error Status Block that carries CPER sections, ``image`` places tables,
registers and blocks in guest memory.
"""
