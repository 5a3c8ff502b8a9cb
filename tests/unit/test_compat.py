"""Hosts that differ: what is predicted is what real kernels did with KVM_SET_ONE_REG."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.command_line import cli
from vmm_ras.compat import registers as r
from vmm_ras.compat.accept import refusal
from vmm_ras.compat.check import Verdict, check
from vmm_ras.compat.fields import FIELDS, IDS, NAMES, field
from vmm_ras.compat.history import HISTORY, change
from vmm_ras.compat.host import Description
from vmm_ras.compat.plan import plan
from vmm_ras.errors import InputError

HOSTS = Path(__file__).parents[2] / "fixtures" / "hosts"
REAL = sorted(path.name.removesuffix(".host.json") for path in HOSTS.glob("*.host.json"))
N1 = [f"neoverse-n1-{series}" for series in ("6.1", "6.12", "7.2")]


@cache
def host(name: str) -> Description:
    return Description.parse((HOSTS / f"{name}.host.json").read_bytes())


@cache
def moves(name: str) -> dict[str, dict[str, str]]:
    """Host to the registers of its list that this host refused, and the error; the others it took."""
    path = HOSTS / f"{name}.moves.json"
    return json.loads(path.read_text()) if path.exists() else {}


def with_registers(base: Description, values: dict[int, int | None], **more: object) -> Description:
    registers = {k: v for k, v in (base.registers | values).items() if v is not None}
    return base.model_copy(update={"registers": registers, **more})


def errno_of(there: Description, reg: int, value: int) -> str:
    found = refusal(there, reg, value)
    return found.errno if found else ""


class TestRealKernels:
    """Each call was made on a real kernel's KVM; what it said is what is predicted."""

    @pytest.mark.parametrize("name", REAL)
    def test_registers_of_other_hosts(self, name: str) -> None:
        wrong, count = [], 0
        for source, results in moves(name).items():
            for row in check(host(source).registers, host(name), pool=True).rows:
                count += 1
                result = results.get(hex(row.register), "")
                if row.errno != result:
                    wrong.append((source, r.name(row.register), hex(row.source), result, row))
        assert wrong == []
        assert count >= 300 * (name in N1)

    @pytest.mark.parametrize("name", REAL)
    def test_values_of_single_fields(self, name: str) -> None:
        wrong, count = [], 0
        for reg_text, nibbles in json.loads((HOSTS / f"{name}.fields.json").read_text()).items():
            reg = int(reg_text, 16)
            own = host(name).registers[reg]
            for index, tried in enumerate(nibbles):
                for value, result in tried.items():
                    count += 1
                    changed = own & ~(0xF << 4 * index) | int(value) << 4 * index
                    if errno_of(host(name), reg, changed) != result:
                        wrong.append((r.name(reg), 4 * index, own >> 4 * index & 0xF, value, result))
        assert wrong == []
        assert count > 700

    @pytest.mark.parametrize("name", REAL)
    def test_a_host_takes_its_own(self, name: str) -> None:
        found = check(host(name).registers, host(name))
        assert {row.verdict for row in found.rows} == {Verdict.SAME, Verdict.ZERO}
        assert found.possible
        assert found.only_there == ()

    @pytest.mark.parametrize("name", REAL)
    def test_registers_have_names(self, name: str) -> None:
        """Every register of a kind that verdicts speak of is named."""
        identity = [reg for reg in host(name).registers if r.is_identity(reg) and reg in FIELDS]
        assert len(identity) > 30
        assert {r.name(reg) for reg in identity} <= set(IDS)


