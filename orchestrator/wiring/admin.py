"""What `orchestrator admin` asks of the guard."""

from __future__ import annotations

import contextlib
import socket

from orchestrator.core.emergency import Reply, Request, decode_reply, encode_request
from orchestrator.errors import HostError, OutcomeUnknownError
from orchestrator.wiring.guard import guard_socket

_ANSWER_LIMIT = 15.0
_MOST_BYTES = 1 << 20


def ask(request: Request) -> Reply:
    """Return the guard's answer. HostError if no guard listens; OutcomeUnknownError if it does not answer."""
    path = guard_socket()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(_ANSWER_LIMIT)
        try:
            connection.connect(str(path))
        except OSError:
            raise HostError(f"{path}: no guard listens there; `orchestrator guard` starts one") from None
        with contextlib.suppress(OSError):  # who is not root is answered before he has asked
            connection.send(encode_request(request))
        try:
            answer = connection.recv(_MOST_BYTES)
        except OSError as error:
            why = error.strerror or "no answer in time"
            raise OutcomeUnknownError(f"{path}: the guard: {why}; `orchestrator admin status` shows what is") from None
    if not answer:
        raise OutcomeUnknownError(f"{path}: the guard has hung up; `orchestrator admin status` shows what is")
    return decode_reply(answer)
