"""The probe runs something: the emulator, which always works, is its positive control, nonsense the negative one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from orchestrator.host.kvm import Probe, boot_probe, probe_kvm

BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_what_works_is_found_to_work() -> None:
    usable, why = boot_probe("tcg", 10)
    assert usable, why
    assert why.startswith("a tiny guest answered in ")


def test_what_does_not_exist_is_found_not_to_work() -> None:
    usable, why = boot_probe("nonsense", 10)
    assert not usable
    assert why.startswith("a tiny guest did not answer: ")
    assert "nonsense" in why


def test_what_takes_too_long_does_not_work() -> None:
    assert boot_probe("tcg", 0.001) == (False, "tcg opens, but a tiny guest did not answer within 0.001 s")


def test_a_result_of_this_boot_is_not_found_out_again(tmp_path: Path) -> None:
    cache = tmp_path / "probe.json"
    known = Probe(usable=True, why="it was seen", boot=BOOT)
    cache.write_bytes(msgspec.json.encode(known))
    assert probe_kvm(cache, limit=0.0) == known


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1]", msgspec.json.encode(Probe(usable=True, why="an old boot's", boot="another"))]
)
def test_any_other_result_is_found_out_and_kept(tmp_path: Path, text: bytes) -> None:
    cache = tmp_path / "below" / "probe.json"
    cache.parent.mkdir()
    cache.write_bytes(text)
    found = probe_kvm(cache, limit=0.001)  # no guest answers so fast
    assert (found.usable, found.boot) == (False, BOOT)
    assert msgspec.json.decode(cache.read_bytes(), type=Probe) == found
    assert [entry.name for entry in cache.parent.iterdir()] == ["probe.json"]
