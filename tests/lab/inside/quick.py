"""The program without its start, which takes seconds in the lab: a process that has imported it forks for each call.

`python -m tests.lab.inside.quick SOCKET` is that process; `client` is the text of a program that calls it with its own
arguments, directory, environment and standard files, and ends as the call ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from orchestrator import wiring
from orchestrator.cli.main import main
from orchestrator.service import client as service_client

IMPORTED = (service_client, *(getattr(wiring, name) for name in wiring.__all__))
"""What most commands would import."""

MOST = 1 << 20

CLIENT = """\
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as caller:
    caller.connect({path!r})
    call = {{"arguments": sys.argv[1:], "directory": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(caller, [json.dumps(call).encode()], [0, 1, 2])
    sys.exit(int(caller.recv(16) or b"70"))
"""


def client(path: Path) -> str:
    """Return the text of a Python program that is to be run without `site`, which costs more than all it does."""
    return CLIENT.format(path=str(path))


def serve(path: Path) -> None:
    """Answer calls until this process is ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        while True:
            caller, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os._exit(_answer(caller))
            caller.close()


def _answer(caller: socket.socket) -> int:
    text, files, _, _ = socket.recv_fds(caller, MOST, 3)
    called = os.fork()
    if called == 0:
        caller.close()
        os._exit(_call(json.loads(text), files))
    code = os.waitstatus_to_exitcode(os.waitpid(called, 0)[1])
    caller.send(str(code).encode())
    return 0


def _call(call: dict[str, Any], files: list[int]) -> int:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(call["environment"])
    os.chdir(call["directory"])
    code: object = 0
    try:
        main(call["arguments"])
    except SystemExit as ended:
        code = ended.code
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
