"""Which rule decides: what a rule may ask about an error, and the code made of it.

Each condition of ``policy.When`` is written once, as a Python expression over the fields of :class:`Lost` and
:class:`View`.  Deciding runs one function that is made of all rules; explaining evaluates condition by condition.
"""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vmm_ras.events import Code
from vmm_ras.profiles import PROFILES

if TYPE_CHECKING:
    from vmm_ras.policy import Policy, Rule, When


def never(events: int) -> float:
    """The span of a history that is not kept."""
    return float("inf")


class Lost(NamedTuple):
    """What was lost."""

    code: Code
    """AR: consumed; AO: found."""
    gpa: int
    """Guest physical address of the page; -1: the host does not know it."""
    lsb: int
    """log2 of the bytes that the host lost."""
    thread: Literal["vcpu", "other"] = "other"
    """Whose thread got the signal."""


class View(NamedTuple):
    """What else is known at that moment.  A vCPU's members are None for what nobody consumed."""

    guest: str
    """Name of the guest profile."""
    open: frozenset[str] = frozenset()
    """Ways that the guest accepts now."""
    seen: int = 0
    """How often this page was reported before."""
    lost: int = 0
    """Pages that the guest has lost so far."""
    span: Callable[[int], float] = never
    """Seconds in which the last n errors came, this one included; infinity if there were fewer."""
    vcpu: int | None = None
    el: int | None = None
    """Exception level at which the vCPU was stopped."""
    masked: bool | None = None
    """Whether its PSTATE.A masks SErrors."""
    serror: bool | None = None
    """Whether an SError is pending for it already."""


class Hook(NamedTuple):
    """A decision in Python: a pure function, asked before the rules."""

    decide: Callable[[Lost, View], object]
    """The name of the rule to apply, or None: the rules decide."""
    digest: str
    """SHA-256 of its source, in hex: by this it is known."""


def family(names: tuple[str, ...]) -> tuple[str, ...]:
    """The profiles that a rule means: ``linux`` stands for ``linux-6.1`` too."""
    return tuple(p for p in PROFILES if any(p == n or p.startswith(n + "-") for n in names))


CONDITIONS: dict[str, Callable[[Any], str]] = {
    "code": lambda v: f"code == {int(Code[v])}",
    "el": lambda v: f"el == {v:d}",
    "guest": lambda v: f"guest in {family(v)!r}",
    "lsb_min": lambda v: f"lsb >= {v:d}",
    "lsb_max": lambda v: f"lsb <= {v:d}",
    "gpa_from": lambda v: f"gpa >= {v:d}",
    "gpa_to": lambda v: f"0 <= gpa < {v:d}",
    "thread": lambda v: f"thread == {v!r}",
    "vcpu": lambda v: f"vcpu in {v!r}",
    "masked": lambda v: f"masked is {v!r}",
    "serror": lambda v: f"serror is {v!r}",
    "open": lambda v: " and ".join(f"{way!r} in open" for way in v),
    "closed": lambda v: " and ".join(f"{way!r} not in open" for way in v),
    "seen_min": lambda v: f"seen >= {v:d}",
    "seen_max": lambda v: f"seen <= {v:d}",
    "lost_min": lambda v: f"lost >= {v:d}",
    "rate": lambda v: f"span({v.events:d}) <= {v.seconds!r}",
}
"""Each key of ``when`` as an expression; the values are validated numbers, names and words."""
SHOWN = {"lsb_min": "lsb", "lsb_max": "lsb", "gpa_from": "gpa", "gpa_to": "gpa", "closed": "open", "seen_min": "seen"}
SHOWN |= {"seen_max": "seen", "lost_min": "lost"}
_PLAIN = frozenset({"code", "el", "guest", "lsb_min", "lsb_max"})
_NAMES = (*Lost._fields, *View._fields)


def keys(when: When) -> list[str]:
    """The conditions that a rule sets."""
    return [key for key in CONDITIONS if getattr(when, key) is not None]


def expression(when: When) -> str:
    """All conditions of a rule as one expression, but for that about the code."""
    return " and ".join(CONDITIONS[key](getattr(when, key)) for key in keys(when) if key != "code") or "True"


