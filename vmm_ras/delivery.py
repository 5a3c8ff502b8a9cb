"""By which way the guest is told: what each way needs, and the syndrome that it carries (ACPI 6.5, 18.3.2.9).

| way | notification | needs |
|---|---|---|
| sea | SEA | the vCPU that consumed the poison, stopped |
| sei | virtual SError with a syndrome | a stopped vCPU; stays pending while PSTATE.A is set |
| sdei | SDEI event | a PE that registered, enabled and unmasked it |
| gsiv, gpio | interrupt for the error device | nothing |
| polled | none: the guest looks by itself | nothing |
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from acpi.image import PlacedSource
from cper.common import Severity
from vmm_ras import arm64
from vmm_ras.errors import InputError
from vmm_ras.policy import Rule, Syndrome
from vmm_ras.profiles import WAYS, GuestProfile
from vmm_ras.record import Blocks, RecordStyle
from vmm_ras.source import ErrorSource

_FETCHES = (arm64.EC_IABT_LOWER, arm64.EC_IABT_SAME)
_SEVERITY = {"recoverable": Severity.RECOVERABLE, "fatal": Severity.FATAL, "corrected": Severity.CORRECTED}
_SETS = {"uer": arm64.SET_UER, "uc": arm64.SET_UC, "ueo": arm64.SET_UEO}


def bind(sources: Sequence[PlacedSource], guest: GuestProfile) -> dict[str, list[ErrorSource]]:
    """The sources that the guest binds, by way, in table order."""
    found: dict[str, list[ErrorSource]] = {way: [] for way in WAYS.values()}
    for placed in sources:
        way = WAYS.get(placed.notification)
        if way is not None and placed.notification in guest.notifications:
            found[way].append(ErrorSource(placed, way))
    return found


class Ruling:
    """A rule at hand: what each error asks of it, which costs ten times as much to read from a model."""

    __slots__ = ("after", "at_once", "blocks", "name", "plain", "rule", "sea", "waits", "ways")

    def __init__(self, rule: Rule, ways: dict[str, list[ErrorSource]], style: RecordStyle) -> None:
        self.rule, self.name = rule, rule.name
        self.blocks = Blocks(_SEVERITY[rule.severity], rule.error_type, style)
        self.after = rule.unacked.after_ms / 1000
        self.plain = rule.action == "tell" and rule.report == "never"
        """Whether it tells, and the orchestrator hears nothing of it."""
        self.at_once = self.plain and not rule.batch_ms
        """Whether nothing gathers either."""
        self.waits = rule.busy == "wait"
        first = ways[rule.deliver[0]] if rule.deliver[:1] == ("sea",) else ()
        self.sea = first[0] if len(first) == 1 else None
        """The one source of an SEA, where that is the first way."""
        self.ways = tuple((way, ways[way]) for way in rule.deliver if way != "sea")
        """Ways by which what was found is told, each with its sources: an SEA needs a vCPU that consumed the page."""


@lru_cache(maxsize=1024)
def sea_syndrome(syndrome: Syndrome, el: int, known: bool, relayed: int | None, ras: bool = True) -> int:
    """ESR_EL1 of the SEA that a rule asks for.

    ``known``: whether FAR gets the guest's virtual address.  ``relayed``: ESR of KVM_EXIT_ARM_SEA, which also says
    whether it was an instruction that could not be fetched.  What the architecture has no encoding for falls back on
    the plain SEA: an error must be told.
    """
    far = 0 if known else None
    instruction = relayed is not None and relayed >> arm64.ESR_EC_SHIFT & 0x3F in _FETCHES
    try:
        if syndrome.relay and relayed is not None:
            return arm64.relay(relayed, el, far, ras=ras)
        return arm64.sea_esr(
            el, far, dfsc=syndrome.dfsc, ea=syndrome.ea, set_=_SETS[syndrome.set], instruction=instruction, ras=ras,
            force=syndrome.force,
        )  # fmt: skip
    except InputError:
        return arm64.sea_esr(el, far, instruction=instruction)


def check_syndrome(rule: Rule) -> None:
    """Refuse a rule whose SEA the architecture cannot encode.  Raises InputError."""
    arm64.sea_esr(
        0, None if rule.sea.dfsc == arm64.DFSC_SEA else 0, dfsc=rule.sea.dfsc, ea=rule.sea.ea,
        set_=_SETS[rule.sea.set], force=rule.sea.force,
    )  # fmt: skip


def sei_syndrome(rule: Rule) -> int:
    """VSESR of the virtual SError that a rule asks for."""
    return arm64.serror_iss(rule.aet)
