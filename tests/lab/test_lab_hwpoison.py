"""Losing memory on purpose, as far as a host without that right can show it."""

from __future__ import annotations

import os
import subprocess
import sys

from vmm_ras.io import libc
from vmm_ras.lab import hwpoison

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


def test_a_page_that_nobody_touched_is_made_one_that_is_used():
    fd = os.memfd_create("page")
    os.ftruncate(fd, 4096)
    address = libc.mmap(4096, fd)
    try:
        assert not _mapped(address)
        hwpoison.use(address, 4096)
        assert _mapped(address)
        assert os.pread(fd, 4096, 0) == bytes(4096)
    finally:
        libc.munmap(address, 4096)
        os.close(fd)


def _mapped(address):
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        return bool(os.pread(file.fileno(), 8, address // 4096 * 8)[7] & 0x80)
