"""The lines of the native trace, declared: they validate what the reader's quick path leaves, and make the schema."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from orjson import JSONDecodeError
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError
from pydantic_core.core_schema import no_info_before_validator_function

from vmm_ras.events import Code, GuestAbort, HostSignal, MemoryFault
from vmm_ras.memory import MemorySlot
from vmm_ras.traces.items import (
    AckDelay,
    Header,
    MaskSerror,
    PollStop,
    RunAt,
    SdeiRegistered,
    TraceItem,
    Unlocated,
    VcpuThread,
)

_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,16}\Z")


class _Hex:
    """The integer may be a hexadecimal string: JSON has none, and many readers of JSON lose integers beyond 2**53."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(_unhex, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [handler(core), {"type": "string", "pattern": "^0[xX][0-9a-fA-F]{1,16}$"}]}


def _unhex(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not _HEX.match(value):
        raise PydanticCustomError("hex", 'Input should be an integer, or a string "0x" and 1 to 16 hex digits')
    return int(value, 16)


def _refuse_float(value: object) -> object:
    if isinstance(value, float):
        raise PydanticCustomError("float", "Input should be no fraction")
    return value


_NO_FLOAT = BeforeValidator(_refuse_float)
U64 = Annotated[int, Field(ge=0, le=(1 << 64) - 1), _Hex()]
U32 = Annotated[int, Field(ge=0, le=(1 << 32) - 1), _Hex()]
U16 = Annotated[int, Field(ge=0, le=(1 << 16) - 1), _Hex()]
Size = Annotated[int, Field(ge=1, le=(1 << 64) - 1), _Hex()]
Lsb = Annotated[int, Field(ge=0, le=63), _Hex()]
El = Annotated[int, Field(ge=0, le=1), _Hex()]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)

    def _item(self, wall: bool) -> TraceItem:
        raise NotImplementedError


class _Timed(_Line):
    time: Seconds | None = Field(None, description="Seconds: since the Unix epoch if the header's clock is wall.")

    def wall_time(self, wall: bool) -> float | None:
        return self.time if wall else None


class TraceLine(_Line):
    """Optional first line: what the trace says of itself."""

    event: Literal["trace"]
    version: Annotated[Literal[1], _NO_FLOAT]
    clock: Literal["wall", "relative"] = Field("relative", description="What the times of the other lines are.")
    addresses: Literal["hva", "hpa"] = Field(
        "hva", description="What the hva of signals is; hpa: the host physical address stands in for it."
    )

    def _item(self, wall: bool) -> TraceItem:
        return Header(self.version, self.clock == "wall", self.addresses)


class MemoryLine(_Line):
    """A slot of guest RAM: where a host virtual address is in the guest."""

    event: Literal["memory"]
    hva: U64 = Field(description="First host virtual address.")
    gpa: U64 = Field(description="First guest physical address.")
    size: Size = Field(description="Bytes.")

    @field_validator("size")
    @classmethod
    def _ends(cls, size: int, info: ValidationInfo) -> int:
        return _fits(size, max(info.data.get("hva", 0), info.data.get("gpa", 0)))

    def _item(self, wall: bool) -> TraceItem:
        return MemorySlot(self.hva, self.gpa, self.size)


class VcpuLine(_Line):
    """The thread that runs a vCPU."""

    event: Literal["vcpu"]
    vcpu: U16 = Field(description="Index of the vCPU.")
    tid: U32 = Field(description="Thread id on the host.")

    def _item(self, wall: bool) -> TraceItem:
        return VcpuThread(self.vcpu, self.tid)


class SignalLine(_Timed):
    """A SIGBUS of memory failure, as its siginfo has it."""

    event: Literal["signal"]
    code: Annotated[Literal["AR", "AO", 4, 5], _NO_FLOAT] = Field(
        description="si_code: BUS_MCEERR_AR is 4, BUS_MCEERR_AO is 5."
    )
    hva: U64 = Field(description="si_addr: host virtual address.")
    lsb: Lsb = Field(12, description="si_addr_lsb: log2 of the bytes lost.")
    tid: U32 = Field(0, description="Thread that got the signal; 0 if unknown.")

    def _item(self, wall: bool) -> TraceItem:
        code = Code[self.code] if isinstance(self.code, str) else Code(self.code)
        return HostSignal(code, self.hva, self.lsb, self.tid, self.wall_time(wall))


class AbortLine(_Timed):
    """KVM_EXIT_ARM_SEA: a vCPU consumed poison; there is no host address."""

    event: Literal["abort"]
    vcpu: U16 = Field(description="Index of the vCPU.")
    esr: U64 = Field(description="ESR_EL2 of the abort.")
    gva: U64 | None = Field(None, description="Guest virtual address, if known.")
    gpa: U64 | None = Field(None, description="Guest physical address, if known.")

    def _item(self, wall: bool) -> TraceItem:
        return GuestAbort(self.vcpu, self.esr, self.gva, self.gpa, self.wall_time(wall))


class FaultLine(_Timed):
    """Guest memory is lost, by guest physical address."""

    event: Literal["fault"]
    gpa: U64 = Field(description="First guest physical address.")
    size: Size = Field(description="Bytes.")

    @field_validator("size")
    @classmethod
    def _ends(cls, size: int, info: ValidationInfo) -> int:
        return _fits(size, info.data.get("gpa", 0))

    def _item(self, wall: bool) -> TraceItem:
        return MemoryFault(self.gpa, self.size, self.wall_time(wall))


