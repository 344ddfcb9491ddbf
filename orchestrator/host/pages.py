"""What the kernel can do with guests' pages: merge equal ones (KSM), and give huge ones to files (hugetlbfs)."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import HostError

KSM = Path("/sys/kernel/mm/ksm")


def require_merging(root: Path = KSM) -> None:
    """Raise HostError if the kernel cannot merge equal pages."""
    if not (root / "run").exists():
        raise HostError(
            "hypervisor.merge_memory: the policy wants equal pages of guests to be merged, and this kernel cannot "
            "(it has no KSM); merge_memory = false, or a kernel with CONFIG_KSM"
        )


def merging(root: Path = KSM) -> bool | None:
    """Say whether the kernel merges pages now; None if it cannot."""
    try:
        return (root / "run").read_text().strip() == "1"
    except OSError:
        return None
