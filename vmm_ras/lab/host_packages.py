"""What the emulated arm64 host needs: Debian's full kernels, and a root file system with Python and our libraries.

As in ``packages``: fetched once through the host's own apt and pip, unpacked into the cache, never installed.
"""

from __future__ import annotations

import importlib.metadata
import lzma
import re
import shutil
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vmm_ras.lab import cpio
from vmm_ras.lab.apt import Apt, field, run
from vmm_ras.lab.errors import Unavailable
from vmm_ras.lab.packages import Packages
from vmm_ras.lab.pyc import compiled

HOST_SUITES = {"6.1": ("bookworm",), "6.12": ("bookworm-backports", "trixie"), "7.2": ("trixie-backports",)}
"""Kernel series of an emulated host to the suites that have it, first choice first."""
MODULES = ("hwpoison-inject",)
"""Kernel modules that a host has in ``/mods``."""
ROOT_SUITE = "bookworm"
PYTHON = "3.11"
ROOT_PACKAGES = (
    "busybox-static", "libc6", "libgcc-s1", "zlib1g", "libexpat1", "libffi8", "libbz2-1.0", "liblzma5", "libuuid1",
    "libssl3", f"libpython{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", f"python{PYTHON}-minimal",
)  # fmt: skip
LIBRARIES = "usr/lib/python3/dist-packages"
APPLETS = (
    "sh", "mount", "umount", "ls", "cat", "dmesg", "insmod", "poweroff", "sleep", "echo", "uname", "mkdir", "date",
    "grep", "head", "tail", "ps", "kill", "setsid", "env", "stty",
)  # fmt: skip
_PLATFORM = "manylinux_2_17_aarch64"
_STDLIB = f"usr/lib/python{PYTHON}"
_LEFT_OUT = re.compile(
    rf"usr/share/|usr/lib/aarch64-linux-gnu/(gconv|engines-3|ossl-modules|audit|perl)|etc/|{_STDLIB}/"
    r"(test|lib2to3|distutils|ensurepip|idlelib|tkinter|pydoc_data|turtledemo|config-|sqlite3|curses|dbm|xmlrpc|wsgiref"
    r"|venv|lib-dynload/_(curses|dbm|gdbm|codecs|crypt|sqlite3|tkinter|test))|.*/__pycache__/"
)
"""Of the packages' files: what no run of ours reads."""


class HostKernel(NamedTuple):
    """An unmodified kernel that can be a host, and a guest; and its modules."""

    series: str
    version: str
    """Package version."""
    image: Path
    modules: tuple[Path, ...]


class HostLab(NamedTuple):
    """Everything that an emulated host needs."""

    kernel: HostKernel
    qemu: Path
    root: Path
    """Its base root file system, an uncompressed archive."""
    compiler: Path
    """For programs that run on it, and in its guests."""
    prefix: tuple[str, ...]
    """Command in front of QEMU: it dies with the run."""
    environment: dict[str, str]
    folder: Path
    """The cache: where the log of a run that failed is kept."""


