"""Firmware-first policy: ordered rules, as data, that say how each error is told.

A policy is TOML.  The first rule whose ``when`` holds decides.  ``default_policy`` holds the one that
applies where none is given; each of its rules says why it is there.
"""

from __future__ import annotations

import re
import tomllib
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from cper.wire import Documented
from vmm_ras import policy_check
from vmm_ras.deciding import family
from vmm_ras.default_policy import TEXT
from vmm_ras.errors import InputError
from vmm_ras.memory import MAX_RULES
from vmm_ras.profiles import PROFILES

Way = Literal["sea", "sei", "sdei", "gsiv", "gpio", "polled"]
U64 = Annotated[int, Field(ge=0, lt=1 << 64, strict=True)]


class _Table(Documented):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rate(_Table):
    """At least ``events`` errors within ``seconds``, the present one included."""

    events: Annotated[int, Field(ge=2, le=10_000, strict=True)]
    seconds: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False, strict=True)]


class When(_Table):
    """What an error must be for the rule to decide; a key that is left out holds always."""

    code: Literal["AR", "AO"] | None = None
    """AR: consumed; AO: found."""
    el: Literal[0, 1] | None = None
    """Exception level that the vCPU was stopped at; only an AR has one."""
    guest: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Names of guest profiles; ``linux`` stands for ``linux-6.1`` and all others of its family too."""
    lsb_min: Annotated[int, Field(ge=0, le=63, strict=True)] | None = None
    """Smallest log2 of the bytes lost in the host: 12 for a 4 KiB page, 21 for a 2 MiB one."""
    lsb_max: Annotated[int, Field(ge=0, le=63, strict=True)] | None = None
    gpa_from: U64 | None = None
    """First guest physical address."""
    gpa_to: Annotated[int, Field(ge=1, lt=1 << 64, strict=True)] | None = None
    """Guest physical address behind the last."""
    thread: Literal["vcpu", "other"] | None = None
    """Whose thread got an AO: one that arrives in a vCPU's thread is in truth synchronous on some hosts."""
    vcpu: Annotated[tuple[Annotated[int, Field(ge=0, lt=512, strict=True)], ...], Field(min_length=1)] | None = None
    """vCPUs that consumed it."""
    masked: bool | None = None
    """Whether the vCPU that consumed it masks SErrors (PSTATE.A)."""
    serror: bool | None = None
    """Whether that vCPU has an SError pending already."""
    open: Annotated[tuple[Way, ...], Field(min_length=1)] | None = None
    """Ways all of which the guest accepts now: for SDEI, that it registered and enabled the event."""
    closed: Annotated[tuple[Way, ...], Field(min_length=1)] | None = None
    """Ways none of which the guest accepts now."""
    seen_min: Annotated[int, Field(ge=0, strict=True)] | None = None
    """Least number of times that the page was reported before."""
    seen_max: Annotated[int, Field(ge=0, strict=True)] | None = None
    lost_min: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Least number of pages that the guest has lost so far."""
    rate: Rate | None = None
    """How quickly errors come: a storm."""

    @model_validator(mode="before")
    @classmethod
    def _code_follows(cls, data: Any) -> Any:
        """Who asks what only an AR has, or only an AO, means that code."""
        if isinstance(data, dict) and data.get("code") is None:
            if any(data.get(key) is not None for key in ("el", "vcpu", "masked", "serror")):
                return data | {"code": "AR"}
            if data.get("thread") is not None:
                return data | {"code": "AO"}
        return data

    @model_validator(mode="after")
    def _sensible(self) -> When:
        for name in self.guest or ():
            if not family((name,)):
                raise ValueError(f"guest {name!r} is none of {', '.join(PROFILES)}")
        for key, what in (("el", "exception level"), ("vcpu", "vCPU"), ("masked", "mask"), ("serror", "SError")):
            if getattr(self, key) is not None and self.code == "AO":
                raise ValueError(f"{key}: an AO has no {what}")
        if self.thread is not None and self.code == "AR":
            raise ValueError("thread: an AR is its vCPU's own")
        for low, high in (("lsb_min", "lsb_max"), ("seen_min", "seen_max")):
            if (getattr(self, low) or 0) > (1 << 64 if getattr(self, high) is None else getattr(self, high)):
                raise ValueError(f"{low} is above {high}")
        if self.gpa_from is not None and self.gpa_to is not None and self.gpa_from >= self.gpa_to:
            raise ValueError("gpa_from is not below gpa_to")
        if both := set(self.open or ()) & set(self.closed or ()):
            raise ValueError(f"{min(both)} is to be open and closed")
        return self

    def covers(self, other: When) -> bool:
        """Whether this holds wherever ``other`` holds."""
        return not policy_check.minus(policy_check.region(other), policy_check.region(self))


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
    then: Literal["report", "next", "stop", "reset", "migrate"] = "report"
    """Last step: escalate to the orchestrator; ``next``: first tell the same pages through another source, where one is
    open.  The pages stay posted, and count as told once the guest acknowledges."""


class Rule(_Table):
    """One rule."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
    doc: str = ""
    """Why the rule is there."""
    when: When = When.model_construct()  # as the two below: to check a default would build its validator at import
    action: Literal["tell", "bare", "consumed", "ignore", "stop", "reset", "migrate"] = "tell"
    """``tell``: write a record and deliver it.  ``bare``: SEA without a record; the page is told as an AO would be.
    ``consumed``: this AO was synchronous; the vCPU is stopped, and the rules for an AR decide.  ``ignore``: tell
    nothing.  The others ask the orchestrator."""
    deliver: tuple[Way, ...] = ()
    """Ways, best first; the first that the guest accepts is taken."""
    severity: Literal["recoverable", "fatal", "corrected"] = "recoverable"
    """Error severity of the record."""
    error_type: Annotated[int, Field(ge=0, le=255, strict=True)] | None = None
    """Memory Error Type (Table N.31); the host does not know it, so it is left out unless given."""
    sea: Syndrome = Syndrome.model_construct()
    aet: Literal["uc", "ueu", "ueo", "uer", "ce"] = "ueo"
    """Asynchronous Error Type of an SEI; Linux panics on all but ueo and ce."""
    hold_ms: Annotated[int, Field(ge=0, le=3_600_000, strict=True)] = 2000
    """Milliseconds that a vCPU which consumed poison waits for a busy source; then it gets an SEA without a record."""
    busy: Literal["wait", "next"] = "wait"
    """While a source's last block is unacknowledged: ``wait`` for it, or take the next way that is open and free."""
    batch_ms: Annotated[int, Field(ge=0, le=3_600_000, strict=True)] = 0
    """Milliseconds that found pages gather, from the first one on, unless they fill a block before."""
    entries: Annotated[int, Field(ge=1, le=0x3FF, strict=True)] = 16
    """Pages in one record at most.  Linux keeps 16 memory failures for each CPU until it handles them, and forgets
    more (mm/memory-failure.c, MEMORY_FAILURE_FIFO_ORDER), although it acknowledges the record."""
    pause_ms: Annotated[int, Field(ge=0, le=60_000, strict=True)] = 5
    """Milliseconds that further pages wait after the acknowledgement of a record with several, for each of those: a
    guest acknowledges before it has handled them."""
    large: Literal["pages", "mask", "touch"] = "pages"
    """What a loss larger than a guest page becomes: an entry for each page; one entry whose address mask spans them
    (Linux takes one page out of use all the same); or nothing until a page is touched."""
    report: Literal["never", "also", "first"] = "never"
    """Whether the orchestrator hears of it: ``also`` at once (guest first), or ``first``: the guest is told when the
    orchestrator says so (Proceed), at the latest after ``report_ms``."""
    report_ms: Annotated[int, Field(ge=1, le=3_600_000, strict=True)] = 1000
    unacked: Unacked = Unacked.model_construct()

    @model_validator(mode="before")
    @classmethod
    def _relayed(cls, data: Any) -> Any:
        """``syndrome = "relay"`` is short for ``sea = { relay = true }``."""
        if not isinstance(data, dict) or "syndrome" not in data:
            return data
        rest = {key: value for key, value in data.items() if key != "syndrome"}
        if data["syndrome"] != "relay" or not isinstance(rest.setdefault("sea", {}), dict):
            raise ValueError('syndrome: expected "relay"; what else the SEA says is in sea')
        return rest | {"sea": rest["sea"] | {"relay": True}}

    @model_validator(mode="after")
    def _whole(self) -> Rule:
        if self.action == "tell" and not self.deliver:
            raise ValueError("deliver: a rule that tells names at least one way")
        if self.action != "tell" and self.deliver:
            raise ValueError(f"deliver: a rule with action {self.action!r} delivers no record")
        if self.action == "bare" and self.when.code != "AR":
            raise ValueError("action 'bare' is for consumed errors: when.code = \"AR\"")
        if self.action == "consumed" and (self.when.code, self.when.thread) != ("AO", "vcpu"):
            raise ValueError('action \'consumed\' is for what a vCPU\'s thread found: code = "AO", thread = "vcpu"')
        if len(set(self.deliver)) != len(self.deliver):
            raise ValueError("deliver: a way is named twice")
        return self


