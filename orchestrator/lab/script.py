"""What the nested host itself runs: two busybox shell scripts and the command's own. Pure text."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final

HOST_NAME: Final = "orchestrator-lab"
ROOT_TAG: Final = "host"
"""The mount tag under which QEMU offers this machine's file system."""

INIT: Final = rf"""#!/bin/busybox sh
# From the initramfs to a root that is the host's own file system below, and memory above.
bb=/bin/busybox
must() {{ "$@" || {{ echo "orchestrator lab: failed: $*"; exit 1; }}; }}

for module in /modules/*; do must $bb insmod "$module"; done
must $bb mkdir /lower /upper
must $bb mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose {ROOT_TAG} /lower
must $bb mount -t tmpfs -o mode=755 upper /upper
must $bb mkdir /upper/data /upper/work
# xino=off: inode numbers of several host file systems do not fit into one with spare bits.
must $bb mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work,xino=off root /root
must $bb mount -t proc proc /root/proc
must $bb mount -t sysfs sys /root/sys
must $bb mount -t devtmpfs dev /root/dev
must $bb mount -t tmpfs -o mode=755 run /root/run
must $bb mkdir /root/run/lab
must $bb cp /bin/busybox /start /command /mark /root/run/lab
exec $bb switch_root /root /run/lab/busybox sh /run/lab/start
"""

_START: Final = r"""# The rest of the set-up, by its natural paths; then the command. This stays as process 1 and reaps.
bb=/run/lab/busybox
must() { "$@" || { echo "orchestrator lab: failed: $*"; exit 1; }; }

must $bb mkdir -p /dev/pts /dev/shm /run/lock "/lib/modules/$version"
must $bb mount -t devpts -o mode=620,ptmxmode=666,gid=5 devpts /dev/pts
must $bb mount -t tmpfs -o mode=1777 shm /dev/shm
must $bb mount -t cgroup2 cgroup2 /sys/fs/cgroup
must $bb mount -o bind "$modules" "/lib/modules/$version"
for link in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
    $bb ln -s "/proc/self/${link#*:}" "/dev/${link%:*}"
done
for controller in $($bb cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
$bb hostname $name
echo "127.0.1.1 $name" >>/etc/hosts
must $bb ip link set lo up

# The port announces itself a moment after its driver has loaded.
until port=$(echo /dev/vport*p1) && [ -c "$port" ]; do $bb usleep 5000; done
# A pipe stands between, because a port can be opened only once and programs reopen /dev/stdout.
must $bb mkfifo /run/lab/output
exec 4>"$port"
$bb cat /run/lab/output >&4 &
exec 3>/run/lab/output 4>&-
read -r mark </run/lab/mark
$bb rm /run/lab/mark /run/lab/start /run/lab/output
# In parentheses, so that this shell's word about a signal does not go where the command's output goes.
( exec $bb setsid /bin/sh /run/lab/command ) </dev/null >&3 2>&1 3>&-
printf '%s%d\n' "$mark" "$?" >&3
exec 3>&-
wait
"""


def start_script(version: str, modules: PurePath) -> str:
    """Return the script that follows the change of root; `modules` appears as ``/lib/modules/VERSION``."""
    known = {"name": HOST_NAME, "version": version, "modules": str(modules)}
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in known.items()) + _START


def command_script(command: Sequence[str], workdir: PurePath, environment: Mapping[str, str]) -> str:
    """Return the script that runs `command` in `workdir` with `environment` and no other variable."""
    variables = [f"{name}={value}" for name, value in environment.items()]
    run = shlex.join(["/usr/bin/env", "-i", "--", *variables, *command])
    return f"cd {shlex.quote(str(workdir))} && exec {run}\n"
