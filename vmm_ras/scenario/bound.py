"""A scenario's named pages and sources, bound to the memory and the error sources of one machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from acpi.image import PlacedSource
from vmm_ras import arm64
from vmm_ras.errors import InputError
from vmm_ras.events import Code, GuestAbort, HostSignal, MemoryFault, TellRecord, TellSdei, TellSea, TellSerror
from vmm_ras.notifier import Notifier
from vmm_ras.profiles import WAYS
from vmm_ras.scenario.journal import Place
from vmm_ras.traces import script
from vmm_ras.traces.items import Entry, RunAt
from vmm_ras.traces.script import Expect, Head, NamedPage, Script

OUTSIDE = 0x7FFF_1234_5000
"""Guest physical address of the first page that is no RAM."""
_FIRST, _APART = 0x10_0000, 0x1_0000
"""Where in the model's RAM the first named page lies, and how far from the next."""
_POLICY = """
version = 1
[[rule]]
name = "consumed-in-kernel"
when = {{ code = "AR", el = 1, guest = ["linux", "generic-sei", "no-ras", "no-apei"] }}
action = "bare"
[[rule]]
name = "consumed"
when = {{ code = "AR" }}
deliver = ["sea"]
[[rule]]
name = "found"
deliver = [{ways}]
"""


def policy_text(head: Head) -> str | None:
    """The policy of a scenario, TOML; None for the default one."""
    if head.policy:
        return head.policy
    return _POLICY.format(ways=", ".join(f'"{way}"' for way in head.deliver)) if head.deliver else None


def source_named(sources: Sequence[PlacedSource], name: str) -> PlacedSource:
    """``polled``, or ``sea:1`` for the second of its kind.  Raises InputError."""
    way, _, index = name.partition(":")
    found = [s for s in sources if WAYS.get(s.notification) == way]
    if int(index or 0) >= len(found):
        raise InputError(f"the machine has no source {name!r}")
    return found[int(index or 0)]


def event_of(
    item: Any, gpas: Mapping[str, int], pages: Mapping[str, NamedPage], place: Place, sources: Sequence[PlacedSource],
    gvas: Mapping[str, int] | None = None,
) -> Any:  # fmt: skip
    """The core's event for a line; an action of the guest is its own.  ``gvas``: where owners see their pages."""

    def gva(page: str) -> int:
        return (gvas or {}).get(page, 0x7F00_0000)

    match item:
        case script.Signal(code, page, lsb, vcpu, _):
            runs = pages[page].vcpu if vcpu is None and code == Code.AR else vcpu
            tid = 1 if runs is None else place.threads[runs]
            return HostSignal(code, gpas[page] - place.slot.gpa + place.slot.hva, lsb, tid)
        case script.Fault(page, size):
            return MemoryFault(gpas[page], size)
        case script.Abort(page, esr, located, _):
            return GuestAbort(pages[page].vcpu, esr, gva(page), gpas[page] if located else None)
        case script.Record(source, _, _, page, _):
            vcpu = 0 if page is None else pages[page].vcpu
            return TellRecord(item.build(gpas), source_named(sources, source).source_id, vcpu)
        case script.Sea(page, esr, el):
            same = 1 << arm64.ESR_EC_SHIFT if el else 0
            return TellSea(pages[page].vcpu, esr | same, gva(page))
        case script.Serror(page, vsesr, _):
            return TellSerror(pages[page].vcpu, vsesr)
        case script.SdeiEvent(number):
            return TellSdei(number)
    return item


def lost_ranges(core: Notifier) -> list[MemoryFault]:
    """All guest memory that a core knows to be lost, as another core is told of it."""
    found: list[tuple[int, int]] = []
    for first, count, *_ in core.poison.runs():
        if found and sum(found[-1]) == first:
            found[-1] = found[-1][0], found[-1][1] + count
        else:
            found.append((first, count))
    return [MemoryFault(first << core.page_shift, count << core.page_shift) for first, count in found]


def runs_of(item: Any) -> tuple[str, int] | None:
    """The page whose owner must be running for a line, and its exception level."""
    if isinstance(item, script.Signal) and item.code != Code.AR:
        return None
    if isinstance(item, script.Signal | script.Abort | script.Record | script.Sea | script.Serror):
        return None if item.page is None else (item.page, item.el)
    return None


def model_gpas(scenario: Script, ram: int) -> dict[str, int]:
    """Where the model's named pages lie, its RAM beginning at ``ram``."""
    return {
        page.name: OUTSIDE + index * 4096 if page.owner == "outside" else ram + _FIRST + index * _APART
        for index, page in enumerate(scenario.pages)
    }


def entries(scenario: Script, place: Place, sources: Sequence[PlacedSource]) -> Iterator[Entry]:
    """The scenario as a trace, without what it expects.  Raises InputError, for a reset too: a trace is one boot's."""
    gpas, pages = model_gpas(scenario, place.slot.gpa), {page.name: page for page in scenario.pages}
    clock = 0.0
    for line, item in scenario.steps:
        if isinstance(item, script.Wait | script.Settle):
            clock += item.seconds
        elif isinstance(item, script.Reset):
            raise InputError(f"{scenario.name}:{line}: a replay has one boot; vmm-ras scenario run plays resets")
        elif not isinstance(item, NamedPage | Expect):
            runs = runs_of(item)
            if runs is not None:
                yield line, clock, RunAt(pages[runs[0]].vcpu, runs[1])
            yield line, clock, event_of(item, gpas, pages, place, sources)
