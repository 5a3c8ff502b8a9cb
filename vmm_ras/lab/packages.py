"""What the lab needs, from Debian packages: fetched once with apt into a cache, unpacked there, never installed.

Everything goes through the host's own apt and the archive that it is set up for: apt checks signatures and sums, and
keeps its proxies and mirrors.  Only the lists and the downloads are private, so that no right on the host is needed and
nothing on it changes.  Programs that the host has already are used as they are.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from vmm_ras.lab.apt import Apt, field, run
from vmm_ras.lab.errors import Unavailable

VICTIM_BASE = 0x50_0000_0000
"""Where the victim's text lies: no other program of the guest has an address near it."""
SUITES = {"6.1": ("bookworm",), "6.12": ("bookworm-backports", "trixie")}
"""Kernel series to the suites that have it, first choice first."""
GUEST_SUITE = ("bookworm", "trixie")
HOST_PROGRAMS = {
    "qemu-system-aarch64": "qemu-system-arm",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "setpriv": "util-linux",
}
"""Program to the package that has it."""
_EDK2 = "usr/share/qemu-efi-aarch64/QEMU_EFI.fd"


class Kernel(NamedTuple):
    """An unmodified kernel."""

    series: str
    version: str
    """Package version."""
    image: Path


class Lab(NamedTuple):
    """Everything that a run needs."""

    kernel: Kernel
    qemu: Path
    edk2: Path
    busybox: Path
    victim: Path
    prefix: tuple[str, ...]
    """Command in front of QEMU: it dies with the run."""
    environment: dict[str, str]


