"""A small Linux that uses a disk, a shared folder and a TPM, and says on its serial port what it found.

Its kernel is the lab's: those of the shipped guests come without modules.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from orchestrator.lab.image import load_order
from orchestrator.lab.initramfs import Entry, cpio
from orchestrator.lab.kernel import default_cache, find_kernel, obtain_kernel

_MODULES = ("virtio_pci", "virtio_blk", "virtiofs", "tpm_tis")
CMDLINE = (  # without ACPI nothing tells the kernel that there is a TPM; with an initrd QEMU 7.2 spoils ACPI's tables
    "console=ttyS0 quiet panic=-1 nokaslr mitigations=off nowatchdog audit=0 cryptomgr.notests no_timer_check "
    "acpi=off tpm_tis.force=1"
)

_INIT = """\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys; $b mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do $b insmod $module; done
echo "tpm: $($b cat /sys/class/tpm/tpm0/tpm_version_major) $($b cat /sys/class/tpm/tpm0/pcr-sha256/0)"
for tag in files tools; do
	$b mkdir /$tag
	$b mount -t virtiofs $tag /$tag && echo "$tag: $($b cat /$tag/greeting)"
	echo "from the guest" >/$tag/answer && echo "$tag: written"
	$b ls -ln /$tag | $b sed "s/^/$tag: /"
done
for disk in vda vdb; do
	[ -e /dev/$disk ] || continue
	echo "$disk: $($b head -c 16 /dev/$disk) of $($b cat /sys/block/$disk/size)"
	echo "0123456789abcdef" | $b dd of=/dev/$disk bs=16 count=1 conv=fsync 2>/dev/null && echo "$disk: written"
	echo "$disk: $($b head -c 16 /dev/$disk)"
done
echo "all done"
beat=0
while :; do
	beat=$((beat + 1))
	echo "heartbeat $beat"
	$b dd if=/dev/vda of=/dev/null bs=64k iflag=direct 2>/dev/null
	$b cat /sys/class/tpm/tpm0/pcr-sha256/0 >/dev/null
	$b cp /files/greeting /files/copy
	$b sleep 0.2
done
"""


def write_guest(folder: Path) -> tuple[Path, Path]:
    """Write kernel and initramfs into a folder, and return their paths."""
    cache = default_cache(os.environ)  # in the lab, tests have one of their own, which has no kernel
    kernel = find_kernel(cache) or find_kernel(default_cache({})) or obtain_kernel(cache)
    modules = (kernel.modules / "modules.dep").read_text(), (kernel.modules / "modules.builtin").read_text()
    order = load_order(*modules, _MODULES)
    program = stat.S_IFREG | 0o755
    entries = [Entry(path, stat.S_IFDIR | 0o755) for path in ("bin", "dev", "modules", "proc", "sys")]
    entries += [Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))]
    entries += [
        Entry("bin/busybox", program, Path("/bin/busybox").read_bytes()),
        Entry("init", program, _INIT.encode()),
    ]
    entries += [
        Entry(f"modules/{number:02}-{Path(file).name}", program, (kernel.modules / file).read_bytes())
        for number, file in enumerate(order)
    ]
    (folder / "device.cpio").write_bytes(cpio(entries))
    (folder / "device.vmlinux").write_bytes(kernel.vmlinux.read_bytes())
    return folder / "device.vmlinux", folder / "device.cpio"
