"""The lines of a scenario file, declared (docs/scenarios.md): a native trace in which pages and sources have names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from vmm_ras.events import Code
from vmm_ras.traces import script
from vmm_ras.traces.jsonl_models import (
    U16,
    U32,
    U64,
    AckDelayLine,
    El,
    Lsb,
    MaskSerrorLine,
    PollStopLine,
    SdeiLine,
    Seconds,
    Size,
    _explain,
    _kind,
    _Line,
)

Name = Annotated[str, Field(pattern="^[a-z][a-z0-9]{0,7}$")]
Source = Annotated[str, Field(pattern="^(sea|sei|sdei|polled|gsiv|gpio)(:[0-9])?$")]
Words = Annotated[str, Field(pattern="^[ -~]{1,200}$")]
Hex = Annotated[str, Field(pattern="^([0-9a-f]{2})*$")]


class ScenarioLine(_Line):
    """First line: what the scenario is, and the machine that it is played on."""

    event: Literal["scenario"]
    version: Literal[1]
    about: Words = Field(description="What is shown, in a sentence.")
    proves: list[Name | Annotated[str, Field(pattern="^[a-z_0-9]{1,40}$")]] = Field(
        default_factory=list, description="Statements of a guest profile that it is evidence for."
    )
    preset: Annotated[str, Field(pattern="^[a-z0-9.-]{1,20}$")] = Field("all", description="Error sources.")
    vcpus: Annotated[int, Field(ge=1, le=8)] = 2
    deliver: list[Literal["sea", "sei", "sdei", "polled", "gsiv", "gpio"]] = Field(
        default_factory=list, description="Ways by which found memory is told; the policy's if absent."
    )
    policy: str = Field("", description="The policy, TOML; the default one if absent.")
    model_only: str = Field("", pattern="^[ -~]{0,200}$", description="Why no real guest can be made to do this.")

    def item(self) -> script.Head:
        """The line as the reader gives it."""
        return script.Head(
            self.about, tuple(self.proves), self.preset, self.vcpus, tuple(self.deliver), self.policy, self.model_only
        )


class PageLine(_Line):
    """A page of guest memory with a name, and whose it is."""

    event: Literal["page"]
    name: Name
    owner: Literal["reader", "early", "idle", "unhandled", "nobody", "outside"] = Field(
        description="reader: a process that reads it again and again, and handles SIGBUS.  early: one that asked for "
        "early signals and leaves it alone.  idle: one that did not ask.  unhandled: a reader without a handler.  "
        "nobody: free RAM.  outside: an address that is not RAM."
    )
    vcpu: U16 = 0
    pages: Annotated[int, Field(ge=1, le=16)] = Field(1, description="How many, for nobody: aligned to all of them.")

    def item(self) -> script.NamedPage:
        """The line as the reader gives it."""
        return script.NamedPage(self.name, self.owner, self.vcpu, self.pages)


class SignalLine(_Line):
    """SIGBUS of memory failure on the host."""

    event: Literal["signal"]
    code: Literal["AR", "AO"]
    page: Name
    lsb: Lsb = 12
    vcpu: U16 | None = Field(None, description="vCPU in whose thread it arrives; for AR the page's own if absent.")
    el: El = Field(0, description="Exception level at which the page's owner used it (AR).")

    def item(self) -> script.Signal:
        """The line as the reader gives it."""
        return script.Signal(Code[self.code], self.page, self.lsb, self.vcpu, self.el)


class FaultLine(_Line):
    """Guest memory is lost, by guest physical address."""

    event: Literal["fault"]
    page: Name
    size: Size = 4096

    def item(self) -> script.Fault:
        """The line as the reader gives it."""
        return script.Fault(self.page, self.size)


class AbortLine(_Line):
    """KVM_EXIT_ARM_SEA: the page's owner consumed poison; the host relays the syndrome."""

    event: Literal["abort"]
    page: Name
    esr: U64
    located: bool = Field(True, description="Whether the host knows the guest physical address.")
    el: El = 0

    def item(self) -> script.Abort:
        """The line as the reader gives it."""
        return script.Abort(self.page, self.esr, self.located, self.el)


class RecordLine(_Line):
    """A status block is told as it is."""

    event: Literal["record"]
    source: Source
    block: dict[str, Any] | Hex = Field(
        description="As `vmm-ras show --json` prints it, or hex; 'page a' stands for an address."
    )
    patch: dict[Annotated[str, Field(pattern="^0x[0-9a-f]{1,4}$")], Hex] = Field(
        default_factory=dict, description="Bytes that replace others, by offset."
    )
    page: Name | None = Field(None, description="SEA: whose owner takes it.")
    el: El = 0

    def item(self) -> script.Record:
        """The line as the reader gives it."""
        patch = tuple((int(at, 16), bytes.fromhex(data)) for at, data in self.patch.items())
        block = bytes.fromhex(self.block) if isinstance(self.block, str) else self.block
        return script.Record(self.source, block, patch, self.page, self.el)


class SeaLine(_Line):
    """The owner of a page takes a synchronous external abort without a record."""

    event: Literal["sea"]
    page: Name
    esr: U64
    el: El = 0

    def item(self) -> script.Sea:
        """The line as the reader gives it."""
        return script.Sea(self.page, self.esr, self.el)