class HostPackages(Packages):
    """The cache.  Every method raises Unavailable with one line that says what is not to be had, and why."""

    def prepare_host(self, series: str) -> HostLab:
        """Everything for one kernel series; what is there already is not looked for again."""
        if series not in HOST_SUITES:
            raise Unavailable(f"kernel {series!r} is none of {', '.join(HOST_SUITES)}")
        with self._lock():
            tools = self._programs()
            prefix = (str(tools["setpriv"]), "--pdeathsig", "KILL", "--")
            return HostLab(
                self._host_kernel(series), tools["qemu-system-aarch64"], self._root(),
                tools["aarch64-linux-gnu-gcc"], prefix, self._environment(), self.folder,
            )  # fmt: skip

    # -- the kernel --------------------------------------------------------------------

    def _host_kernel(self, series: str) -> HostKernel:
        folder = self.folder / "host-kernel" / series
        if not folder.exists():
            self._say(f"fetching Linux {series} for an emulated host, once")
            reasons = []
            for suite in HOST_SUITES[series]:
                try:
                    self._fetch_kernel(suite, series, folder)
                    break
                except Unavailable as error:
                    reasons.append(f"{suite}: {error}")
            else:
                raise Unavailable("; ".join(reasons))
        modules = tuple(folder / f"{name}.ko" for name in MODULES)
        return HostKernel(series, (folder / "version").read_text(), folder / "Image", modules)

    def _fetch_kernel(self, suite: str, series: str, target: Path) -> None:
        """From 7.2 on the image's package has no files of its own: they are in linux-binary-* and linux-modules-*."""
        apt = Apt(self.folder / "apt" / suite, suite)
        deb = apt.newest("linux-image-arm64", series)
        version = field(deb, "Version")
        parts = re.findall(r"(linux-(?:binary|modules)-[^ ,]*) \(= ([^)]*)\)", field(deb, "Depends"))
        unpacked, new = target.parent / ".unpacked", target.parent / f".{series}.new"
        for folder in (unpacked, new):
            shutil.rmtree(folder, ignore_errors=True)
        self._unpack([deb], unpacked)
        for name, exactly in parts:
            self._unpack([apt.download(f"{name}={exactly}")], unpacked)
        new.mkdir(parents=True)
        image = next((p for pattern in ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz") for p in unpacked.glob(pattern)),
                     None)  # fmt: skip
        if image is None:
            raise Unavailable(f"Linux {version} has no image in its package")
        image.rename(new / "Image")
        for name in MODULES:
            found = next(unpacked.rglob(f"{name}.ko*"), None)
            if found is None:
                raise Unavailable(f"Linux {version} has no module {name}")
            data = found.read_bytes()
            (new / f"{name}.ko").write_bytes(lzma.decompress(data) if found.suffix == ".xz" else data)
        (new / "version").write_text(version)
        new.rename(target)  # only a whole kernel is ever used
        shutil.rmtree(unpacked)

    # -- the root file system ------------------------------------------------------------

    def _root(self) -> Path:
        """Debian's Python, the libraries that we need at run time, busybox; made anew when a version changed."""
        folder = self.folder / "host-root"
        archive, made_of = folder / "base.cpio", folder / "made-of"
        libraries = dict(_libraries())
        init = (Path(__file__).with_name("guest") / "host-init").read_bytes()
        wanted = "".join(f"{name} {library.version}\n" for name, library in sorted(libraries.items())) + str(init)
        if archive.exists() and made_of.exists() and made_of.read_text() == wanted:
            return archive
        self._say("making the root file system of the emulated host, once")
        partial = self.folder / "host-root.new"
        for old in (folder, partial):
            shutil.rmtree(old, ignore_errors=True)
        root = partial / "root"
        apt = Apt(self.folder / "apt" / ROOT_SUITE, ROOT_SUITE)
        for package in ROOT_PACKAGES:
            self._unpack([apt.newest(package, "")], root)
        _native(libraries, partial / "wheels", root / LIBRARIES)
        nodes = [*_folders(), *_links(), cpio.program("init", init), *_tree(root), *_pure(libraries)]
        (partial / "base.cpio").write_bytes(cpio.archive(_with_parents(nodes)))
        (partial / "made-of").write_text(wanted)
        for used in (root, partial / "wheels"):
            shutil.rmtree(used)
        partial.rename(folder)
        return archive


def _libraries() -> Iterator[tuple[str, importlib.metadata.Distribution]]:
    """The distributions that ours needs at run time, and those that they need."""
    seen: set[str] = set()
    waiting = ["vmm-ras"]
    while waiting:
        name = waiting.pop()
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        if name != "vmm-ras":
            yield name, found
        for requirement in found.requires or ():
            wanted = re.match(r"[\w.-]+", requirement)
            if wanted and "extra ==" not in requirement:
                other = wanted.group().lower().replace("_", "-")
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)


def _is_native(library: importlib.metadata.Distribution) -> bool:
    return any(f.suffix == ".so" for f in library.files or ())


def _native(libraries: dict[str, importlib.metadata.Distribution], wheels: Path, target: Path) -> None:
    """The compiled libraries as wheels for the host's architecture, unpacked."""
    wanted = [f"{n}=={v.version}" for n, v in libraries.items() if _is_native(v)]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--platform", _PLATFORM, "--python-version", PYTHON, "--implementation", "cp",
        "--dest", str(wheels), *wanted,
    ]  # fmt: skip
    run(command, None, f"wheels of {', '.join(wanted)} for arm64", 300)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as file:
            file.extractall(target, [n for n in file.namelist() if ".dist-info/" not in n])


def _pure(libraries: dict[str, importlib.metadata.Distribution]) -> Iterator[cpio.Node]:
    """The libraries of Python code, as they are installed here."""
    for library in libraries.values():
        if _is_native(library):
            continue
        for file in library.files or ():
            if file.suffix in {".py", ".typed"} and ".." not in file.parts:
                yield from _python(f"{LIBRARIES}/{file}", Path(str(file.locate())))


def _python(path: str, source: Path) -> Iterator[cpio.Node]:
    yield cpio.plain_file(path, source.read_bytes())
    if path.endswith(".py"):
        yield from compiled(path, source)


def _tree(root: Path) -> Iterator[cpio.Node]:
    """What the packages hold, without what nobody reads, and Python code with its compiled form."""
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if _LEFT_OUT.match(name):
            continue
        if path.is_symlink():
            yield cpio.link(name, str(path.readlink()))
        elif path.is_file():
            if path.suffix == ".py":
                yield from _python(name, path)
            else:
                yield cpio.Node(
                    name, stat.S_IFREG | (0o755 if path.stat().st_mode & 0o100 else 0o644), path.read_bytes()
                )


def _folders() -> Iterator[cpio.Node]:
    for name in ("bin", "dev", "proc", "sys", "tmp", "mods", "t"):
        yield cpio.directory(name)
    yield cpio.console()


def _links() -> Iterator[cpio.Node]:
    for name in APPLETS:
        yield cpio.link(f"bin/{name}", "busybox")
    yield cpio.link("usr/bin/python3", f"python{PYTHON}")


def _with_parents(nodes: list[cpio.Node]) -> list[cpio.Node]:
    """The nodes, every one behind the folders that it lies in."""
    out: list[cpio.Node] = []
    there: set[str] = set()
    for node in nodes:
        for parent in reversed([str(p) for p in Path(node.path).parents][:-1]):
            if parent not in there:
                there.add(parent)
                out.append(cpio.directory(parent))
        if node.path not in there:
            there.add(node.path)
            out.append(node)
    return out
