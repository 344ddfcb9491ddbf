"""No property is to hold within milliseconds: what else the machine does is nobody's fault here."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patient", settings(deadline=None))  # and all else as it was, where CI is set too
settings.load_profile("patient")
