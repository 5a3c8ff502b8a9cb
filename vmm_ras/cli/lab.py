"""`vmm-ras lab`: real Linux guests on an emulated arm64 host, for people; ``python -m vmm_ras.lab`` is for tests."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmm_ras.cli.common import OPTIONS, Json, console, print_json, usage

if TYPE_CHECKING:
    from rich.table import Table

    from vmm_ras.lab.linux_kvm_timeline import Moment

app = typer.Typer(help="The lab: real Linux guests, an emulated arm64 host, memory that is really lost.", **OPTIONS)
_STYLES = {"host": "red", "vmm": "cyan", "guest": "green", "process": "yellow"}


@app.callback()
def main() -> None:
    """The lab: real Linux guests, an emulated arm64 host, memory that is really lost."""


@app.command()
def demo(
    kernel: Annotated[str, typer.Option(metavar="SERIES", help="Of the host: 6.1, 6.12 or 7.2.")] = "6.12",
    guest_kernel: Annotated[str, typer.Option(metavar="SERIES", help="Of the guest: 6.1, 6.12 or 7.2.")] = "6.12",
    json_: Json = False,
) -> None:
    """Lose one page of a running guest, and watch its way.

    From madvise on the host to the SIGBUS of a process in the guest.  An arm64 host is emulated: no special hardware
    and no right is needed, but Debian's apt. It takes about a minute, and some more to fetch kernels the first time.

    Example: vmm-ras lab demo
    """
    from vmm_ras.lab.guest_packages import SERIES
    from vmm_ras.lab.host_packages import HostPackages
    from vmm_ras.lab.linux_kvm import demo as play
    from vmm_ras.lab.linux_kvm import prepare
    from vmm_ras.lab.linux_kvm_timeline import Timeline
    from vmm_ras.lab.qemu import end_on_signals

    for option, series in (("--kernel", kernel), ("--guest-kernel", guest_kernel)):
        if series not in SERIES:
            usage(f"{option} {series!r}: expected one of {', '.join(SERIES)}")
    end_on_signals()
    timeline = Timeline()
    with _Waiting() as waiting:
        waiting.say("looking for QEMU and kernels")
        pair = prepare(HostPackages(say=waiting.say), kernel, guest_kernel)
        waiting.say("booting an arm64 host, and a guest on its KVM")

        def heard(what: str, values: dict[str, Any]) -> None:
            timeline.heard(what, values)
            waiting.say(timeline.rows[-1].what if timeline.rows else what)

        play(pair, heard)
    if json_:
        print_json([row._asdict() for row in timeline.rows])
        return
    names = f"Linux {pair.guest.kernel.version} on KVM of Linux {pair.host.kernel.version}, all emulated"
    console().print(table(timeline.rows, names))


def table(rows: list[Moment], title: str) -> Table:
    """The timeline."""
    from rich.table import Table
    from rich.text import Text

    from vmm_ras.lab.linux_kvm_timeline import WHERE

    found = Table(
        title=f"One lost page: {title}", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 1, 0),
        caption="Milliseconds of emulated machines; real ones are far faster.",
        caption_justify="left",
    )  # fmt: skip
    found.add_column("ms", justify="right", style="dim", no_wrap=True)
    found.add_column("who", no_wrap=True)
    found.add_column("what happens", ratio=3)
    found.add_column("where it can be seen", ratio=2, style="dim")
    for row in rows:
        found.add_row(
            "" if row.ms is None else f"{row.ms:,.1f}",
            Text(WHERE[row.who], style=_STYLES[row.who]),
            row.what,
            Text(row.detail),
        )
    return found


class _Waiting:
    """Says on a terminal's stderr what is being done."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()

    def say(self, text: str) -> None:
        """What is done now."""
        if self._on:
            print(f"\r\x1b[K{text[:100]} ...", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> _Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        if self._on:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
