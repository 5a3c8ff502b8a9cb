"""A scenario file (docs/scenarios.md): a native trace in which pages have names, with what must become of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from acpi.ghes import StatusBlock
from cper.wire import WireError
from cper.words import counted
from vmm_ras.errors import InputError
from vmm_ras.events import Code
from vmm_ras.traces.lines import LONGEST

MAX_LINES = 10_000
MAX_PAGES = 64


class Head(NamedTuple):
    """What a scenario is, and the machine that it is played on."""

    about: str
    proves: tuple[str, ...] = ()
    preset: str = "all"
    vcpus: int = 2
    deliver: tuple[str, ...] = ()
    policy: str = ""
    model_only: str = ""


class NamedPage(NamedTuple):
    """A page of guest memory."""

    name: str
    owner: str
    """``reader``, ``early``, ``idle``, ``unhandled``, ``nobody`` or ``outside``."""
    vcpu: int = 0
    """That its owner runs on."""
    pages: int = 1

    @property
    def owned(self) -> bool:
        """Whether a process owns it."""
        return self.owner not in {"nobody", "outside"}


class Signal(NamedTuple):
    """A SIGBUS on the host."""

    code: Code
    page: str
    lsb: int = 12
    vcpu: int | None = None
    el: int = 0


class Fault(NamedTuple):
    """Guest memory is lost, by guest physical address."""

    page: str
    size: int = 4096


class Abort(NamedTuple):
    """KVM_EXIT_ARM_SEA."""

    page: str
    esr: int
    located: bool = True
    el: int = 0


class Record(NamedTuple):
    """A status block, told as it is."""

    source: str
    block: bytes | dict[str, Any]
    patch: tuple[tuple[int, bytes], ...] = ()
    page: str | None = None
    el: int = 0

    def build(self, gpas: Mapping[str, int]) -> bytes:
        """The block's bytes, its pages being where ``gpas`` says.  Raises InputError."""
        if isinstance(self.block, bytes):
            out = bytearray(self.block)
        else:
            try:
                out = bytearray(StatusBlock.of_plain(_resolved(self.block, gpas)).encode())
            except (WireError, ValueError) as error:
                text = f"{error}".splitlines()
                where = f" in {error.__notes__[-1]}" if getattr(error, "__notes__", ()) else ""
                raise InputError(f"block: {' '.join(text[:3])}{where}") from None
        for at, data in self.patch:
            if at + len(data) > len(out):
                raise InputError(f"patch at {at:#x}: the block has {counted(len(out), 'byte')}")
            out[at : at + len(data)] = data
        return bytes(out)


class Sea(NamedTuple):
    """An SEA without a record."""

    page: str
    esr: int
    el: int = 0


class Serror(NamedTuple):
    """An SError."""

    page: str
    vsesr: int
    el: int = 0


class SdeiEvent(NamedTuple):
    """An SDEI event."""

    number: int


class Reset(NamedTuple):
    """The machine begins anew: every process is gone, and the firmware has told nothing yet."""

    replaced: bool = True
    """The host gives good memory for what it had lost; if not, the guest that boots is told of all of it."""


TOLD = Signal | Fault | Abort | Record | Sea | Serror | SdeiEvent
"""What happens to a guest."""


class Wait(NamedTuple):
    """Time passes."""

    seconds: float


class Settle(NamedTuple):
    """Time passes until nothing waits, at most so long."""

    seconds: float = 5.0


class Expect(NamedTuple):
    """What must be so of a source, a page, or (neither named) the guest."""

    guests: tuple[str, ...]
    source: str | None
    page: str | None
    checks: tuple[tuple[str, Any], ...]

    @property
    def subject(self) -> str:
        """In words."""
        return f"source {self.source}" if self.source else f"page {self.page}" if self.page else "the guest"


class Script(NamedTuple):
    """A whole scenario."""

    name: str
    head: Head
    steps: tuple[tuple[int, Any], ...]
    """Line number and item: what happens, and what is expected."""

    @property
    def boots(self) -> tuple[tuple[NamedPage, ...], ...]:
        """The pages that have names, by the boot in which their owners live: each reset begins another."""
        found: list[list[NamedPage]] = [[]]
        for _, item in self.steps:
            if isinstance(item, NamedPage):
                found[-1].append(item)
            elif isinstance(item, Reset):
                found.append([])
        return tuple(map(tuple, found))

    @property
    def pages(self) -> tuple[NamedPage, ...]:
        """The pages that have names."""
        return tuple(page for boot in self.boots for page in boot)


