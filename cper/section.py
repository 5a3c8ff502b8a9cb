"""Section bodies by their Section Type GUID (UEFI 2.10, N.2.2, Table N.5): classes load when their GUID is met.

A section whose GUID is not in ``MODULES``, and a body that its class cannot read, stay bytes: nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias
from uuid import UUID

from cper.plain import hex_in
from cper.wire import Struct, TruncatedError

if TYPE_CHECKING:
    from cper.construct_section import ConstructSection
    from cper.framed import FramedSection

    AnySection: TypeAlias = "Section | FramedSection[Any] | ConstructSection"
    """A section body that was read: one structure, a frame with variable parts, or one's own declaration."""

MODULES: dict[UUID, str] = {
    UUID("9876ccad-47b4-4bdb-b65e-16f193c4f3db"): "cper.processor_generic:ProcessorGeneric",
    UUID("dc3ea0b0-a144-4797-b95b-53fa242b6e1d"): "cper.ia32x64:Ia32X64Processor",
    UUID("e19e3d16-bc11-11e4-9caa-c2051d5d46b0"): "cper.arm_processor:ArmProcessor",
    UUID("a5bc1114-6f64-4ede-b863-3e83ed7c83b1"): "cper.memory:PlatformMemory",
    UUID("61ec04fc-48e6-d813-25c9-8daa44750b12"): "cper.memory2:PlatformMemory2",
    UUID("c5753963-3b84-4095-bf78-eddad3f9c9dd"): "cper.pci_bus:PciBus",
    UUID("eb5e4685-ca66-4769-b6a2-26068b001326"): "cper.pci_component:PciComponent",
    UUID("81212a96-09ed-4996-9471-8d729c8e69ed"): "cper.firmware_error_record:FirmwareErrorRecord",
    UUID("d995e954-bbc1-430f-ad91-b44dcb3c6f35"): "cper.pcie:Pcie",
    UUID("5b51fef7-c79d-4434-8f1b-aa62de3e2c64"): "cper.dmar:DmarGeneric",
    UUID("71761d37-32b2-45cd-a7d0-b0fedd93e8cf"): "cper.dmar_vtd:DmarVtd",
    UUID("036f84e1-7f37-428c-a79e-575fdfaa84ec"): "cper.dmar_iommu:DmarIommu",
    UUID("5e4706c1-5356-48c6-930b-52f2120a4458"): "cper.fru_memory_poison:FruMemoryPoison",
    UUID("91335ef6-ebfb-4478-a6a6-88b728cf75d7"): "cper.ccix_per:CcixPer",
    UUID("80b9efb4-52b5-4de3-a777-68784b771048"): "cper.cxl_protocol:CxlProtocol",
    UUID("fbcd0a77-c260-417f-85a9-088b1621eba6"): "cper.cxl_general_media:CxlGeneralMedia",
    UUID("601dcbb3-9c06-4eab-b8af-4e9bfb5c9624"): "cper.cxl_dram:CxlDram",
    UUID("fe927475-dd59-4339-a586-79bab113b774"): "cper.cxl_memory_module:CxlMemoryModule",
    UUID("77cf9271-9c02-470b-9fe4-bc7b75f2da97"): "cper.cxl_switch:CxlPhysicalSwitch",
    UUID("40d26425-3396-4c4d-a5da-3d47263af425"): "cper.cxl_switch:CxlVirtualSwitch",
    UUID("8dc44363-0c96-4710-b7bf-04bb99534c3f"): "cper.cxl_switch:CxlMldPort",
    UUID("bf32d4d5-b427-4025-8495-8a9e5d4030e4"): "cper.arm_ras:ArmRas",
    UUID("6d5244f2-2712-11ec-bea7-cb3fdb95c786"): "cper.nvidia:Nvidia",
    UUID("9068e568-6ca0-11f0-aeaf-159343591eac"): "cper.nvidia_event:NvidiaEvent",
    UUID("e8ed898d-df16-43cc-8ecc-54f060ef157f"): "cper.ampere:Ampere",
    UUID("2826cc9f-448c-4c2b-86b6-a95394b7ef33"): "cper.ampere:AmpereBmc",
    UUID("1f8161e1-55d6-41e6-bd10-7afd1dc5f7c5"): "cper.hisilicon:HisiliconOemType1",
    UUID("45534ea6-ce23-4115-8535-e07ab3aef91d"): "cper.hisilicon:HisiliconOemType2",
    UUID("b2889fc9-e7d7-4f9d-a867-af42e98be772"): "cper.hisilicon:HisiliconPcieLocal",
    UUID("c8b328a8-9917-4af6-9a13-2e08ab2e7586"): "cper.hisilicon:HisiliconCommon",
    UUID("a6980811-16ea-4e4d-b936-fb00a23ff29c"): "cper.yitian:Yitian",
    UUID("82d78ba3-fa14-407a-ba0e-f3ba8170013c"): "cper.jaguarmicro:JaguarMicroPor",
    UUID("f9723053-2558-49b1-b58a-1c1a82492a62"): "cper.jaguarmicro:JaguarMicroSmmu",
    UUID("2d31de54-3037-4f24-a283-f69ca1ec0b9a"): "cper.jaguarmicro:JaguarMicroHacSram",
    UUID("dac80d69-0a72-4eba-8114-148ee344af06"): "cper.jaguarmicro:JaguarMicroCmn",
    UUID("746f06fe-405e-451f-8d09-02e802ed984a"): "cper.jaguarmicro:JaguarMicroGic",
}
"""Section Type GUID to ``module:class``, loaded when met.  Plug-ins add theirs here; ``register`` takes a class."""


