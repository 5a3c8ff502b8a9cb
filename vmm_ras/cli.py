"""The command line.  Exit codes: 0 done, 1 bad data, 2 usage, 3 the host lacks something, 4 a ``--fail-on`` holds."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from vmm_ras.replay import Replay

MAX_FILE = 64 << 20
"""Bytes of a blob that a command reads at most."""

_EPILOG = "Exit codes: 0 done, 1 bad data, 2 usage, 3 the host lacks something, 4 a --fail-on condition holds."
_OPTIONS: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(
    help="Firmware-first memory errors for virtual machines: replay SIGBUS traces, build and read HEST and CPER.",
    epilog=_EPILOG, **_OPTIONS,
)  # fmt: skip
hest = typer.Typer(help="Hardware Error Source Tables.", **_OPTIONS)
cper = typer.Typer(help="CPER records, sections and status blocks.", **_OPTIONS)
policy = typer.Typer(help="Firmware-first policies.", **_OPTIONS)
app.add_typer(hest, name="hest")
app.add_typer(cper, name="cper")
app.add_typer(policy, name="policy")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Guest(str, Enum):
    """Guest profiles that can be chosen."""

    linux = "linux"
    generic = "generic"


class PresetName(str, Enum):
    """HEST presets that can be chosen."""

    default = "default"
    all = "all"
    qemu_7_2 = "qemu-7.2"
    qemu_10_0 = "qemu-10.0"
    qemu_11_1 = "qemu-11.1"


class Style(str, Enum):
    """Record styles that can be chosen."""

    native = "native"
    qemu = "qemu"


class PageSize(str, Enum):
    """Guest page sizes that can be chosen."""

    k4 = "4k"
    k16 = "16k"
    k64 = "64k"


_SHIFTS = {"4k": 12, "16k": 14, "64k": 16}


# -- replay ------------------------------------------------------------------------------


@app.command()
def replay(
    trace: Annotated[str, typer.Argument(metavar="TRACE", help="strace output, kernel log or JSON Lines; - is stdin.")],
    policy_file: Annotated[Path | None, typer.Option("--policy", help="TOML policy; see `policy show`.")] = None,
    guest: Annotated[Guest, typer.Option(help="What kind of guest takes the errors.")] = Guest.linux,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="HVA:GPA:SIZE", help="Guest memory slot; repeatable. Sizes take K, M, G."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write HEST, the placed image and each block here.")] = None,
    json_: Json = False,
    fail_on: Annotated[
        str, typer.Option(metavar="LIST", help="Exit 4 if any: lost, unseen, panic (comma-separated).")
    ] = "",
    preset: Annotated[PresetName, typer.Option(help="Error sources of the guest.")] = PresetName.default,
    style: Annotated[Style, typer.Option(help="What the records say.")] = Style.native,
    vcpus: Annotated[int, typer.Option(min=1, max=512, help="vCPUs of the guest.")] = 8,
    page_size: Annotated[PageSize, typer.Option(help="Page size of the guest.")] = PageSize.k4,
    sdei: Annotated[bool, typer.Option(help="Whether the guest registers its SDEI events.")] = True,
    strict: Annotated[bool, typer.Option(help="Stop at the first bad line.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print the summary only.")] = False,
) -> None:
    """Replay a memory-failure trace into a model guest, and tell what became of each event.

    Example: vmm-ras replay qemu.strace --map 0x7f3a40000000:0x40000000:4G --fail-on lost,panic
    """
    from acpi.presets import PRESETS
    from vmm_ras.policy import load_policy
    from vmm_ras.profiles import PROFILES
    from vmm_ras.record import STYLES
    from vmm_ras.replay import TABLES, Replay
    from vmm_ras.traces import open_trace

    wanted = [w for w in fail_on.split(",") if w]
    for word in wanted:
        if word not in {"lost", "unseen", "panic"}:
            _usage(f"--fail-on {word!r}: expected lost, unseen or panic")
    slots = [_slot(text) for text in map_ or ()]
    shift = _SHIFTS[page_size.value]
    rules = None if policy_file is None else load_policy(_text(policy_file), str(policy_file))
    run = Replay(
        PRESETS[preset.value].place(TABLES), policy=rules, guest=PROFILES[guest.value], slots=slots, vcpus=vcpus,
        page_shift=shift, style=STYLES[style.value], sdei=sdei,
    )  # fmt: skip
    if out is not None:
        run.blocks = _Blocks(out, run)
    with open_trace(trace, strict=strict) as entries:
        if json_:
            _replay_json(run, entries)
        else:
            _replay_text(run, entries, quiet)
    if out is not None:
        run.blocks.close()
    failures = run.summary.failures
    if any(failures[word] for word in wanted):
        raise typer.Exit(4)


def _replay_json(run: Replay, entries: Any) -> None:
    import orjson

    write, dumps = sys.stdout.buffer.write, orjson.dumps
    progress = _Progress(run)
    for row in run.run(entries):
        write(dumps(row.plain()) + b"\n")
        progress.step()
    progress.end()
    for notice in run.notices:
        print(notice, file=sys.stderr)
    print(dumps(run.summary.plain()).decode(), file=sys.stderr)


def _replay_text(run: Replay, entries: Any, quiet: bool) -> None:
    from vmm_ras import timeline

    console = _console()
    progress = _Progress(run) if quiet else None
    for row in run.run(entries):
        for notice in run.notices:
            console.print(notice, style="dim", highlight=False, markup=False)
        run.notices.clear()
        if progress:
            progress.step()
        else:
            console.print(timeline.line(row), highlight=False, soft_wrap=True)
    if progress:
        progress.end()
    for notice in run.notices:
        console.print(notice, style="dim", highlight=False, markup=False)
    console.print()
    console.print(timeline.summary(run.summary))


class _Progress:
    """Events done, on a terminal's stderr."""

    def __init__(self, run: Replay) -> None:
        from time import monotonic

        self._now, self._start, self._next, self._count = monotonic, monotonic(), 0.0, 0
        self._on = sys.stderr.isatty() and not sys.stdout.isatty()

    def step(self) -> None:
        self._count += 1
        if self._on and not self._count & 1023 and self._now() > self._next:
            self._next = self._now() + 0.2
            rate = self._count / max(self._now() - self._start, 1e-9)
            print(f"\r{self._count:,} events, {rate:,.0f}/s ", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._on:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class _Blocks:
    """Writes the image, and each block as it is published, with a list of CRC-32C digests."""

    def __init__(self, out: Path, run: Replay) -> None:
        import orjson

        from vmm_ras.replay import crc32c

        self._crc, self._count = crc32c, 0
        self._dir = out / "blocks"
        self._dir.mkdir(parents=True, exist_ok=True)
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


# -- hest --------------------------------------------------------------------------------


@hest.command("build")
def hest_build(
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    preset: Annotated[PresetName, typer.Option(help="Whose table.")] = PresetName.default,
    errors: Annotated[
        str, typer.Option(metavar="GPA", help="Guest physical address of the error region (registers and blocks).")
    ] = "0x3ff01000",
    image: Annotated[
        Path | None, typer.Option(help="Also write RSDP, XSDT, HEST and error region, placed, as one file.")
    ] = None,
    tables: Annotated[
        str | None, typer.Option(metavar="GPA", help="Where --image begins.  [default: 4 KiB below --errors]")
    ] = None,
    json_: Json = False,
) -> None:
    """Build a HEST.

    Example: vmm-ras hest build --preset qemu-11.1 --errors 0x5c410000 -o HEST.bin
    """
    from acpi.presets import PRESETS

    at = _number(errors, "--errors")
    base = at - 4096 if tables is None else _number(tables, "--tables")
    placed = PRESETS[preset.value].place(base, at)
    _, data = placed.region("hest")
    _write(output, data)
    if image is not None:
        end = max(gpa + len(d) for _, gpa, d in placed.regions)
        whole = bytearray(end - base)
        for _, gpa, region in placed.regions:
            whole[gpa - base : gpa - base + len(region)] = region
        _write(image, bytes(whole))
    if json_:
        sources = [s._asdict() | {"notification": s.notification.plain} for s in placed.sources]
        _print_json({"file": str(output), "size": len(data), "rsdp": placed.rsdp, "sources": sources})
    else:
        print(f"{output}: HEST, {len(data)} bytes, {len(placed.sources)} sources, error region at {at:#x}")


@hest.command("show")
def hest_show(file: Annotated[Path, typer.Argument(help="A table's bytes.")], json_: Json = False) -> None:
    """Show a HEST: its fields, and its bytes.

    Example: vmm-ras hest show /sys/firmware/acpi/tables/HEST
    """
    from acpi.hest import Hest

    data = _bytes(file)
    table = Hest.parse(data)
    if json_:
        _print_json(table.plain())
        return
    from vmm_ras import show

    show.render(_console(), data[: table.header.length], show.hest_fields(table))


# -- cper --------------------------------------------------------------------------------


@cper.command("show")
def cper_show(
    file: Annotated[Path, typer.Argument(help="A CPER record or a Generic Error Status Block; - is stdin.")],
    type_: Annotated[
        str | None, typer.Option("--type", metavar="SECTION", help="The file is a bare section of this type.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List fields that are not valid, too.")] = False,
    json_: Json = False,
) -> None:
    """Show a CPER record, a status block or a bare section: its fields, and its bytes.

    Example: vmm-ras cper show out/demo/blocks/000001-source0.bin
    """
    from acpi.ghes import StatusBlock
    from cper.record import Record

    data = _bytes(file)
    fields: Any
    plain: dict[str, Any]
    if type_ is not None:
        section = _section(type_).of_body(data)
        plain, length = section.plain(), len(data)
    elif data[:4] == b"CPER":
        record = Record.decode(data)
        plain, length = {"kind": "record"} | record.plain(), record.header.record_length
    else:
        block = StatusBlock.decode(data)
        plain, length = {"kind": "status_block"} | block.plain(), block.size
    if json_:
        _print_json(plain)
        return
    from vmm_ras import show

    if type_ is not None:
        fields = show.section_fields(section)
    elif data[:4] == b"CPER":
        fields = show.record_fields(record)
    else:
        fields = show.block_fields(block)
    show.render(_console(), data[:length], fields, every=every)
    if length < len(data):
        print(f"{len(data) - length} bytes behind it are not shown")


@cper.command("encode")
def cper_encode(
    file: Annotated[Path, typer.Argument(metavar="JSON", help="What `cper show --json` prints; - is stdin.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    type_: Annotated[
        str | None, typer.Option("--type", metavar="SECTION", help="The JSON is a bare section of this type.")
    ] = None,
    json_: Json = False,
) -> None:
    """Encode JSON as a CPER record, a status block or a bare section.

    Example: vmm-ras cper show --json block.bin | vmm-ras cper encode - -o again.bin
    """
    import orjson
    from pydantic import ValidationError

    from acpi.ghes import StatusBlock
    from cper.record import Record
    from vmm_ras.errors import InputError

    try:
        value = orjson.loads(_bytes(file))
    except ValueError as error:
        raise InputError(f"{file}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{file}: an object expected")
    try:
        if type_ is not None:
            data = _section(type_).of_plain(value).encode()
        elif value.get("kind") == "record" or "sections" in value:
            data = Record.of_plain(value).encode()
        else:
            data = StatusBlock.of_plain(value).encode()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        note = "".join(f"{n}: " for n in getattr(error, "__notes__", ()))
        what = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{file}: {note}{where}{': ' if where else ''}{what}") from None
    _write(output, data)
    if json_:
        _print_json({"file": str(output), "size": len(data)})
    else:
        print(f"{output}: {len(data)} bytes")


# -- policy ------------------------------------------------------------------------------


@policy.command("show")
def policy_show(
    file: Annotated[Path | None, typer.Argument(help="A policy; without one, the default.")] = None, json_: Json = False
) -> None:
    """Show a policy; without a file the default one, as TOML that can be edited.

    Example: vmm-ras policy show > mine.toml
    """
    from vmm_ras.default_policy import TEXT
    from vmm_ras.policy import load_policy

    text = TEXT if file is None else _text(file)
    rules = load_policy(text, "default policy" if file is None else str(file))
    if json_:
        _print_json(rules.model_dump(mode="json"))
    else:
        print(text, end="" if text.endswith("\n") else "\n")


@policy.command("check")
def policy_check(file: Annotated[Path, typer.Argument(help="A policy.")], json_: Json = False) -> None:
    """Check a policy: that it can be read, decides everything, and that every rule can be reached.

    Example: vmm-ras policy check mine.toml
    """
    from vmm_ras.delivery import check_syndrome
    from vmm_ras.errors import InputError
    from vmm_ras.policy import load_policy

    rules = load_policy(_text(file), str(file))
    for index, rule in enumerate(rules.rule):
        try:
            check_syndrome(rule)
        except InputError as error:
            raise InputError(f"{file}: rule {index + 1} {rule.name!r}: sea: {error}") from None
    findings = rules.findings()
    if json_:
        _print_json({"file": str(file), "rules": len(rules.rule), "findings": findings})
    else:
        for finding in findings:
            print(f"{file}: {finding}")
        print(f"{file}: {len(rules.rule)} rules, {len(findings)} findings")
    if findings:
        raise typer.Exit(1)


# -- what the commands share -----------------------------------------------------------------


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 200  # a file or pipe has no edge
    return console


def _print_json(value: Any) -> None:
    import orjson

    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")


def _bytes(file: Path) -> bytes:
    from vmm_ras.errors import InputError

    try:
        if str(file) == "-":
            data = sys.stdin.buffer.read(MAX_FILE + 1)
        else:
            with file.open("rb") as stream:
                data = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    if len(data) > MAX_FILE:
        raise InputError(f"{file}: more than {MAX_FILE} bytes")
    return data


def _text(file: Path) -> str:
    from vmm_ras.errors import InputError

    data = _bytes(file)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{file}:{data[: error.start].count(10) + 1}: not UTF-8 at byte {error.start}") from None


def _write(file: Path, data: bytes) -> None:
    from vmm_ras.errors import HostError

    try:
        file.write_bytes(data)
    except OSError as error:
        raise HostError(f"{file}: {error.strerror}") from None


def _number(text: str, what: str) -> int:
    scale = {"K": 10, "M": 20, "G": 30, "T": 40}.get(text[-1:].upper(), 0)
    try:
        value = int(text[:-1] if scale else text, 0) << scale
    except ValueError:
        _usage(f"{what} {text!r}: a number expected")
    if not 0 <= value < 1 << 64:
        _usage(f"{what} {text!r}: outside 64 bits")
    return value


def _slot(text: str) -> Any:
    from vmm_ras.memory import MemorySlot

    parts = text.split(":")
    if len(parts) != 3:
        _usage(f"--map {text!r}: HVA:GPA:SIZE expected")
    return MemorySlot(*(_number(p, "--map") for p in parts))


def _section(name: str) -> Any:
    from cper.section import MODULES, section_named

    try:
        return section_named(name)
    except KeyError:
        known = ", ".join(place.partition(":")[2] for place in MODULES.values())
        _usage(f"--type {name!r}: expected one of {known}")


def _usage(text: str) -> NoReturn:
    print(f"vmm-ras: {text}", file=sys.stderr)
    raise typer.Exit(2)


def main() -> None:
    """Run the command line; every error is one line on stderr."""
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:  # _report raises again what is no user's error
        sys.exit(_report(error))


def _report(error: Exception) -> int:
    """One line for an error that input or host can cause; its exit code."""
    from cper.wire import WireError
    from vmm_ras.errors import HostError, RasError

    if isinstance(error, OSError):
        print(f"vmm-ras: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return 3
    if not isinstance(error, RasError | WireError | ValueError):
        raise error
    note = "".join(f" ({n})" for n in getattr(error, "__notes__", ()))
    print(f"vmm-ras: {error}{note}".replace("\n", " "), file=sys.stderr)
    return 3 if isinstance(error, HostError) else 1


if __name__ == "__main__":
    main()
