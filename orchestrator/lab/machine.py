"""The nested host as QEMU is told of it: one command line. Pure."""

from __future__ import annotations

from typing import Final

from orchestrator.lab.kernel import LabKernel
from orchestrator.lab.script import ROOT_TAG
from orchestrator.lab.shape import LabShape

QEMU: Final = "qemu-system-x86_64"

_KERNEL_ARGUMENTS: Final = (
    # Only errors reach the console; a panic ends the machine, and -no-reboot makes that QEMU's own end.
    "console=ttyS0 loglevel=4 panic=-1",
    # What guards or checks a real machine costs time under emulation and protects nothing here.
    "mitigations=off nokaslr audit=0 apparmor=0 cryptomgr.notests nowatchdog",
    # An emulated clock needs no second opinion. lpj is the length of busy waits, for a 4 GHz counter:
    # on a slower one they are a little long, and no CPU measures it by itself (0.15 s for each).
    "no_timer_check tsc=reliable lpj=16000000 random.trust_cpu=on rcupdate.rcu_expedited=1",
)


def qemu_command(
    shape: LabShape, kernel: LabKernel, *, name: str, initramfs: int, output: int, console: int
) -> tuple[str, ...]:
    """Return the command line of a nested host that sees this machine's file system, read-only.

    `initramfs` is an inherited descriptor of a file; `output` (of the command) and `console` (of the
    kernel) are inherited connected sockets. The machine is emulated even where KVM works: everything in it
    is, and one way behaves the same everywhere.
    """
    # Five-level page tables cost each emulated walk one more step. Linux tells the threads of an AMD core
    # by a CPUID leaf that TCG lacks, those of an Intel core by one it has; kvm_amd wants AMD.
    cpu = "max,la57=off" if shape.threads == 1 else "max,la57=off,vendor=GenuineIntel"
    return (
        *(QEMU, "-name", name),
        *("-machine", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-accel", "tcg,thread=multi,tb-size=512", "-cpu", cpu),
        *shape.qemu_arguments(),
        *("-kernel", str(kernel.vmlinux), "-initrd", f"/proc/self/fd/{initramfs}"),
        *("-append", " ".join((*_KERNEL_ARGUMENTS, *shape.kernel_arguments()))),
        # remap: inode numbers of several file systems of this machine would collide otherwise.
        *("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", f"virtio-9p-pci,fsdev=root,mount_tag={ROOT_TAG}"),
        *("-chardev", f"socket,id=console,fd={console}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=output,fd={output}", "-device", "virtio-serial-pci"),
        *("-device", "virtserialport,nr=1,chardev=output"),
    )
