"""Live threads against a placement, and the memory of what ever touched a reserved core."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.pins import ReservedCoreWatch, Stray, seats, strays, vcpu_threads_by_name

THREADS = {
    10: ("qemu-system-x86", frozenset({4})),
    11: ("CPU 0/TCG", frozenset({2})),
    12: ("CPU 1/TCG", frozenset({3})),
    13: ("IO iothread1", frozenset({4})),
}
VCPU_THREADS = {0: 11, 1: 12}


def with_thread(tid: int, name: str, *allowed: int) -> dict[int, tuple[str, frozenset[int]]]:
    return THREADS | {tid: (name, frozenset(allowed))}


def test_threads_on_their_cores_do_not_stray() -> None:
    assert strays(THREADS, VCPU_THREADS, (2, 3), (4,)) == ()


def test_a_vcpu_may_run_on_its_own_core_only() -> None:
    found = strays(with_thread(12, "CPU 1/TCG", 2, 3), VCPU_THREADS, (2, 3), (4,))
    assert found == (Stray(12, "CPU 1/TCG, vCPU 1", frozenset({2, 3}), frozenset({3})),)
    assert str(found[0]) == "thread 12 (CPU 1/TCG, vCPU 1) may run on 2-3; its placement gives it 3"


def test_vcpus_that_changed_places_both_stray() -> None:
    assert [stray.tid for stray in strays(THREADS, VCPU_THREADS, (3, 2), (4,))] == [11, 12]


def test_every_other_thread_belongs_to_the_emulator() -> None:
    found = strays(with_thread(14, "worker", 0, 4), VCPU_THREADS, (2, 3), (4,))
    assert [str(stray) for stray in found] == ["thread 14 (worker) may run on 0,4; its placement gives it 4"]


def test_a_thread_may_be_held_to_less_than_it_is_given() -> None:
    assert strays(THREADS, VCPU_THREADS, (2, 3), (2, 3, 4)) == ()


def test_a_thread_of_several_vcpus_may_run_on_the_cores_of_all_of_them() -> None:
    allowed = {11: ("ALL CPUs/TCG", frozenset({2, 3}))}
    assert strays(allowed, {0: 11, 1: 11}, (2, 3), (4,)) == ()
    (found,) = strays({11: ("ALL CPUs/TCG", frozenset({2, 4}))}, {0: 11, 1: 11}, (2, 3), (4,))
    assert (found.thread, found.expected) == ("ALL CPUs/TCG, vCPU 0 and 1", frozenset({2, 3}))


def test_a_vcpu_beyond_the_placement_has_no_core() -> None:
    (found,) = strays(with_thread(15, "CPU 2/TCG", 2), VCPU_THREADS | {2: 15}, (2, 3), (4,))
    assert str(found) == "thread 15 (CPU 2/TCG, vCPU 2) may run on 2; its placement gives it no core"


cores = st.frozensets(st.integers(0, 7), min_size=1)


@settings(deadline=None)
@given(st.dictionaries(st.integers(1, 20), cores), st.dictionaries(st.integers(0, 3), st.integers(1, 20)), cores)
def test_what_does_not_stray_cannot_leave_the_placement(
    allowed: dict[int, frozenset[int]], vcpu_threads: dict[int, int], emulator: frozenset[int]
) -> None:
    vcpus = (4, 5, 6, 7)
    found = {stray.tid for stray in strays({t: ("x", c) for t, c in allowed.items()}, vcpu_threads, vcpus, emulator)}
    for tid, may in allowed.items():
        own = {vcpus[index] for index, thread in vcpu_threads.items() if thread == tid} or emulator
        assert (tid in found) == (not may <= own)


def test_vcpu_threads_are_told_by_the_names_that_qemu_gives_them() -> None:
    names = {
        5: "CPU 0/KVM",
        6: "CPU 11/TCG",
        7: "qemu-system-x86",
        8: "IO iothread1",
        9: "worker",
        10: "CPU",
        11: "CPU ²/TCG",
    }
    assert vcpu_threads_by_name(names) == {0: 5, 11: 6}


@settings(deadline=None)
@given(st.dictionaries(st.integers(1, 9), st.text(max_size=15) | st.text(max_size=10).map("CPU {}/KVM".format)))
def test_no_thread_name_is_too_odd(names: dict[int, str]) -> None:
    assert set(vcpu_threads_by_name(names).values()) <= set(names)


def test_the_watch_remembers_threads_that_could_run_or_ran_on_a_reserved_core() -> None:
    watch = ReservedCoreWatch(frozenset({0, 1}))
    pool = frozenset({2, 3})
    watch.look([(10, "qemu", pool, 2), (11, "CPU 0/TCG", pool | {1}, 3), (12, "worker", pool, 0)])
    watch.look([(10, "qemu", pool, 3), (11, "CPU 0/TCG", pool, 3)])
    assert watch.looks == 2
    assert watch.threads == {10, 11, 12}
    assert watch.offenders == {11: "CPU 0/TCG", 12: "worker"}


def test_seats_are_read_off_the_threads() -> None:
    allowed = {1: frozenset({2, 3}), 5: frozenset({3}), 4: frozenset({2}), 9: frozenset({3})}
    assert seats(allowed, {0: 4, 1: 5}) == ((2, 3), (2, 3))
    assert seats({**allowed, 9: frozenset({0, 1, 3})}, {0: 4, 1: 5}) == ((2, 3), (2, 3)), "nobody's place is on 0 or 1"


@pytest.mark.parametrize(
    "vcpus",
    [
        {4: frozenset({2, 3}), 5: frozenset({3})},
        {4: frozenset({3}), 5: frozenset({3})},
        {5: frozenset({3})},
        {4: frozenset({0}), 5: frozenset({3})},
    ],
)
def test_a_vcpu_without_a_core_of_its_own_has_no_seat(vcpus: dict[int, frozenset[int]]) -> None:
    assert seats({1: frozenset({2}), **vcpus}, {0: 4, 1: 5}) is None
