"""Numbers of ``linux/kvm.h`` and ``asm/kvm.h``, arm64: ioctls, capabilities, exits, device attributes.

The names are those of the headers without ``KVM_``; what vCPU events and lost memory need is in ``events``.
"""

from __future__ import annotations

from typing import Final

API_VERSION: Final = 12

# of /dev/kvm
GET_API_VERSION: Final = 0xAE00
CREATE_VM: Final = 0xAE01
CHECK_EXTENSION: Final = 0xAE03
"""Of a VM too."""
GET_VCPU_MMAP_SIZE: Final = 0xAE04

# of a VM
CREATE_VCPU: Final = 0xAE41
SET_USER_MEMORY_REGION: Final = 0x4020AE46
IRQ_LINE: Final = 0x4008AE61
ENABLE_CAP: Final = 0x4068AEA3
ARM_PREFERRED_TARGET: Final = 0x8020AEAF
CREATE_DEVICE: Final = 0xC00CAEE0
SET_DEVICE_ATTR: Final = 0x4018AEE1
"""Of a device too."""
HAS_DEVICE_ATTR: Final = 0x4018AEE3

# of a vCPU
RUN: Final = 0xAE80
SET_SIGNAL_MASK: Final = 0x4004AE8B
GET_MP_STATE: Final = 0x8004AE98
SET_MP_STATE: Final = 0x4004AE99
GET_ONE_REG: Final = 0x4010AEAB
SET_ONE_REG: Final = 0x4010AEAC
ARM_VCPU_INIT: Final = 0x4020AEAE
GET_REG_LIST: Final = 0xC008AEB0

CAP_USER_MEMORY: Final = 3
CAP_MP_STATE: Final = 14
CAP_MAX_VCPUS: Final = 66
CAP_ONE_REG: Final = 70
CAP_DEVICE_CTRL: Final = 89
CAP_VM_ATTRIBUTES: Final = 101
CAP_ARM_PSCI_0_2: Final = 102
CAP_IMMEDIATE_EXIT: Final = 136
CAP_ARM_VM_IPA_SIZE: Final = 165
CAP_ARM_NISV_TO_USER: Final = 177
CAP_MEMORY_FAULT_INFO: Final = 232
CAP_ARM_EL2: Final = 240

EXIT_UNKNOWN: Final = 0
EXIT_HYPERCALL: Final = 3
EXIT_MMIO: Final = 6
EXIT_SHUTDOWN: Final = 8
EXIT_FAIL_ENTRY: Final = 9
EXIT_INTR: Final = 10
EXIT_INTERNAL_ERROR: Final = 17
EXIT_SYSTEM_EVENT: Final = 24
EXIT_ARM_NISV: Final = 28
EXIT_ARM_LDST64B: Final = 42

SYSTEM_EVENT_SHUTDOWN: Final = 1
SYSTEM_EVENT_RESET: Final = 2
SYSTEM_EVENT_CRASH: Final = 3

HYPERCALL_EXIT_SMC: Final = 1
MP_STATE_RUNNABLE: Final = 0
MP_STATE_STOPPED: Final = 5
MEM_READONLY: Final = 2

ARM_VCPU_POWER_OFF: Final = 0
"""Bit of VcpuInit.features: the vCPU waits for PSCI's CPU_ON."""
ARM_VCPU_PSCI_0_2: Final = 2

ARM_VM_SMCCC_CTRL: Final = 0
ARM_VM_SMCCC_FILTER: Final = 0
SMCCC_FILTER_HANDLE: Final = 0
SMCCC_FILTER_DENY: Final = 1
SMCCC_FILTER_FWD_TO_USER: Final = 2

DEV_TYPE_ARM_VGIC_V3: Final = 7
DEV_ARM_VGIC_GRP_ADDR: Final = 0
DEV_ARM_VGIC_GRP_NR_IRQS: Final = 3
DEV_ARM_VGIC_GRP_CTRL: Final = 4
DEV_ARM_VGIC_CTRL_INIT: Final = 0
VGIC_V3_ADDR_TYPE_DIST: Final = 2
VGIC_V3_ADDR_TYPE_REDIST: Final = 3

ARM_IRQ_TYPE_SHIFT: Final = 24
ARM_IRQ_TYPE_SPI: Final = 1
ARM_IRQ_TYPE_PPI: Final = 2
ARM_IRQ_VCPU_SHIFT: Final = 16
ARM_IRQ_VCPU_MASK: Final = 0xFF
ARM_IRQ_VCPU2_SHIFT: Final = 28