class TestVerdicts:
    """What a real host says, changed in one point."""

    def verdict(self, sent: Description, there: Description, reg: int, **options: bool) -> tuple[Verdict, str]:
        row = next(row for row in check(sent.registers, there, **options).rows if row.register == reg)
        return row.verdict, row.why

    def test_zfr0_without_sve_is_zero(self) -> None:
        assert self.verdict(host(N1[1]), host(N1[2]), r.ZFR0) == (Verdict.ZERO, "the guest has no SVE")

    def test_zfr0_left_the_list_for_a_while(self) -> None:
        there = with_registers(host(N1[1]), {r.ZFR0: None}, kernel="5.4.0")
        verdict, why = self.verdict(host(N1[1]), there, r.ZFR0)
        assert verdict is Verdict.LEAVE_OUT
        assert "73433762fcae" in why
        pfr0 = host(N1[1]).registers[r.PFR0] | 1 << 32
        sent = with_registers(host(N1[1]), {r.PFR0: pfr0, r.ZFR0: 0x10})
        assert self.verdict(sent, there, r.ZFR0)[0] is Verdict.IMPOSSIBLE

    def test_before_4_15_there_are_no_id_registers(self) -> None:
        there = with_registers(host(N1[0]), dict.fromkeys(FIELDS), kernel="4.14.0")
        found = check(host(N1[0]).registers, there)
        rows = {row.register: row for row in found.rows}
        assert rows[r.PFR0].verdict is Verdict.IMPOSSIBLE
        assert rows[r.ZFR0].verdict is Verdict.LEAVE_OUT
        back = check(there.registers, host(N1[0]))
        assert back.possible
        assert r.PFR0 in back.only_there

    def test_midr_needs_a_pool_and_a_kernel(self) -> None:
        sent = with_registers(host(N1[2]), {r.MIDR: 0x411FD0B1})
        verdict, why = self.verdict(sent, host(N1[2]), r.MIDR)
        assert (verdict, "--pool" in why) == (Verdict.IMPOSSIBLE, True)
        assert self.verdict(sent, host(N1[2]), r.MIDR, pool=True)[0] is Verdict.SETTABLE
        verdict, why = self.verdict(sent, host(N1[1]), r.MIDR, pool=True)
        assert (verdict, "before 6.15" in why) == (Verdict.IMPOSSIBLE, True)
        assert errno_of(host(N1[2]), r.MIDR, 1 << 32) == "EINVAL"
        off = refusal(host(N1[2]), r.MIDR, 0x411FD0B1, own_cpu=True)
        assert off is not None
        assert off.why.endswith("is off")

    def test_ras_can_be_taken_away_from_7_2_only(self) -> None:
        without = host(N1[2]).registers[r.PFR0] & ~(0xF << 28)
        assert errno_of(host(N1[2]), r.PFR0, without) == ""
        assert errno_of(host(N1[1]), r.PFR0, without) == "EINVAL"
        found = refusal(host(N1[1]), r.PFR0, without)
        assert found is not None
        assert found.why == "RAS cannot be written"

    def test_aarch32_is_ignored_where_there_is_none(self) -> None:
        pfr0 = host(N1[2]).registers[r.PFR0]
        there = with_registers(host(N1[2]), {r.PFR0: pfr0 & ~0xF | 1, IDS["ID_ISAR0_EL1"]: 0})
        verdict, why = self.verdict(host(N1[2]), there, IDS["ID_ISAR0_EL1"])
        assert (verdict, why.startswith("ignored")) == (Verdict.SETTABLE, True)
        assert self.verdict(host(N1[2]), there, r.PFR0)[0] is Verdict.IMPOSSIBLE

    def test_firmware_registers(self) -> None:
        there = host(N1[2])
        assert [errno_of(there, r.PSCI_VERSION, v) for v in (2, 0x10000, 0x10003, 0x10004, 1, 3)] == [
            "", "", "", "EINVAL", "EINVAL", "EINVAL"
        ]  # fmt: skip
        assert [errno_of(there, r.VENDOR_HYP_BITMAP_2, v) for v in (0, 3, 4)] == ["", "", "EINVAL"]
        assert errno_of(there, r.STD_BITMAP, 1 << 40) == "EINVAL"
        assert errno_of(there, r.WORKAROUND_1, 0x10) == "EINVAL"
        assert errno_of(there, r.WORKAROUND_2, 0x13) == "EINVAL"

    def test_a_timer_that_runs_is_not_left_out(self) -> None:
        sent = with_registers(host(N1[2]), {r.CNTP_CTL: 1})
        assert self.verdict(sent, host(N1[0]), r.CNTP_CTL)[0] is Verdict.IMPOSSIBLE
        assert self.verdict(host(N1[2]), host(N1[0]), r.CNTP_CTL)[0] is Verdict.LEAVE_OUT


