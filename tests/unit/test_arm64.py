"""The constants against Linux' headers, the syndrome rules against what guests were seen to get."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm_ras import arm64
from vmm_ras.errors import InputError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "arm64"
ESR = json.loads((FIXTURES / "esr.json").read_text())["values"]
KVM = json.loads((FIXTURES / "kvm.json").read_text())
OBSERVED = json.loads((FIXTURES / "observed.json").read_text())
REGISTERS = json.loads((FIXTURES / "registers.json").read_text())

# Our name, Linux' name
ESR_NAMES = [
    ("ESR_EC_SHIFT", "ESR_ELx_EC_SHIFT"),
    ("ESR_IL", "ESR_ELx_IL"),
    ("ESR_ISS", "ESR_ELx_ISS_MASK"),
    ("EC_IABT_LOWER", "ESR_ELx_EC_IABT_LOW"),
    ("EC_IABT_SAME", "ESR_ELx_EC_IABT_CUR"),
    ("EC_DABT_LOWER", "ESR_ELx_EC_DABT_LOW"),
    ("EC_DABT_SAME", "ESR_ELx_EC_DABT_CUR"),
    ("EC_SERROR", "ESR_ELx_EC_SERROR"),
    ("ISS_ISV", "ESR_ELx_ISV"),
    ("ISS_VNCR", "ESR_ELx_VNCR"),
    ("ISS_SET", "ESR_ELx_SET_MASK"),
    ("ISS_SET_SHIFT", "ESR_ELx_SET_SHIFT"),
    ("ISS_FNV", "ESR_ELx_FnV"),
    ("ISS_EA", "ESR_ELx_EA"),
    ("ISS_CM", "ESR_ELx_CM"),
    ("ISS_S1PTW", "ESR_ELx_S1PTW"),
    ("ISS_WNR", "ESR_ELx_WNR"),
    ("ISS_DFSC", "ESR_ELx_FSC"),
    ("DFSC_SEA", "ESR_ELx_FSC_EXTABT"),
    ("DFSC_SERROR", "ESR_ELx_FSC_SERROR"),
    ("ISS_IDS", "ESR_ELx_IDS"),
    ("ISS_AET", "ESR_ELx_AET"),
    ("ISS_AET_SHIFT", "ESR_ELx_AET_SHIFT"),
]
REGISTER_NAMES = [
    ("SCTLR_IESB", "SCTLR_EL1.IESB"),
    ("SCTLR_SPAN", "SCTLR_EL1.SPAN"),
    ("SCTLR_DSSBS", "SCTLR_EL1.DSSBS"),
    ("SCTLR_SPINTMASK", "SCTLR_EL1.SPINTMASK"),
    ("SCTLR2_NMEA", "SCTLR2_EL1.NMEA"),
    ("SCTLR2_EASE", "SCTLR2_EL1.EASE"),
    ("HCR_AMO", "HCR_EL2.AMO"),
    ("HCR_TGE", "HCR_EL2.TGE"),
    ("HCR_E2H", "HCR_EL2.E2H"),
    ("HCR_TEA", "HCR_EL2.TEA"),
    ("HCRX_SCTLR2EN", "HCRX_EL2.SCTLR2En"),
    ("HCRX_TMEA", "HCRX_EL2.TMEA"),
    ("DISR_A", "DISR_EL1.A"),
    ("ISR_A", "ISR_EL1.A"),
    ("ISS_IESB", "ESR_ELx.IESB"),
]
KVM_NAMES = [
    ("EL0T", "ptrace.h", "PSR_MODE_EL0t"),
    ("EL1T", "ptrace.h", "PSR_MODE_EL1t"),
    ("EL1H", "ptrace.h", "PSR_MODE_EL1h"),
    ("PSTATE_NRW", "ptrace.h", "PSR_MODE32_BIT"),
    ("PSTATE_F", "ptrace.h", "PSR_F_BIT"),
    ("PSTATE_I", "ptrace.h", "PSR_I_BIT"),
    ("PSTATE_A", "ptrace.h", "PSR_A_BIT"),
    ("PSTATE_D", "ptrace.h", "PSR_D_BIT"),
    ("PSTATE_BTYPE", "ptrace.h", "PSR_BTYPE_MASK"),
    ("PSTATE_SSBS", "ptrace.h", "PSR_SSBS_BIT"),
    ("PSTATE_ALLINT", "ptrace.h", "PSR_ALLINT_BIT"),
    ("PSTATE_PAN", "ptrace.h", "PSR_PAN_BIT"),
    ("PSTATE_UAO", "ptrace.h", "PSR_UAO_BIT"),
    ("PSTATE_DIT", "ptrace.h", "PSR_DIT_BIT"),
    ("PSTATE_TCO", "ptrace.h", "PSR_TCO_BIT"),
    ("PSTATE_V", "ptrace.h", "PSR_V_BIT"),
    ("PSTATE_C", "ptrace.h", "PSR_C_BIT"),
    ("PSTATE_Z", "ptrace.h", "PSR_Z_BIT"),
    ("PSTATE_N", "ptrace.h", "PSR_N_BIT"),
    ("VECTOR_CURRENT_SP0", "kvm_emulate.h", "CURRENT_EL_SP_EL0_VECTOR"),
    ("VECTOR_CURRENT_SPX", "kvm_emulate.h", "CURRENT_EL_SP_ELx_VECTOR"),
    ("VECTOR_LOWER_AARCH64", "kvm_emulate.h", "LOWER_EL_AArch64_VECTOR"),
    ("VECTOR_LOWER_AARCH32", "kvm_emulate.h", "LOWER_EL_AArch32_VECTOR"),
    ("VECTOR_SYNCHRONOUS", "kvm_emulate.h", "except_type_sync"),
    ("VECTOR_IRQ", "kvm_emulate.h", "except_type_irq"),
    ("VECTOR_FIQ", "kvm_emulate.h", "except_type_fiq"),
    ("VECTOR_SERROR", "kvm_emulate.h", "except_type_serror"),
]


@pytest.mark.parametrize(("ours", "theirs"), ESR_NAMES)
def test_esr_constants_are_linux(ours, theirs):
    assert getattr(arm64, ours) == ESR[theirs]


@pytest.mark.parametrize(("ours", "theirs"), REGISTER_NAMES)
def test_control_bits_are_those_of_the_register_descriptions(ours, theirs):
    assert getattr(arm64, ours) == 1 << REGISTERS["bits"][theirs]


@pytest.mark.parametrize(("feature", "field"), REGISTERS["features"].items())
def test_a_feature_is_found_in_its_id_register_field(feature, field):
    """Each field alone, at its least value, switches on exactly its feature."""
    registers = dict.fromkeys(("pfr0", "pfr1", "mmfr1", "mmfr2"), 0)
    nothing = arm64.Features(*[False] * len(arm64.Features._fields))
    assert arm64.Features.of_id_registers(**registers) == nothing
    registers[field["register"]] = field["least"] << field["low"]
    assert arm64.Features.of_id_registers(**registers) == nothing._replace(**{feature: True})
    plain = registers | {"pfr0": registers["pfr0"] | 0x12}  # EL0: both states; EL1: AArch64
    assert nothing._replace(**{feature: True}).id_registers() == tuple(plain.values())
    registers[field["register"]] = field["least"] - 1 << field["low"]
    assert arm64.Features.of_id_registers(**registers) == nothing


def test_neoverse_n1_is_what_its_id_registers_say():
    registers = {name: int(value, 16) for name, value in REGISTERS["neoverse-n1"].items()}
    assert arm64.Features.of_id_registers(**registers) == arm64.NEOVERSE_N1 == arm64.Features()
    assert set(REGISTERS["features"]) == set(arm64.Features._fields)


@given(st.builds(arm64.Features, **dict.fromkeys(arm64.Features._fields, st.booleans())))
def test_the_id_registers_of_a_pe_say_what_it_has(features):
    assert arm64.Features.of_id_registers(*features.id_registers()) == features


@pytest.mark.parametrize(("ours", "header", "theirs"), KVM_NAMES)
def test_pstate_and_vectors_are_linux(ours, header, theirs):
    assert getattr(arm64, ours) == KVM[header][theirs]


def test_status_codes_and_error_types_are_linux():
    walk = ("MINUS1", "0", "1", "2", "3")
    assert {ESR[f"ESR_ELx_FSC_SEA_TTW_{level}"] for level in walk} == arm64.DFSC_SEA_TTW
    parity = {ESR[f"ESR_ELx_FSC_SECC_TTW_{level}"] for level in walk} | {ESR["ESR_ELx_FSC_SECC"]}
    assert parity == arm64.DFSC_PARITY
    assert {name: ESR[f"ESR_ELx_AET_{name.upper()}"] >> ESR["ESR_ELx_AET_SHIFT"] for name in arm64.AET} == arm64.AET
    assert sum(KVM["ptrace.h"][f"PSR_{bit}_BIT"] for bit in "DAIF") == arm64.PSTATE_DAIF
    assert sum(KVM["ptrace.h"][f"PSR_{bit}_BIT"] for bit in "NZCV") == arm64.PSTATE_NZCV


@pytest.mark.parametrize("seen", OBSERVED["sea"], ids=lambda seen: seen["esr"])
def test_sea_as_observed(seen):
    assert arm64.sea_esr(seen["el"], 0xFFFF_AA44_7040 if seen["far"] else None) == int(seen["esr"], 16)


@pytest.mark.parametrize("dfsc", OBSERVED["dfsc_delivered"])
def test_status_codes_that_guests_were_seen_to_get_can_be_made(dfsc):
    code = int(dfsc, 16)
    assert arm64.sea_esr(1, 0x1000, dfsc=code, force=True) == 0x96000000 | code
    assert arm64.sea_esr(0, 0x1000, dfsc=code, force=True, instruction=True) == 0x82000000 | code


@pytest.mark.parametrize("seen", OBSERVED["serror"], ids=lambda seen: seen["esr"])
def test_serror_as_observed(seen):
    assert arm64.serror_esr(int(seen["vsesr"], 16)) == int(seen["esr"], 16)


@pytest.mark.parametrize(
    ("aet", "iss"), [*OBSERVED["aet_survived_by_linux"].items(), *OBSERVED["aet_panics_linux"].items()]
)
def test_serror_iss_as_observed(aet, iss):
    assert arm64.serror_iss(aet) == int(iss, 16)
    assert arm64.serror_iss(aet, ea=1) == int(iss, 16) | ESR["ESR_ELx_EA"]


def test_sea_fields():
    assert arm64.sea_esr(0, 0x1000, instruction=True) == 0x82000010
    assert arm64.sea_esr(1, 0x1000, instruction=True) == 0x86000010
    assert arm64.sea_esr(0, None, ea=1) == 0x92000610
    assert arm64.sea_esr(0, 0, wnr=1) == 0x92000050
    assert arm64.sea_esr(0, (1 << 64) - 1) == 0x92000010
    assert arm64.sea_esr(0, 0, set_=arm64.SET_UEO) == 0x92001810
    assert arm64.sea_esr(1, 0, dfsc=0x17) == 0x96000017
    assert arm64.sea_esr(1, 0, dfsc=0x18, ras=False) == 0x96000018
    assert arm64.sea_esr(1, 0, dfsc=0x1C, force=True) == 0x9600001C


def test_each_field_is_its_bit():
    """Against Linux' masks, one field at a time, for data and instruction aborts."""
    for instruction, lower in ((False, "DABT_LOW"), (True, "IABT_LOW")):
        base = ESR[f"ESR_ELx_EC_{lower}"] << 26 | ESR["ESR_ELx_IL"] | ESR["ESR_ELx_FSC_EXTABT"]
        make = {"instruction": instruction}
        assert arm64.sea_esr(0, 0, **make) == base
        assert arm64.sea_esr(0, None, **make) == base | ESR["ESR_ELx_FnV"]
        assert arm64.sea_esr(0, 0, ea=1, **make) == base | ESR["ESR_ELx_EA"]
        for set_ in (2, 3):
            assert arm64.sea_esr(0, 0, set_=set_, **make) == base | set_ << ESR["ESR_ELx_SET_SHIFT"]
        for level, name in enumerate(("MINUS1", "0", "1", "2", "3"), -1):
            code = ESR[f"ESR_ELx_FSC_SEA_TTW_{name}"]
            assert code == 0x14 + level
            assert arm64.sea_esr(0, 0, dfsc=code, **make) == base & ~0x3F | code
            walked = arm64.sea_esr(0, 0, dfsc=code, s1ptw=1, target=2, **make)
            assert walked == base & ~0x3F | code | ESR["ESR_ELx_S1PTW"]
    assert arm64.sea_esr(0, 0, wnr=1) == 0x92000010 | ESR["ESR_ELx_WNR"]


