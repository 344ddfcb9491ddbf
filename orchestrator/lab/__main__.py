"""TEMPORARY entry until the CLI has one."""

import os, sys
from pathlib import Path
from orchestrator.errors import OrchestratorError
from orchestrator.lab.kernel import default_cache
from orchestrator.lab.launch import minimal_environment, run_lab
from orchestrator.lab.shape import parse_shape

args = sys.argv[1:]
at = args.index("--")
flags = args[:at]


def flag(name, default):
    return flags[flags.index(name) + 1] if name in flags else default


topology = flag("--topology", None)
try:
    sys.exit(
        run_lab(
            parse_shape(
                cpus=None if topology else int(flag("--cpus", "6")),
                topology=topology,
                nodes=int(flag("--numa", "1")),
                memory=flag("--memory", "4G"),
                isolate="--isolate" in flags,
            ),
            args[at + 1 :],
            workdir=Path.cwd(),
            environment=minimal_environment(os.environ),
            output=1,
            timeout=float(flag("--timeout", "1800")),
            cache=default_cache(os.environ),
        )
    )
except OrchestratorError as error:
    print("\n".join(error.lines()), file=sys.stderr)
    sys.exit(error.exit_code)
