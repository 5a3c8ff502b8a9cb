"""Debian's newer QEMUs beside the host's own: fetched with all that they need, unpacked into the cache, run from there.

A newer QEMU needs a newer C library; its own dynamic linker runs it, so that nothing of the host is mixed in.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from vmm_ras.lab.apt import Apt, run
from vmm_ras.lab.errors import Unavailable
from vmm_ras.lab.packages import Lab, Packages

SUITES = {"10.0": "trixie", "11.1": "trixie-backports"}
"""QEMU's series to the suite that has it; 7.2 is the host's own, or bookworm's."""
OWN = "7.2"
_BASE = "trixie"


class QemuProgram(NamedTuple):
    """A QEMU that can be started."""

    prefix: tuple[str, ...]
    """Command in front of the program: it dies with the run; a dynamic linker of its own."""
    program: Path
    data: tuple[str, ...]
    """Options that say where its own files are."""
    environment: dict[str, str]

    @property
    def command(self) -> tuple[str, ...]:
        """What comes in front of its arguments."""
        return *self.prefix, str(self.program), *self.data

    def of(self, lab: Lab) -> Lab:
        """The lab with this QEMU."""
        return lab._replace(qemu=self.program, prefix=self.prefix, environment=self.environment)


class _Native(Apt):
    """apt-get of the host's architecture for a suite that the host is not set up for."""

    def __init__(self, folder: Path, suite: str) -> None:
        super().__init__(folder, suite)
        native = run(["dpkg", "--print-architecture"], None, "the host's architecture").strip()
        sources = folder / "sources.list"
        line = sources.read_text().replace("arch=arm64", f"arch={native}")
        sources.write_text("".join({line, line.replace(f" {suite} ", f" {_BASE} ")}))
        self.options = [o.replace("Architecture=arm64", f"Architecture={native}").replace(
            "Architectures=arm64", f"Architectures={native}") for o in self.options]  # fmt: skip


class QemuPackages(Packages):
    """The cache.  Raises Unavailable with one line that says what is not to be had, and why."""

    def prepare_qemu(self, series: str) -> QemuProgram:
        """A QEMU for arm64 guests; what is there already is not looked for again."""
        with self._lock():
            tools = self._programs()
            prefix = (str(tools["setpriv"]), "--pdeathsig", "KILL", "--")
            if series == OWN:
                return QemuProgram(prefix, tools["qemu-system-aarch64"], (), self._environment())
            if series not in SUITES:
                raise Unavailable(f"QEMU {series!r} is none of {', '.join([OWN, *SUITES])}")
            root = self._qemu_root(series)
        loader = next(iter(sorted(root.glob("usr/lib*/ld-linux-*.so.*"))), None)
        program = root / "usr/bin/qemu-system-aarch64"
        if loader is None or not program.exists():
            raise Unavailable(f"the packages of QEMU {series} have no dynamic linker, or no qemu-system-aarch64")
        libraries = [str(p) for p in sorted(root.glob("usr/lib/*-linux-gnu*")) if p.is_dir()]
        search = ":".join([*libraries, *(f"{folder}/pulseaudio" for folder in libraries)])
        data = ("-L", str(root / "usr/share/qemu"), "-L", str(root / "usr/lib/ipxe/qemu"))
        return QemuProgram((*prefix, str(loader), "--library-path", search), program, data, self._environment())

    def _qemu_root(self, series: str) -> Path:
        root = self.folder / "qemu" / series
        if not root.exists():
            self._say(f"fetching QEMU {series} and what it needs, once")
            suite, new = SUITES[series], root.with_name(f".{series}.new")
            shutil.rmtree(new, ignore_errors=True)
            apt = _Native(self.folder / "apt" / f"native-{suite}", suite)
            self._unpack(apt.closure([f"--target-release={suite}", "qemu-system-arm"]), new)
            new.rename(root)  # only a whole set is ever used
        return root