class Section(Struct):
    """Base of every section body.  Subclass it with ``guid=`` and ``size=``; ``sizes=`` adds older, shorter forms."""

    GUID: ClassVar[UUID]
    """Section Type."""
    SIZES: ClassVar[tuple[int, ...]]
    """Every body length, in bytes, that a revision of the specification gives; the last is ``SIZE``."""

    def __init_subclass__(cls, *, guid: str | None = None, sizes: tuple[int, ...] = (), **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, guid: str | None = None, sizes: tuple[int, ...] = (), **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if guid is not None:
            cls.GUID = UUID(guid)
            cls.SIZES = (*sizes, cls.SIZE)

    FORMS: ClassVar[tuple[type[Section], ...]] = ()
    """All its forms, where a body says by which it is to be read."""

    @classmethod
    def form_of(cls, body: bytes | bytearray | memoryview, at: int = 0) -> type[Section]:
        """The class that reads the body at ``at``: itself, or one of ``FORMS``."""
        return cls

    @classmethod
    def form_of_plain(cls, value: Mapping[str, Any]) -> type[Section]:
        """The class of which JSON holds this."""
        return cls

    @classmethod
    def of_body(cls, body: bytes) -> Self:
        """Read a body of any length from the shortest form on; bytes past ``SIZE`` are not looked at.

        A shorter body reads as if zeroes followed.  Raises TruncatedError, DecodeError.
        """
        return cls.decode(body if len(body) >= cls.SIZE else cls._filled(body))

    @classmethod
    def plain_of_body(cls, body: bytes) -> dict[str, Any]:
        """``of_body(body).plain()`` without the object."""
        return cls.plain_of(body if len(body) >= cls.SIZE else cls._filled(body))

    @classmethod
    def _filled(cls, body: bytes) -> bytes:
        if len(body) < cls.SIZES[0]:
            raise TruncatedError(
                f"{cls.SIZES[0]} bytes needed, {len(body)} given", structure=cls.__name__, offset=len(body)
            )
        return body.ljust(cls.SIZE, b"\0")


_classes: dict[UUID, type[AnySection]] = {}
"""The classes that were met, or registered."""


def register(cls: type[AnySection]) -> None:
    """Make a section type of one's own known under its GUID.  Raises ValueError where the GUID has another class."""
    place = f"{cls.__module__}:{cls.__qualname__}"
    known = _classes.get(cls.GUID)
    other = MODULES.get(cls.GUID, place) if known is None else f"{known.__module__}:{known.__qualname__}"
    if other != place:
        raise ValueError(f"section type {cls.GUID} is {other} already, not {place}")
    _classes[cls.GUID] = cls


unloadable: list[Callable[[str], None]] = []
"""Who is told of a plug-in that does not load; its section type is then unknown.  Without one, loading it raises."""


def section_class(guid: UUID) -> type[AnySection] | None:
    """The class of a Section Type, or None where no class is known.  Raises ImportError (see ``unloadable``)."""
    found = _classes.get(guid)
    if found is None and guid in MODULES:
        try:
            found = _classes[guid] = _load(guid, MODULES[guid])
        except Exception as error:
            text = f"plug-in {MODULES[guid]}: section type {guid} cannot be loaded: {error}"
            if not unloadable:
                raise ImportError(text) from error
            del MODULES[guid]
            for tell in unloadable:
                tell(text)
    return found


def _load(guid: UUID, place: str) -> type[AnySection]:
    module, _, name = place.partition(":")
    found: type[AnySection] = getattr(import_module(module), name)
    if getattr(found, "GUID", None) != guid:
        raise TypeError(f"{name} is no section type of this GUID")
    return found


def section_named(name: str) -> type[AnySection]:
    """The class of that name, as ``--type`` of the command line takes it; case does not matter.  Raises KeyError."""
    for cls in _classes.values():
        if name.lower() == cls.__name__.lower():
            return cls
    for guid, place in MODULES.items():
        module, _, short = place.partition(":")
        if name.lower() in {short.lower(), module.removeprefix("cper.").lower()}:
            found = section_class(guid)
            if found is None:  # a plug-in that does not load
                break
            return found
    raise KeyError(name)


def known_guids() -> list[UUID]:
    """The GUIDs of all known section types: those of the table, then registered ones."""
    return [*MODULES, *(guid for guid in _classes if guid not in MODULES)]


def section_names() -> list[str]:
    """The names of all known section types."""
    own = [cls.__name__ for guid, cls in _classes.items() if guid not in MODULES]
    return [place.partition(":")[2] for place in MODULES.values()] + own


def read_section(guid: UUID, body: bytes) -> AnySection | bytes:
    """A section body as its class, or as it is where no class is known.  Raises TruncatedError, DecodeError."""
    cls = section_class(guid)
    return body if cls is None else section_form(cls, body).of_body(body)


def section_form(cls: type[AnySection], body: bytes) -> type[AnySection]:
    """The class that reads this body: of a type that has forms, the one that its own words ask for."""
    return cls.form_of(body) if issubclass(cls, Section) else cls


def plain_body(guid: UUID, body: bytes) -> dict[str, Any]:
    """What JSON holds of a section body; always enough to write the same bytes again.

    ``{"section": {...}}`` where the class reads it, with ``tail`` (hex) for bytes past it and ``length`` for a shorter
    form; ``{"body": hex}`` otherwise, with ``error`` where a class is known but cannot read it.
    """
    cls = section_class(guid)
    if cls is None:
        return {"body": body.hex()}
    try:
        out: dict[str, Any] = {"section": section_form(cls, body).plain_of_body(body)}
    except ValueError as error:
        return {"body": body.hex(), "error": str(error)}
    if not issubclass(cls, Section):  # a frame holds its whole body
        return out
    if len(body) < cls.SIZE:
        out["length"] = len(body)
    elif len(body) > cls.SIZE:
        out["tail"] = body[cls.SIZE :].hex()
    return out


def plain_at(guid: str, data: bytes | bytearray | memoryview, start: int, stop: int) -> dict[str, Any]:
    """:func:`plain_body` of a body that lies in ``data``, its Section Type as JSON holds it."""
    found = _met.get(guid)
    if found is None:
        cls = section_class(UUID(guid))
        if cls is None:
            return plain_body(UUID(guid), bytes(data[start:stop]))
        if not issubclass(cls, Section):
            found = 0, cls.plain_of_body
        elif cls.FORMS:
            found = cls.SIZE, lambda data, start: cls.form_of(data, start).plain_of(data, start)
        else:
            found = cls.SIZE, cls.plain_of
        _met[guid] = found
    size, read = found
    try:
        if not size:
            return {"section": read(bytes(data[start:stop]))}
        if size == stop - start:
            return {"section": read(data, start)}
    except ValueError:
        pass  # which tells the offset in the body, not in the data
    return plain_body(UUID(guid), bytes(data[start:stop]))


_met: dict[str, tuple[int, Callable[..., dict[str, Any]]]] = {}
"""Of sections that were met: their size where they are one structure, and what makes JSON of them."""


def body_of_plain(guid: UUID, plain: dict[str, Any]) -> bytes:
    """The bytes that :func:`plain_body` described.

    Raises ValueError (pydantic.ValidationError where a field is wrong).
    """
    if "body" in plain:
        return hex_in(plain, "body")
    cls = section_class(guid)
    if cls is None:
        raise ValueError(f"no section type {guid} is known: give its bytes as 'body', in hexadecimal")
    if not isinstance(plain.get("section"), dict):
        raise ValueError("'section' or 'body' expected")
    kind = cls.form_of_plain(plain["section"]) if issubclass(cls, Section) else cls
    body = kind.raw_of_plain(plain["section"])
    if "tail" in plain:
        body += hex_in(plain, "tail")
    if "length" not in plain:
        return body
    length = plain["length"]
    if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length <= len(body):
        raise ValueError(f"length {length!r} is not between 0 and {len(body)}")
    return body[:length]
