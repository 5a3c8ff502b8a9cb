"""Guest profiles: every statement has its observation, and the model guest does what the profile says."""

import struct
from dataclasses import fields, replace

import pytest

from acpi.hest import NotificationType as N
from acpi.presets import PRESETS
from cper.memory import PlatformMemory
from tests import profile_tables
from tests.golden.evidence import constant
from vmm_ras import arm64
from vmm_ras.effects import InjectSea, Posted
from vmm_ras.events import Code, GuestAbort, HostSignal
from vmm_ras.guests.model import ModelGuest
from vmm_ras.guests.processor import cache_errors
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier
from vmm_ras.policy import load_policy
from vmm_ras.profiles import PROFILES, SECTION_TYPES, WAYS, GuestProfile

HVA, GPA, SIZE = 0x7F00_0000_0000, 0x4000_0000, 1 << 24
A = 1 << 8


def machine(profile, preset="all", vcpus=2, policy=None):
    image = PRESETS[preset].place(0x3FF00000)
    guest = ModelGuest(image, profile, vcpus=vcpus, sdei=False)
    guest.memory.add_region(GPA, SIZE)
    core = Notifier(
        image.sources,
        MemoryMap([MemorySlot(HVA, GPA, SIZE)]),
        guest=profile,
        vcpus=vcpus,
        threads={1: 0},
        policy=policy,
    )
    return guest, core


def tell(guest, core, code=Code.AR, page=5):
    seen = []
    guest.drive(core, core.receive(HostSignal(code, HVA + page * 4096, 12, 1), 0.0), 0.0, watch=seen.extend)
    return seen


@pytest.mark.parametrize("name", PROFILES)
def test_every_statement_has_its_observation(name):
    statements = {f.name for f in fields(GuestProfile) if f.compare} - {"name", "doc"}
    assert PROFILES[name].evidence.keys() == statements
    assert all(len(text) > 15 for text in PROFILES[name].evidence.values())


def test_the_page_of_profiles_is_made_from_them():
    assert profile_tables.PAGE.read_text() == profile_tables.text(), "run python -m tests.profile_tables"


def test_names():
    assert {name for name, p in PROFILES.items() if p.name != name} == {"linux"}
    assert PROFILES["linux"] is PROFILES["linux-7.2"]
    assert {"linux-6.1", "linux-6.12", "linux-7.2", "generic-sei", "no-ras"} <= PROFILES.keys()
    for profile in PROFILES.values():
        assert profile.notifications <= {*WAYS, N.SCI}
        assert profile.serror_survived <= arm64.AET.keys()
        assert profile.arm_error_types in {"mask", "ordinal"}
        assert profile.sections <= set(SECTION_TYPES.values())


def test_section_types_are_those_of_the_headers():
    for name, theirs in (
        ("platform_memory", "linux-cper:CPER_SEC_PLATFORM_MEM"),
        ("processor_generic", "linux-cper:CPER_SEC_PROC_GENERIC"),
        ("arm_processor", "linux-cper:CPER_SEC_PROC_ARM"),
        ("pcie", "linux-cper:CPER_SEC_PCIE"),
        ("firmware_error_record", "linux-cper:CPER_SEC_FW_ERR_REC_REF"),
        ("cxl_protocol", "linux-cper:CPER_SEC_CXL_PROT_ERR"),
        ("cxl_general_media", "linux-cper:CPER_SEC_CXL_GEN_MEDIA_GUID"),
        ("cxl_dram", "linux-cper:CPER_SEC_CXL_DRAM_GUID"),
        ("cxl_memory_module", "linux-cper:CPER_SEC_CXL_MEM_MODULE_GUID"),
    ):
        assert str(SECTION_TYPES[name]) == constant(theirs).lower()
    assert SECTION_TYPES["platform_memory"] == PlatformMemory.GUID
    assert len(SECTION_TYPES) == 9


# -- what the model does ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROFILES)
def test_an_access_from_el0(name):
    guest, core = machine(PROFILES[name])
    seen = tell(guest, core)
    told = [e.delivery for e in seen if isinstance(e, Posted)]
    outcomes = [a.outcome for a in guest.os.drain()]
    if name == "no-apei":
        assert (told, outcomes) == ([], ["objerr"])  # an SEA without a record: BUS_OBJERR
        assert [e.source_id for e in seen if isinstance(e, InjectSea)] == [None]
    else:
        assert (told, outcomes) == (["sea"], ["offlined"])
    assert guest.os.signalled == 1
    assert not guest.os.panicked


@pytest.mark.parametrize("name", PROFILES)
def test_an_serror_without_a_record(name):
    """Linux was seen to go on after UEO and CE, and to panic on all others (FINDINGS; ISS as there)."""
    for iss in (0x811, 0x1811, 0x11, 0x411, 0xC11, 0, 1 << 24, 1 << 24 | 0x811):  # IDS: AET means nothing
        survived = iss in (0x811, 0x1811)
        guest, _ = machine(PROFILES[name])
        guest.vcpus[0].pend_serror(iss)
        guest.os.run(0, 0.0)
        assert bool(guest.os.panicked) == (not survived or name == "no-ras"), hex(iss)
        if name == "no-ras":
            assert guest.vcpus[0].esr == 0xBE000000


