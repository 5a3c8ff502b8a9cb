"""Errors of the service; those of bytes are ``cper.wire.WireError``.

RasError
 +-- InputError      a trace, a policy, a command line is wrong: what, where, what was expected
 +-- StateError      a caller used a component in a state that does not allow it
 +-- SnapshotError   a snapshot cannot be taken over
 +-- GuestError      guest memory or a guest is not what it must be
 |    +-- Poisoned   ... the memory is poisoned
 +-- HostError       the host lacks something
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_TEXT = 4000


class RasError(Exception):
    """Base of the service's errors; the text is one printable line, whatever it quotes."""

    def __init__(self, text: str = "") -> None:
        super().__init__(printable(text, MAX_TEXT))


class InputError(RasError):
    """Input from outside is wrong.  The text says what, where (file, line, key) and what was expected."""


class StateError(RasError):
    """A call that the component's state does not allow."""


class SnapshotError(RasError):
    """A snapshot that cannot be taken over."""


class GuestError(RasError):
    """Guest memory outside every region, or a guest structure that cannot be read."""


class Poisoned(GuestError):
    """A read or write of guest memory met poison.  ``gpa`` is the address of the access."""

    def __init__(self, gpa: int) -> None:
        super().__init__(f"guest memory at {gpa:#x} is poisoned")
        self.gpa = gpa


class HostError(RasError):
    """The host lacks a file, a right or a feature."""


def printable(text: str, most: int) -> str:
    """One line of at most so many characters and no controls: what it quotes comes from outside."""
    line = text.replace("\n", " ")
    short = line if len(line) <= most else line[:most] + "..."
    return (
        short
        if short.isprintable()
        else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)
    )


def path_text(steps: Iterable[object]) -> str:
    """The path of a value in JSON, for an error's line."""
    return printable(".".join(str(step)[:40] for step in steps), 200)
