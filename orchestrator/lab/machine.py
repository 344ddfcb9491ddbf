"""The nested host as QEMU is told of it: one command line. Pure."""

from __future__ import annotations

from typing import Final

from orchestrator.lab.kernel import LabKernel
from orchestrator.lab.script import ROOT_TAG
from orchestrator.lab.shape import LabShape

QEMU: Final = "qemu-system-x86_64"

_KERNEL_ARGUMENTS: Final = (
    # Only errors reach the console; a panic ends the machine at once, which QEMU turns into its own exit.
    "console=ttyS0 loglevel=4 panic=-1",
    # What guards or checks a real machine costs time under emulation and protects nothing here.
    "mitigations=off nokaslr audit=0 apparmor=0 cryptomgr.notests nowatchdog",
    # An emulated machine's timers are sound, and its random numbers are the host's.
    "no_timer_check tsc=reliable lpj=16000000 random.trust_cpu=on rcupdate.rcu_expedited=1",
)


def qemu_command(
    shape: LabShape, kernel: LabKernel, *, name: str, initramfs: int, output: int, console: int
) -> tuple[str, ...]:
    """Return the command line of a nested host that knows this machine's file system, read-only.

    `initramfs` is an inherited descriptor that can be read from its start; `output` (the command's output)
    and `console` (the kernel's messages) are inherited connected sockets. It is emulated, always: nested
    KVM hangs too often to rest on it.
    """
    return (
        *(
            QEMU,
            "-name",
            name,
            "-machine",
            "q35",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ),
        # Five-level page tables cost every emulated walk one more step.
        *("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off"),
        *shape.qemu_arguments(),
        *("-kernel", str(kernel.vmlinux), "-initrd", f"/proc/self/fd/{initramfs}"),
        *("-append", " ".join((*_KERNEL_ARGUMENTS, *shape.kernel_arguments()))),
        # remap: the inode numbers of several host file systems would collide otherwise.
        *("-fsdev", f"local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", f"virtio-9p-pci,fsdev=root,mount_tag={ROOT_TAG}"),
        *("-chardev", f"socket,id=console,fd={console}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=output,fd={output}", "-device", "virtio-serial-pci"),
        *("-device", "virtserialport,nr=1,chardev=output"),
    )