def _resolved(value: Any, gpas: Mapping[str, int]) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(inner, gpas) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(inner, gpas) for inner in value]
    if isinstance(value, str) and value.startswith("page "):
        name, _, offset = value.removeprefix("page ").partition("+")
        if name not in gpas:
            raise InputError(f"block: no page is called {name!r}")
        return gpas[name] + (int(offset, 0) if offset else 0)
    return value


def recognises(line: bytes) -> bool:
    """Whether a first line begins a scenario rather than a trace."""
    try:
        fields = orjson.loads(line)
    except ValueError:
        return False
    return isinstance(fields, dict) and fields.get("event") == "scenario"


def read(data: bytes, name: str) -> Script:
    """Read a scenario.  Raises InputError ("FILE:LINE: what, expected what") for the first line that is wrong."""
    from vmm_ras.traces import script_models

    head: Head | None = None
    steps: list[tuple[int, Any]] = []
    pages: dict[str, NamedPage] = {}
    gone: set[str] = set()
    lines = data.split(b"\n")
    if len(lines) > MAX_LINES:
        raise InputError(f"{name}: more than {MAX_LINES} lines")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue

        def wrong(what: str, number: int = number) -> InputError:
            return InputError(f"{name}:{number}: {what}")

        if len(line) > LONGEST:
            raise wrong(f"a line of more than {LONGEST} bytes, expected a JSON object")
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            from vmm_ras.traces.jsonl_models import not_json

            raise wrong(not_json(error)) from None
        item = script_models.parse(fields)
        if isinstance(item, str):
            raise wrong(item)
        if isinstance(item, Head) != (head is None):
            raise wrong("expected event 'scenario' in the first line, and there only")
        if isinstance(item, Head):
            head = item
            continue
        assert head is not None
        found = _objection(item, pages, head, gone)
        if found:
            raise wrong(found)
        if isinstance(item, NamedPage):
            pages[item.name] = item
        if isinstance(item, Reset):
            gone |= {page.name for page in pages.values() if page.owned}
        if isinstance(item, Record):
            try:
                item.build(dict.fromkeys(pages, 0x4000_0000))
            except InputError as error:
                raise wrong(str(error)) from None
        steps.append((number, item))
    if head is None:
        raise InputError(f"{name}: empty, expected a scenario")
    return Script(name, head, tuple(steps))


def _objection(item: Any, pages: Mapping[str, NamedPage], head: Head, gone: Collection[str]) -> str:
    """What a line says that the lines before it do not allow; ``gone``: pages whose owners a reset has ended."""
    if isinstance(item, NamedPage):
        if item.name in pages:
            return f"page {item.name!r} is there already"
        if len(pages) >= MAX_PAGES:
            return f"more than {MAX_PAGES} pages"
        if item.pages > 1 and item.owner != "nobody":
            return "pages, expected it of nobody's memory only"
    elif (page := getattr(item, "page", None)) is not None:
        if page not in pages:
            return f"no page is called {page!r}"
        runs = isinstance(item, Sea | Serror | Abort | Record) or (
            isinstance(item, Signal) and item.code == Code.AR
        )  # fmt: skip
        if runs and (page in gone or not pages[page].owned):
            since = " after the reset" if page in gone else ""
            return f"page {page!r} has no owner{since}, expected one that a process uses"
    if isinstance(item, Record) and item.page is None and item.source.startswith(("sea", "sei")):
        return "page is missing, expected the one whose owner takes the exception"
    vcpu = getattr(item, "vcpu", None)
    if isinstance(vcpu, int) and vcpu >= head.vcpus:
        return f"vcpu is {vcpu}, expected one below {head.vcpus}"
    return ""


def names(steps: Iterable[tuple[int, Any]]) -> list[str]:
    """Sources that the steps speak of, in order, each once."""
    found = [item.source for _, item in steps if getattr(item, "source", None)]
    return list(dict.fromkeys(found))