def test_an_sea_for_el2():
    """EC says "lower EL" unless EL2 itself was interrupted; ours is as KVM's (nested guests, Linux 7.2)."""
    for el in (0, 1):
        assert arm64.sea_esr(el, 0, target=2) >> 26 == ESR["ESR_ELx_EC_DABT_LOW"]
        assert arm64.sea_esr(el, 0, target=2, instruction=True) >> 26 == ESR["ESR_ELx_EC_IABT_LOW"]
    assert arm64.sea_esr(2, 0) >> 26 == ESR["ESR_ELx_EC_DABT_CUR"]
    assert arm64.sea_esr(2, None, instruction=True) == 0x86000410


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"el": 3, "far": 0}, "exception level 3"),
        ({"el": 2, "far": 0, "target": 1}, "exception level 2 to 1"),
        ({"el": 0, "far": 0, "target": 0}, "exception level 0 to 0"),
        ({"el": 0, "far": 0, "target": 3}, "exception level 0 to 3"),
        ({"el": 0, "far": 0, "dfsc": 0x15, "s1ptw": 1}, "S1PTW"),
        ({"el": 2, "far": 0, "dfsc": 0x15, "s1ptw": 1, "target": 2}, "S1PTW"),
        ({"el": 1, "far": 0, "s1ptw": 1, "target": 2}, "S1PTW"),
        ({"el": -1, "far": 0}, "exception level -1"),
        *(({"el": 0, "far": None, "dfsc": dfsc}, "FnV is RES0") for dfsc in sorted(arm64.DFSC_SEA_TTW)),
        *(({"el": 0, "far": 0, "dfsc": dfsc}, "unless forced") for dfsc in sorted(arm64.DFSC_PARITY)),
        *(({"el": 0, "far": None, "dfsc": d, "force": True}, "FnV is RES0") for d in sorted(arm64.DFSC_PARITY)),
        *(
            ({"el": 0, "far": 0, "dfsc": dfsc}, "no external abort")
            for dfsc in (0, 0x11, 0x12, 0x19, 0x1A, 0x21, 64, -1)
        ),
        ({"el": 0, "far": 0, "set_": 1}, "SET 1"),
        ({"el": 0, "far": 0, "set_": 4}, "SET 4"),
        ({"el": 0, "far": 0, "set_": 2, "ras": False}, "RES0 without FEAT_RAS"),
        ({"el": 0, "far": 0, "set_": 2, "dfsc": 0x14}, "for code 0x10 only"),
        ({"el": 0, "far": 0, "wnr": 1, "instruction": True}, "never a write"),
        ({"el": 0, "far": 1 << 64}, "64-bit"),
        ({"el": 0, "far": -1}, "64-bit"),
    ],
)
def test_sea_refusals(kwargs, said):
    with pytest.raises(InputError, match=said):
        arm64.sea_esr(**kwargs)


