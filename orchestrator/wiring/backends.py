"""The back ends of this host's guests."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from orchestrator.wiring.site import guest_directories

if TYPE_CHECKING:
    from orchestrator.backends.service import ServiceBackEnds


def service_back_ends(user: int | None = None) -> ServiceBackEnds:
    """Return them as the engine reaches them; sockets are for `user`, if QEMU is run as another than us."""
    from orchestrator.backends.programs import find
    from orchestrator.backends.service import ServiceBackEnds

    # -I: nothing is imported from where we stand, and no variable of ours changes what it does
    command = (sys.executable, "-I", "-m", "orchestrator.backends")
    return ServiceBackEnds(guest_directories(), command, find, user)
