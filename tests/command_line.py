"""`vmm-ras` as the tests run it: in this process, with streams of its own; ``process`` runs the real thing."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

from vmm_ras.cli import main

Done = subprocess.CompletedProcess


def cli(*words: str | Path, stdin: bytes = b"", code: int = 0) -> Done[bytes]:
    """One command; what it printed.  It must end with ``code``, and no exception may leave it."""
    out, err = io.BytesIO(), io.BytesIO()
    status: object = 0
    with (
        io.TextIOWrapper(io.BytesIO(stdin), "utf-8", "surrogateescape") as read,
        io.TextIOWrapper(out, "utf-8", write_through=True) as write,
        io.TextIOWrapper(err, "utf-8", write_through=True) as complain,
        mock.patch.object(sys, "argv", ["vmm-ras", *map(str, words)]),
        mock.patch.object(sys, "stdin", read),
        mock.patch.dict(os.environ, {"COLUMNS": "120"}),
        contextlib.redirect_stdout(write),
        contextlib.redirect_stderr(complain),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code
        write.flush()
        complain.flush()
        done = Done(list(words), int(str(status or 0)), out.getvalue(), err.getvalue())
    assert done.returncode == code, (done.stdout[-500:], done.stderr[-500:])
    return done


def process(*words: str | Path, stdin: bytes = b"", code: int = 0) -> Done[bytes]:
    """The same as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "vmm_ras.cli", *map(str, words)], input=stdin, capture_output=True, check=False,
        env={**os.environ, "COLUMNS": "120"}, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, (done.stdout[-500:], done.stderr[-500:])
    assert b"Traceback" not in done.stderr
    return done


def tree_paths(shown: str) -> set[str]:
    """The paths of the fields that a tree shows, as JSON has them."""
    paths, above, column = set(), [], 0
    for line in shown.splitlines():
        if line.startswith("Offset"):
            column = line.index("Field")
            continue
        cell = line[column:] if column else ""
        depth = len(cell) - len(cell.lstrip("│├└─ "))
        name = re.match(r"(\w+(?:\[\d+\])?)(?:\[\d+:\d+\])?(?: |$)", cell[depth:])
        if name:
            above[depth // 3 :] = [name[1]]
            paths.add(".".join(above))
    return paths
