"""The conformance runner, with a model in the kernel's place: order, evidence, what is kept."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from acpi.presets import PRESETS
from tests import conformance_tables
from vmm_ras.effects import Posted
from vmm_ras.errors import InputError
from vmm_ras.lab import conformance, observations, script_stage
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.newer_qemu import QemuProgram
from vmm_ras.lab.packages import Kernel, Lab
from vmm_ras.lab.script_guest import APART, FREE, KEPT, LARGEST, ScriptGuest, free_around
from vmm_ras.lab.script_stage import QemuStage
from vmm_ras.scenario.bound import OUTSIDE
from vmm_ras.scenario.model_stage import ModelStage
from vmm_ras.traces import script

SCENARIOS = conformance_tables.scenarios()
NAMES = ("serror/uncontainable", "sea/bare-reader", "severity/sea-fatal", "channel/gsiv-early")
LAB = SimpleNamespace(kernel=SimpleNamespace(series="6.12", version="6.12.95-1"))


class Stage(ModelStage):
    """A model that has a console and a log."""

    def __init__(self, guest, fails=None):
        super().__init__(guest)
        self.console, self.log, self.fails = SimpleNamespace(text="serial\n"), "kernel log\n", fails

    @property
    def adapter(self):
        return SimpleNamespace(seen=self.machine.effects(Posted))

    def words(self):
        return self.timeline()

    def traced(self):
        return []

    def do(self, item):
        super().do(item)
        if self.fails:
            raise Failure(self.fails, "the last words")


class Boot:
    """Counts how often it is booted."""

    def __init__(self, guest="linux-6.12", fails=None):
        self.lab, self.release, self.version, self.boots, self.stage = LAB, "6.12.95", "7.2.22", 0, None
        self.qemu = SimpleNamespace(monitor=SimpleNamespace(log=["> {}", "< {}"]))
        self.guest, self.fails = guest, fails

    def up(self):
        if self.stage is None:
            self.boots += 1
            self.stage = Stage(self.guest, self.fails)
        return self.stage

    def down(self):
        self.stage = None

    about = conformance.Boot.about


def scenarios():
    return [SCENARIOS[name]._replace(name=f"x/{name}.scenario.jsonl") for name in NAMES]


def test_who_panics_comes_last_and_has_a_boot_of_its_own(tmp_path):
    boot = Boot()
    rows = list(conformance.run(LAB, scenarios(), tmp_path, boot))
    assert [observations.key(row.result.scenario.name) for row in rows] == [NAMES[1], NAMES[3], NAMES[0], NAMES[2]]
    assert [row.result.failed for row in rows] == [()] * 4
    assert boot.boots == 2  # the first lives through two, and dies of the third; the fourth has another
    assert not list(tmp_path.iterdir())


def test_a_kernel_that_ends_otherwise_leaves_all_there_is(tmp_path):
    boot = Boot("no-apei")
    rows = list(conformance.run(LAB, [scenarios()[1], scenarios()[3]], tmp_path, boot))
    assert rows[0].result.failed == ()
    assert rows[1].evidence == tmp_path / "6.12/channel-gsiv-early"
    assert any("source gsiv: bound is False, not True as on the model" in text for text in rows[1].result.failed)
    there = {path.name for path in rows[1].evidence.iterdir()}
    assert there >= {"serial.log", "kernel.log", "qmp.log", "report.md"}
    report = (rows[1].evidence / "report.md").read_text()
    assert "## Kernel" in report
    assert "## Model" in report
    assert boot.boots == 1
    assert boot.stage is None, "nobody goes on with a guest that did what it should not"


def test_a_guest_that_does_not_answer_is_a_row_too(tmp_path):
    rows = list(conformance.run(LAB, [scenarios()[3]], tmp_path, Boot(fails="the guest is silent")))
    assert rows[0].result.failed == ("kernel: the guest is silent",)
    report = (rows[0].evidence / "report.md").read_text()
    assert "the last words" in report
    assert len(list(rows[0].evidence.glob("block-*-source4.bin"))) == 1


def test_a_guest_that_does_not_boot_leaves_a_folder_too(tmp_path):
    class Dead(Boot):
        def up(self):
            self.qemu.console = SimpleNamespace(text="EFI stub: error\n")
            raise Failure("the guest boots: nothing within 180 s", "its last words")

    with pytest.raises(Failure, match=f"nothing within 180 s; see {tmp_path}/6.12/boot"):
        list(conformance.run(LAB, scenarios(), tmp_path, Dead()))
    there = {path.name: path.read_text() for path in (tmp_path / "6.12/boot").iterdir()}
    assert there["serial.log"] == "EFI stub: error\n"
    assert there["qmp.log"] == "> {}\n< {}"
    assert "its last words" in there["report.md"]


def test_what_was_not_played_now_is_kept(tmp_path):
    boot = Boot()
    rows = list(conformance.run(LAB, scenarios(), tmp_path, boot))
    whole = json.loads(observations.text(boot.about(), rows))
    again = json.loads(observations.text(boot.about(), rows[:1], whole))
    assert again["scenarios"] == whole["scenarios"]
    assert again["about"]["boots"] == 2 * boot.boots
    assert list(whole["scenarios"]) == sorted(NAMES)


def test_a_run_that_was_ended_is_taken_up(tmp_path, monkeypatch):
    folder = tmp_path / "suite" / "x"
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / f"{name.replace('/', '-')}.scenario.jsonl").write_bytes(
            (conformance_tables.SCENARIOS / f"{name}.scenario.jsonl").read_bytes()
        )
    said, out = [], tmp_path / "out"

    def play(boot, **more):
        monkeypatch.setattr(conformance, "Boot", lambda lab, random: boot)
        said.clear()
        try:
            return conformance.series_of(LAB, folder.parent, "", out, tmp_path, False, said.append, **more)
        finally:
            boot.down()

    class Ended(Boot):
        def up(self):
            if out.exists() and len(json.loads((out / "linux-6.12.json").read_text())["scenarios"]) == 2:
                raise KeyboardInterrupt
            return super().up()

    with pytest.raises(KeyboardInterrupt):
        play(Ended())
    assert play(Boot(), resume=True)
    assert "2 of 2 scenarios end as on the model" in said[-1]
    held = json.loads((out / "linux-6.12.json").read_text())
    assert sorted(held["scenarios"]) == sorted(f"x/{name.replace('/', '-')}" for name in NAMES)
    assert play(Boot(), resume=True)
    assert "0 of 0 scenarios" in said[-1]
    path = folder / "sea-bare-reader.scenario.jsonl"
    path.write_text(path.read_text().replace('"vcpu":1', '"vcpu":0'))
    assert play(Boot(), resume=True)
    assert "1 of 1 scenario " in said[-1], "another scenario under the same name is played"


def test_a_newer_qemu_in_the_place_of_the_hosts_own():
    program = QemuProgram(("setpriv", "--", "ld.so"), Path("new"), ("-L", "data"), {"PATH": "x"})
    lab = Lab(Kernel("6.12", "1", Path("k")), Path("old"), Path("e"), Path("b"), Path("v"), ("setpriv", "--"), {})
    assert program.command == ("setpriv", "--", "ld.so", "new", "-L", "data")
    changed = program.of(lab)
    assert (*changed.prefix, str(changed.qemu)) == program.command[:4]
    assert (changed.environment, changed.kernel) == ({"PATH": "x"}, lab.kernel)


class TestStage:
    def test_the_tables_are_those_of_the_preset(self):
        assert script_stage.firmware().description.sources == PRESETS[script_stage.PRESET].sources

    @pytest.fixture
    def stage(self):
        stage = QemuStage.__new__(QemuStage)
        stage.linux = ScriptGuest(SimpleNamespace(text=""), 0x4000_0000, lambda seconds: None, 1)
        return stage

    @pytest.fixture
    def guest(self, stage):
        guest = stage.linux
        guest._scenario, guest.victims = 4, {"a": SimpleNamespace(name="s7a"), "b": SimpleNamespace(name="s7b")}
        return guest

    @pytest.mark.parametrize(
        ("printed", "code"),
        [
            ("SIGBUS s7a code=4 addr=0x1 \nEXIT s7a 3\n", "BUS_MCEERR_AR"),
            ("SIGBUS s7a code=5 addr=0x1 \n", "BUS_MCEERR_AO"),
            ("SIGBUS s7a code=3 addr=0x1 \n", "BUS_OBJERR"),
            ("SIGBUS s7a code=128 addr=0x0 \n", "SI_KERNEL"),
            ("SIGBUS s7a code=77 addr=0x0 \n", "code 77"),
            ("SIGBUS s7b code=4 addr=0x1 \nEXIT s7a 135\n", "killed"),
            ("SIGBUS s7ab code=4 addr=0x1 \n", "none"),
        ],
    )
    def test_what_became_of_an_owner(self, guest, printed, code):
        guest.console.text = f"old\n{printed}"
        assert guest.signal("a") == code
        assert guest.signal("nobody") == "none"

    def test_lost_pages(self, guest):
        asked = []

        def run(command):
            asked.append(command)
            return answers.pop(0)

        guest.run = run
        answers = [
            " 000000040028501c\n", "[   1.2] noise 12\n 0000000400205c2c\n", "nothing\n"
        ]  # fmt: skip
        assert guest.offlined(0x4000_5000) is True
        assert guest.offlined(0x4000_5000) is False
        with pytest.raises(Failure, match="kpageflags of page 0x40005"):
            guest.offlined(0x4000_5000)
        assert re.search(r"^ask flags 262149$", asked[0])

    def test_a_reset_begins_another_boot(self, guest):
        """A panic and a log of the boot before are over; what owners got is not."""
        guest.console.text = "old\nSIGBUS s7a code=5 addr=0x1 \n[ 1.0] Kernel panic - not syncing: x\n"
        guest.log, guest.unbound = "Memory failure: 0x40005: a\n", {2}
        assert guest.panicked()
        assert guest.reported(0x4000_5000)
        guest.reset()
        assert not guest.panicked()
        assert guest.unbound == set()
        guest.run = lambda command: ""
        assert not guest.reported(0x4000_5000)
        assert guest.signal("a") == "BUS_MCEERR_AO"

    def test_a_page_whose_owner_the_kernel_ends_stays_nobody_elses(self, guest):
        typed = []
        guest.console = SimpleNamespace(text="", type=typed.append)
        guest.until = lambda found, seconds, what: re.match(".*", "VICTIM s0a pid=1 va=0x1 pa=0x4000 pc=0x2 text=0x3")
        assert guest.take(script.NamedPage("a", "reader", 1), KEPT) == 0x4000
        assert typed == ['(victim s0a hk1; echo "EXIT s0a $?") &']
        assert guest.take(script.NamedPage("c", "outside")) == OUTSIDE

    def test_nobodys_pages_are_of_the_largest_free_block(self, guest):
        """How many of 1024 pages are used, how many then are free, and so on."""
        free, used, mixed = "0 1024 \n", "1024 \n", "768 256 \n"
        blocks = [used, mixed, free]
        base, asked = 0x4000_0000 + FREE >> 12, []

        def run(command):
            asked.append(int(re.search(r"ask free (\d+)$", command).group(1)) - base // LARGEST)
            return blocks[asked[-1]] if asked[-1] < len(blocks) else used

        guest.run = run
        took = [guest.take(script.NamedPage("a", "nobody")) for _ in range(3)]
        assert took == [(base + 2 * LARGEST << 12) + n * APART for n in range(3)]
        assert asked == [0, 1, 2, 2, 2]
        assert free_around([True] * LARGEST, 5) == LARGEST
        assert free_around([False] * 512 + [True] * 512, 768) == 512
        assert free_around([False] * 512 + [True] * 512, 3) == 0
        assert free_around([True] * 1023 + [False], 1023) == 0
        assert guest.free_pages(base + LARGEST) == [False] * 768 + [True] * 256
        blocks[:] = [used] * 3
        with pytest.raises(Failure, match="no free block"):
            guest.take(script.NamedPage("a", "nobody"))

    def test_whoever_waits_is_waited_for(self, stage):
        """A source, a pause between two records, a record, a held vCPU, a handler that runs; then nothing."""
        idle = {"busy": {}, "ready": {}, "aborts": {}, "vcpus": 2}
        waits = [{"busy": {1: "source"}}, {"ready": {0: (1.0, False)}}, {"aborts": {0: "held"}}]

        def busy(records=(), running=None, **more):
            sdei = SimpleNamespace(running=lambda vcpu: vcpu == running)
            stage.core = SimpleNamespace(**idle | more, inbox=SimpleNamespace(records=records), sdei=sdei)
            return stage.busy()

        assert [busy(**more) for more in waits] == [True] * 3
        assert busy(records=["record"])
        assert busy(running=1)
        assert not busy()

    def test_what_no_real_guest_does(self, stage):
        with pytest.raises(InputError, match="not on a real guest: a real guest acknowledges when it does"):
            stage.open(SCENARIOS["unread/never-acknowledged"])
        with pytest.raises(InputError, match="the real guest has preset conformance and 2 vCPUs"):
            stage.open(script.Script("x", script.Head("x", vcpus=3), ()))
