"""What a run leaves behind: versions, what was asserted and the line that shows it, times.  Markdown."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vmm_ras.lab.errors import Failure
from vmm_ras.lab.kernel_log import plain


@dataclass
class Report:
    """Grows while a run goes on; it is written only when the run passed."""

    title: str
    facts: dict[str, str] = field(default_factory=dict)
    """Versions and sizes."""
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    """(section, assertion, the line or value that shows it)."""
    times: list[tuple[str, float]] = field(default_factory=list)
    """(step, seconds)."""
    section: str = ""

    def check(self, holds: bool, what: str, shown: str = "", detail: str = "") -> None:
        """Assert ``what``; ``shown`` is what shows it.  Raises Failure."""
        if not holds:
            raise Failure(f"{self.section}: not so: {what}" + (f" ({shown})" if shown else ""), detail)
        self.rows.append((self.section, what, shown))

    def equal(self, found: object, expected: object, what: str, shown: str = "") -> None:
        """Assert that two values are the same.  Raises Failure with both."""
        if found != expected:
            raise Failure(f"{self.section}: not so: {what}: {_short(found)}, expected {_short(expected)}")
        self.rows.append((self.section, what, shown or _short(found)))

    def line(self, text: str, pattern: str, what: str) -> re.Match[str]:
        """Assert that a line of ``text`` holds ``pattern``, and show the line.  Raises Failure."""
        found = re.search(pattern, text)
        if found is None:
            raise Failure(f"{self.section}: not so: {what}: no line with {pattern!r}", text[-3000:])
        start, end = text.rfind("\n", 0, found.start()) + 1, text.find("\n", found.end())
        self.rows.append((self.section, what, plain(text[start : end if end >= 0 else None])))
        return found

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Assertions of one step, and how long it takes."""
        self.section, start = name, time.monotonic()
        yield
        self.times.append((name, time.monotonic() - start))

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(seconds for _, seconds in self.times)

    def text(self) -> str:
        """The report."""
        lines = [f"# {self.title}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {_cell(value)} |" for name, value in self.facts.items()]
        for name, seconds in self.times:
            lines += ["", f"## {name} ({seconds:.1f} s)", "", "| Asserted | Shown by |", "|---|---|"]
            lines += [f"| {_cell(what)} | {_code(shown)} |" for section, what, shown in self.rows if section == name]
        return "\n".join([*lines, "", f"{len(self.rows)} assertions held, {self.seconds:.1f} s.", ""])

    def write(self, path: Path) -> None:
        """Put the report into a file.  Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.text())


def _short(value: object) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= 160 else f"{text[:150]}... ({len(text)} characters)"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    text = _cell(text)
    return f"`{text}`" if text else ""