class Decider:
    """A policy made ready to decide.  ``inputs``: every condition that one of its rules sets."""

    def __init__(self, policy: Policy, hook: Hook | None = None) -> None:
        self.rules, self.hook = policy.rule, hook
        self.inputs = frozenset(key for rule in self.rules for key in keys(rule.when))
        self.plain = hook is None and self.inputs <= _PLAIN
        """Whether code, exception level and size decide alone, for one guest."""
        self._index = {rule.name: index for index, rule in enumerate(self.rules)}
        lines = [
            f"def decide(lost_, view):\n    {', '.join(Lost._fields)} = lost_\n    {', '.join(View._fields)} = view"
        ]
        for code in Code.__members__:
            lines.append(f"    if {CONDITIONS['code'](code)}:")
            lines += [
                f"        if {expression(rule.when)}: return {index}"
                for index, rule in enumerate(self.rules)
                if rule.when.code in {None, code}
            ]
        self.source = "\n".join(lines) + "\n"
        names: dict[str, Any] = {}
        exec(compile(self.source, "<policy>", "exec"), names)
        self._decide: Callable[[Lost, View], int] = names["decide"]

    def decide(self, lost: Lost, view: View) -> int:
        """The index of the rule that decides."""
        return self._decide(lost, view)

    def asked(self, lost: Lost, view: View) -> tuple[int | None, str]:
        """What the hook says: a rule's index or None, and what is wrong with its answer.  It cannot raise."""
        if self.hook is None:
            return None, ""
        try:
            name = self.hook.decide(lost, view)
        except Exception as error:
            return None, f"the hook raised {type(error).__name__}: {error}".splitlines()[0]
        if name is None:
            return None, ""
        index = self._index.get(name) if isinstance(name, str) else None
        if index is None:
            return None, f"the hook named {reprlib.repr(name)}, which is no rule"
        rule = self.rules[index]
        if lost.code == Code.AO and rule.action == "bare":
            return None, f"the hook named {name!r}, which tells consumed errors only"
        if rule.action == "consumed" and (lost.code == Code.AR or lost.thread != "vcpu"):
            return None, f"the hook named {name!r}, which is for what a vCPU's thread found"
        return index, ""

    def explain(self, lost: Lost, view: View) -> list[tuple[str, str]]:
        """For each rule up to the one that decides: its name, and the condition that does not hold, or ``""``."""
        values = dict(zip(_NAMES, (*lost, *view), strict=True))
        out = []
        for rule in self.rules:
            reason = _failing(rule, values)
            out.append((rule.name, reason))
            if not reason:
                break
        return out


def _failing(rule: Rule, values: dict[str, Any]) -> str:
    for key in keys(rule.when):
        wanted = getattr(rule.when, key)
        if not eval(CONDITIONS[key](wanted), dict(values)):
            return f"{key} = {_word(key, wanted)}, but {_found(key, wanted, values)}"
    return ""


def _word(key: str, value: Any) -> str:
    if key == "rate":
        return f"{value.events} in {value.seconds:g} s"
    if key in {"gpa_from", "gpa_to"}:
        return f"{value:#x}"
    if isinstance(value, tuple):
        return ", ".join(str(v) for v in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _found(key: str, wanted: Any, values: dict[str, Any]) -> str:
    if key == "rate":
        span = values["span"](wanted.events)
        return "there were fewer" if span == float("inf") else f"the last {wanted.events} took {span:g} s"
    name = SHOWN.get(key, key)
    value = values[name]
    if name == "code":
        return f"code is {Code(value).name}"
    if name == "gpa":
        return "the address is not known" if value < 0 else f"gpa is {value:#x}"
    if name == "open":
        return f"open: {', '.join(sorted(value)) or 'none'}"
    if value is None:
        return "no vCPU consumed it"
    return f"{name} is {str(value).lower() if isinstance(value, bool) else value}"


def digest(policy: Policy, hook: Hook | None = None) -> str:
    """By what a policy is known: SHA-256, in hex, of all that it says, and of its hook."""
    said = policy.model_dump_json().encode() + (b"" if hook is None else hook.digest.encode())
    return hashlib.sha256(said).hexdigest()
