"""`orchestrator guard`: the emergency console's own process, in the foreground."""

from __future__ import annotations

from orchestrator import wiring
from orchestrator.cli.options import JsonFlag, PolicyFile, teller


def guard(policy: PolicyFile = None, json: JsonFlag = False) -> None:
    """Guard this host until SIGTERM or Ctrl-C: watch the scheduler, and obey `orchestrator admin` at its consoles.

    What happens is told on stderr, a line each; with --json as an object each. Guests and scheduler go on without it.
    """
    wiring.guard.guard(policy, teller(json=json))
