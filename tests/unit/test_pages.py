"""What is said of pages that are merged, by what the kernel shows below /sys/kernel/mm/ksm."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import HostError
from orchestrator.host.pages import merging, require_merging


def test_a_kernel_without_ksm_is_refused_with_what_would_work(tmp_path: Path) -> None:
    assert merging(tmp_path / "ksm") is None
    with pytest.raises(HostError, match=r"merge_memory: .*no KSM.*merge_memory = false, or a kernel with CONFIG_KSM"):
        require_merging(tmp_path / "ksm")


@pytest.mark.parametrize(("run", "merges"), [("0\n", False), ("1\n", True), ("2\n", False)])
def test_whether_it_is_switched_on_is_said(tmp_path: Path, run: str, merges: bool) -> None:
    (tmp_path / "run").write_text(run)
    assert merging(tmp_path) is merges
    require_merging(tmp_path)