class SerrorLine(_Line):
    """The vCPU of a page's owner takes an SError with this syndrome (IDS and ISS)."""

    event: Literal["serror"]
    page: Name
    vsesr: Annotated[U64, Field(le=0x1FFFFFF)]
    el: El = 0

    def item(self) -> script.Serror:
        """The line as the reader gives it."""
        return script.Serror(self.page, self.vsesr, self.el)


class SdeiEventLine(_Line):
    """An SDEI event of the platform is signalled."""

    event: Literal["sdei"]
    number: U32

    def item(self) -> script.SdeiEvent:
        """The line as the reader gives it."""
        return script.SdeiEvent(self.number)


class ResetLine(_Line):
    """The machine begins anew: the guest boots again, every process is gone."""

    event: Literal["reset"]
    replaced: bool = Field(True, description="Whether the host gives good memory for what was lost.")

    def item(self) -> script.Reset:
        """The line as the reader gives it."""
        return script.Reset(self.replaced)


class WaitLine(_Line):
    """Time passes."""

    event: Literal["wait"]
    seconds: Annotated[Seconds, Field(le=60)]

    def item(self) -> script.Wait:
        """The line as the reader gives it."""
        return script.Wait(self.seconds)


class SettleLine(_Line):
    """Time passes until nothing waits to be told or acknowledged."""

    event: Literal["settle"]
    seconds: Annotated[Seconds, Field(le=60)] = Field(5.0, description="At most.")

    def item(self) -> script.Settle:
        """The line as the reader gives it."""
        return script.Settle(self.seconds)


class ExpectLine(_Line):
    """What must be so now, of one source, one page or the guest; everything that is not asked is free."""

    event: Literal["expect"]
    guests: list[Annotated[str, Field(pattern="^[a-z0-9.-]{1,20}$")]] = Field(
        default_factory=list, description="Guests of which this is expected; all if absent."
    )
    source: Source | None = None
    bound: bool | None = Field(None, description="Source: whether the guest has a driver for it.")
    acked: bool | None = Field(None, description="Source: the bits of the Read Ack Register.")
    cleared: bool | None = Field(None, description="Source: the block status is 0.")
    page: Name | None = None
    offlined: bool | None = Field(None, description="Page: the guest took it out of use.")
    reported: bool | None = Field(None, description="Page: the guest reported a memory failure there.")
    signal: Literal["BUS_MCEERR_AR", "BUS_MCEERR_AO", "BUS_OBJERR", "SI_KERNEL", "killed", "none"] | None = Field(
        None, description="Page: the code of the SIGBUS that its owner got; killed: by an Oops, or without a handler."
    )
    told: Literal["sea", "sei", "sdei", "polled", "gsiv", "gpio", "nothing"] | None = Field(
        None, description="Page: by which way the guest was told of it the last time."
    )
    alive: bool | None = Field(None, description="Guest: it has not panicked.")

    @model_validator(mode="after")
    def _one_subject(self) -> ExpectLine:
        of = {
            "source": ("bound", "acked", "cleared"),
            "page": ("offlined", "reported", "signal", "told"),
            "guest": ("alive",),
        }
        named = "source" if self.source is not None else "page" if self.page is not None else "guest"
        if self.source is not None and self.page is not None:
            raise PydanticCustomError("subject", "Input should be about a source or a page")
        for subject, keys in of.items():
            asked = [k for k in keys if getattr(self, k) is not None]
            if (subject != named and asked) or (subject == named and not asked):
                raise PydanticCustomError(
                    "subject", "Input should be {keys} of {named}", {"keys": " or ".join(of[named]), "named": named}
                )
        return self

    def item(self) -> script.Expect:
        """The line as the reader gives it."""
        keys = ("bound", "acked", "cleared", "offlined", "reported", "signal", "told", "alive")
        checks = tuple((k, getattr(self, k)) for k in keys if getattr(self, k) is not None)
        return script.Expect(tuple(self.guests), self.source, self.page, checks)


GuestLine = Annotated[AckDelayLine | MaskSerrorLine | SdeiLine | PollStopLine, Field(discriminator="action")]
AnyLine = (
    ScenarioLine | PageLine | SignalLine | FaultLine | AbortLine | RecordLine | SeaLine | SerrorLine | SdeiEventLine
    | ResetLine | WaitLine | SettleLine | ExpectLine | GuestLine
)  # fmt: skip
_ADAPTER: TypeAdapter[AnyLine] = TypeAdapter(
    Annotated[AnyLine, Field(discriminator="event")], config=ConfigDict(defer_build=True)
)


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one line."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "One line of a vmm-ras scenario"}
    return head | _ADAPTER.json_schema()


def parse(fields: object) -> Any:
    """The item of a decoded line, or, as text, what is wrong with it and what was expected."""
    if not isinstance(fields, dict):
        return f"{_kind(fields)}, expected an object"
    for tag in "event", "action":
        if not isinstance(fields.get(tag, ""), str):
            return f"{tag} is {_kind(fields[tag])}, expected a string"
    try:
        line = _ADAPTER.validate_python(fields)
    except ValidationError as errors:
        error = errors.errors(include_url=False, include_context=True)[0]
        if error["type"] == "subject":
            return f"an expectation: {error['msg'].removeprefix('Input should be ')}"
        return _explain(error)
    return line.item() if hasattr(line, "item") else line._item(False)
