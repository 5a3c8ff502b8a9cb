"""Errata over a pool of CPUs: the guest's calls, which CPU it is shown, what it works around."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acpi.presets import PRESETS
from vmm_ras.arm64 import EL1H
from vmm_ras.effects import Release, SetRegisters
from vmm_ras.errata import DISCOVER_IMPL_CPUS, DISCOVER_IMPL_VER, Cpu, Pool, errata_of, is_discovery
from vmm_ras.errata_data import CONDITIONS, ERRATA, MODELS, affects, cpu_name
from vmm_ras.errors import InputError, SnapshotError
from vmm_ras.events import GuestCall, VcpuState
from vmm_ras.memory import MemoryMap, MemorySlot
from vmm_ras.notifier import Notifier

OBSERVED = json.loads((Path(__file__).parents[2] / "fixtures" / "hosts" / "errata.json").read_text())
N1 = Cpu(0x413FD0C1)
A72 = Cpu(0x410FD083, 0, 0)
A76 = Cpu(0x411FD0B1)
A53 = Cpu(0x410FD034)
POOL = Pool.of([N1, A72, A76])
cpus = st.builds(Cpu, st.sampled_from([m | r for m in MODELS.values() for r in (0, 1, 0x100001, 0x300001)]),
                 st.integers(0, 3), st.integers(0, 1))  # fmt: skip


def test_the_calls() -> None:
    """Function numbers and registers as KVM's documentation has them."""
    assert (DISCOVER_IMPL_VER, DISCOVER_IMPL_CPUS) == (0xC6000040, 0xC6000041)
    assert POOL.answer(0xC6000040, ()) == (0, 0x10000, 3, 0)
    assert [POOL.answer(0xC6000041, (i,)) for i in range(3)] == [(0, *cpu) for cpu in (N1, A72, A76)]
    for index in (3, 1 << 32, (1 << 64) - 1, -1):
        assert POOL.answer(0xC6000041, (index,)) == (-3, 0, 0, 0)
    for other in (0xC6000042, 0xC4000020, 0x86000000, 0):
        assert POOL.answer(other, ()) is None
        assert not is_discovery(other)
    assert is_discovery(0xFFFFFFFF_C6000041)  # the function identifier is W0


def notifier(pool: Pool | None) -> Notifier:
    placed = PRESETS["default"].place(0x3FF00000, 0x3FF01000)
    core = Notifier(placed.sources, MemoryMap([MemorySlot(0x7F0000000000, 0x40000000, 1 << 30)]))
    core.pool = pool
    return core


def test_the_core_answers() -> None:
    state = VcpuState(pc=0x1000, pstate=EL1H, x=tuple(range(18)))
    effects = notifier(POOL).receive(GuestCall(0, DISCOVER_IMPL_CPUS, (1, 0, 0), state), 0.0)
    assert effects == [
        SetRegisters(1, None, 0, (0, A72.midr, A72.revidr, A72.aidr), 0x1000, EL1H), Release(2, 0)
    ]  # fmt: skip
    effects = notifier(POOL).receive(GuestCall(0, DISCOVER_IMPL_CPUS, (7,), state), 0.0)
    assert effects[0] == SetRegisters(1, None, 0, ((1 << 64) - 3, 0, 0, 0), 0x1000, EL1H)


def test_without_a_pool_the_calls_are_unknown() -> None:
    state = VcpuState(pc=0x1000, pstate=EL1H)
    effects = notifier(None).receive(GuestCall(0, DISCOVER_IMPL_VER, (), state), 0.0)
    assert [getattr(e, "x0", None) for e in effects] == [-1, None]


def test_which_cpu_is_shown() -> None:
    """The one with the most errata, whatever the order: and it can be chosen."""
    assert Pool.of([N1, A72, A76]).chosen == Pool.of([A76, A72, N1]).chosen == A76
    assert len(errata_of(A76)) > len(errata_of(N1)) > len(errata_of(A72)) > 0
    assert Pool.of([N1, A72], A72).chosen == A72
    with pytest.raises(InputError, match="Cortex-A53 r0p4 is not in the pool"):
        Pool.of([N1], A53)
    with pytest.raises(InputError, match="a pool of 0"):
        Pool.of([])
    with pytest.raises(InputError, match="32 bits"):
        Pool.of([Cpu(1 << 32)])


