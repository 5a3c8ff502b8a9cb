"""What came before, as far as the rules of a policy ask for it: when errors came, and how often each page."""

from __future__ import annotations

from collections import deque

MAX_PAGES = 65_536
"""Pages whose reports are counted: of more, those that were reported longest ago are forgotten."""


class History:
    """Times of the last errors, and reports per page.  ``events``: how many times are kept."""

    def __init__(self, events: int) -> None:
        self.times: deque[float] = deque(maxlen=events)
        self.pages: dict[int, int] = {}

    def note(self, page: int, now: float) -> None:
        """An error came; ``page`` is -1 where the host does not know it."""
        self.times.append(now)
        if page < 0:
            return
        pages = self.pages
        seen = pages.pop(page, 0)
        if not seen and len(pages) >= MAX_PAGES:
            del pages[next(iter(pages))]
        pages[page] = seen + 1  # the dict's order is that of the last reports

    def seen(self, page: int) -> int:
        """How often the page was reported before the error that was noted last."""
        seen = self.pages.get(page, 0)
        return seen - 1 if seen else 0

    def span(self, events: int) -> float:
        """Seconds in which the last ``events`` errors came; infinity if there were fewer."""
        times = self.times
        return times[-1] - times[-events] if len(times) >= events else float("inf")
