"""What backs each section type: data, not prose."""

SECTIONS: dict[str, dict[str, tuple[str, ...]]] = {}
