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


class RasError(Exception):
    """Base of the service's errors; the text is one line."""


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


def path_text(steps: Iterable[object]) -> str:
    """The path of a value in JSON for an error's line; its keys come from outside, be they long or full of controls."""
    text = ".".join(str(step)[:40] for step in steps)[:200]
    return text if text.isprintable() else text.encode("unicode_escape").decode()
