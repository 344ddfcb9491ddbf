"""``python -m orchestrator.chores``: started by `launcher`, never by hand."""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

from orchestrator.chores.counters import Counters
from orchestrator.chores.desk import Settings
from orchestrator.chores.process import serve


def main() -> int:
    """Parse what the launcher says, and serve."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.chores", description=__doc__)
    parser.add_argument("--socket", type=int, required=True, help="descriptor of this end of the socket")
    parser.add_argument("--counters", type=int, required=True, help="descriptor of the page for the counts")
    parser.add_argument("--directory", type=Path, required=True, help="where logs are kept")
    parser.add_argument("--log-limit", type=int, required=True, help="bytes of a log before a new one is begun")
    parser.add_argument("--batch-records", type=int, required=True, help="records that are made durable together")
    parser.add_argument(
        "--batch-patience", type=int, required=True, help="nanoseconds that a record may wait for others"
    )
    parser.add_argument("--poll", type=int, required=True, help="nanoseconds between looks at a serial log")
    given = parser.parse_args()
    settings = Settings(given.directory, given.log_limit, given.batch_records, given.batch_patience, given.poll)
    return serve(socket.socket(fileno=given.socket), Counters(given.counters), settings)


if __name__ == "__main__":
    sys.exit(main())
