"""What every CPER structure shares (UEFI 2.10, N.2.1 and N.2.2): severity, timestamp, section flags."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Self

from cper.wire import Bcd, Bits, OpenEnum, OpenFlags, Struct, Word


class Severity(OpenEnum):
    """Error Severity of a record, a section or a data entry (N.2.1)."""

    RECOVERABLE = 0
    FATAL = 1
    CORRECTED = 2
    INFORMATIONAL = 3


class SectionFlags(OpenFlags):
    """Flags of a section descriptor (N.2.2); an ACPI data entry holds the low eight."""

    PRIMARY = 1 << 0
    CONTAINMENT_WARNING = 1 << 1
    RESET = 1 << 2
    ERROR_THRESHOLD_EXCEEDED = 1 << 3
    RESOURCE_NOT_ACCESSIBLE = 1 << 4
    LATENT_ERROR = 1 << 5
    PROPAGATED = 1 << 6
    OVERFLOW = 1 << 7


class Timestamp(Struct, size=8):
    """When the error was recorded, in binary coded decimal (N.2.1, Timestamp)."""

    second: Bcd
    """0 to 59."""
    minute: Bcd
    """0 to 59."""
    hour: Bcd
    """0 to 23."""
    flags: ClassVar[Word] = Word("B")
    precise: Annotated[bool, Bits("flags", 0, 1)] = False
    """Whether this is the time of the error itself, not of its recording."""
    day: Bcd
    """1 to 31."""
    month: Bcd
    """1 to 12."""
    year: Bcd
    """Year within the century."""
    century: Bcd
    """Hundreds of the year: 20 for 2026."""

    def check(self) -> None:
        """A date and time of the calendar."""
        datetime(self.century * 100 + self.year, self.month, self.day, self.hour, self.minute, self.second)

    @classmethod
    def of(cls, seconds: float, *, precise: bool = False) -> Self:
        """The timestamp of ``seconds`` since the Unix epoch, in UTC.  Raises ValueError for a year past 9999."""
        try:
            t = datetime.fromtimestamp(seconds, UTC)
        except (OverflowError, OSError) as error:
            raise ValueError(f"{seconds!r} is no time of the calendar") from error
        return cls(
            second=t.second,
            minute=t.minute,
            hour=t.hour,
            precise=precise,
            day=t.day,
            month=t.month,
            year=t.year % 100,
            century=t.year // 100,
        )

    def __str__(self) -> str:
        date = f"{self.century:02}{self.year:02}-{self.month:02}-{self.day:02}"
        return f"{date} {self.hour:02}:{self.minute:02}:{self.second:02}"