class UnlocatedLine(_Timed):
    """The host told of an error, but nothing says which memory it hit."""

    event: Literal["unlocated"]
    code: Annotated[Literal["AR", "AO", 4, 5] | None, _NO_FLOAT] = Field(None, description="si_code, if known.")
    tid: U32 = Field(0, description="Thread that was told; 0 if unknown.")
    what: str = Field(pattern="^[ -~]{0,200}$", description="What is known of it: printable ASCII.")

    def _item(self, wall: bool) -> TraceItem:
        code = None if self.code is None else Code[self.code] if isinstance(self.code, str) else Code(self.code)
        return Unlocated(code, self.tid, self.what, self.wall_time(wall))


class _Guest(_Timed):
    event: Literal["guest"]


class AckDelayLine(_Guest):
    """From now on the guest acknowledges late, or never."""

    action: Literal["ack-delay"]
    ms: Seconds | None = Field(description="Milliseconds; null: never again.")
    source_id: U16 | None = Field(None, description="HEST error source; all of them if absent.")

    def _item(self, wall: bool) -> TraceItem:
        return AckDelay(self.ms, self.source_id)


class MaskSerrorLine(_Guest):
    """The guest sets or clears PSTATE.A on a vCPU."""

    action: Literal["mask-serror"]
    vcpu: U16
    masked: bool

    def _item(self, wall: bool) -> TraceItem:
        return MaskSerror(self.vcpu, self.masked)


class SdeiLine(_Guest):
    """The guest registers and enables its SDEI events, or unregisters them."""

    action: Literal["sdei"]
    registered: bool

    def _item(self, wall: bool) -> TraceItem:
        return SdeiRegistered(self.registered)


class ElLine(_Guest):
    """The exception level at which a vCPU runs from now on."""

    action: Literal["el"]
    vcpu: U16
    el: El

    def _item(self, wall: bool) -> TraceItem:
        return RunAt(self.vcpu, self.el)


class PollStopLine(_Guest):
    """The guest stops looking at polled error sources, or starts again."""

    action: Literal["poll-stop"]
    stopped: bool

    def _item(self, wall: bool) -> TraceItem:
        return PollStop(self.stopped)


GuestLine = Annotated[
    AckDelayLine | MaskSerrorLine | SdeiLine | ElLine | PollStopLine,
    Field(discriminator="action"),
]
AnyLine = TraceLine | MemoryLine | VcpuLine | SignalLine | AbortLine | FaultLine | UnlocatedLine | GuestLine
_ADAPTER: TypeAdapter[AnyLine] = TypeAdapter(
    Annotated[AnyLine, Field(discriminator="event")], config=ConfigDict(defer_build=True)
)


def _fits(size: int, start: int) -> int:
    if start + size > 1 << 64:
        raise PydanticCustomError("wraps", "Input should be such that the range ends within 64 bits of address")
    return size


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one line."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "One line of a vmm-ras trace"}
    return head | _ADAPTER.json_schema()


def parse(fields: object, wall: bool) -> tuple[float | None, TraceItem] | str:
    """Time and item of a decoded line, or what is wrong with it, by key, and what was expected."""
    if not isinstance(fields, dict):
        return f"{_kind(fields)}, expected an object"
    for tag in "event", "action":
        if not isinstance(fields.get(tag, ""), str):  # pydantic prints a tag however deep it is nested
            return f"{tag} is {_kind(fields[tag])}, expected a string"
    try:
        line = _ADAPTER.validate_python(fields)
    except ValidationError as errors:
        return _explain(errors.errors(include_url=False, include_context=True)[0])
    return line.time if isinstance(line, _Timed) else None, line._item(wall)


def _explain(error: ErrorDetails) -> str:
    key = plain(str(error["loc"][-1])) if error["loc"] else ""
    match error["type"]:
        case "missing":
            return f"{key} is missing, expected it in this event"
        case "extra_forbidden":
            return f"unknown key {key!r}, expected only those of this event"
        case "union_tag_not_found":
            return f"{error['ctx']['discriminator'].strip(chr(39))} is missing, expected it in a line of this kind"
        case "union_tag_invalid":
            context = error["ctx"]
            tag, tags = plain(context["tag"]), context["expected_tags"]
            return f"{context['discriminator'].strip(chr(39))} is {tag!r}, expected one of {tags}"
        case _:
            return f"{key} is {_kind(error['input'])}, expected {error['msg'].removeprefix('Input should be ')}"


def _kind(value: object) -> str:
    """A value for a message: as it is if it is short, else what it is.  Lists may be nested too deep to print."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    text = {True: "true", False: "false", None: "null"}.get(value) if isinstance(value, bool | None) else None
    return text or plain(ascii(value))


def not_json(error: JSONDecodeError) -> str:
    """What is wrong with a line that is no JSON."""
    return f"not JSON at column {error.colno} ({plain(error.msg)}), expected an object"


def plain(text: str, most: int = 80) -> str:
    """Printable ASCII of bounded length: a trace must not write to the terminal what it likes."""
    safe = "".join(c if " " <= c <= "~" else c.encode("ascii", "backslashreplace").decode() for c in text[:most])
    return "".join(c if " " <= c <= "~" else f"\\x{ord(c):02x}" for c in safe) + ("..." if len(text) > most else "")