def test_relay_rewrites_ec_and_clears_the_hosts_view():
    lower, same = ESR["ESR_ELx_EC_DABT_LOW"] << 26, ESR["ESR_ELx_EC_DABT_CUR"] << 26
    il = ESR["ESR_ELx_IL"]
    assert arm64.relay(lower | 0x10, 0, 0x1000) == lower | il | 0x10
    assert arm64.relay(lower | 0x10, 1, 0x1000) == same | il | 0x10
    assert arm64.relay(same | 0x10, 0, None) == lower | il | ESR["ESR_ELx_FnV"] | 0x10
    instruction = ESR["ESR_ELx_EC_IABT_LOW"] << 26
    assert arm64.relay(instruction | 0x7FF_C0 | 0x14, 1, 4) == ESR["ESR_ELx_EC_IABT_CUR"] << 26 | il | 0x214
    kept = ESR["ESR_ELx_EA"] | ESR["ESR_ELx_CM"] | ESR["ESR_ELx_WNR"] | ESR["ESR_ELx_SET_MASK"]
    everything = 0xFFFF_FFFF_0000_0000 | lower | 0x1FF_FFC0 | 0x10
    assert arm64.relay(everything, 0, 0) == lower | il | kept | 0x10
    assert arm64.relay(ESR["ESR_ELx_EC_IABT_CUR"] << 26 | 0x10, 0, 4) == instruction | il | 0x10
    assert arm64.relay(everything, 0, 0, ras=False) == lower | il | kept & ~ESR["ESR_ELx_SET_MASK"] | 0x10
    # KVM of Linux 6.1 sign-extends the register
    assert arm64.relay(0xFFFF_FFFF_9600_0010, 1, 0) == 0x96000010