class TestPlan:
    """Conservative source, permissive destination."""

    @pytest.mark.parametrize("order", [(2, 1), (2, 0), (1, 0), (0, 1, 2), (2, 1, 0), (1, 2, 0)])
    def test_of_real_hosts_of_one_cpu(self, order: tuple[int, ...]) -> None:
        hosts = [host(N1[i]) for i in order]
        found = plan(hosts)
        assert found.problems == ()
        for index, there in enumerate(hosts):
            sent = {reg: v for reg, v in found.values.items() if index not in found.left_out.get(reg, ())}
            assert [reg for reg, value in sent.items() if refusal(there, reg, value)] == []
        for setting in found.settings:
            assert refusal(hosts[0], setting.register, setting.value) is None

    def test_from_new_to_old(self) -> None:
        found = plan([host(N1[2]), host(N1[0])])
        settings = {r.name(s.register): s for s in found.settings}
        assert settings["PSCI_VERSION"].why == "PSCI 1.3 to 1.1"
        assert settings["ID_AA64DFR0_EL1"].why == "DebugVer 8 to 6"
        assert settings["CLIDR_EL1"].value == host(N1[0]).registers[r.CLIDR]
        assert found.left_out[r.CNTP_CTL] == (1,)

    def test_none_for_another_cpu_before_6_15(self) -> None:
        other = with_registers(host(N1[1]), {r.MIDR: 0x411FD0B1})
        found = plan([host(N1[1]), other], pool=True)
        assert any("MIDR_EL1" in problem for problem in found.problems)
        with pytest.raises(InputError, match="two hosts"):
            plan([other])


class TestFields:
    """The table of fields, by itself."""

    def test_fields_do_not_overlap(self) -> None:
        for reg, listed in FIELDS.items():
            seen = 0
            for found in listed:
                assert not seen & found.mask, (NAMES[reg], found)
                assert found.shift + found.width <= 64
                seen |= found.mask

    def test_against_the_reference(self) -> None:
        """Places of fields that ``fixtures/arm64/registers.json`` has from elsewhere."""
        known = json.loads((HOSTS.parent / "arm64" / "registers.json").read_text())["features"]
        names = {"ras": "RAS", "pan": "PAN", "uao": "UAO", "ssbs": "SSBS", "dit": "DIT", "bti": "BT", "mte": "MTE",
                 "iesb": "IESB", "double_fault2": "DF2"}  # fmt: skip
        for feature, name in names.items():
            assert field(IDS[f"ID_AA64{known[feature]['register'].upper()}_EL1"], name).shift == known[feature]["low"]

    @given(st.data())
    def test_what_meets_is_safe_everywhere(self, data: st.DataObject) -> None:
        reg = data.draw(st.sampled_from(sorted(FIELDS)))
        if not FIELDS[reg]:
            return
        found = data.draw(st.sampled_from(FIELDS[reg]))
        low, high = (
            (-(1 << found.width - 1), (1 << found.width - 1) - 1) if found.signed else (0, (1 << found.width) - 1)
        )
        values = data.draw(st.lists(st.integers(low, high), min_size=1, max_size=4))
        met = found.value(found.meet(values))
        assert all(found.is_safe(met, value) for value in values)

    def test_history_is_in_order(self) -> None:
        assert [c.kernel for c in HISTORY] == sorted(c.kernel for c in HISTORY)
        assert {change(c.topic) for c in HISTORY} == set(HISTORY)
        with pytest.raises(KeyError):
            change("none")

    def test_history_is_in_the_docs(self) -> None:
        text = (HOSTS.parents[1] / "docs" / "compat.md").read_text()
        for c in HISTORY:
            assert f"| {c.kernel[0]}.{c.kernel[1]} | {c.what} | {c.reference} |" in text


class TestDescriptions:
    """What a file may say."""

    @pytest.mark.parametrize("name", REAL)
    def test_round_trip(self, name: str) -> None:
        text = (HOSTS / f"{name}.host.json").read_text()
        assert json.loads(text) == host(name).plain()

    @pytest.mark.parametrize(
        ("change_it", "said"),
        [
            (lambda d: d.pop("kernel"), "kernel: Field required"),
            (lambda d: d.update(format="other"), "format"),
            (lambda d: d.update(version=2), "version"),
            (lambda d: d.update(more=1), "more"),
            (lambda d: d.update(kernel="a\nb"), "kernel"),
            (lambda d: d["registers"].update({"0x1": "12"}), "registers"),
            (lambda d: d["registers"].update({"0x1": "0x" + "f" * 600}), "registers"),
            (lambda d: d["registers"].update({"0x1": -1}), "registers"),
            (lambda d: d["registers"].update({hex(n): "0x0" for n in range(9000)}), "registers"),
            (lambda d: d.update(registers=[]), "registers"),
            (lambda d: d.update(capabilities={"x": 1}), "capabilities"),
        ],
    )
    def test_refused(self, change_it, said: str) -> None:
        plain = host(N1[0]).plain()
        change_it(plain)
        with pytest.raises(InputError, match=said) as caught:
            Description.parse(json.dumps(plain).encode())
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError):
            Description.parse(b"\xff{")

    @given(
        st.dictionaries(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1), max_size=30),
        st.sampled_from(REAL),
    )
    def test_any_registers_are_judged(self, sent: dict[int, int], name: str) -> None:
        found = check(sent, host(name))
        assert len(found.rows) == len(sent)
        assert all(row.errno == "ENOENT" for row in found.rows if row.register not in host(name).registers)


