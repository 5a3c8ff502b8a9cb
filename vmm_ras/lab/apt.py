"""The host's own apt, with lists and downloads of its own: it checks, and keeps the host's mirror and proxy."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from vmm_ras.lab.errors import Unavailable

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
FETCH_TIMEOUT = 600
"""Seconds for one call of apt-get."""


class Apt:
    """apt-get with lists and downloads of its own: for the host's architecture, or for one suite of arm64."""

    def __init__(self, folder: Path, suite: str = "") -> None:
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise Unavailable(f"{program} is not installed: the lab takes its guest from Debian packages")
        self.folder = folder
        for name in ("lists/partial", "archives/partial", "state"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        options = {
            "Dir::State": folder / "state", "Dir::State::lists": folder / "lists", "Dir::Cache": folder,
            "Dir::Cache::archives": folder / "archives", "Acquire::Languages": "none", "Debug::NoLocking": "1",
            "Acquire::Retries": "2", "Acquire::http::Timeout": "30",
        }  # fmt: skip
        if suite:
            (folder / "status").touch()
            (folder / "sources.list").write_text(_source_line(suite))
            options |= {
                "Dir::State::status": folder / "status", "Dir::Etc::sourcelist": folder / "sources.list",
                "Dir::Etc::sourceparts": "-", "Dir::Etc::preferencesparts": "-", "APT::Architecture": "arm64",
                "APT::Architectures": "arm64",
            }  # fmt: skip
        else:
            options["Dir::State::status"] = Path("/var/lib/dpkg/status")
        self.options = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        self._updated = False

    def closure(self, packages: Sequence[str]) -> list[Path]:
        """The packages, and those that they need and the host has not."""
        self._forget()
        self._get("install", "--yes", "--no-install-recommends", "--download-only", *packages)
        return sorted((self.folder / "archives").glob("*.deb"))

    def download(self, package: str) -> Path:
        """One package without what it needs."""
        self._forget()
        self._get("download", package)
        return next((self.folder / "archives").glob("*.deb"))

    def newest(self, package: str, version: str) -> Path:
        """A package whose version begins with ``version``; of a metapackage, the package that it stands for."""
        self._update()
        shown = run(["apt-cache", *self.options, "show", package], None, f"no package {package}")
        for stanza in shown.split("\n\n"):
            fields = dict(re.findall(r"^(\w[\w-]*): (.*)$", stanza, re.MULTILINE))
            found = fields.get("Version", "")
            if found and (not version or found.startswith(f"{version}.")):
                stands_for = re.search(r"(linux-image-[^ ,]*) \(= ([^)]*)\)", fields.get("Depends", ""))
                wanted = stands_for.groups() if version and stands_for else (package, found)
                return self.download("=".join(wanted))
        raise Unavailable(f"{package} {version} is not in the archive")

    def _forget(self) -> None:
        """Drop what an interrupted run left behind."""
        for old in (self.folder / "archives").glob("*.deb"):
            old.unlink()

    def _update(self) -> None:
        if not self._updated:
            run(["apt-get", *self.options, "update"], None, "the package lists cannot be had", FETCH_TIMEOUT)
            self._updated = True

    def _get(self, *arguments: str) -> None:
        self._update()
        what = f"apt-get {' '.join(a for a in arguments if not a.startswith('-'))}"
        run(["apt-get", *self.options, "--quiet", *arguments], None, what, FETCH_TIMEOUT, self.folder / "archives")


def _source_line(suite: str) -> str:
    """A source for arm64 at the mirror that the host takes Debian from."""
    listed = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)|$(ORIGIN)|$(CREATED_BY)"], None, "apt has no sources"
    )
    rows = [line.split("|") for line in listed.splitlines() if line.endswith("|Packages")]
    mirrors = [uri for uri, origin, _ in rows if uri.rstrip("/").endswith("/debian") and origin in {"Debian", ""}]
    if not mirrors:
        raise Unavailable("apt has no source of Debian packages (deb .../debian ...)")
    trust = f" signed-by={KEYRING}" if KEYRING.exists() else ""
    return f"deb [arch=arm64{trust}] {mirrors[0]} {suite} main\n"


def field(deb: Path, name: str) -> str:
    """A field of a package's control file.  Raises Unavailable."""
    return run(["dpkg-deb", "-f", str(deb), name], None, f"{deb.name} cannot be read").strip()


def run(
    command: list[str],
    environment: Mapping[str, str] | None,
    what: str,
    timeout: float = 60,
    folder: Path | None = None,
) -> str:
    """What a command prints.  Raises Unavailable with ``what`` and the first complaint."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=environment, cwd=folder, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{what}: no end after {timeout:.0f} s") from None
    except OSError as error:
        raise Unavailable(f"{what}: {error}") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        first = next(
            (line for line in lines if line.startswith(("E:", "Err"))), lines[0] if lines else "no reason given"
        )
        raise Unavailable(f"{what}: {first.strip()}", done.stderr)
    return done.stdout
