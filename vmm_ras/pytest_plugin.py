"""pytest plugin: firmware-first policies as unit tests (``docs/testing-policies.md``).

Fixtures: ``machine`` (a VM to which things happen), ``guest`` (what its guest does), ``policy`` (override it),
``trace`` (replay a recorded trace) and ``scenario`` (play a scenario file); a file ``*.scenario.jsonl`` is a test.
``@pytest.mark.machine(...)`` describes the machine.  Nothing else of vmm-ras is imported before a test asks for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from cper.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from vmm_ras.policy import Policy
    from vmm_ras.rows import Row
    from vmm_ras.scenario import Guest, Machine, ModelRunner, Verdict
    from vmm_ras.scenario.play import Result
    from vmm_ras.summary import Summary

MARK = (
    "machine(preset, guest, policy, page_size, vcpus, ram, sdei, style): the VM of the test: error sources, guest "
    "profile, policy file, guest page size, number of vCPUs, guest memory, whether SDEI is registered, record style"
)
_WORDS = ("preset", "guest", "policy", "page_size", "vcpus", "ram", "sdei", "style")
_OPTIONS = {
    "preset": "error sources of every machine that a marker does not name",
    "guest": "guest profile, likewise",
    "policy": "policy file, likewise",
    "page_size": "guest page size, likewise: 4K, 16K or 64K",
    "vcpus": "number of vCPUs, likewise",
}
SCENARIO = ".scenario.jsonl"
_LONGEST = 400
"""Lines of a timeline that a report shows."""
_TOLD = pytest.StashKey[list["Callable[[], str]"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The machine for tests whose marker does not say otherwise."""
    group = parser.getgroup("vmm-ras", "firmware-first memory errors")
    for name, text in _OPTIONS.items():
        kind: dict[str, Any] = {"type": int} if name == "vcpus" else {}
        group.addoption(f"--ras-{name.replace('_', '-')}", dest=f"ras_{name}", default=None, help=text, **kind)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARK)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    """A scenario file (``*.scenario.jsonl``) is a test."""
    if not file_path.name.endswith(SCENARIO):
        return None
    return ScenarioFile.from_parent(parent, path=file_path)


class ScenarioFile(pytest.File):
    """A scenario file."""

    def collect(self) -> Iterator[pytest.Item]:
        """One test: the scenario on the model, its guest being that of ``--ras-guest``."""
        yield ScenarioItem.from_parent(self, name=self.path.name.removesuffix(SCENARIO))


