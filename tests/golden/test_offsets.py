"""Every declared name against offsets, sizes, bits and values from other people's headers."""

import importlib
from uuid import UUID

import pytest

from cper.section import MODULES, section_class
from cper.wire import Struct
from tests.golden import evidence
from tests.golden.evidence import complaints, constant, table
from tests.strategies import declared, enums, flags

STRUCTS = declared()
NO_EVIDENCE = table("no_evidence")


@pytest.mark.parametrize("cls", STRUCTS, ids=lambda c: c.__name__)
def test_every_field_lies_where_the_headers_have_it(cls):
    if cls.__name__ in NO_EVIDENCE:
        assert cls.__name__ not in table("structs"), "bound, and listed as having no evidence"
        return
    assert complaints(cls.__name__, cls.SIZE, cls.layout) == []


def test_no_binding_is_left_over():
    names = {c.__name__ for c in STRUCTS}
    assert table("structs").keys() | NO_EVIDENCE.keys() <= names
    assert table("enums").keys() <= {c.__name__ for c in (*enums(), *flags())}


def test_what_is_left_out_has_a_reason():
    reasons = [*NO_EVIDENCE.values(), *table("enums_without").values(), *table("constants_without").values()]
    for binding in table("structs").values():
        reasons += [*binding.get("without", {}).values(), *binding.get("size_differs", {}).values()]
    assert all(isinstance(reason, str) and len(reason) > 10 for reason in reasons)


def _members():
    for cls in enums():
        yield from ((f"{cls.__name__}.{name}", cls.__name__, name, int(m)) for name, m in cls.__members__.items())
    for cls in flags():
        yield from ((f"{cls.__name__}.{name}", cls.__name__, name, int(mask)) for name, mask in cls.names.items())


@pytest.mark.parametrize("cls", [*enums(), *flags()], ids=lambda c: c.__name__)
def test_every_enum_member_has_the_headers_value(cls):
    binding, without = table("enums").get(cls.__name__, {}), table("enums_without")
    wrong = []
    for label, owner, name, value in _members():
        if owner != cls.__name__ or label in without or cls.__name__ in without:
            continue
        if not binding.get(name):
            wrong.append(f"{label}: no constant is named for it")
        wrong += [f"{label} is {value}, {s} {constant(s)}" for s in binding.get(name, []) if constant(s) != value]
    assert wrong == []
    assert binding.keys() <= {name for _, owner, name, _ in _members() if owner == cls.__name__}


def _constant_fields():
    return [
        (f"{cls.__name__}.{slot.name}", slot.const)
        for cls in STRUCTS
        for slot in cls.words.slots
        if slot.const is not None
    ]


def _number(value):
    return int.from_bytes(value.encode("latin-1"), "little") if isinstance(value, str) else int(value)


def test_every_constant_of_a_structure_has_the_headers_value():
    binding, without, wrong = table("constants"), table("constants_without"), []
    for label, value in _constant_fields():
        if label in without:
            continue
        if not binding.get(label):
            wrong.append(f"{label}: no constant is named for it")
        wrong += [
            f"{label} is {value}, {s} {constant(s)}" for s in binding.get(label, []) if constant(s) != _number(value)
        ]
    assert wrong == []
    fields = {label for label, _ in _constant_fields()}
    assert {label for label in [*binding, *without] if ":" not in label} <= fields


@pytest.mark.parametrize("label", [label for label in table("constants") if ":" in label] or ["-"])
def test_every_named_module_constant_has_the_headers_value(label):
    if label == "-":
        return
    module, _, name = label.partition(":")
    value = getattr(importlib.import_module(module), name)
    assert [constant(s) for s in table("constants")[label]] == [_number(value)] * len(table("constants")[label])


def _guid(label):
    if ":" not in label:
        return next(c.GUID for c in map(section_class, MODULES) if c.__name__ == label)
    module, _, path = label.partition(":")
    mapping, _, key = path.partition(".")
    return getattr(importlib.import_module(module), mapping)[key]


@pytest.mark.parametrize("label", table("guids"))
def test_every_guid_is_the_headers(label):
    assert [UUID(constant(s)) for s in table("guids")[label]] == [_guid(label)] * len(table("guids")[label])
    assert table("guids")[label]


def test_every_section_type_notification_type_and_creator_is_bound():
    from cper.guids import BODIES, CREATORS, name_of
    from cper.record import NOTIFICATION_TYPES

    for guid in MODULES:
        cls = section_class(guid)
        assert cls is not None
        assert guid == cls.GUID
        assert cls.__name__ in table("guids")
        assert name_of(guid) == cls.__name__
    assert all(f"cper.record:NOTIFICATION_TYPES.{key}" in table("guids") for key in NOTIFICATION_TYPES)
    for kind, names in (("BODIES", BODIES), ("CREATORS", CREATORS)):
        assert all(f"cper.guids:{kind}.{key}" in table("guids") for key in names)
        assert {name_of(guid) for guid in names.values()} == set(names)


class TestTheCheckItself:
    """The comparison can fail."""

    def rows(self, cls: type[Struct], **changes):
        from dataclasses import replace

        return [replace(row, **changes.get(row.path, {})) for row in cls.layout]

    def test_place_size_bits_and_validation_bit_count(self):
        from cper.memory import PlatformMemory as P

        for path, change in [
            ("card", {"offset": 36}),
            ("card", {"size": 4}),
            ("bank_group", {"bits": (0, 7)}),
            ("card", {"valid": 5}),
            ("card", {"valid": None}),
            ("card", {"path": "kard"}),
        ]:
            assert complaints("PlatformMemory", 80, self.rows(P, **{path: change})), (path, change)
        assert complaints("PlatformMemory", 81, P.layout)
        assert not complaints("PlatformMemory", 80, self.rows(P))

    def test_a_structure_or_header_that_is_not_there(self):
        assert complaints("NoSuch", 4, []) == ["NoSuch: not bound to any header"]
        with pytest.raises(KeyError):
            evidence.place("linux-cper:cper_sec_mem_err", "nothing")
        with pytest.raises(KeyError):
            constant("linux-cper:NOTHING")