def cache_folder() -> Path:
    """``$VMM_RAS_LAB_CACHE``, or ``vmm-ras-lab`` in the user's cache."""
    own = os.environ.get("VMM_RAS_LAB_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or f"{base}/vmm-ras-lab").expanduser()


class Packages:
    """The cache.  Every method raises Unavailable with one line that says what is not to be had, and why."""

    def __init__(self, folder: Path | None = None, say: Callable[[str], None] = lambda line: None) -> None:
        self.folder = folder or cache_folder()
        self._say = say
        """Is told what is fetched: that takes a while."""

    def prepare(self, series: str) -> Lab:
        """Everything for one kernel series; what is there already is not looked for again."""
        if series not in SUITES:
            raise Unavailable(f"kernel {series!r} is none of {', '.join(SUITES)}")
        with self._lock():
            tools = self._programs()
            edk2 = self._file("host", "qemu-efi-aarch64", _EDK2)
            busybox = self._file("guest", "busybox-static", "bin/busybox", "usr/bin/busybox")
            environment = self._environment()
            victim = self._victim(tools["aarch64-linux-gnu-gcc"], environment)
            prefix = (str(tools["setpriv"]), "--pdeathsig", "KILL", "--")
            return Lab(
                self._kernel(series), tools["qemu-system-aarch64"], edk2, busybox, victim, prefix, environment
            )  # fmt: skip

    # -- what is wanted ----------------------------------------------------------------

    def _programs(self) -> dict[str, Path]:
        """Every host program: from the PATH, else from the cache, fetching what is in neither."""
        tools, path = self.folder / "tools", os.environ.get("PATH", os.defpath)
        missing = sorted({package for name, package in HOST_PROGRAMS.items() if not shutil.which(name, path=path)})
        listed, content = tools / "packages", "".join(f"{package}\n" for package in missing)
        if missing and not (listed.exists() and listed.read_text() == content):
            self._say(f"fetching {', '.join(missing)} and what they need, once")
            partial = self.folder / "tools.new"
            for folder in (tools, partial):
                shutil.rmtree(folder, ignore_errors=True)
            self._unpack(Apt(self.folder / "apt/host").closure(missing), partial)
            (partial / listed.name).write_text(content)
            partial.rename(tools)  # only a whole set of programs is ever used
        search = os.pathsep.join([path, str(tools / "usr/bin")])
        found = {name: shutil.which(name, path=search) for name in HOST_PROGRAMS}
        for name, where in found.items():
            if where is None:
                raise Unavailable(f"{HOST_PROGRAMS[name]} has no {name}")
        return {name: Path(str(where)) for name, where in found.items()}

    def _environment(self) -> dict[str, str]:
        """So that unpacked programs find their libraries."""
        libraries = [str(p) for p in sorted((self.folder / "tools/usr/lib").glob("*-linux-gnu*")) if p.is_dir()]
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(self.folder / "tools/usr/bin")])
        own = os.environ.get("LD_LIBRARY_PATH")
        return os.environ | {"PATH": path, "LD_LIBRARY_PATH": os.pathsep.join([*([own] if own else []), *libraries])}

    def _file(self, kind: str, package: str, *inside: str) -> Path:
        """One file of a package; ``kind`` is ``host`` (any architecture) or ``guest`` (arm64)."""
        target = self.folder / kind / package / Path(inside[0]).name
        if not target.exists():
            self._say(f"fetching {package}, once")
            deb = (
                Apt(self.folder / "apt/host").download(package)
                if kind == "host"
                else self._from_suites(GUEST_SUITE, package, "")
            )
            self._take(deb, inside, target)
        return target

    def _kernel(self, series: str) -> Kernel:
        folder = self.folder / "kernel" / series
        image, version = folder / "Image", folder / "version"
        if not (image.exists() and version.exists()):
            self._say(f"fetching Linux {series}, once")
            deb = self._from_suites(SUITES[series], "linux-image-cloud-arm64", series)
            version.parent.mkdir(parents=True, exist_ok=True)
            version.write_text(field(deb, "Version"))
            name = field(deb, "Package").removeprefix("linux-image-")
            self._take(deb, (f"boot/vmlinuz-{name}", f"usr/lib/modules/{name}/vmlinuz"), image)
        return Kernel(series, version.read_text(), image)

    def _victim(self, compiler: Path, environment: dict[str, str]) -> Path:
        source = Path(__file__).with_name("guest") / "victim.c"
        target = self.folder / "guest" / "victim"
        if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(".new")
            flags = "-O1 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pic -no-pie -static -nostdlib"
            command = [str(compiler), *flags.split(), f"-Wl,-Ttext-segment={VICTIM_BASE:#x}", "-o", str(partial)]
            scratch = target.with_name(".compiling")  # a compiler that is killed leaves its temporary files
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            try:
                run([*command, str(source)], environment | {"TMPDIR": str(scratch)}, "the victim cannot be compiled")
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            partial.rename(target)
        return target

    # -- where it comes from -------------------------------------------------------------

    def _from_suites(self, suites: Sequence[str], package: str, version: str) -> Path:
        """A package for arm64 from the first suite that has it in this version."""
        reasons = []
        for suite in suites:
            try:
                return Apt(self.folder / "apt" / suite, suite).newest(package, version)
            except Unavailable as error:
                reasons.append(f"{suite}: {error}")
        raise Unavailable("; ".join(reasons))

    def _take(self, deb: Path, inside: Sequence[str], target: Path) -> None:
        """Put the first of the named files of a package at ``target``, and forget the package."""
        unpacked = target.parent / ".unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        self._unpack([deb], unpacked)
        found = next((unpacked / name for name in inside if (unpacked / name).exists()), None)
        if found is None:
            raise Unavailable(f"{deb.name} has no {' or '.join(inside)}")
        found.rename(target)
        shutil.rmtree(unpacked)

    @staticmethod
    def _unpack(debs: Sequence[Path], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for deb in debs:
            run(["dpkg-deb", "-x", str(deb), str(folder)], None, f"{deb.name} cannot be unpacked")
            deb.unlink()

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Only one run at a time fills the cache."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise Unavailable(f"the cache {self.folder} cannot be filled: {error}") from None
