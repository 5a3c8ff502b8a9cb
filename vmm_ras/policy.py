"""Firmware-first policy: ordered rules, as data, that say how each error is told.

A policy is TOML.  The first rule whose ``when`` holds decides.  ``default_policy`` holds the one that
applies where none is given; each of its rules says why it is there.
"""

from __future__ import annotations

import re
import tomllib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vmm_ras.default_policy import TEXT
from vmm_ras.errors import InputError
from vmm_ras.events import Code
from vmm_ras.memory import MAX_QUEUES
from vmm_ras.profiles import PROFILES

Way = Literal["sea", "sei", "sdei", "gsiv", "gpio", "polled"]
U64 = Annotated[int, Field(ge=0, lt=1 << 64, strict=True)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class When(_Table):
    """What an error must be for the rule to decide; a key that is left out holds always."""

    code: Literal["AR", "AO"] | None = None
    """AR: consumed; AO: found."""
    el: Literal[0, 1] | None = None
    """Exception level that the vCPU was stopped at; only an AR has one."""
    guest: tuple[str, ...] | None = None
    """Names of guest profiles."""
    lsb_min: Annotated[int, Field(ge=0, le=63, strict=True)] | None = None
    """Smallest log2 of the bytes lost in the host."""
    lsb_max: Annotated[int, Field(ge=0, le=63, strict=True)] | None = None
    gpa_from: U64 | None = None
    """First guest physical address."""
    gpa_to: U64 | None = None
    """Guest physical address behind the last."""

    @model_validator(mode="after")
    def _sensible(self) -> When:
        for name in self.guest or ():
            if name not in PROFILES:
                raise ValueError(f"guest {name!r} is none of {', '.join(PROFILES)}")
        if self.el is not None and self.code == "AO":
            raise ValueError("el: an AO has no exception level")
        if self.lsb_min is not None and self.lsb_max is not None and self.lsb_min > self.lsb_max:
            raise ValueError("lsb_min is above lsb_max")
        if self.gpa_from is not None and self.gpa_to is not None and self.gpa_from >= self.gpa_to:
            raise ValueError("gpa_from is not below gpa_to")
        return self

    def holds(self, code: Code, el: int | None, gpa: int, lsb: int, guest: str) -> bool:
        """Whether the rule decides this error."""
        return (
            (self.code is None or self.code == code.name)
            and (self.el is None or self.el == el)
            and (self.guest is None or guest in self.guest)
            and (self.lsb_min is None or lsb >= self.lsb_min)
            and (self.lsb_max is None or lsb <= self.lsb_max)
            and (self.gpa_from is None or gpa >= self.gpa_from)
            and (self.gpa_to is None or gpa < self.gpa_to)
        )

    def covers(self, other: When) -> bool:
        """Whether this holds wherever ``other`` holds."""
        return (
            self.code in {None, other.code}
            and self.el in {None, other.el}
            and (self.guest is None or (other.guest is not None and set(other.guest) <= set(self.guest)))
            and (self.lsb_min or 0) <= (other.lsb_min or 0)
            and (63 if self.lsb_max is None else self.lsb_max) >= (63 if other.lsb_max is None else other.lsb_max)
            and (self.gpa_from or 0) <= (other.gpa_from or 0)
            and (self.gpa_to or 1 << 64) >= (other.gpa_to or 1 << 64)
        )


class Syndrome(_Table):
    """What the injected SEA says, beyond what its rules fix (EC by exception level, FnV by whether FAR is known)."""

    dfsc: Annotated[int, Field(ge=0, le=0x3F, strict=True)] = 0x10
    """Data Fault Status Code; 0x10: synchronous external abort, not on a table walk."""
    ea: Literal[0, 1] = 0
    """External abort type."""
    set: Literal["uer", "uc", "ueo"] = "uer"
    """Synchronous Error Type: recoverable, uncontainable or restartable."""
    relay: bool = False
    """Pass on the ESR that KVM_EXIT_ARM_SEA relayed, where there is one, with the EC rewritten."""
    force: bool = False
    """Allow a parity code on a guest with FEAT_RAS."""


class Unacked(_Table):
    """What to do about a block that the guest does not acknowledge.  Nothing is overwritten meanwhile."""

    after_ms: Annotated[int, Field(ge=1, le=3_600_000, strict=True)] = 1000
    """Milliseconds without an acknowledgement before each step."""
    tries: Annotated[int, Field(ge=0, le=100, strict=True)] = 2
    """How often, in such steps, the notification is repeated where the block is still unread."""
    then: Literal["report", "stop", "reset", "migrate"] = "report"
    """Last step: escalate to the orchestrator.  The pages stay posted, and are told once the guest acknowledges."""


class Rule(_Table):
    """One rule."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
    doc: str = ""
    """Why the rule is there."""
    when: When = When()
    action: Literal["tell", "bare", "ignore", "stop", "reset", "migrate"] = "tell"
    """``tell``: write a record and deliver it.  ``bare``: SEA without a record; the page is told as an AO would be.
    ``ignore``: tell nothing.  The others ask the orchestrator."""
    deliver: tuple[Way, ...] = ()
    """Ways, best first; the first that the guest accepts is taken."""
    severity: Literal["recoverable", "fatal", "corrected"] = "recoverable"
    """Error severity of the record."""
    error_type: Annotated[int, Field(ge=0, le=255, strict=True)] | None = None
    """Memory Error Type (Table N.31); the host does not know it, so it is left out unless given."""
    sea: Syndrome = Syndrome()
    aet: Literal["uc", "ueu", "ueo", "uer", "ce"] = "ueo"
    """Asynchronous Error Type of an SEI; Linux panics on all but ueo and ce."""
    hold_ms: Annotated[int, Field(ge=0, le=3_600_000, strict=True)] = 2000
    """Milliseconds that a vCPU which consumed poison waits for a busy source; then it gets an SEA without a record."""
    unacked: Unacked = Unacked()

    @model_validator(mode="after")
    def _whole(self) -> Rule:
        if self.action == "tell" and not self.deliver:
            raise ValueError("deliver: a rule that tells names at least one way")
        if self.action != "tell" and self.deliver:
            raise ValueError(f"deliver: a rule with action {self.action!r} delivers no record")
        if self.action == "bare" and self.when.code != "AR":
            raise ValueError("action 'bare' is for consumed errors: when.code = \"AR\"")
        if len(set(self.deliver)) != len(self.deliver):
            raise ValueError("deliver: a way is named twice")
        return self


class Policy(_Table):
    """The whole policy: see ``default_policy.TEXT``."""

    version: Literal[1]
    rule: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=MAX_QUEUES - 1)]
    """Rules in order; the first that holds decides."""

    @model_validator(mode="after")
    def _decides_everything(self) -> Policy:
        names = [r.name for r in self.rule]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(f"rule {index + 1} {name!r}: name: rule {names.index(name) + 1} has it already")
        for code in ("AR", "AO"):
            if not any(r.when.covers(When(code=code)) for r in self.rule):
                raise ValueError(f"no rule decides every {code}: end with one whose when is empty or only that code")
        for r in self.rule:
            if r.when.covers(When(code="AO")) and r.action == "bare":
                raise ValueError(f"rule {r.name!r}: action 'bare' would be told as itself")
        return self

    def decide(self, code: Code, el: int | None, gpa: int, lsb: int, guest: str) -> int:
        """The index of the rule that decides."""
        for index, rule in enumerate(self.rule):
            if rule.when.holds(code, el, gpa, lsb, guest):
                return index
        raise AssertionError("a policy decides everything")  # see _decides_everything

    def findings(self) -> list[str]:
        """Rules that can never decide, each with the rule that covers it."""
        out = []
        for index, rule in enumerate(self.rule):
            covering: dict[str, None] = {}
            for code in (rule.when.code,) if rule.when.code else ("AR", "AO"):
                if rule.when.el is not None and code == "AO":
                    continue
                one = rule.when.model_copy(update={"code": code})
                found = next((n for n, r in enumerate(self.rule[:index]) if r.when.covers(one)), None)
                if found is None:
                    break
                covering[f"rule {found + 1} {self.rule[found].name!r}"] = None
            else:
                holds = "holds" if len(covering) == 1 else "hold"
                out.append(f"rule {index + 1} {rule.name!r} is never reached: {' and '.join(covering)} {holds} first")
        return out


def load_policy(text: str, where: str = "policy") -> Policy:
    """A policy from TOML text.  Raises InputError: syntax errors with their line, others with rule, ordinal and key."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", str(error))
        line = found.group(2) if found and found.group(2) else str(text.count("\n") + 1)
        raise InputError(f"{where}:{line}: {found.group(1) if found else error}") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply") from None
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        raise InputError(_one_line(error, data, where)) from None


def default_policy() -> Policy:
    """The policy that applies where none is given."""
    return load_policy(TEXT, "default policy")


def _one_line(error: ValidationError, data: dict[str, Any], where: str) -> str:
    first, count = error.errors(include_url=False)[0], error.error_count()
    loc = [str(step) for step in first["loc"]]
    place = ""
    if len(loc) >= 2 and loc[0] == "rule" and loc[1].isdigit():
        rules = data.get("rule")
        rule = rules[int(loc[1])] if isinstance(rules, list) else {}
        name = rule.get("name") if isinstance(rule, dict) else None
        place, loc = f"rule {int(loc[1]) + 1}" + (f" {name!r}" if isinstance(name, str) else ""), loc[2:]
    key = ".".join(loc)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key"
    elif first["type"] == "missing":
        message = "is missing"
    parts = [p for p in (place, key) if p]
    more = f" (and {count - 1} more)" if count > 1 else ""
    return f"{where}: {': '.join([*parts, message])}{more}"
