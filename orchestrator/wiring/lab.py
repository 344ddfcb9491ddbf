"""The lab, as the command line asks for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def run_in_lab(
    command: Sequence[str],
    *,
    cpus: int | None,
    topology: str | None,
    nodes: int,
    memory: str,
    isolate: bool,
    timeout: float,
    output: int,
) -> int:
    """Boot a nested host of this shape, run `command` in it, and return its exit code; see `lab.launch.run_lab`."""
    from orchestrator.lab.kernel import default_cache
    from orchestrator.lab.launch import minimal_environment, run_lab
    from orchestrator.lab.shape import parse_shape

    return run_lab(
        parse_shape(cpus=cpus, topology=topology, nodes=nodes, memory=memory, isolate=isolate),
        command,
        workdir=Path.cwd(),
        environment=minimal_environment(os.environ),
        output=output,
        timeout=timeout,
        cache=default_cache(os.environ),
    )
