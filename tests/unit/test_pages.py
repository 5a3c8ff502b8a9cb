"""The set of pages beside a set of Python's."""

from hypothesis import given
from hypothesis import strategies as st

from vmm_ras.guests.pages import PageSet

PIECE = 1 << 18
PAGES = st.integers(0, 40) | st.integers(PIECE - 40, PIECE + 40) | st.integers(5 * PIECE - 1, 5 * PIECE + 20)
COUNTS = st.integers(0, 40) | st.sampled_from([PIECE - 1, PIECE, PIECE + 9, 2 * PIECE])


def runs(pages: set[int]) -> list[tuple[int, int]]:
    """First page and count of what hangs together."""
    firsts = sorted(page for page in pages if page - 1 not in pages)
    ends = sorted(page + 1 for page in pages if page + 1 not in pages)
    return [(first, end - first) for first, end in zip(firsts, ends, strict=True)]


@given(st.lists(PAGES, max_size=15))
def test_pages_one_by_one(pages: list[int]) -> None:
    found, known = PageSet(), set[int]()
    for page in pages:
        assert found.add(page) is (page not in known)
        known.add(page)
        assert found.count == len(known)
    assert list(found.runs()) == runs(known)
    assert {len(piece) for piece in found._pieces.values()} <= {1 << 15}
    near = {page + by for page in known for by in (-1, 1, PIECE) if page + by >= 0}
    assert all((page in found) == (page in known) for page in near | {7 * PIECE})


@given(st.lists(st.tuples(PAGES, st.integers(0, 40)), max_size=6))
def test_ranges_of_pages(ranges: list[tuple[int, int]]) -> None:
    found, known = PageSet(), set[int]()
    for first, count in ranges:
        pages = range(first, first + count)
        if known.isdisjoint(pages):
            found.add_range(first, count)
            known.update(pages)
            assert found.count == len(known)
    assert list(found.runs()) == runs(known)


@given(PAGES, COUNTS)
def test_a_range_is_one_run_however_long(first: int, count: int) -> None:
    found = PageSet()
    found.add_range(first, count)
    assert list(found.runs()) == ([(first, count)] if count else [])
    assert found.count == count
    assert first + count not in found
    assert (first + count - 1 in found) == (count > 0)
    assert {len(piece) for piece in found._pieces.values()} <= {1 << 15}


def test_an_empty_set_has_no_runs() -> None:
    assert list(PageSet().runs()) == []
    assert 0 not in PageSet()
