"""What is read of control groups, from trees as kernels make them."""

from __future__ import annotations

from pathlib import Path

from orchestrator.host.cgroups import bounds_memory, has_memory_controller


def test_a_memory_controller_of_either_version_is_found(tmp_path: Path) -> None:
    two, one, none = (tmp_path / name for name in ("two", "one", "none"))
    for root in (two, one / "memory", none):
        root.mkdir(parents=True)
    (two / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (one / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert has_memory_controller(two)
    assert has_memory_controller(one)
    assert not has_memory_controller(none)
    (two / "cgroup.controllers").write_text("cpuset cpu\n")
    assert not has_memory_controller(two)


def test_only_the_systems_libvirt_bounds_anything(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    for connect in ("embed", "qemu:///session", "qemu:///embed?root=/run/x"):
        assert not bounds_memory(connect, tmp_path)
    for connect in ("qemu:///system", "qemu+unix:///system?socket=/run/x"):
        assert bounds_memory(connect, tmp_path)
