"""A count and what it counts."""

from __future__ import annotations

import pytest

from cper.words import counted


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((0, "finding"), "0 findings"),
        ((1, "finding"), "1 finding"),
        ((2, "finding"), "2 findings"),
        ((1, "entry", "entries"), "1 entry"),
        ((3, "page waits", "pages wait"), "3 pages wait"),
        ((12345, "event", "", ","), "12,345 events"),
        ((1, "event", "", ","), "1 event"),
    ],
)
def test_one_is_no_plural(given, text):
    assert counted(*given) == text
