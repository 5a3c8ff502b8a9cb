"""A count and what it counts, for people."""

from __future__ import annotations


def counted(count: int, one: str, many: str = "", form: str = "") -> str:
    """``1 page``, ``2 pages``: the count by the format ``form``, and its noun; ``many`` where it is not ``one`` + s."""
    return f"{count:{form}} {one if count == 1 else many or one + 's'}"


__all__ = ["counted"]