class Policy(_Table):
    """The whole policy: see ``default_policy.TEXT``."""

    version: Literal[1]
    rule: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=MAX_RULES)]
    """Rules in order; the first that holds decides."""

    @model_validator(mode="after")
    def _decides_everything(self) -> Policy:
        names = [r.name for r in self.rule]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(f"rule {index + 1} {name!r}: name: rule {names.index(name) + 1} has it already")
        if (code := policy_check.undecided(self.rule)) is not None:
            raise ValueError(f"no rule decides every {code}: end with one whose when is empty or only that code")
        for r in self.rule:
            if r.when.covers(When(code="AO")) and r.action == "bare":
                raise ValueError(f"rule {r.name!r}: action 'bare' would be told as itself")
        return self

    def findings(self) -> list[str]:
        """Rules that can never decide, each with those that hold before it, and rules that contradict themselves."""
        return policy_check.findings(self.rule)

    def overlaps(self) -> list[str]:
        """Pairs of rules that may both hold, neither covering the other, and do different things: order decides."""
        return policy_check.overlaps(self.rule)


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
    found = error.errors(include_url=False)
    found = [e for e in found if e["type"] != "too_short"] or found  # a list is short only for what was wrong in it
    found.sort(key=lambda e: e["type"] != "extra_forbidden")  # what lacks may be what is misspelt
    first, count = found[0], len(found)
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
        keys = {key for table in (Policy, Rule, When, Rate, Syndrome, Unacked) for key in table.model_fields}
        near = get_close_matches(loc[-1], keys, 1)
        message = "unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"] == "tuple_type":
        message = "Input should be a list"
    parts = [p for p in (place, key) if p]
    more = f" (and {count - 1} more)" if count > 1 else ""
    return f"{where}: {': '.join([*parts, message])}{more}"
