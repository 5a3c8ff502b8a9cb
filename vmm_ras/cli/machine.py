"""The model machine that a trace is replayed into, as options of a command line."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmm_ras.cli.common import number, read_text, slots, usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmm_ras.deciding import Hook
    from vmm_ras.policy import Policy
    from vmm_ras.replay import Replay


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
    """Page sizes that can be chosen, a guest's or a host's."""

    k4 = "4k"
    k16 = "16k"
    k64 = "64k"


Trace = Annotated[str, typer.Argument(metavar="TRACE", help="A trace of any known format; - is stdin.")]
PolicyFile = Annotated[
    str | None, typer.Option("--policy", metavar="FILE", help="TOML policy, or 'default'; see `policy show`.")
]
HookFile = Annotated[
    Path | None,
    typer.Option("--hook", metavar="FILE", help="Python: decide(lost, view) names a rule, or None. It is run."),
]
Guest = Annotated[str, typer.Option(metavar="PROFILE", help="What kind of guest takes the errors: linux, generic, ...")]
Map = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="HVA:GPA:SIZE", help="Guest memory slot; repeatable. Sizes take K, M, G."),
]
Preset = Annotated[PresetName, typer.Option(help="Error sources of the guest.")]
Vcpus = Annotated[int, typer.Option(min=1, max=512, help="vCPUs of the guest.")]
Pages = Annotated[PageSize, typer.Option(case_sensitive=False, help="Page size of the guest.")]
Sdei = Annotated[bool, typer.Option(help="Whether the guest registers its SDEI events.")]
SdeiEvents = Annotated[
    list[str] | None,
    typer.Option(
        "--sdei-event", metavar="NUMBER[:shared][:critical]",
        help="An event that SDEI offers besides those of the sources; private and normal if nothing else is said.",
    ),
]  # fmt: skip
SHIFTS = {"4k": 12, "16k": 14, "64k": 16}


def policy(file: str | None) -> Policy | None:
    """The policy of a file; None for the default one.  Raises InputError."""
    from vmm_ras.policy import load_policy

    return None if file in {None, "default"} else load_policy(read_text(Path(str(file))), str(file))


def hook(file: Path | None) -> Hook | None:
    """The hook of a file.  Raises InputError."""
    if file is None:
        return None
    from vmm_ras.io.hook_file import load_hook

    return load_hook(file)


def sdei_events(texts: list[str] | None) -> Iterator[tuple[int, bool, bool]]:
    """Number, whether it is shared and whether it is critical, of each event that is asked for."""
    for text in texts or ():
        name, *words = text.split(":")
        if not set(words) <= {"shared", "critical"}:
            usage(f"--sdei-event {text!r}: expected NUMBER[:shared][:critical]")
        yield number(name, "--sdei-event"), "shared" in words, "critical" in words


def machine(
    policy_file: str | None, hook_file: Path | None, guest: str, map_: list[str] | None, preset: PresetName, vcpus: int,
    page_size: PageSize, sdei: bool, style: Style = Style.native, trace: str = "",
) -> Replay:  # fmt: skip
    """The machine that these options describe, for that trace.  Raises InputError."""
    from acpi.presets import PRESETS
    from vmm_ras.profiles import PROFILES
    from vmm_ras.record import STYLES
    from vmm_ras.replay import TABLES, Replay

    if trace == policy_file == "-":
        usage("standard input can be the trace or the policy, one of them")
    if guest not in PROFILES:
        usage(f"--guest {guest!r}: expected one of {', '.join(PROFILES)}")
    return Replay(
        PRESETS[preset.value].place(TABLES), policy=policy(policy_file), hook=hook(hook_file), guest=PROFILES[guest],
        slots=slots(map_), vcpus=vcpus, page_shift=SHIFTS[page_size.value],
        style=STYLES[style.value], sdei=sdei,
    )  # fmt: skip
