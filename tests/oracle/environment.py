"""libcper's Python module in an environment of its own; the product never imports it.

Its name on PyPI is that of our package, so it must not come into the same environment.  pip builds it where no wheel is
at hand; that takes a C compiler and json-c's headers, which come from Debian's libjson-c-dev where they are missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vmm_ras.lab.apt import Apt, run
from vmm_ras.lab.errors import Unavailable

VERSION = "0.0.4"
FOLDER = Path(__file__).parents[2] / "out" / "oracle"
_WORKER = """
import json, sys, cper
for line in sys.stdin:
    try:
        found = cper.parse(bytes.fromhex(line))
    except SystemError:
        found = None
    sys.stdout.write(json.dumps(found) + "\\n")
"""


def python() -> Path:
    """An interpreter that has the module.  Raises Unavailable."""
    found = FOLDER / "venv" / "bin" / "python"  # run with -I: this folder has a package of the same name
    if not found.exists():
        venv.create(FOLDER / "venv", with_pip=True)
    if subprocess.run([found, "-I", "-c", "import cper; cper.parse"], capture_output=True, check=False).returncode:
        command = [str(found), "-m", "pip", "install", "-qq", "--disable-pip-version-check", f"cper=={VERSION}"]
        run(command, os.environ | _json_c(), f"libcper's module cper {VERSION} cannot be installed", 600)
    return found


def _json_c() -> dict[str, str]:
    """What a build needs to find json-c: nothing where it is installed, else where its packages were unpacked."""
    tool = shutil.which("pkg-config")
    if tool and not subprocess.run([tool, "--exists", "json-c"], check=False).returncode:
        return {}
    root = FOLDER / "json-c"
    if not root.exists():
        apt = Apt(FOLDER / "apt")
        for package in ("libjson-c-dev", "libjson-c5"):
            run(["dpkg-deb", "-x", str(apt.download(package)), str(root)], None, f"{package} cannot be unpacked")
    found = next(root.rglob("json-c.pc"), None)
    if found is None:
        raise Unavailable("libjson-c-dev has no json-c.pc")
    text = found.read_text()
    if str(root) not in text:  # where it lies now; a sysroot would move Python's headers as well
        found.write_text(text.replace("=/usr", f"={root}/usr"))
    return {"PKG_CONFIG_PATH": str(found.parent)}


def parsed(interpreter: Path, records: Iterable[bytes]) -> Iterator[Any]:
    """What the module reads of each record; None where it gives up."""
    text = "\n".join(record.hex() for record in records)
    done = subprocess.run([interpreter, "-I", "-c", _WORKER], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"libcper's module ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    for line in done.stdout.splitlines():
        yield json.loads(line)


__all__ = ["FOLDER", "VERSION", "parsed", "python"]
