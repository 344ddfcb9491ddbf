"""Which values of a policy a scheduler takes over while it runs, and which it cannot. Pure."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.policy import Policy

FIXED = (
    ("cores", "reserved", "guests may be on them"),
    ("cores", "split_cores", "guests have their cores in the pieces that it says"),
    ("hypervisor", "connect", "guests were started through it"),
    ("hypervisor", "merge_memory", "their owners were told so when guests were started"),
    ("hypervisor", "disk_speed", "guests were started with it"),
)
"""The values that hold from a scheduler's start to its end: section, key, and why."""


def take_over(old: Policy, new: Policy) -> tuple[Policy, tuple[str, ...]]:
    """Return the new policy with the old one's fixed values, and a line for each of those that would be another."""
    effective, kept = new, []
    for section, key, why in FIXED:
        before, wanted = getattr(getattr(old, section), key), getattr(getattr(new, section), key)
        if before != wanted:
            part = replace(getattr(effective, section), **{key: before})
            effective = replace(effective, **{section: part})
            kept.append(
                f"{section}.{key}: stays {_word(before)} and is not {_word(wanted)} yet, since {why}; "
                "end this `orchestrator serve` and start it anew, guests go on meanwhile"
            )
    return effective, tuple(kept)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
