"""What is wrong with the rules of a policy that can be read: which are never reached, contradict themselves, overlap.

A rule holds in a region: for each thing that it asks about, the values that it takes.  What is left of a region when
those of earlier rules are taken away is a list of regions, so that several rules together cover one as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from vmm_ras.deciding import family
from vmm_ras.profiles import PROFILES, WAYS

if TYPE_CHECKING:
    from vmm_ras.policy import Rate, Rule, When

_END: Final = 1 << 64
_BOTH: Final = frozenset({True, False})
_SPACE: Final[dict[str, Any]] = {
    "code": frozenset({"AR", "AO"}),
    "el": frozenset({0, 1, 2}),  # a guest hypervisor runs at EL2; no rule asks for it
    "thread": frozenset({"vcpu", "other"}),
    "vcpu": frozenset(range(512)),
    "masked": _BOTH,
    "serror": _BOTH,
    "guest": frozenset(profile.name for profile in PROFILES.values()) | {"another"},
    **dict.fromkeys(WAYS.values(), _BOTH),
    "lsb": (0, 63),
    "gpa": (-1, _END),
    "seen": (0, _END),
    "lost": (0, _END),
}
"""Every value of everything that a rule asks about: sets, and the first and last of numbers.  gpa -1: not known."""
_MAX_PIECES: Final = 1024
"""Of more, nobody waits for the end: the rule counts as reached."""
Region = dict[str, Any]
"""What does not have all the values of ``_SPACE``; ``rate`` and ``no_rate``: the rates that hold, and that do not."""


def region(when: When) -> Region:
    """Where a rule holds."""
    out: Region = {}
    for key in ("code", "el", "thread", "masked", "serror"):
        if getattr(when, key) is not None:
            out[key] = frozenset({getattr(when, key)})
    if when.guest is not None:
        out["guest"] = frozenset(PROFILES[name].name for name in family(when.guest))
    if when.vcpu is not None:
        out["vcpu"] = frozenset(when.vcpu)
    for ways, value in ((when.open, True), (when.closed, False)):
        out |= {way: frozenset({value}) for way in ways or ()}
    for key, low, high in (
        ("lsb", when.lsb_min, when.lsb_max),
        ("seen", when.seen_min, when.seen_max),
        ("lost", when.lost_min, None),
    ):
        if low is not None or high is not None:
            out[key] = low or 0, _SPACE[key][1] if high is None else high
    if when.gpa_from is not None or when.gpa_to is not None:
        out["gpa"] = when.gpa_from or 0, _END if when.gpa_to is None else when.gpa_to - 1
    if when.rate is not None:
        out["rate"] = (when.rate,)
    return out


def _meet(mine: Any, theirs: Any) -> Any:
    """What both have; empty or None: nothing."""
    if isinstance(mine, frozenset):
        return mine & theirs
    low, high = max(mine[0], theirs[0]), min(mine[1], theirs[1])
    return (low, high) if low <= high else None


def _rest(mine: Any, theirs: Any) -> list[Any]:
    """What only the first has."""
    if isinstance(mine, frozenset):
        return [mine - theirs] if mine - theirs else []
    below, above = (mine[0], min(mine[1], theirs[0] - 1)), (max(mine[0], theirs[1] + 1), mine[1])
    return [(low, high) for low, high in (below, above) if low <= high]


def _implies(one: Rate, other: Rate) -> bool:
    """Whether errors that come as quickly as ``one`` says come as quickly as ``other`` says."""
    return other.events <= one.events and other.seconds >= one.seconds


def minus(whole: Region, taken: Region) -> list[Region]:
    """What is left of a region."""
    inner, out = whole, []
    for key, theirs in taken.items():
        if key == "rate":
            continue
        mine = inner.get(key, _SPACE[key])
        both = _meet(mine, theirs)
        if not both:
            return [whole]
        out += [inner | {key: rest} for rest in _rest(mine, theirs)]
        inner = inner | {key: both}
    held, not_held = inner.get("rate", ()), inner.get("no_rate", ())
    for rate in taken.get("rate", ()):
        if any(_implies(rate, other) for other in not_held):
            return [whole]
        if not any(_implies(other, rate) for other in held):
            out.append(inner | {"no_rate": (*not_held, rate)})
    return out


def _named(rules: Sequence[Rule], index: int) -> str:
    return f"rule {index + 1} {rules[index].name!r}"


def _left(whole: Region, regions: Sequence[Region]) -> tuple[list[Region], list[int]]:
    """What is left of a region where none of the others is, and those of them that take something."""
    left, takers = [whole], []
    for index, other in enumerate(regions):
        rest = [piece for one in left for piece in minus(one, other)]
        if rest != left:
            left = rest
            takers.append(index)
        if not left or len(left) > _MAX_PIECES:
            break
    return left, takers


def undecided(rules: Sequence[Rule]) -> str | None:
    """A code of which some errors are decided by no rule, or None."""
    regions = [region(rule.when) for rule in rules]
    regions.sort(key=len)  # those that take most leave the fewest pieces
    return next((code for code in ("AR", "AO") if _left({"code": frozenset({code})}, regions)[0]), None)


def findings(rules: Sequence[Rule]) -> list[str]:
    """Rules that can never decide, each with those that hold before it, and rules that contradict themselves."""
    out, regions = [], [region(rule.when) for rule in rules]
    for index, rule in enumerate(rules):
        left, before = _left(regions[index], regions[:index])
        if not left:
            for one in list(before):  # who takes something that others take anyway is not named
                others = [other for other in before if other != one]
                if not _left(regions[index], [regions[other] for other in others])[0]:
                    before = others
            holds = "hold" if len(before) > 1 else "holds"
            names = " and ".join(_named(rules, one) for one in before)
            out.append(f"{_named(rules, index)} is never reached: {names} {holds} first")
        out += [f"{_named(rules, index)} contradicts itself: {reason}" for reason in _contradictions(rule, left)]
    return out


def overlaps(rules: Sequence[Rule]) -> list[str]:
    """Pairs of rules that may both hold, neither covering the other, and do different things: order decides."""
    out, regions = [], [region(rule.when) for rule in rules]
    reached = [index for index in range(len(rules)) if _left(regions[index], regions[:index])[0]]
    does = [rule.model_dump(exclude={"name", "doc", "when"}) for rule in rules]
    for place, one in enumerate(reached):
        for two in reached[place + 1 :]:
            if minus(regions[two], regions[one]) == [regions[two]] or not minus(regions[one], regions[two]):
                continue
            if does[one] != does[two]:
                both = f"rules {one + 1} {rules[one].name!r} and {two + 1} {rules[two].name!r}"
                out.append(f"{both} overlap: where both hold, the first decides")
    return out


def _contradictions(rule: Rule, left: Sequence[Region]) -> Iterator[str]:
    """What the rule asks for and can never get; ``left``: where it decides."""
    when = rule.when
    closed = [way for way in rule.deliver if way in (when.closed or ())]
    if closed and len(closed) == len(rule.deliver):
        yield f"it delivers by {', '.join(closed)}, and holds only while {'they are' if closed[1:] else 'it is'} closed"
    if when.guest is not None:
        guests = ", ".join(when.guest)
        bound = [_bound(name) for name in family(when.guest)]
        if rule.deliver and not any(ways.intersection(rule.deliver) for ways in bound):
            yield f"it delivers by {', '.join(rule.deliver)}, of which {guests} takes none"
        if not any(ways.issuperset(when.open or ()) for ways in bound):
            yield f"it holds only while {', '.join(when.open or ())} is open, which {guests} never takes"
    if rule.deliver == ("sea",) and any("AO" in where.get("code", _SPACE["code"]) for where in left):
        yield "an SEA needs a vCPU that consumed the page, and an AO has none"
    if rule.batch_ms and when.code == "AR" and rule.deliver == ("sea",):
        yield "batch_ms: a vCPU that consumed poison does not wait for more"
    if rule.large == "touch" and when.lsb_max is not None and when.lsb_max <= 12:
        yield "large: no loss of up to 4 KiB is larger than a page"
    if rule.report == "first" and rule.action != "tell":
        yield f"report: action {rule.action!r} tells the guest nothing that could wait"


def _bound(profile: str) -> frozenset[str]:
    """The ways by which such a guest can be told."""
    return frozenset(WAYS[kind] for kind in PROFILES[profile].notifications if kind in WAYS)
