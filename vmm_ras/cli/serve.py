"""`vmm-ras serve`: VMs behind a QMP socket."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from vmm_ras.cli.common import Json, print_json, read_bytes, read_text, slot, usage
from vmm_ras.cli.machine import (
    Guest,
    Map,
    Pages,
    PageSize,
    PolicyFile,
    Preset,
    PresetName,
    Sdei,
    SdeiEvents,
    Style,
    policy,
    sdei_events,
)


def serve(
    socket: Annotated[
        Path, typer.Option("--socket", "-s", metavar="PATH", help="UNIX socket to listen on; mode 0600.")
    ],
    vms: Annotated[
        list[str] | None, typer.Option("--vm", metavar="NAME", help="A VM with a model guest; repeatable.  [vm0]")
    ] = None,
    preset: Preset = PresetName.default,
    guest: Guest = "linux",
    policy_file: PolicyFile = None,
    map_: Map = None,
    vcpus: Annotated[int, typer.Option(min=1, max=512, help="vCPUs of each VM.")] = 4,
    page_size: Pages = PageSize.k4,
    style: Annotated[Style, typer.Option(help="What the records say.")] = Style.native,
    sdei: Sdei = True,
    sdei_event: SdeiEvents = None,
    restore: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="A VM of a snapshot, which goes on where that was taken; repeatable."),
    ] = None,
    tcp: Annotated[
        int | None,
        typer.Option(min=0, max=65535, metavar="PORT", help="Listen on 127.0.0.1 too: open to every user of the host."),
    ] = None,
    json_: Json = False,
) -> None:
    """Serve VMs with model guests on a QMP socket, until SIGTERM or SIGINT.  See docs/serve.md for its commands.

    Example: vmm-ras serve --socket /run/vmm-ras.sock --vm a --vm b --preset all
    """
    import re
    import signal
    import time
    from importlib.metadata import version

    from vmm_ras.errors import SnapshotError
    from vmm_ras.io.serve import Server
    from vmm_ras.io.serve_model import ModelMachine
    from vmm_ras.io.serve_socket import UnixListener, tcp_listener
    from vmm_ras.qmp.arguments import NAME
    from vmm_ras.qmp.commands import Commands

    commands = Commands(f"vmm-ras {version('vmm-ras')}", time.time, ModelMachine.of)
    policy(policy_file)  # its faults are told with the file's name
    text = None if policy_file in {None, "default"} else read_text(Path(str(policy_file)))
    like = {
        "vcpus": vcpus, "memory": [slot(text)._asdict() for text in map_ or ()], "preset": preset.value, "guest": guest,
        "policy": text, "style": style.value, "page-size": page_size.value, "sdei": sdei,
        "sdei-events": [dict(zip(("number", "shared", "critical"), e, strict=True)) for e in sdei_events(sdei_event)],
    }  # fmt: skip
    for name in vms or ([] if restore else ["vm0"]):
        commands.execute("vm-add", {"name": name} | like)
    for text in restore or ():
        name, _, file = text.partition("=")
        if not file or name in commands.machines or not re.match(NAME, name):
            usage(f"--restore {text!r}: expected NAME=FILE, each name once")
        try:
            commands.add(ModelMachine.restored(name, read_bytes(Path(file))))
        except SnapshotError as error:
            raise SnapshotError(f"{file}: {error}") from None
    with UnixListener(socket) as listener, ExitStack() as stack:
        more = [] if tcp is None else [stack.enter_context(tcp_listener(tcp))]
        server = Server(commands, [listener.socket, *more])
        for end in (signal.SIGTERM, signal.SIGINT):
            signal.signal(end, lambda *_: server.stop())
        ports = [other.getsockname()[1] for other in more]
        if json_:
            print_json({"socket": str(socket), "ports": ports, "vms": list(commands.machines)})
        else:
            print(f"{', '.join(commands.machines)}: listening on", *[socket, *(f"127.0.0.1:{port}" for port in ports)])
        sys.stdout.flush()
        server.run()