@pytest.mark.parametrize("esr", [0, 0xBE000011, 0x92000007, 0x92000011, 0x5A000000])
def test_relay_refuses_what_is_no_external_abort(esr):
    with pytest.raises(InputError):
        arm64.relay(esr, 0, 0)


def test_relay_needs_an_address_on_a_walk():
    assert arm64.relay(0x92000015, 0, 0x1000) == 0x92000015
    with pytest.raises(InputError, match="FnV is RES0"):
        arm64.relay(0x92000015, 0, None)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 1), st.none() | st.integers(0, (1 << 64) - 1))
def test_relay_gives_a_sound_syndrome_or_refuses(esr, el, far):
    try:
        relayed = arm64.relay(esr, el, far)
    except InputError:
        return
    fields = arm64.describe_esr(relayed)
    assert relayed >> 32 == 0
    assert relayed >> 26 in (0x20 | el, 0x24 | el)
    assert fields["il"] is True
    assert not relayed & (ESR["ESR_ELx_ISV"] | 0x00FF_C000 | ESR["ESR_ELx_VNCR"] | ESR["ESR_ELx_S1PTW"])
    assert fields.get("fnv", False) == (far is None)
    assert relayed & 0x3F == esr & 0x3F


def test_serror_refusals():
    with pytest.raises(InputError, match="24:0"):
        arm64.serror_esr(1 << 25)
    with pytest.raises(InputError, match="24:0"):
        arm64.serror_esr(-1)
    with pytest.raises(InputError, match="expected one of uc"):
        arm64.serror_iss("bad")


