"""What Linux traces of hardware errors (``include/ras/ras_event.h``), and what it must trace of blocks that it read.

``mc_event`` needs an EDAC driver, ``aer_event`` the PCI device that the record names, ``extlog_mem_event`` an x86: the
lab's machines have none, so that one of them is a difference too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from uuid import UUID

from acpi.ghes import Entry, StatusBlock
from cper.arm_processor import ArmProcessor
from cper.common import Severity
from cper.wire import WireError
from vmm_ras.lab.kernel_log import memory_failures
from vmm_ras.profiles import SECTION_TYPES, GuestProfile

START, TAKE = "ask trace", "ask traced"
"""Programs of the guest: let it trace; print what it traced since the last time."""
HANDLED = frozenset(SECTION_TYPES[name] for name in ("platform_memory", "pcie", "arm_processor"))
"""Section types that Linux acts on; of others it makes a ``non_standard_event``, but for CXL's that it knows."""
_CXL = frozenset(guid for name, guid in SECTION_TYPES.items() if name.startswith("cxl"))
_SEVERITY = {Severity.INFORMATIONAL: 0, Severity.CORRECTED: 1, Severity.RECOVERABLE: 2, Severity.FATAL: 3}
"""In the numbers of ``include/acpi/ghes.h``."""
_LINE = re.compile(r": (\w+_event): (.*)$")
_NON_STANDARD = re.compile(
    r"severity: (?P<severity>-?\d+); sec type:(?P<type>[0-9a-f-]{36}); FRU: (?P<fru>[0-9a-f-]{36}) (?P<text>.*);"
    r" data len:(?P<length>\d+); raw data:(?P<data>[0-9a-f ]*)$"
)
_ARM = re.compile(
    r"(?:cpu: -?\d+; error: (?P<severity>\d+); )?affinity level: (?P<affinity>\d+); MPIDR: (?P<mpidr>[0-9a-f]+);"
    r" MIDR: (?P<midr>[0-9a-f]+); running state: (?P<running>-?\d+); PSCI state: (?P<psci>-?\d+)"
    r"(?:; ARM Processor Err Info data len: \d+; ARM Processor Err Info raw data: (?P<errors>[0-9a-f ]*)"
    r"; ARM Processor Err Context Info data len: \d+; ARM Processor Err Context Info raw data: (?P<contexts>[0-9a-f ]*)"
    r"; Vendor Specific Err Info data len: \d+; Vendor Specific Err Info raw data: (?P<vendor>[0-9a-f ]*))?$"
)
_FAILURE = re.compile(r"pfn 0x(?P<pfn>[0-9a-f]+): recovery action for (?P<kind>.*): (?P<outcome>\w+)$")
_FORMS = {"non_standard_event": _NON_STANDARD, "arm_event": _ARM, "memory_failure_event": _FAILURE}
_BYTES = frozenset({"data", "errors", "contexts", "vendor"})
_TRACED_AS = {"already poisoned page": "already poisoned"}
"""What the log calls otherwise."""
Event = dict[str, str]
"""Its name under ``event``, and its fields; of older kernels an ARM event has fewer."""


def traced(text: str) -> list[Event]:
    """The events of a trace, in order; one whose form is unknown has its ``text`` only."""
    found = []
    for line in text.splitlines():
        match = _LINE.search(line)
        if match is None:
            continue
        name, rest = match.groups()
        form = _FORMS.get(name)
        fields = form.match(rest) if form is not None else None
        event = {"event": name}
        if fields is None:
            event["text"] = rest
        else:
            values = {key: value for key, value in fields.groupdict().items() if value is not None}
            event |= {k: v.replace(" ", "") if k in _BYTES else v for k, v in values.items()}
        found.append(event)
    return found


def expected(blocks: Iterable[bytes], log: str, profile: GuestProfile) -> list[Event]:
    """What Linux must trace of the blocks that it read, and of the memory failures that its log speaks of."""
    out = []
    for data in blocks:
        try:
            block = StatusBlock.decode(data)
        except WireError:
            continue  # it is cleared and acknowledged, and no more
        out += [event for entry in block.entries for event in _of(entry, profile)]
    for failure in memory_failures(log):
        kind = _TRACED_AS.get(failure.kind, failure.kind)
        event = {"event": "memory_failure_event", "pfn": f"{failure.pfn:x}", "kind": kind}
        out.append(event | {"outcome": failure.outcome})
    return out


def _of(entry: Entry, profile: GuestProfile) -> list[Event]:
    head = entry.header
    severity = str(_SEVERITY.get(head.severity, 3))
    if head.section_type == SECTION_TYPES["arm_processor"]:
        section = entry.section()
        return [_arm(section, severity)] if isinstance(section, ArmProcessor) else []
    if head.section_type in HANDLED or head.section_type in _CXL & profile.sections:
        return []
    event = {
        "event": "non_standard_event", "severity": severity, "type": _raw(head.section_type),
        "fru": _raw(head.fru_id or UUID(int=0)), "text": (head.fru_text or "").partition("\0")[0],
        "length": str(len(entry.body)), "data": entry.body.hex(),
    }  # fmt: skip
    return [event]


def _raw(guid: UUID) -> str:
    """As the kernel prints it here: its bytes in order."""
    return str(UUID(bytes=guid.bytes_le))


def _arm(section: ArmProcessor, severity: str) -> Event:
    head, raw = section.head, section.encode()
    errors = 40 + 32 * head.error_information_count
    contexts = head.section_length - len(section.vendor_information)
    running, psci = -1, -1
    if head.running_state is not None:
        words = head.running_state.encode()
        running, psci = (int.from_bytes(words[at : at + 4], "little", signed=True) for at in (0, 4))
    return {
        "event": "arm_event", "severity": severity, "midr": f"{head.midr:016x}", "mpidr": f"{head.mpidr or 0:016x}",
        "affinity": str(0xFF if head.affinity_level is None else head.affinity_level), "running": str(running),
        "psci": str(psci), "errors": raw[40:errors].hex(), "contexts": raw[errors:contexts].hex(),
        "vendor": raw[contexts : head.section_length].hex(),
    }  # fmt: skip


def stopped(log: str) -> bool:
    """Whether the kernel stopped tracing by itself: it does where it dies of an Oops (``oops_enter``)."""
    return "Internal error: " in log


def differences(found: Sequence[Event], wanted: Sequence[Event], *, stopped: bool = False) -> list[str]:
    """What was traced and need not be, and what was not traced; the latter not where it had ``stopped``.

    Each is looked for once: a block that the guest swallows is like one that it did not swallow.
    """
    extra = [e for e in found if not any(_fits(e, w) for w in wanted)]
    missing = [w for w in wanted if not stopped and not any(_fits(e, w) for e in found)]
    return [f"traced, not expected: {_said(e)}" for e in extra] + [f"not traced: {_said(e)}" for e in missing]


def _fits(event: Event, wanted: Event) -> bool:
    return all(wanted.get(key) == value for key, value in event.items())


def _said(event: Event) -> str:
    return ", ".join(f"{key} {value}" for key, value in event.items() if value)[:300]
