"""What a host says of itself: kernel, capabilities, register list with values, writable masks, the CPU it has.

The values are those of a vCPU that has just been made with all optional features that the host offers.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from vmm_ras.compat import registers
from vmm_ras.compat.fields import field
from vmm_ras.errors import InputError, path_text

FORMAT: Final = "vmm-ras-host"
MAX_REGISTERS: Final = 8192
MAX_BITS: Final = 2048
"""Of an SVE register."""


def _number(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"0x[0-9a-fA-F]{1,512}", value):
        return int(value, 16)
    if type(value) is int and 0 <= value < 1 << MAX_BITS:
        return value
    raise ValueError("expected a number as '0x...'")


def _count(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,4}", value):
        return int(value)
    if type(value) is int and 0 < value < 10000:
        return value
    raise ValueError("expected the number of a capability")


Hex = Annotated[int, BeforeValidator(_number), PlainSerializer(hex)]
Registers = Annotated[dict[Hex, Hex], Field(max_length=MAX_REGISTERS)]
Capability = Annotated[int, BeforeValidator(_count), PlainSerializer(str)]


class Description(BaseModel):
    """A host.  ``parse`` reads the JSON that ``text`` writes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    format: Annotated[str, Field(pattern=f"^{FORMAT}$")] = FORMAT
    version: Annotated[int, Field(ge=1, le=1)] = 1
    kernel: Annotated[str, Field(max_length=200, pattern=r"^[ -~]*$")]
    """Release, as ``uname -r`` says it."""
    cpu: Annotated[str, Field(max_length=200, pattern=r"^[ -~]*$")] = ""
    """What the host calls its CPU, for people."""
    features: Annotated[list[str], Field(max_length=64)] = []
    """Optional vCPU features that were turned on: ``psci-0.2``, ``pmu-v3``, ``sve``, ``ptrauth``."""
    capabilities: Annotated[dict[Capability, int], Field(max_length=2048)] = {}
    """Number of KVM_CHECK_EXTENSION to what it returned, where that was not 0."""
    registers: Registers
    """KVM_GET_REG_LIST: id to the value after KVM_ARM_VCPU_INIT, in the order of the list."""
    writable: Registers | None = None
    """Id to the bits that can be written (KVM_ARM_GET_REG_WRITABLE_MASKS); None where the kernel has no such call."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read it.  Raises InputError, which names the member."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = path_text(first["loc"]) or "text"
            raise InputError(f"host description: {where}: {first['msg']}".replace("\n", " ")) from None

    def plain(self) -> dict[str, Any]:
        """As JSON-able values."""
        return self.model_dump(mode="json")

    @cached_property
    def release(self) -> tuple[int, int]:
        """The kernel's first two numbers; (0, 0) where the release has none."""
        found = re.match(r"(\d{1,4})\.(\d{1,4})", self.kernel)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def capability(self, number: int) -> int:
        """0 where the host has it not."""
        return self.capabilities.get(number, 0)

    def field(self, reg: int, name: str) -> int:
        """A field of an ID register, 0 where the list has no such register."""
        return field(reg, name).value(self.registers.get(reg, 0))

    @property
    def aarch32(self) -> bool:
        """Whether programs of a guest may be AArch32 (ID_AA64PFR0_EL1.EL0 is 2)."""
        return self.field(registers.PFR0, "EL0") >= 2

    @property
    def midr(self) -> int:
        """MIDR_EL1."""
        return self.registers.get(registers.MIDR, 0)