class ScenarioItem(pytest.Item):
    """What is expected must be so."""

    def runtest(self) -> None:
        """Play it."""
        played = _played(self.path, self.config.getoption("ras_guest") or "linux")
        self.stash.setdefault(_TOLD, []).append(lambda: played.timeline)
        if played.failed:
            _fail("\n".join(f"{self.path.name}:{text}" for text in played.failed))

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it is."""
        return self.path, 0, f"scenario {self.name}"


# -- fixtures --------------------------------------------------------------------------------------


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Policy | str | Path | None:
    """The policy under test; None is the default one.

    Override it with a Policy, its TOML text, or the Path of a file.
    """
    file = _described(request).get("policy")
    return None if file is None or file == "default" else _path(request, file)


@pytest.fixture
def machine(request: pytest.FixtureRequest, policy: Policy | str | Path | None) -> Machine:
    """The VM: ``machine.loses(page=3)``, ``machine.consumes(page=3, vcpu=1)``, ``machine.told(page=3).by("sea")``."""
    from vmm_ras.scenario import Machine

    made = Machine(_runner(request, policy))
    _shown(request, made.timeline)
    return made


@pytest.fixture
def guest(machine: Machine) -> Guest:
    """The guest of the machine: ``guest.never_acks()``, ``guest.masks_serror(vcpu=0)``, ``guest.survives()``."""
    return machine.guest


@pytest.fixture
def trace(request: pytest.FixtureRequest, policy: Policy | str | Path | None) -> Callable[[str | Path], Replayed]:
    """Replay a trace, given by file, into the machine that marker and policy describe: ``trace("incident.strace")``.

    A relative path counts from the test's file, then from pytest's root folder.
    """

    def play(file: str | Path) -> Replayed:
        replayed = Replayed(_runner(request, policy, mapped=False), _path(request, file))
        _shown(request, replayed.timeline)
        return replayed

    return play


@pytest.fixture
def scenario(request: pytest.FixtureRequest) -> Callable[[str | Path], Result]:
    """Play a scenario file on the model guest that marker and options name: ``scenario("sea.scenario.jsonl").failed``.

    A relative path counts from the test's file, then from pytest's root folder.
    """

    def play(file: str | Path) -> Result:
        played = _played(_path(request, file), _described(request).get("guest") or "linux")
        _shown(request, lambda: played.timeline)
        return played

    return play


def _played(path: Path, guest: str) -> Result:
    from vmm_ras.errors import RasError
    from vmm_ras.profiles import PROFILES
    from vmm_ras.scenario.model_stage import ModelStage
    from vmm_ras.scenario.play import play
    from vmm_ras.traces import script

    if guest not in PROFILES:
        _fail(f"guest {guest!r}: expected one of {', '.join(PROFILES)}")
    try:
        return play(script.read(path.read_bytes(), str(path)), ModelStage(guest))
    except (RasError, OSError) as error:
        _fail(str(error))


class Replayed:
    """What became of a trace: ``rows``, one per event, and a ``summary`` (``vmm_ras.rows``)."""

    def __init__(self, runner: ModelRunner, file: Path) -> None:
        from vmm_ras.errors import RasError
        from vmm_ras.traces import open_trace

        replay = runner.replay
        self.file = file
        try:
            with open_trace(file) as entries:
                self.rows: list[Row] = list(replay.run(entries))
        except RasError as error:
            _fail(str(error))
        self.summary: Summary = replay.summary

    def __repr__(self) -> str:
        s, told = self.summary, [counted(len(self.rows), "event")]
        told += [f"{n} {what}" for what, n in s.failures.items()]
        told += [counted(s.bad_lines, "bad line")] if s.bad_lines else []
        told += [f"{s.unlocated} without a place"] if s.unlocated else []
        return f"<{self.file.name}: {', '.join(told)}>"

    def timeline(self) -> str:
        """A line for each event."""
        from vmm_ras.cli.timeline import line

        return "\n".join(line(row).plain for row in self.rows)

    def loses_nothing(self) -> Verdict:
        """Whether the guest was told of every error, did something about each, and lives.

        Of a line that cannot be read, and of an error that the trace gives no place, nobody can say so.
        """
        from vmm_ras.rows import LOST, PANIC
        from vmm_ras.scenario import Verdict

        bad = [r for r in self.rows if r.outcome in LOST | PANIC | {"waiting"}]
        where = "".join(f"; line {r.line}: {r.code} gpa {r.gpa or 0:#x} {r.outcome}" for r in bad[:3])
        lost = any(self.summary.failures.values()) or self.summary.bad_lines or self.summary.unlocated
        return Verdict(not lost, repr(self) + where)


def _runner(request: pytest.FixtureRequest, policy: Any, mapped: bool = True) -> ModelRunner:
    from vmm_ras.errors import RasError
    from vmm_ras.policy import Policy, load_policy
    from vmm_ras.scenario import ModelRunner

    words = {k: v for k, v in _described(request).items() if k != "policy"}
    try:
        if isinstance(policy, Path):
            policy = load_policy(policy.read_text(), str(policy))
        elif isinstance(policy, str):
            policy = load_policy(policy, "the policy fixture")
        elif not isinstance(policy, Policy | None):
            _fail(f"the policy fixture gave {policy!r}: expected a Policy, TOML text, a Path or None")
    except RasError as error:
        _fail(str(error))
    except (OSError, UnicodeDecodeError) as error:
        _fail(f"{policy}: {getattr(error, 'strerror', None) or error}")
    try:
        return ModelRunner(**words, policy=policy, mapped=mapped)
    except RasError as error:
        _fail(f"@pytest.mark.machine: {error}")


def _described(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What markers and options say of the machine; the marker closest to the test wins."""
    words: dict[str, Any] = {}
    for mark in request.node.iter_markers("machine"):
        shown = ", ".join([*map(repr, mark.args), *(f"{k}={v!r}" for k, v in mark.kwargs.items())])
        expected = f"expected {', '.join(_WORDS)}"
        if mark.args:
            _fail(f"@pytest.mark.machine({shown}): by keyword only, {expected}")
        for name in mark.kwargs:
            if name not in _WORDS:
                _fail(f"@pytest.mark.machine({shown}): unknown argument {name!r}, {expected}")
        words = {**mark.kwargs, **words}
    options = {name: request.config.getoption(f"ras_{name}") for name in _OPTIONS}
    return {k: v for k, v in options.items() if v is not None} | words


def _path(request: pytest.FixtureRequest, file: str | Path) -> Path:
    if not isinstance(file, str | Path):
        _fail(f"{file!r}: expected the path of a file")
    places = [request.path.parent / file, request.config.rootpath / file, request.config.invocation_params.dir / file]
    found = next((p for p in places if p.is_file()), None)
    if found is None:
        _fail(f"{file}: no such file beside {request.path.name}, in {request.config.rootpath} or where pytest was run")
    return found


def _fail(text: str) -> NoReturn:
    raise pytest.fail.Exception(text, pytrace=False) from None


# -- reports ---------------------------------------------------------------------------------------


def _shown(request: pytest.FixtureRequest, text: Callable[[], str]) -> None:
    request.node.stash.setdefault(_TOLD, []).append(text)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print the timeline of a scenario that failed."""
    report = yield
    if report.when == "call" and report.failed:
        for text in item.stash.get(_TOLD, []):
            lines = text().splitlines() or ["nothing happened"]
            if len(lines) > _LONGEST:
                lines = [f"... {counted(len(lines) - _LONGEST, 'line')} before", *lines[-_LONGEST:]]
            report.sections.append(("vmm-ras timeline", "\n".join(lines)))
    return report


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """Blocks and structures are compared field by field."""
    if op != "==" or not type(left).__module__.startswith(("vmm_ras.", "cper.", "acpi.")):
        return None
    from cper.wire import Struct
    from vmm_ras.scenario import Block, differences

    if not (isinstance(left, Block) and isinstance(right, bytes)) and not (
        isinstance(left, Struct) and type(left) is type(right)
    ):
        return None
    names = [repr(Block(v)) if isinstance(v, bytes) else f"<{type(v).__name__}>" for v in (left, right)]
    return [f"{names[0]} == {names[1]}", *differences(left, right)]