def test_a_second_serror_never_replaces_a_worse_one():
    order = [arm64.serror_iss(name) for name in ("ce", "ueo", "uer", "ueu", "uc")] + [arm64.ISS_IDS]
    assert [arm64.aet_rank(iss) for iss in order] == [0, 1, 2, 3, 4, 5]
    for i, old in enumerate(order):
        for j, new in enumerate(order):
            assert arm64.merge_serror(old, new) == order[max(i, j)]
        assert arm64.merge_serror(None, old) == old
    assert arm64.aet_rank(0) == 5  # uncategorised
    assert arm64.aet_rank(0b100 << 10 | 0x11) == 4  # reserved
    first, second = arm64.serror_iss("uer"), arm64.serror_iss("uer", ea=1)
    assert arm64.merge_serror(first, second) == first


def test_describe():
    assert arm64.describe_esr(0x92000410) == {
        "ec": 0x24,
        "ec_name": "data abort from a lower EL",
        "il": True,
        "isv": False,
        "set": 0,
        "set_name": "recoverable",
        "fnv": True,
        "ea": False,
        "s1ptw": False,
        "cm": False,
        "wnr": False,
        "dfsc": 0x10,
        "dfsc_name": "synchronous external abort",
    }
    assert "wnr" not in arm64.describe_esr(0x86000010)
    assert "fnv" not in arm64.describe_esr(0x92000415)
    assert arm64.describe_esr(0x92000015)["dfsc_name"] == "synchronous external abort on a walk, level 1"
    assert arm64.describe_esr(0xBE000C11) == {
        "ec": 0x2F,
        "ec_name": "SError",
        "il": True,
        "ids": False,
        "dfsc": 0x11,
        "dfsc_name": "SError",
        "aet": 3,
        "aet_name": "uer",
        "ea": False,
        "iesb": False,
    }
    assert arm64.describe_esr(0xBF000123) == {"ec": 0x2F, "ec_name": "SError", "il": True, "ids": True, "iss": 0x123}
    assert arm64.describe_esr(0xBE000000)["dfsc_name"] == "uncategorised"
    assert arm64.describe_esr(0x56000002) == {"ec": 0x15, "ec_name": "SVC from AArch64", "il": True, "iss": 2}
    restartable = arm64.describe_esr(0x92001810)
    assert (restartable["set"], restartable["set_name"]) == (3, "restartable")


