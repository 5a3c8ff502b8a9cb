"""Arguments of the commands: each is declared once, and checked before anything is done."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError, model_validator

from cper.wire import Documented
from vmm_ras.errors import InputError, path_text

U64 = Annotated[int, Field(ge=0, lt=1 << 64)]
VcpuNumber = Annotated[int, Field(ge=0, lt=512)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME)]
MAX_LSB = 30
"""log2 of the largest loss that one command reports: a huge page of 1 GiB."""
MAX_REGISTRATIONS = 4096
"""SDEI handlers that a model guest registers when it boots, all vCPUs together."""


class Arguments(Documented):
    """None; and what all have in common: names with hyphens, nothing converted, nothing unknown."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, alias_generator=lambda name: name.replace("_", "-"),
    )  # fmt: skip


_Kind = TypeVar("_Kind", bound=Arguments)


class OfVm(Arguments):
    """Of one VM."""

    vm: str | None = None
    """Its name; it may be left out where there is only one."""


class QomGet(OfVm):
    """A property of an object."""

    path: Annotated[str, Field(max_length=1024)]
    property: Annotated[str, Field(max_length=1024)]


class QomList(OfVm):
    """An object."""

    path: Annotated[str, Field(max_length=1024)]


class Cper(OfVm):
    """A record as QEMU takes it."""

    cper: str
    """A complete error status block, base64."""


class InjectRecord(Cper):
    """A record, and by which source."""

    source: Annotated[int, Field(ge=0, le=0xFFFF)] | None = None
    """Source id; without one, the first free source of the ways by which the policy tells found memory."""
    vcpu: VcpuNumber = 0
    """vCPU that an SEA or SEI source notifies."""


class InjectMemoryError(OfVm):
    """Memory that the host lost."""

    gpa: U64 | None = None
    hva: U64 | None = None
    """Guest physical, or host virtual, address."""
    lsb: Annotated[int, Field(ge=0, le=MAX_LSB)] = 12
    """log2 of the bytes lost."""
    code: Literal["AO", "AR"] = "AO"
    """AR: a vCPU consumed it; AO: it was found."""
    vcpu: VcpuNumber | None = None
    """vCPU whose thread gets the signal; of an AR, 0 without it."""


class InjectSea(OfVm):
    """A synchronous external abort without a record."""

    vcpu: VcpuNumber = 0
    esr: U64 | None = None
    """ESR_EL1, whose EC follows the exception level; or the parts of it:"""
    dfsc: Annotated[int, Field(ge=0, le=0x3F)] | None = None
    """Data Fault Status Code; 0x10 without it."""
    ea: Literal[0, 1] | None = None
    set: Literal["uer", "uc", "ueo"] | None = None
    """Synchronous Error Type; uer without it."""
    far: U64 | None = None
    """FAR_EL1; without it, the register is left alone."""
    force: bool = False
    """Allow what the architecture has no encoding for on this guest: parity codes with FEAT_RAS."""


class InjectSerror(OfVm):
    """A virtual SError without a record."""

    vcpu: VcpuNumber = 0
    vsesr: Annotated[int, Field(ge=0, lt=1 << 25)] | None = None
    """VSESR_EL2: IDS and ISS; or the type:"""
    aet: Literal["uc", "ueu", "ueo", "uer", "ce"] | None = None
    """Asynchronous Error Type; ueo without it."""


class InjectSdeiEvent(OfVm):
    """An SDEI event of the platform."""

    event: Annotated[int, Field(ge=0, lt=1 << 31)]
    vcpu: VcpuNumber | None = None
    """Whose instance of a private event; of a shared one, the PE that is preferred."""


class Migrate(OfVm):
    """Where a VM goes."""

    uri: Annotated[str, Field(pattern=r"^file:/", max_length=4096)]
    """``file:`` and the absolute path of a file that does not exist yet, where the service runs."""


class Proceed(OfVm):
    """The orchestrator's word."""

    rule: Annotated[str, Field(max_length=40)]
    """Rule whose pages wait for it."""


class MemoryReplaced(OfVm):
    """Good memory in place of what was lost."""

    gpa: U64
    size: Annotated[int, Field(gt=0, le=1 << 52)]


class Slot(Arguments):
    """A range of guest memory; bytes."""

    hva: U64
    gpa: U64
    size: Annotated[int, Field(gt=0, le=1 << 40)]


class SdeiEvent(Arguments):
    """An event that SDEI offers."""

    number: Annotated[int, Field(gt=0, lt=1 << 31)]
    shared: bool = False
    critical: bool = False


class VmAdd(Arguments):
    """A VM with a model guest."""

    name: Name
    vcpus: Annotated[int, Field(ge=1, le=512)] = 1
    memory: Annotated[tuple[Slot, ...], Field(max_length=64, strict=False)] = ()
    """Slots of guest memory; without one, 1 GiB at 0x40000000."""
    preset: str = "default"
    """Error sources: a preset of HEST."""
    guest: str = "linux"
    """Guest profile."""
    policy: Annotated[str, Field(max_length=65536)] | None = None
    """A policy's TOML; without it, the default one."""
    style: Literal["native", "qemu"] = "native"
    page_size: Literal["4k", "16k", "64k"] = "4k"
    sdei: bool = True
    """Whether the guest registers its SDEI events."""
    sdei_events: Annotated[tuple[SdeiEvent, ...], Field(max_length=256, strict=False)] = ()
    """Events that SDEI offers besides those of the sources; the guest registers them too."""

    @model_validator(mode="after")
    def _soon_ready(self) -> VmAdd:
        if self.vcpus * len(self.sdei_events) > MAX_REGISTRATIONS:
            raise ValueError(f"vcpus times sdei-events: at most {MAX_REGISTRATIONS}")
        return self


class VmDel(Arguments):
    """A VM."""

    name: str


def checked(kind: type[_Kind], given: dict[str, Any]) -> _Kind:
    """The arguments as their model.  Raises InputError in QEMU's words, with the name of the wrong one."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = path_text(first["loc"])[:80]
    if first["type"] == "missing":
        raise InputError(f"Parameter '{name}' is missing")
    if first["type"] == "extra_forbidden":
        raise InputError(f"Parameter '{name}' is unexpected")
    raise InputError(f"Invalid parameter '{name}': {first['msg']}" if name else first["msg"])
