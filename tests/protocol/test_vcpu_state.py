"""A vCPU's state taken out and put back at any moment changes nothing; and what comes back is not trusted."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm_ras import arm64
from vmm_ras.effects import SetRegisters
from vmm_ras.errors import InputError, SnapshotError, StateError
from vmm_ras.guests.nested import NestedVcpu
from vmm_ras.guests.vcpu import Vcpu

FEATURES = arm64.Features(dit=True, bti=True, mte=True, nmi=True, double_fault2=True)
U64 = st.integers(0, 2**64 - 1)
ISS = st.integers(0, 2**25 - 1) | st.sampled_from([0x11, 0xC11, 0x811, 1 << 24])
SCTLR = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1 << 21, 1 << 23, 1 << 44])
SCTLR2 = st.sampled_from([0, 1 << 2, 1 << 5, 1 << 2 | 1 << 5])
ACTS = st.one_of(
    st.tuples(st.just("take_sea"), st.tuples(st.just(0x92000410), st.none() | U64)),
    st.tuples(st.just("pend_serror"), st.tuples(ISS)),
    st.tuples(st.just("note_error"), st.tuples(ISS)),
    st.tuples(st.sampled_from(["esb", "eret", "mask_serror", "unmask_serror"]), st.just(())),
    st.tuples(st.just("run_at"), st.tuples(st.integers(0, 1), U64)),
    st.tuples(st.sampled_from(["vbar", "sctlr"]), st.tuples(SCTLR)),
    st.tuples(st.just("sctlr2"), st.tuples(SCTLR2)),
    st.tuples(
        st.just("set_registers"),
        st.tuples(
            st.builds(
                SetRegisters,
                st.just(1),
                st.none(),
                st.just(0),
                st.tuples(U64, U64),
                U64,
                st.just(5),
                st.none() | U64,
                U64,
            )
        ),
    ),
)


def act(vcpu: Vcpu, name: str, arguments: tuple[Any, ...]) -> object:
    try:
        if name in {"vbar", "sctlr", "sctlr2"}:
            setattr(vcpu, name, arguments[0])
            return None
        return getattr(vcpu, name)(*arguments)
    except (InputError, StateError) as error:
        return str(error)


@given(st.sampled_from([Vcpu, NestedVcpu]), st.lists(ACTS, max_size=25), st.tuples(U64, U64))
def test_taken_out_and_put_back_at_any_moment_nothing_changes(kind: type[Vcpu], acts: list[Any], el2: Any) -> None:
    one, two = kind(FEATURES), kind(FEATURES)
    for vcpu in (one, two):
        if isinstance(vcpu, NestedVcpu):
            vcpu.set_el2(hcr=el2[0] & (1 << 37 | 1 << 27 | 1 << 5), vbar=el2[1], sctlr2=el2[1] & 0x24)
    for name, arguments in acts:
        fresh = kind(FEATURES)
        fresh.put(orjson.loads(orjson.dumps(two.take())))
        two = fresh

        assert act(two, name, arguments) == act(one, name, arguments)
        assert two.take() == one.take()
        assert two.state() == one.state()
        for slot in [s for c in kind.__mro__ for s in getattr(c, "__slots__", ())]:
            assert getattr(two, slot) == getattr(one, slot), slot


def test_what_is_taken_shares_nothing() -> None:
    vcpu = Vcpu()
    before = vcpu.take()

    vcpu.x[0] = 7

    assert before["x"][0] == 0


def test_what_is_put_back_shares_nothing() -> None:
    vcpu, state = Vcpu(), Vcpu().take()
    vcpu.put(state)

    vcpu.x[0] = 7

    assert state["x"][0] == 0


@pytest.mark.parametrize("kind", [Vcpu, NestedVcpu])
def test_a_new_vcpu_holds_zeroes(kind: type[Vcpu]) -> None:
    assert {name: value for name, value in kind().take().items() if value} == {"pstate": 0x3C5, "x": [0] * 31}


def test_every_bit_of_a_register_is_remembered() -> None:
    vcpu, word = Vcpu(), (1 << 64) - 1
    full = dict.fromkeys(vcpu.take(), word) | {
        "x": [word] * 31,
        "pstate": word ^ 0x1F,
        "vsesr": 0x1FFFFFF,
        "latent": 0x1FFFFFF,
    }
    vcpu.put(full)
    assert vcpu.take() == full


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pc", -1), ("pc", 1 << 64), ("pc", True), ("pc", "0"), ("pc", None), ("x", [0] * 30), ("x", 0),
        ("x", [None] * 31),
        ("vsesr", 1 << 25), ("latent", 1.0), ("pstate", 0xF), ("vbar", [0]),
    ],
)  # fmt: skip
def test_what_no_vcpu_remembers_is_refused(name: str, value: object) -> None:
    vcpu = Vcpu()
    before = vcpu.take()

    with pytest.raises(SnapshotError, match="vCPU: ") as caught:
        vcpu.put(before | {name: value})
    assert name in str(caught.value)
    assert vcpu.take() == before


@pytest.mark.parametrize("value", [None, [], {}, {"pc": 0}, NestedVcpu().take()])
def test_what_is_no_state_is_refused(value: object) -> None:
    with pytest.raises(SnapshotError, match="expected x, sp_el0"):
        Vcpu().put(value)
