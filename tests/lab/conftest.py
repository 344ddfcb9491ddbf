"""What is below inside/ needs pool cores: it is collected on a host that has them, as the nested lab is."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("ORCHESTRATOR_INSIDE_LAB") else ["inside"]