@pytest.mark.parametrize(
    ("esr", "field"),
    [(0xFC000000, "ec"), (0x92000810, "set"), (0x9200003F, "dfsc"), (0xBE000012, "dfsc"), (0xBE001011, "aet")],
)
def test_codes_without_a_name_are_called_reserved(esr, field):
    assert arm64.describe_esr(esr)[f"{field}_name"] == "reserved"


FLAGS = {"il": "IL", "isv": "ISV", "fnv": "FnV", "ea": "EA", "cm": "CM", "s1ptw": "S1PTW", "wnr": "WNR"}


@pytest.mark.parametrize(
    ("field", "bit", "base"),
    [
        *((field, ESR[f"ESR_ELx_{linux}"], 0x90000010) for field, linux in FLAGS.items()),
        *((field, ESR[f"ESR_ELx_{FLAGS[field]}"], 0xBC000011) for field in ("il", "ea")),
        ("iesb", 1 << 13, 0xBC000011),
        ("ids", ESR["ESR_ELx_IDS"], 0xBC000000),
    ],
)
def test_each_flag_is_its_bit(field, bit, base):
    assert arm64.describe_esr(base)[field] is False
    assert arm64.describe_esr(base | bit)[field] is True
    assert arm64.describe_esr(base | 0x1FF_FFC0 & ~bit).get(field, False) is False


@given(st.integers())
def test_anything_can_be_described(esr):
    json.dumps(arm64.describe_esr(esr))


def test_names_of_classes_and_codes_are_those_of_linux():
    named = {
        "WFx": 0x01, "FP_ASIMD": 0x07, "ILL": 0x0E, "SVC64": 0x15, "HVC64": 0x16, "SMC64": 0x17, "SYS64": 0x18,
        "SVE": 0x19, "PC_ALIGN": 0x22, "SP_ALIGN": 0x26, "FP_EXC64": 0x2C, "GCS": 0x2D, "BREAKPT_LOW": 0x30,
        "BREAKPT_CUR": 0x31, "SOFTSTP_LOW": 0x32, "SOFTSTP_CUR": 0x33, "WATCHPT_LOW": 0x34, "WATCHPT_CUR": 0x35,
        "BRK64": 0x3C,
    }  # fmt: skip
    for name, ec in named.items():
        assert ESR[f"ESR_ELx_EC_{name}"] == ec
        assert arm64.describe_esr(ec << 26)["ec_name"] != "reserved"
    kinds = {"ADDRSZ": "address size", "FAULT": "translation", "ACCESS": "access flag", "PERM": "permission"}
    for linux, ours in kinds.items():
        for level in range(4):
            code = ESR[f"ESR_ELx_FSC_{linux}_LEVEL_{level}"]
            assert arm64.describe_esr(0x92000000 | code)["dfsc_name"] == f"{ours} fault, level {level}"
    for level, name in enumerate(("MINUS1", "0", "1", "2", "3"), -1):
        sea, parity = (ESR[f"ESR_ELx_FSC_{kind}_TTW_{name}"] for kind in ("SEA", "SECC"))
        assert arm64.describe_esr(0x92000000 | sea)["dfsc_name"].endswith(f"abort on a walk, level {level}")
        assert arm64.describe_esr(0x92000000 | parity)["dfsc_name"].endswith(f"ECC error on a walk, level {level}")


def test_vector_blocks():
    names = {0x4: "CURRENT_EL_SP_EL0", 0x5: "CURRENT_EL_SP_ELx", 0x0: "LOWER_EL_AArch64", 0x10: "LOWER_EL_AArch32"}
    for mode, name in names.items():
        for bits in (0, 1 << 31, 0x3C0):
            assert arm64.vector_block(mode | bits) == KVM["kvm_emulate.h"][f"{name}_VECTOR"]
        assert arm64.vector_blocks()[mode] == arm64.vector_block(mode)
    # "lower EL" is about EL1 at EL2, but for a host, which has no EL1 below it
    assert [arm64.vector_blocks(2, host)[0x10] for host in (False, True)] == [0x400, 0x600]
    assert arm64.vector_blocks(2) == arm64.vector_blocks(2, False)


def test_vector_block_refuses_el2():
    with pytest.raises(InputError, match="expected EL0t"):
        arm64.vector_block(0x9)
