"""A scenario file is played on a stage: the model here, a real guest elsewhere; what was expected and was not so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from vmm_ras.errors import InputError
from vmm_ras.traces import script
from vmm_ras.traces.script import Expect, NamedPage, Script


class SourceSeen(NamedTuple):
    """How an error source stands."""

    bound: bool
    """The guest has a driver for it."""
    acked: bool
    cleared: bool
    """The block status is 0."""


class PageSeen(NamedTuple):
    """How a page and its owner stand."""

    offlined: bool
    reported: bool
    """The guest reported a memory failure there, whatever came of it."""
    signal: str
    """The code of the owner's SIGBUS; ``killed``, or ``none``."""
    told: str
    """Way by which the core told the page the last time; ``nothing``."""


class Seen(NamedTuple):
    """What two guests that were told the same must have in common."""

    sources: dict[str, SourceSeen]
    pages: dict[str, PageSeen]
    alive: bool

    def plain(self) -> dict[str, Any]:
        """What JSON holds of it."""
        return {
            "sources": {name: seen._asdict() for name, seen in self.sources.items()},
            "pages": {name: seen._asdict() for name, seen in self.pages.items()},
            "alive": self.alive,
        }

    @classmethod
    def of_plain(cls, plain: dict[str, Any]) -> Seen:
        """What :meth:`plain` described."""
        sources = {name: SourceSeen(**seen) for name, seen in plain["sources"].items()}
        return cls(sources, {name: PageSeen(**seen) for name, seen in plain["pages"].items()}, plain["alive"])

    def differences(self, other: Seen) -> list[str]:
        """Where another guest stands otherwise: ``what: ours, not theirs``."""
        out = []
        for kind, ours, theirs in (("source", self.sources, other.sources), ("page", self.pages, other.pages)):
            for name in [*ours, *(n for n in theirs if n not in ours)]:
                one, two = ours.get(name), theirs.get(name)
                if one is None or two is None:
                    out.append(f"{kind} {name}: {'not seen' if one is None else 'seen'} here only")
                    continue
                out += [
                    f"{kind} {name}: {field} is {getattr(one, field)}, not {getattr(two, field)}"
                    for field in one._fields
                    if getattr(one, field) != getattr(two, field)
                ]
        if self.alive != other.alive:
            out.append(f"the guest is {'alive' if self.alive else 'dead'}, the other is not so")
        return out


class Stage(Protocol):
    """Where a scenario is played.  What cannot be done there raises InputError."""

    guest: str
    """Guest profile that stands for it."""

    def open(self, scenario: Script) -> None:
        """Get ready; nothing of an earlier scenario is left."""

    def do(self, item: Any) -> None:
        """Something happens."""

    def wait(self, seconds: float) -> None:
        """Time passes."""

    def settle(self, seconds: float) -> None:
        """Time passes until nothing waits, at most so long."""

    def source(self, name: str) -> SourceSeen:
        """How a source stands."""

    def page(self, name: str, wanted: Mapping[str, Any] | None = None) -> PageSeen:
        """How a page stands; ``wanted``: what is expected of it now, by the names of PageSeen: it may take a while."""

    def alive(self) -> bool:
        """Whether the guest has not panicked."""

    def timeline(self) -> str:
        """What happened, in words."""


class Result(NamedTuple):
    """What became of a scenario."""

    scenario: Script
    guest: str
    failed: tuple[str, ...]
    """``LINE: what was expected, and how it was``."""
    seen: Seen
    """At the end."""
    timeline: str

    def plain(self) -> dict[str, Any]:
        """What JSON holds of it."""
        return {
            "scenario": self.scenario.name, "about": self.scenario.head.about, "guest": self.guest,
            "passed": not self.failed, "failed": list(self.failed), "seen": self.seen.plain(),
        }  # fmt: skip


def play(scenario: Script, stage: Stage) -> Result:
    """Play the whole of it.  Raises InputError for a line that the stage cannot carry out ("FILE:LINE: ...")."""
    failed: list[str] = []
    line = 1
    try:
        stage.open(scenario)
        for line, item in scenario.steps:
            if isinstance(item, Expect):
                failed += [f"{line}: {text}" for text in missed(item, stage)]
            elif isinstance(item, script.Wait):
                stage.wait(item.seconds)
            elif isinstance(item, script.Settle):
                stage.settle(item.seconds)
            elif not isinstance(item, NamedPage):
                stage.do(item)
    except InputError as error:
        raise InputError(f"{scenario.name}:{line}: {error}") from None
    return Result(scenario, stage.guest, tuple(failed), see(scenario, stage), stage.timeline())


def see(scenario: Script, stage: Stage) -> Seen:
    """How everything that the scenario names stands."""
    sources = {name: stage.source(name) for name in script.names(scenario.steps)}
    return Seen(sources, {page.name: stage.page(page.name) for page in scenario.pages}, stage.alive())


def missed(expect: Expect, stage: Stage) -> Iterable[str]:
    """What of an expectation is not so."""
    if expect.guests and stage.guest not in expect.guests:
        return
    seen: Any
    if expect.source is not None:
        seen = stage.source(expect.source)
    elif expect.page is not None:
        seen = stage.page(expect.page, dict(expect.checks))
    else:
        seen = None
    for key, wanted in expect.checks:
        have = stage.alive() if seen is None else getattr(seen, key)
        if have != wanted:
            yield f"{expect.subject}: {key} is {_word(have)}, expected {_word(wanted)}"


def _word(value: Any) -> str:
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
