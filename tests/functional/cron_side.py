"""A policy brought in force by Debian's cron alone: the program itself, through a real socket, to a host in memory.

It waits for two minutes of the clock on the wall, and costs next to nothing meanwhile: so it is a program of its own,
which goes on beside other tests. It ends with exit code 0 if all was as it should be.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

from tests.functional.program import PROGRAM
from tests.unit.service_daemon import daemon_in_a_thread, definition

MINUTE = timedelta(minutes=1)
PATIENCE = 240.0  # seconds until something must have happened that a minute's beginning brings

SCRIPT = """
set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/spool/cron/crontabs
chown root:crontab /var/spool/cron/crontabs && chmod 1730 /var/spool/cron/crontabs
"$PROGRAM" policy cron "$POLICY" --install 2>/dev/null
exec cron -f
"""


def main(directory: Path) -> None:
    """Have a window opened and closed; everything is in this directory."""
    opens = (datetime.now() + timedelta(seconds=10)).replace(second=0, microsecond=0) + MINUTE
    (directory / "guest.elf").touch()
    for name in ("web", "batch"):
        (directory / f"{name}.toml").write_text(definition(name))
    policy = directory / "100% o'dd.toml"
    policy.write_text(
        '[[guest]]\ndefinition = "web.toml"\n'
        f'[[window]]\nname = "batch"\ncron = "{opens.minute} {opens.hour} * * *"\nduration = "1 min"\n'
        '[[window.set.guest]]\ndefinition = "batch.toml"\n'
    )
    with daemon_in_a_thread(directory) as (daemon, loop):
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "PROGRAM": str(PROGRAM),
            "POLICY": str(policy),
            "ORCHESTRATOR_RUNTIME_DIR": str(directory / "r"),
            "ORCHESTRATOR_SOCKET": str(daemon.path),
        }

        def wait_for(**wanted: str) -> None:
            limit = time.monotonic() + PATIENCE
            while shown() != wanted:
                assert cron.poll() is None
                assert time.monotonic() < limit, shown()
                time.sleep(0.5)

        def shown() -> dict[str, str]:
            return asyncio.run_coroutine_threadsafe(daemon.shown(), loop).result(timeout=60)

        with subprocess.Popen(["unshare", "--mount", "sh", "-c", SCRIPT], env=environment) as cron:
            try:
                wait_for(web="running", batch="running")
                assert datetime.now() >= opens, "the window was not open yet"
                wait_for(web="running", batch="stopped")
                assert datetime.now() >= opens + MINUTE, "the window was open still"
            finally:
                cron.terminate()
    assert daemon.host.trace.count("start paused web") == 1, "it went on all the time"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
