"""Runs on the emulated host: describes it, and tries KVM_SET_ONE_REG for real.  Prints one JSON object per line.

``python3 -m vmm_ras.lab.set_registers FILE...``: descriptions of other hosts, whose values are tried on new vCPUs;
without any, values of single fields are tried.
"""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

from vmm_ras.compat.fields import FIELDS
from vmm_ras.compat.host import Description
from vmm_ras.compat.registers import SVE_VLS
from vmm_ras.io.host import add_vcpu, describe, own_implementation
from vmm_ras.io.kvm.ioctl import KvmError
from vmm_ras.io.kvm.system import Kvm
from vmm_ras.io.kvm.vcpu import Vcpu
from vmm_ras.io.kvm.vm import Vm


def attempt(vcpu: Vcpu, reg: int, value: int) -> str:
    """Name of the error; empty: it was taken."""
    try:
        vcpu.set(reg, value)
    except KvmError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return ""


def move(kvm: Kvm, values: dict[int, int]) -> dict[str, str]:
    """What becomes of each register of a set, in its order, at a vCPU that has just been made."""
    vm = Vm(kvm)
    try:
        own_implementation(vm)
        done: dict[int, str] = {}

        def before(vcpu: Vcpu) -> None:
            if SVE_VLS in values:
                done[SVE_VLS] = attempt(vcpu, SVE_VLS, values[SVE_VLS])

        vcpu, _ = add_vcpu(vm, before=before)
        rest = {reg: attempt(vcpu, reg, value) for reg, value in values.items() if reg not in done}
        return {hex(reg): found for reg, found in (done | rest).items()}
    finally:
        vm.close()


def fields(kvm: Kvm) -> dict[str, list[dict[str, str]]]:
    """For each ID register and each four bits of it, lowest first: some of their values, and what became of them."""
    vm = Vm(kvm)
    out: dict[str, list[dict[str, str]]] = {}
    try:
        own_implementation(vm)
        vcpu, _ = add_vcpu(vm)
        for reg in FIELDS:
            own = vcpu.get(reg)
            out[hex(reg)] = []
            for shift in range(0, 64, 4):
                mine = own >> shift & 0xF
                values = sorted({0, mine and mine - 1, min(mine + 1, 15)} - {mine})
                kept = own & ~(0xF << shift)
                out[hex(reg)].append({str(value): attempt(vcpu, reg, kept | value << shift) for value in values})
            attempt(vcpu, reg, own)
    finally:
        vm.close()
    return out


def main(files: list[str]) -> None:
    """Everything."""
    with Kvm() as kvm:
        print("HOST " + json.dumps(describe(kvm).plain()), flush=True)
        for file in files:
            values = Description.parse(Path(file).read_bytes()).registers
            print("MOVE " + json.dumps({"file": file, "result": move(kvm, values)}), flush=True)
        if not files:
            print("FIELDS " + json.dumps(fields(kvm)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