def test_destinations() -> None:
    assert POOL.refuses(A76) == ""
    assert "was not told of Cortex-A53 r0p4" in POOL.refuses(A53)
    assert "only with REVIDR_EL1 0x0" in POOL.refuses(N1._replace(revidr=4))
    assert POOL.refuses(Cpu(N1.midr + 1))


def test_hazards() -> None:
    assert Pool.of([N1, A76]).hazards() == []
    assert Pool.of([A53]).hazards() == []
    assert [h.partition(":")[0] for h in Pool.of([A53, A76]).hazards()] == ["Spectre v2", "Spectre v4", "Spectre BHB"]


def test_revisions_count() -> None:
    assert affects("ARM 1286807", 0x413FD0B0)  # Cortex-A76 r3p0
    assert not affects("ARM 1286807", 0x413FD0B1)
    assert affects("ARM 843419", 0x410FD034)
    assert not affects("ARM 843419", 0x410FD034, 1 << 8)  # REVIDR says that it is fixed
    assert not affects("ARM 843419", 0x410FD035)
    assert not affects("ARM 1286807", 0x423FD0B0)  # another implementer
    assert cpu_name(0x413FD0C1) == "Neoverse-N1 r3p1"
    assert cpu_name(0x7F120003) == "implementer 0x7f part 0x0 r1p3"


@pytest.mark.parametrize("boot", OBSERVED["boots"], ids=lambda boot: f"{boot['kernel']}-{boot['cpu']}")
def test_what_real_kernels_say(boot: dict) -> None:
    """What a kernel printed of a CPU is among what is told for its MIDR; what is told and not printed is explained."""
    told = set(errata_of(Cpu(int(boot["midr"], 16), int(boot["revidr"], 16))))
    printed = [set(OBSERVED["errata"][line]) for line in boot["detected"] if line in OBSERVED["errata"]]
    assert all(any_of & told for any_of in printed)
    assert told - set(OBSERVED["not_printed"]) <= set().union(*printed)


def test_conditions() -> None:
    assert set(OBSERVED["not_printed"]) <= CONDITIONS.keys() <= ERRATA.keys()


def test_kernels_spoke_of_errata() -> None:
    lines = {line for boot in OBSERVED["boots"] for line in boot["detected"]}
    assert len(lines & OBSERVED["errata"].keys()) >= 5


@given(st.lists(cpus, min_size=1, max_size=9))
def test_a_pool_travels(listed: list[Cpu]) -> None:
    pool = Pool.of(listed)
    assert Pool.from_plain(json.loads(json.dumps(pool.plain()))) == pool
    count = pool.answer(DISCOVER_IMPL_VER, ())[2]
    assert [Cpu(*pool.answer(DISCOVER_IMPL_CPUS, (i,))[1:]) for i in range(count)] == list(dict.fromkeys(listed))
    assert all(not pool.refuses(cpu) for cpu in listed)
    assert set(pool.errata()) == {name for cpu in listed for name in errata_of(cpu)} <= set(ERRATA)


@pytest.mark.parametrize(
    "value",
    [
        None, [], {}, {"cpus": [], "chosen": 0}, {"cpus": [[1, 2]], "chosen": 0}, {"cpus": [[1, 2, 3]], "chosen": 1},
        {"cpus": [[1, 2, 3]], "chosen": True}, {"cpus": [[1, 2, -3]], "chosen": 0}, {"cpus": "abc", "chosen": 0},
        {"cpus": [[1, 2, 3], [1, 2, 3]], "chosen": 0}, {"cpus": [[1 << 40, 2, 3]], "chosen": 0},
        {"cpus": [[1, 2, 1 << 64]], "chosen": 0},
        {"cpus": [[1, 2, 3]] * 5000, "chosen": 0}, {"cpus": [[1, 2, 3]], "chosen": 0, "more": 1},
    ],
)  # fmt: skip
def test_a_pool_from_anywhere(value: object) -> None:
    with pytest.raises(SnapshotError, match="pool"):
        Pool.from_plain(value)
