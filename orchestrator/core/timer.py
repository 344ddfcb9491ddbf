"""A policy's runs as systemd units: a service that runs once, and the timer that starts it each minute. Texts only."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.core.pool import SERVICE_CORE
from orchestrator.errors import UsageError

SERVICE, TIMER = "orchestrator-policy.service", "orchestrator-policy.timer"

_PLAIN = re.compile(r"[A-Za-z0-9@+,./:=_-]+")


def units(program: str, file: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the text of each unit by its file's name; `program` and `file` are absolute paths.

    Only the run itself is ended when it takes too long: the guests that it has started are not its own.
    """
    environment = "".join(f"Environment={_word(f'{name}={value}')}\n" for name, value in sorted(variables.items()))
    command = " ".join([_word(program), "policy", "run", _word(file).replace("$", "$$")])
    service = (
        "# Written by `orchestrator policy cron --systemd`.\n"
        "[Unit]\n"
        "Description=Orchestrator: guests and values as the policy wants them\n"
        "\n"
        "[Service]\n"
        "Type=oneshot\n"
        f"{environment}"
        f"ExecStart={command}\n"
        f"CPUAffinity={SERVICE_CORE}\n"
        "KillMode=process\n"
        "TimeoutStartSec=10min\n"
    )
    timer = (
        "# Written by `orchestrator policy cron --systemd`.\n"
        "[Unit]\n"
        "Description=Orchestrator: a policy run each minute\n"
        "\n"
        "[Timer]\n"
        "OnCalendar=*-*-* *:*:00\n"
        "AccuracySec=1s\n"
        "\n"
        "[Install]\n"
        "WantedBy=timers.target\n"
    )
    return {SERVICE: service, TIMER: timer}


def _word(text: str) -> str:
    """Quote a word as systemd reads it, which replaces what begins with %."""
    if "\\" in text or not text.isprintable():
        raise UsageError(f"{text!r}: systemd cannot be told this path: it has a backslash or an unprintable character")
    if not _PLAIN.fullmatch(text):
        text = '"' + text.replace('"', r"\"") + '"'
    return text.replace("%", "%%")
