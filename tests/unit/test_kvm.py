"""Register ids against Linux' macros, events and exits as the core takes them, host profiles against observations."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.golden import evidence
from vmm_ras import arm64
from vmm_ras.errors import InputError
from vmm_ras.events import GuestAbort, MemoryFault
from vmm_ras.kvm import one_reg
from vmm_ras.kvm.events import ArmSea, MemoryFaultExit, VcpuEvents
from vmm_ras.kvm.hosts import HOSTS, HostProfile

FIXTURES = Path(__file__).parents[2] / "fixtures" / "kvm"
IDS = json.loads((FIXTURES / "one_reg.json").read_text())
OBSERVED = json.loads((FIXTURES / "observed.json").read_text())
syndromes = st.integers(0, (1 << 25) - 1)


# -- ids -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IDS["sysregs"])
def test_a_system_register_has_the_id_of_linux_macros(name):
    entry = IDS["sysregs"][name]
    assert one_reg.sysreg(*entry["op"]) == int(entry["id"], 16)
    if name in one_reg.SYSREGS:
        assert one_reg.SYSREGS[name] == int(entry["id"], 16)


def test_every_named_register_is_one_of_linux():
    assert one_reg.SYSREGS.keys() <= IDS["sysregs"].keys()
    assert "VSESR_EL2" not in one_reg.SYSREGS  # not in KVM's list either: the events carry it


def test_core_registers_have_the_ids_of_linux_macros():
    for name, reg in IDS["core"].items():
        assert one_reg.CORE[name] == int(reg, 16)
    regs, user = (evidence.headers("linux-kvm-arm64")[s] for s in ("kvm_regs", "user_pt_regs"))
    offsets = {f["name"]: f["offset"] for f in (*regs["fields"], *user["fields"])}
    ours = {
        "SP_EL0": "sp",
        "PC": "pc",
        "PSTATE": "pstate",
        "SP_EL1": "sp_el1",
        "ELR_EL1": "elr_el1",
        "SPSR_EL1": "spsr",
    }
    for name, theirs in ours.items():
        assert one_reg.CORE[name] == one_reg.core(offsets[theirs])
    assert [one_reg.CORE[f"X{n}"] for n in range(31)] == [int(IDS["core"]["X0"], 16) + 2 * n for n in range(31)]
    (fpsr, four), (v0, sixteen) = IDS["other_sizes"]["FPSR"], IDS["other_sizes"]["V0"]
    assert one_reg.core(0x350, four) == int(fpsr, 16)
    assert one_reg.core(0x150, sixteen) == int(v0, 16)
    assert [one_reg.size_of(int(reg, 16)) for reg in (fpsr, v0, IDS["core"]["X0"])] == [4, 16, 8]


@pytest.mark.parametrize(
    "operands",
    [(4, 0, 0, 0, 0), (3, 8, 0, 0, 0), (3, 0, 16, 0, 0), (3, 0, 0, 16, 0), (3, 0, 0, 0, 8), (-1, 0, 0, 0, 0)],
)
def test_operands_without_encoding_are_refused(operands):
    with pytest.raises(InputError, match="2, 3, 4, 4 and 3 bits"):
        one_reg.sysreg(*operands)


@pytest.mark.parametrize(("offset", "size"), [(2, 8), (-4, 8), (864, 8), (0, 2), (0, 32)])
def test_places_where_no_core_register_is_are_refused(offset, size):
    with pytest.raises(InputError, match="word of struct kvm_regs"):
        one_reg.core(offset, size)


def test_ids_for_people():
    assert one_reg.describe(0x603000000013C290) == "ESR_EL1"
    assert one_reg.describe(0x6030000000100040) == "PC"
    assert one_reg.describe(0x603000000013E293) == "S3_4_C5_C2_3"  # VSESR_EL2
    assert one_reg.describe(0x6040000000100054) == "core register at 336, 16 bytes"
    assert one_reg.describe(0x6030000000140000) == "0x6030000000140000 (kind 0x14)"
    assert one_reg.describe(0x2030000000000001) == "0x2030000000000001 (not arm64)"
    names = [one_reg.describe(reg) for reg in (*one_reg.CORE.values(), *one_reg.SYSREGS.values())]
    assert len(set(names)) == len(names) == len(one_reg.CORE) + len(one_reg.SYSREGS)


@given(st.integers(0, (1 << 64) - 1))
def test_any_id_can_be_described(reg):
    assert one_reg.describe(reg)


# -- events and exits --------------------------------------------------------------------------


def test_events_are_the_64_bytes_that_the_scripts_packed():
    """``<BBB5xQ48x`` drove real KVM."""
    import struct

    events = VcpuEvents(serror_pending=1, serror_has_esr=1, ext_dabt_pending=1, serror_esr=0x123456)
    assert events.encode() == struct.pack("<BBB5xQ48x", 1, 1, 1, 0x123456)


def test_what_is_pending_for_the_core():
    assert VcpuEvents(serror_has_esr=1, serror_esr=0x11).serror is None
    assert VcpuEvents(serror_pending=1, serror_has_esr=1, serror_esr=0x123456).serror == 0x123456
    assert VcpuEvents(serror_pending=1).serror == int(OBSERVED["serror_without_esr"], 16)


@given(syndromes, syndromes)
def test_a_worse_syndrome_that_waits_is_set_again(old, new):
    waiting = VcpuEvents(serror_pending=1, serror_has_esr=1, serror_esr=old)
    chosen = waiting.with_serror(new)
    assert chosen.encode() == VcpuEvents(serror_pending=1, serror_has_esr=1, serror_esr=chosen.serror_esr).encode()
    assert chosen.serror_esr == (new if arm64.aet_rank(new) > arm64.aet_rank(old) else old)
    assert VcpuEvents(serror_has_esr=1, serror_esr=old).with_serror(new).serror_esr == new  # a stale one counts not


def test_without_host_ras_no_syndrome_is_set():
    assert VcpuEvents().with_serror(0xC11) == VcpuEvents(serror_pending=1)


def test_an_exit_of_arm_sea_becomes_an_abort():
    """FnV decides about gva, the flag about gpa (KVM API, KVM_EXIT_ARM_SEA)."""
    fnv = 1 << 10
    for flags in (0, 1, 2):
        for esr in (0x92000010, 0x92000010 | fnv):
            event = ArmSea(flags=flags, esr=esr, gva=0x1111, gpa=0x2222).event(3, 1.5)
            gva, gpa = None if esr & fnv else 0x1111, 0x2222 if flags & 1 else None
            assert event == GuestAbort(3, esr, gva, gpa, 1.5)
    assert MemoryFaultExit(flags=0, gpa=0x40005000, size=4096).event() == MemoryFault(0x40005000, 4096)


# -- host profiles -------------------------------------------------------------------------------


def test_every_statement_of_a_host_has_its_observation():
    statements = {f.name for f in fields(HostProfile)} - {"name", "evidence"}
    for name, host in HOSTS.items():
        assert host.name == name
        assert host.evidence.keys() == statements
        assert all(len(text) > 20 for text in host.evidence.values())


def test_hosts_are_as_observed():
    for seen in OBSERVED["ext_dabt"]:
        host = HOSTS[seen["host"]]
        assert host.sea_at_set == (seen["pc_moves"] == "at SET")
        assert host.esr_sign_extended == (seen["esr"].startswith("0xffffffff"))
    for name, when in OBSERVED["serror_unmasked"].items():
        assert HOSTS[name].serror_at_set == (when == "at SET")
    for name, host in HOSTS.items():
        assert host.smccc_filter == (name in OBSERVED["smccc_filter"])
        assert host.implementation_ids_writable == (name in OBSERVED["implementation_ids_writable"])
        assert host.hugetlb_address_exact == (name not in OBSERVED["hugetlb_base_address"])
    for name in OBSERVED["second_set"]["hosts"]:
        assert HOSTS[name].second_serror_replaces
    for name in OBSERVED["survives_set_zero"]:
        assert not HOSTS[name].zero_clears_serror
    for name, host in HOSTS.items():
        assert host.init_clears_serror == (name in OBSERVED["cleared_by_vcpu_init"])
        assert host.init_clears_serror == (name not in OBSERVED["survives_vcpu_init"])
