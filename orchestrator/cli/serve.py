"""`orchestrator serve`: the daemon, in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator import wiring
from orchestrator.cli.options import Connect, JsonFlag, PolicyFile, Socket, run_async, teller


def serve(
    policy: PolicyFile = None,
    connect: Connect = None,
    socket: Socket = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Tell metrics on this loopback port too, like 127.0.0.1:9464."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Schedule guests on this host until SIGTERM or Ctrl-C, which leave them running; SIGHUP reads the policy anew.

    What happens is told on stderr, a line each; with --json as an object each.
    """
    wiring.metrics.check(metrics)
    service = wiring.service
    rules = wiring.site.load_policy(policy)
    run_async(service.serve(service.Settings(policy, rules, connect, socket, metrics), teller(json=json)))
