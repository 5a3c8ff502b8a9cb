"""Losing memory on purpose, as far as a host without that right can show it."""

from __future__ import annotations

import subprocess
import sys

PR_CAPBSET_DROP, CAP_SYS_ADMIN = 24, 21
PROGRAM = "from vmm_ras.lab.hwpoison import lose_own; lose_own()"
WITHOUT = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl({PR_CAPBSET_DROP}, {CAP_SYS_ADMIN}, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-c", {PROGRAM!r}])
"""


def test_without_cap_sys_admin_that_is_said():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.endswith("madvise(MADV_HWPOISON) fails: CAP_SYS_ADMIN is needed, and CONFIG_MEMORY_FAILURE")
    assert done.stderr.count("Error") == 0  # the process that tried says nothing of its own
