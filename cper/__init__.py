"""UEFI Common Platform Error Records (UEFI 2.10/2.11, Appendix N): read, written, nothing lost.

``cper.record`` frames whole records (``cper.places``: where their parts lie), ``cper.section`` finds the class of a
section body by its GUID and loads it when it is met; one file per section type declares its layout.  ``cper.wire`` is
the layout kernel below them all.
"""
