"""What a system runs the daemon with: a systemd unit, directories, the group that may do all. Texts only."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core import timer

POLICY = "/etc/orchestrator/policy.toml"

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_IPC_LOCK",
    "CAP_KILL",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_ADMIN",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_NICE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RESOURCE",
)
"""What root keeps: files of all users, mounts that hold them fast, affinities, real time, locked memory,
append-only files, /proc of all QEMUs, taps, what it takes to take capabilities from QEMU, and to shut in (as nobody but
root outside) what serves root's folders to guests."""

_SERVICE = """\
[Unit]
Description=Orchestrator: who holds which core of this host, and when
Documentation=man:orchestrator-serve(1)
After=local-fs.target systemd-tmpfiles-setup.service time-sync.target

[Service]
Type=notify
ExecStart={program} serve --policy {policy}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=1s

# Guests are children of the scheduler and outlive it: only it is ended, and the next one takes them over.
KillMode=process
TimeoutStopSec=30s

# No CPUAffinity=: it goes to the scheduler's core by itself, its chores and the guests to theirs. On a host that is
# shielded that core is not given to this slice, and systemd would not start what it cannot put there.
{limits}
# No Protect*=, Private*= and the like, which bring a mount namespace: guests' files are held fast by mounts, which the
# next scheduler has to find. No MemoryDenyWriteExecute=, since QEMU translates code where there is no KVM. Namespaces
# are for what serves folders to guests, which is shut into its own.
{hardening}
[Install]
WantedBy=multi-user.target
"""

_GUARD = """\
[Unit]
Description=Orchestrator: the emergency console of this host
Documentation=man:orchestrator-guard(1) man:orchestrator-admin(1)
After=local-fs.target systemd-tmpfiles-setup.service

[Service]
ExecStart={program} guard --policy {policy}
Restart=always
RestartSec=1s

# A scheduler that it has started anew is not its own to end.
KillMode=process

{limits}
# As the scheduler's, which it may have to start.
{hardening}
[Install]
WantedBy=multi-user.target
"""

_LIMITS = """\
LimitRTPRIO=99
LimitMEMLOCK=infinity
LimitNOFILE=65536
TasksMax=infinity
"""

_HARDENING = f"""\
CapabilityBoundingSet={" ".join(CAPABILITIES)}
NoNewPrivileges=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
RestrictNamespaces=user mnt net ipc uts
RestrictSUIDSGID=yes
SystemCallArchitectures=native
"""

_TMPFILES = """\
# Others come to the daemon's socket through it; nothing else in it is theirs.
d /run/orchestrator 0711 root root -
d /var/lib/orchestrator 0700 root root -
"""

_SYSUSERS = """\
# Its members may do everything, for everybody (admin_group in the policy).
g orchestrator -
"""


def units(program: str) -> Mapping[str, str]:
    """Return texts by the paths below /usr/lib that they go to; `program` is an absolute path of plain characters."""
    values = {"program": program, "policy": POLICY, "limits": _LIMITS, "hardening": _HARDENING}
    return {
        "systemd/system/orchestrator.service": _SERVICE.format_map(values),
        "systemd/system/orchestrator-guard.service": _GUARD.format_map(values),
        **{f"systemd/system/{name}": text for name, text in timer.units(program, POLICY, {}).items()},
        "tmpfiles.d/orchestrator.conf": _TMPFILES,
        "sysusers.d/orchestrator.conf": _SYSUSERS,
    }
