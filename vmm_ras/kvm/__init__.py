"""What KVM on arm64 shows to user space of a vCPU's exceptions: structures, register ids, differences of hosts.

No ioctl is made here.
"""
