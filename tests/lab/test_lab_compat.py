"""The lane that compares predictions with real kernels, fed with what real kernels said."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from vmm_ras.compat import registers
from vmm_ras.compat.accept import refusal
from vmm_ras.compat.host import Description
from vmm_ras.lab import compat
from vmm_ras.lab.errors import Failure
from vmm_ras.lab.host import Run

HOSTS = Path(__file__).parents[2] / "fixtures" / "hosts"
SERIES = ("6.1", "6.12", "7.2")


class Recorded:
    """A host that answers as the real one did; ``wrong``: registers for which it does not."""

    def __init__(self, series: str, wrong: dict[int, str] | None = None, code: int = 0) -> None:
        self.lab = SimpleNamespace(kernel=SimpleNamespace(version=f"{series}.0-1", series=series))
        self.name, self.wrong, self.code = f"neoverse-n1-{series}", wrong or {}, code
        self.text = (HOSTS / f"{self.name}.host.json").read_text()
        self.refused = json.loads((HOSTS / f"{self.name}.moves.json").read_text())

    def run(self, files: dict[str, bytes], script: str, *, seconds: float) -> Run:
        lines = (
            tuple(self.text.splitlines()) if "host describe" in script else tuple(map(self.moved, *zip(*files.items())))
        )
        return Run(self.code, lines, 1.0, self.name)

    def moved(self, file: str, data: bytes) -> str:
        sent = Description.parse(data).registers
        if file == "plan.json":  # no fixture has it: it is made of what the other fixtures say
            own = Description.parse(self.text.encode())
            said = {reg: getattr(refusal(own, reg, value), "errno", "") for reg, value in sent.items()}
        else:
            said = {reg: self.refused[f"neoverse-n1-{file.removesuffix('.json')}"].get(hex(reg), "") for reg in sent}
        said |= {reg: error for reg, error in self.wrong.items() if reg in said}
        return "MOVE " + json.dumps({"file": file, "result": {hex(reg): error for reg, error in said.items()}})

    def keep(self, run: Run) -> str:
        return "kept"


def test_what_real_kernels_said() -> None:
    told: list[str] = []
    report = compat.run({series: Recorded(series) for series in SERIES}, told.append)
    assert len(report.times) == len(told) == 6
    shown = [what for _, what, _ in report.rows]
    assert shown.count("the planned set is taken whole") == 3
    assert sum(what.startswith("each call of ") for what in shown) == 12


@pytest.mark.parametrize(("error", "said"), [("EINVAL", "EINVAL, predicted None"), ("", "taken, predicted")])
def test_one_call_that_ends_otherwise_is_a_failure(error: str, said: str) -> None:
    reg = registers.MIDR if error else registers.CLIDR
    with pytest.raises(Failure, match=r"not so: each call of 6\.12\.json ends as predicted") as caught:
        compat.run({"6.12": Recorded("6.12"), "6.1": Recorded("6.1", {reg: error})})
    assert said in caught.value.detail


def test_a_program_that_fails() -> None:
    with pytest.raises(Failure, match="ends with 3; kept"):
        compat.run({"6.1": Recorded("6.1", code=3), "6.12": Recorded("6.12")})
