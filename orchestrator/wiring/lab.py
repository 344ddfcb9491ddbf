"""The lab, as the command line asks for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
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
    tell: Callable[[str], None],
) -> int:
    """Boot a nested host of this shape, run `command` in it, and return its exit code; see `lab.launch.run_lab`.

    `tell` is given a line before what takes long.
    """
    from orchestrator.lab.kernel import default_cache, find_kernel
    from orchestrator.lab.launch import minimal_environment, run_lab
    from orchestrator.lab.shape import parse_shape

    shape = parse_shape(cpus=cpus, topology=topology, nodes=nodes, memory=memory, isolate=isolate)
    if find_kernel(default_cache(os.environ)) is None:
        tell("fetching Debian's kernel for the lab: 70 MB, once")
    return run_lab(
        shape,
        command,
        workdir=Path.cwd(),
        environment=minimal_environment(os.environ),
        output=output,
        timeout=timeout,
        cache=default_cache(os.environ),
    )