def test_an_serror_that_waited_behind_an_sea_is_handled_on_the_way_back():
    guest, _ = machine(PROFILES["linux"])
    vcpu = guest.vcpus[0]
    vcpu.take_sea(0x92000410, None)
    assert vcpu.pend_serror(0xC11) is False
    guest.os.run(0, 0.0)
    assert [a.outcome for a in guest.os.drain()] == ["objerr", "serror-panic"]
    assert (vcpu.el, vcpu.isr) == (0, 0)


def test_a_program_that_stands_at_a_vector_is_no_handler():
    guest, _ = machine(PROFILES["linux"])
    guest.vcpus[0].run_at(0, guest.vcpus[0].vbar)
    assert guest.os.run(0, 0.0) is None
    assert guest.os.drain() == []


def test_generic_sei_takes_what_linux_does_not():
    policy = load_policy(SEI, "sei.toml")
    for name, way in (("generic-sei", "sei"), ("linux", None)):
        guest, core = machine(PROFILES[name], policy=policy)
        told = [e.delivery for e in tell(guest, core, Code.AO) if isinstance(e, Posted)]
        assert told == ([way] if way else [])
        assert [a.outcome for a in guest.os.drain()] == (["offlined"] if way else [])
        assert not guest.os.panicked


SEI = """
version = 1
[[rule]]
name = "consumed"
when = { code = "AR" }
deliver = ["sea"]
[[rule]]
name = "found"
when = { code = "AO" }
deliver = ["sei"]
aet = "uer"
"""


def test_a_page_outside_ram_is_not_offlined():
    for name, reported in (("linux-6.1", 0), ("linux-6.12", 0), ("linux-7.2", 1)):
        guest, core = machine(PROFILES[name])
        guest.memory.regions = [r for r in guest.memory.regions if not r[0] <= GPA < r[1]]
        tell(guest, core)
        assert [a.outcome for a in guest.os.drain()] == ["ignored"]
        assert (guest.os.offlined.count, guest.os.memory_failures) == (0, reported)


def test_a_guest_without_feat_ras_is_shown_no_set():
    """ISS.SET is RES0 without FEAT_RAS: what a rule asks for is left out, and so is what the host relays."""
    policy = load_policy(SEI.replace('deliver = ["sea"]', 'deliver = ["sea"]\nsea = { set = "ueo", relay = true }', 1))
    for name, set_ in (("linux-6.12", 3 << 11), ("no-ras", 0)):
        guest, core = machine(PROFILES[name], policy=policy)
        tell(guest, core)
        assert guest.vcpus[0].esr == 0x92000410 | set_
        guest.drive(core, core.receive(GuestAbort(1, 0x92001010, 0x7000, GPA + 0x9000), 30.0), 30.0)
        assert guest.vcpus[1].esr == 0x92000010 | (2 << 11 if set_ else 0)


def test_the_pe_of_no_ras_has_no_feat_ras():
    for name, profile in PROFILES.items():
        guest, _ = machine(profile)
        assert {vcpu.features.ras for vcpu in guest.vcpus} == {name != "no-ras"}


@pytest.mark.parametrize("name", ["linux", "no-apei"])
def test_512_vcpus(name):
    profile = replace(PROFILES[name], name=name)
    image = PRESETS["default"].place(0x3FF00000)
    guest = ModelGuest(image, profile, vcpus=512)
    guest.memory.add_region(GPA, SIZE)
    threads = {1000 + n: n for n in range(512)}
    core = Notifier(image.sources, MemoryMap([MemorySlot(HVA, GPA, SIZE)]), guest=profile, vcpus=512, threads=threads)
    guest.start_sdei(core, 0.0)
    for n in range(512):
        event = HostSignal(Code.AR, HVA + n * 4096, 12, 1000 + n)
        guest.drive(core, core.receive(event, 0.0), 0.0)
        assert guest.vcpus[n].esr == 0x92000410
    assert guest.os.offlined.count == (512 if name == "linux" else 0)
    assert guest.os.signalled == 512


# -- ARM processor sections --------------------------------------------------------------------------


def section(*entries, count=None):
    """Header and error informations by hand, as the generator of the captured blocks packs them."""
    body = struct.pack("<IHHI12x16x", 0, len(entries) if count is None else count, 0, 0)
    assert len(body) == 40
    for kind, valid, address, length in entries:
        body += struct.pack("<BBHBHBQQQ", 0, length, valid, kind, 0, 0, 0, 0, address).ljust(length, b"\0")
    return body


def test_cache_errors_with_an_address():
    body = section(
        (2, 16, 0x1000, 32), (2, 0, 0x2000, 32), (4, 16, 0x3000, 32), (0x12, 16, 0x4000, 40), (0, 16, 0x5000, 32)
    )
    assert list(cache_errors(body, ordinal=False)) == [0x1000, 0x4000]
    assert list(cache_errors(body, ordinal=True)) == [0x5000]


def test_sections_that_end_too_soon():
    body = section((2, 16, 0x1000, 32), (2, 16, 0x2000, 32))
    for length in range(len(body)):
        whole = max(length - 40, 0) // 32
        assert list(cache_errors(body[:length], ordinal=False)) == [0x1000, 0x2000][:whole]
    assert list(cache_errors(section((2, 16, 0x1000, 32), count=65535), ordinal=False)) == [0x1000]
    endless = bytearray(section((2, 16, 0x1000, 32), count=3))
    endless[41] = 0  # Length 0: the same one again, as often as the count says
    assert list(cache_errors(bytes(endless), ordinal=False)) == [0x1000] * 3
