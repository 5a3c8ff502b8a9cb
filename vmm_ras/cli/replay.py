"""`vmm-ras replay`: a trace into a model guest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmm_ras.cli.common import Json, Progress, console, usage
from vmm_ras.cli.machine import (
    Guest,
    HookFile,
    Map,
    Pages,
    PageSize,
    PolicyFile,
    Preset,
    PresetName,
    Sdei,
    Style,
    Trace,
    Vcpus,
    machine,
)

if TYPE_CHECKING:
    from vmm_ras.replay import Replay


OF_A_TRACE = ("hook_file", "map_", "preset", "style", "vcpus", "page_size", "sdei")
"""Options that a scenario answers itself."""


def replay(
    context: typer.Context,
    trace: Trace,
    policy_file: PolicyFile = None,
    hook_file: HookFile = None,
    guest: Guest = "linux",
    map_: Map = None,
    out: Annotated[Path | None, typer.Option(help="Write HEST, the placed image and each block here.")] = None,
    json_: Json = False,
    fail_on: Annotated[
        str, typer.Option(metavar="LIST", help="Exit 4 if any: lost, unseen, panic (comma-separated).")
    ] = "",
    preset: Preset = PresetName.default,
    style: Annotated[Style, typer.Option(help="What the records say.")] = Style.native,
    vcpus: Vcpus = 8,
    page_size: Pages = PageSize.k4,
    sdei: Sdei = True,
    strict: Annotated[bool, typer.Option(help="Stop at the first bad line.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print the summary only.")] = False,
) -> None:
    """Replay a memory-failure trace into a model guest, and tell what became of each event.

    Example: vmm-ras replay qemu.strace --map 0x7f3a40000000:0x40000000:4G --fail-on lost,panic
    """
    wanted = [w for w in fail_on.split(",") if w]
    for word in wanted:
        if word not in {"lost", "unseen", "panic"}:
            usage(f"--fail-on {word!r}: expected lost, unseen or panic")
    from vmm_ras.cli.scenario import is_scenario

    if is_scenario(trace):
        for option in context.command.params:
            source = context.get_parameter_source(str(option.name))
            if option.name in OF_A_TRACE and source is not None and source.name == "COMMANDLINE":
                usage(f"{option.opts[0]}: {trace} is a scenario, which describes its machine itself")
        _scenario(trace, policy_file, guest, out, json_, quiet, wanted)
        return
    run = machine(policy_file, hook_file, guest, map_, preset, vcpus, page_size, sdei, style, trace)
    from vmm_ras.traces import open_trace

    blocks = None if out is None else _Blocks(out, run)
    run.ledger.blocks = blocks
    with open_trace(trace, strict=strict) as entries:
        if json_:
            rows_as_json(run, entries)
        else:
            rows_as_text(run, entries, quiet)
    if blocks is not None:
        blocks.close()
    _fail_on(run, wanted)


def _fail_on(run: Replay, wanted: list[str]) -> None:
    failures = run.summary.failures
    if any(failures[word] for word in wanted):
        raise typer.Exit(4)


def _scenario(
    file: str, policy_file: str | None, guest: str, out: Path | None, json_: bool, quiet: bool, wanted: list[str]
) -> None:
    """Replay what happens in a scenario, on the machine that it describes; what it expects is `scenario run`'s."""
    from vmm_ras.cli.machine import policy
    from vmm_ras.cli.scenario import load
    from vmm_ras.scenario import ModelRunner
    from vmm_ras.scenario.bound import entries, policy_text

    scenario = load(Path(file))
    head = scenario.head
    runner = ModelRunner(
        preset=head.preset, guest=guest, policy=policy(policy_file) if policy_file else policy_text(head),
        vcpus=head.vcpus, ram="512M",
    )  # fmt: skip
    said = entries(scenario, runner.place, runner.sources)
    blocks = None if out is None else _Blocks(out, runner.replay)
    runner.replay.ledger.blocks = blocks
    if json_:
        rows_as_json(runner.replay, said)
    else:
        rows_as_text(runner.replay, said, quiet)
    if blocks is not None:
        blocks.close()
    _fail_on(runner.replay, wanted)


def rows_as_json(run: Replay, entries: Any) -> None:
    """Replay, and print a JSON line for each row; notices and summary go to standard error."""
    import orjson

    write = sys.stdout.buffer.write
    progress = Progress(not sys.stdout.isatty())

    def say() -> None:
        for notice in run.notices:
            print(notice, file=sys.stderr)
        run.notices.clear()

    for row in run.run(each(entries, run.notices, say)):
        write(row.json())
        progress.step()
    progress.end()
    say()
    print(orjson.dumps(run.summary.plain()).decode(), file=sys.stderr)


def each(entries: Iterable[Any], notices: list[str], say: Callable[[], None]) -> Iterator[Any]:
    """The entries; after each, what there is to say of it: a trace may have more bad lines than memory holds."""
    for entry in entries:
        yield entry
        if notices:
            say()
    notices += [f"note: {note}" for note in getattr(entries, "notes", ())]


def rows_as_text(run: Replay, entries: Any, quiet: bool) -> None:
    """Replay, and print a line for each row, unless ``quiet``, and the summary."""
    from vmm_ras.cli import timeline

    out = console()
    progress = Progress(not sys.stdout.isatty()) if quiet else None

    def say() -> None:
        for notice in run.notices:
            out.print(notice, style="dim", soft_wrap=True)
        run.notices.clear()

    for row in run.run(each(entries, run.notices, say)):
        say()
        if progress:
            progress.step()
        else:
            out.print(timeline.line(row), soft_wrap=True)
    if progress:
        progress.end()
    say()
    out.print()
    out.print(timeline.summary(run.summary))


class _Blocks:
    """Writes the image, and each block as it is published, with a list of CRC-32C digests."""

    def __init__(self, out: Path, run: Replay) -> None:
        import orjson

        from vmm_ras.ledger import crc32c

        self._crc, self._count = crc32c, 0
        self._dir = out / "blocks"
        self._dir.mkdir(parents=True, exist_ok=True)
        for stale in self._dir.glob("[0-9]*-source*.bin"):
            stale.unlink()  # of another replay: a block that is here was published by this one
        for name, _, data in run.image.regions:
            (out / f"{name}.bin").write_bytes(data)
        layout = {
            "regions": [{"name": n, "gpa": gpa, "size": len(d), "file": f"{n}.bin"} for n, gpa, d in run.image.regions],
            "rsdp": run.image.rsdp,
            "sources": [s._asdict() | {"notification": s.notification.plain} for s in run.image.sources],
        }
        (out / "image.json").write_bytes(orjson.dumps(layout, option=orjson.OPT_INDENT_2))
        self._list = (out / "blocks.crc32c").open("w")

    def __call__(self, source_id: int, block: bytes) -> None:
        self._count += 1
        name = f"{self._count:06}-source{source_id}.bin"
        (self._dir / name).write_bytes(block)
        self._list.write(f"{self._crc(block):08x}  blocks/{name}\n")

    def close(self) -> None:
        self._list.close()