class TestCommands:
    """`vmm-ras host` and `vmm-ras compat`."""

    def file(self, name: str) -> Path:
        return HOSTS / f"{name}.host.json"

    def test_check(self) -> None:
        done = cli("compat", "check", self.file(N1[2]), self.file(N1[1]))
        text = done.stdout.decode()
        assert "PSCI_VERSION" in text
        assert "impossible: " in text
        assert "ID_AA64PFR0_EL1" not in text
        assert "ID_AA64PFR0_EL1" in cli("compat", "check", self.file(N1[2]), self.file(N1[1]), "--all").stdout.decode()
        said = json.loads(cli("compat", "check", self.file(N1[1]), self.file(N1[2]), "--json").stdout)
        assert said["possible"]
        assert sum(said["counts"].values()) == len(said["registers"]) == len(host(N1[1]).registers)

    def test_fail_on(self) -> None:
        cli("compat", "check", self.file(N1[2]), self.file(N1[1]), "--fail-on", "impossible", code=4)
        cli("compat", "check", self.file(N1[1]), self.file(N1[2]), "--fail-on", "impossible")
        cli("compat", "check", self.file(N1[1]), self.file(N1[2]), "--fail-on", "left-out", code=4)
        assert (
            b"expected one of"
            in cli("compat", "check", self.file(N1[1]), self.file(N1[2]), "--fail-on", "x", code=2).stderr
        )

    def test_plan(self) -> None:
        done = cli("compat", "plan", *(self.file(name) for name in reversed(N1)))
        assert "set PSCI_VERSION to 0x10001 (PSCI 1.3 to 1.1)" in done.stdout.decode()
        said = json.loads(cli("compat", "plan", *(self.file(name) for name in reversed(N1)), "--json").stdout)
        assert said["possible"]
        assert said["problems"] == []

    def test_pool(self) -> None:
        text = cli("compat", "pool", self.file(N1[1]), self.file(N1[2])).stdout.decode()
        assert "Neoverse-N1 r4p1" in text
        assert "ARM 3194386" in text
        said = json.loads(cli("compat", "pool", self.file(N1[1]), self.file(N1[2]), "--json").stdout)
        assert said["pool"] == {"cpus": [[0x414FD0C1, 0, 0]], "chosen": 0}
        assert said["problems"] == []

    def test_of_a_qemu_stream(self, tmp_path: Path) -> None:
        from tests.migration_files import migration

        file = tmp_path / "guest.mig"
        file.write_bytes(migration("10.0", "off"))
        said = json.loads(cli("compat", "check", file, self.file(N1[2]), "--json").stdout)
        assert {row["name"] for row in said["registers"]} >= {"SCTLR_EL1", "VBAR_EL1"}

    def test_host_describe_needs_an_arm64_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        assert b"needs an arm64 host with KVM" in cli("host", "describe", code=3).stderr

    def test_wrong_files(self, tmp_path: Path) -> None:
        broken = tmp_path / "broken.json"
        broken.write_text("{}")
        for words in (
            ("check", broken, self.file(N1[0])),
            ("check", self.file(N1[0]), broken),
            ("plan", broken, broken),
        ):
            assert cli("compat", *words, code=1).stderr.decode().startswith(f"vmm-ras: {broken}: host description: ")
        assert b"No such file" in cli("compat", "check", self.file(N1[0]), tmp_path / "no", code=1).stderr


def test_numbers_of_the_headers() -> None:
    """What ``vmm_ras.kvm.ioctls`` has, as the compiler read it from Linux's headers."""
    from vmm_ras.kvm import ioctls

    constants = json.loads((HOSTS.parent / "offsets" / "constants.json").read_text())
    compiled = constants["linux-kvm-arm64"]["values"]
    ours = {f"KVM_{name}": value for name, value in vars(ioctls).items() if name.isupper()}
    shared = ours.keys() & compiled.keys()
    assert {name: ours[name] for name in shared} == {name: compiled[name] for name in shared}
    assert {"KVM_ARM_GET_REG_WRITABLE_MASKS", "KVM_ARM_VCPU_FINALIZE", "KVM_CAP_ARM_SVE", "KVM_ARM_VCPU_SVE"} <= shared
