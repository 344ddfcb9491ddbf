"""Noise: counters of several moments become what happened on each core."""

from __future__ import annotations

from orchestrator.core.noise import Look, Running, Side, describe, noise, parse_interrupts, parse_steal

MS = 1_000_000


def look(*threads: tuple[str, Side, int, int], irqs: int = 0, steal: int = 0) -> Look:
    return Look(
        threads={f"{name}:1": Running(name, side, core, ran * MS) for name, side, core, ran in threads},
        interrupts={2: {"24 disk": irqs, "LOC": 5}},
        softirqs={2: {"TIMER": irqs}},
        steal={2: steal},
    )


LOOKS = (
    look(("sh", Side.FOREIGN, 2, 10), ("qemu", Side.OURS, 2, 100), ("old", Side.KERNEL, 3, 7)),
    look(("sh", Side.FOREIGN, 3, 15), ("qemu", Side.OURS, 2, 150), ("old", Side.KERNEL, 3, 7), irqs=2),
    look(("sh", Side.FOREIGN, 2, 17), ("qemu", Side.OURS, 2, 150), ("new", Side.FOREIGN, 2, 4), irqs=7, steal=3 * MS),
)


def test_each_core_has_what_ran_on_it_between_the_looks() -> None:
    allowed = [("sh", Side.FOREIGN, frozenset({2, 3})), ("qemu", Side.OURS, frozenset({2}))]
    two, three = noise(LOOKS, allowed, [3, 2])
    assert (two.core, three.core) == (2, 3)
    assert two.ran[Side.FOREIGN] == {"sh": 2 * MS, "new": 4 * MS}
    assert two.ran[Side.OURS] == {"qemu": 50 * MS}
    assert three.ran == {Side.FOREIGN: {"sh": 5 * MS}, Side.KERNEL: {}, Side.OURS: {}}
    assert (two.interrupts, two.softirqs, two.steal) == ({"24 disk": 7}, {"TIMER": 7}, 3 * MS)
    assert two.may == three.may == {"sh"}
    assert three.interrupts == {}
    assert describe(two) == {
        "core": 2,
        "ran_ms": {"ours": {"qemu": 50.0}, "kernel": {}, "foreign": {"new": 4.0, "sh": 2.0}},
        "may_run": ["sh"],
        "interrupts": {"24 disk": 7},
        "softirqs": {"TIMER": 7},
        "steal_ms": 3.0,
    }


def test_the_kernels_tables() -> None:
    text = "        CPU0   CPU3\n 24:   1   2   PCI-MSI 1-edge   virtio0\nERR:   0\nNMI:  3  4  Non-maskable\n"
    assert parse_interrupts(text) == {
        0: {"24 PCI-MSI 1-edge virtio0": 1, "NMI Non-maskable": 3},
        3: {"24 PCI-MSI 1-edge virtio0": 2, "NMI Non-maskable": 4},
    }
    assert parse_interrupts("") == {}
    assert parse_steal("cpu  9 9 9 9 9 9 9 9\ncpu1 0 0 0 0 0 0 0 4 0\nctxt 5\n", 10) == {1: 40}
