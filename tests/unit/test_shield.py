"""The shield, on hosts in memory: what is changed, in which order, and that all of it can be undone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.boot_arguments import absent, arguments
from orchestrator.core.discovery import discover
from orchestrator.core.shield import GROUP, Change, Division, Hierarchy, Kind, Seen, decide, divide, merge, ordered
from orchestrator.core.shield_record import ShieldRecord, decode, encode
from orchestrator.errors import FailedError, HostError, UsageError
from orchestrator.shield_keeper import ShieldKeeper
from orchestrator.shield_ports import Kernel, ShieldBook
from orchestrator.shielding import missing, recorded, shield, unshield
from tests.fakes.kernel import FakeBook, FakeKernel
from tests.unit import shield_flaws
from tests.unit.shield_world import CORES, LEGACY, UNIFIED, WORLDS, Shield, Unshield, check_every_end, task, whole


def raise_it(kernel: Kernel, book: ShieldBook) -> ShieldRecord:
    return shield(kernel, book, CORES, isolated=False)


def host(siblings: dict[int, str], reserved: tuple[int, ...] = ()) -> Division:
    files = {"cpu/online": f"0-{len(siblings) - 1}", "cpu/present": f"0-{len(siblings) - 1}"}
    files |= {f"cpu/cpu{n}/topology/thread_siblings_list": text for n, text in siblings.items()}
    return divide(discover(files, reserved))


def test_cores_are_parted_by_role() -> None:
    assert host({n: str(n) for n in range(6)}) == CORES
    smt = {n: f"{n % 4},{n % 4 + 4}" for n in range(8)}
    assert host(smt) == Division(frozenset({0, 4, 2, 6, 3, 7}), frozenset({1, 5}))
    neighbours = {n: f"{n // 2 * 2}-{n // 2 * 2 + 1}" for n in range(4)}
    assert host(neighbours) == Division(frozenset({0, 2, 3}), frozenset({1}))
    assert host({n: str(n) for n in range(6)}, (5,)) == Division(frozenset({0, 2, 3, 4}), frozenset({1, 5}))


@pytest.mark.parametrize("cores", [1, 2])
def test_a_host_without_a_pool_cannot_be_shielded(cores: int) -> None:
    with pytest.raises(HostError, match="needs cores 0 and 1, and more for a pool"):
        host({n: str(n) for n in range(cores)})


def test_what_is_changed_on_v2_in_order() -> None:
    changes = decide(UNIFIED, CORES, isolated=False)
    assert [(each.kind.value, each.target, each.before, each.after) for each in changes] == [
        ("thread", "201:301", "3", "1"),
        ("thread", "202:302", "1,4", "1"),
        ("thread", "203:303", "1", "1"),
        ("thread", "2:102", "0-5", "1"),
        ("thread", "40:140", "0-2", "1"),
        ("mask", "sys/devices/virtual/workqueue/cpumask", "3f", "00000002"),
        ("mask", "proc/irq/24/smp_affinity", "00000018", "00000002"),
        ("mask", "proc/irq/26/smp_affinity", "3f", "00000002"),
        ("mask", "proc/sys/kernel/watchdog_cpumask", "0-5", "1"),
        ("cpuset", "batch", "2-5", "1"),
        ("cpuset", "half", "1-2", "1"),
        ("group", GROUP, "", "made"),
        ("setting", f"{GROUP}/cpuset.cpus", "", "0,2-5"),
        ("setting", f"{GROUP}/cpuset.cpus.partition", "member", "root"),
        ("controller", f"{GROUP}/cgroup.subtree_control", "-cpuset", "+cpuset"),
        ("group", f"{GROUP}/tasks", "", "made"),
    ]


def test_inner_cpusets_shrink_first_and_widen_last() -> None:
    sets = [each.target for each in decide(LEGACY, CORES, isolated=False) if each.kind is Kind.CPUSET]
    assert sets == ["docker/one", "docker"]


def test_where_cores_are_isolated_at_boot_the_partition_is_so_too() -> None:
    (kind,) = [each.after for each in decide(UNIFIED, CORES, isolated=True) if each.target.endswith(".partition")]
    assert kind == "isolated"


def test_somebody_elses_partition_is_not_touched() -> None:
    seen = replace(UNIFIED, partitions=frozenset({"batch"}))
    with pytest.raises(HostError, match="the cgroup batch is a cpuset partition of its own, with cores 2-5"):
        decide(seen, CORES, isolated=False)
    elsewhere = replace(UNIFIED, cpusets={"batch": "1"}, partitions=frozenset({"batch"}))
    assert decide(elsewhere, CORES, isolated=False)


@pytest.mark.parametrize("seen", WORLDS.values(), ids=WORLDS)
def test_raised_it_is_whole_and_taken_down_all_is_as_before(seen: Seen) -> None:
    kernel, book = FakeKernel(seen), FakeBook()
    raise_it(kernel, book)
    assert whole(kernel)
    again = encode(raise_it(kernel, book))
    assert book.text == again
    free = [each.name for each in kernel.seen.tasks if not each.fixed and not each.allowed <= CORES.rest]
    assert not free
    unshield(kernel, book)
    assert kernel.seen == seen
    assert unshield(kernel, book) is None


@pytest.mark.parametrize("seen", WORLDS.values(), ids=WORLDS)
def test_killed_at_any_point_either_command_recovers(seen: Seen) -> None:
    assert check_every_end(seen, raise_it, unshield) > 60


@pytest.mark.parametrize("flaw", [shield_flaws.acts_before_it_records, shield_flaws.forgets_what_was_first])
def test_wrong_ways_to_raise_it_are_found_out(flaw: Shield) -> None:
    with pytest.raises(AssertionError, match="not as before"):
        check_every_end(UNIFIED, flaw, unshield)


@pytest.mark.parametrize(
    "flaw",
    [
        shield_flaws.forgets_before_it_is_undone,
        shield_flaws.frees_threads_before_the_partition_goes,
        shield_flaws.leaves_masks_alone,
    ],
)
def test_wrong_ways_to_take_it_down_are_found_out(flaw: Unshield) -> None:
    with pytest.raises(AssertionError, match="not as before"):
        check_every_end(UNIFIED, raise_it, flaw)


def test_what_appears_meanwhile_is_moved_too() -> None:
    kernel, book = FakeKernel(UNIFIED, newborn=[task(300, "new", kernel=True)]), FakeBook()
    raise_it(kernel, book)
    (new,) = [each for each in kernel.seen.tasks if each.tid == 300]
    assert new.allowed == CORES.rest
    unshield(kernel, book)
    assert [each.allowed for each in kernel.seen.tasks if each.tid == 300] == [UNIFIED.online]


def test_what_the_kernel_does_not_move_is_said_and_nothing_else_fails() -> None:
    stuck = frozenset({"proc/irq/24/smp_affinity"})
    kernel, book = FakeKernel(UNIFIED, refuses=stuck), FakeBook()
    record = raise_it(kernel, book)
    assert list(record.refused) == ["proc/irq/24/smp_affinity"]
    assert whole(kernel, stuck)
    assert list(missing(kernel, record, isolated=False)) == []
    unshield(kernel, book)
    assert kernel.seen == UNIFIED


def test_without_its_partition_there_is_no_shield_and_all_is_undone() -> None:
    kernel, book = FakeKernel(UNIFIED, refuses=frozenset({f"{GROUP}/cpuset.cpus.partition"})), FakeBook()
    with pytest.raises(FailedError, match=r"the host is not shielded, all is as before: .*partition"):
        raise_it(kernel, book)
    assert kernel.seen == UNIFIED
    assert book.text is None


def test_a_record_of_another_boot_is_of_no_use() -> None:
    kernel, book = FakeKernel(UNIFIED), FakeBook()
    raise_it(kernel, book)
    after = FakeKernel(UNIFIED, boot="b2")
    assert recorded(after, book) is None
    assert unshield(after, book) is None
    assert book.text is None


def test_what_came_later_is_missing() -> None:
    kernel, book = FakeKernel(UNIFIED), FakeBook()
    record = raise_it(kernel, book)
    kernel.seen = replace(kernel.seen, masks={**kernel.seen.masks, "proc/irq/25/smp_affinity": "4"})
    assert [each.target for each in missing(kernel, record, isolated=False)] == ["proc/irq/25/smp_affinity"]


def test_a_program_that_got_out_of_its_cpuset_is_missing_and_is_moved() -> None:
    kernel, book = FakeKernel(UNIFIED), FakeBook()
    record = raise_it(kernel, book)
    kernel.seen = replace(kernel.seen, tasks=(*kernel.seen.tasks, task(301, "at large")))
    assert [each.target for each in missing(kernel, record, isolated=False)] == ["301:401"]
    raise_it(kernel, book)
    assert {each.allowed for each in kernel.seen.tasks if each.tid == 301} == {CORES.rest}
    unshield(kernel, book)
    assert {each.allowed for each in kernel.seen.tasks if each.tid == 301} == {UNIFIED.online}


def test_the_first_value_before_is_the_one_that_is_kept() -> None:
    first, second = Change(Kind.MASK, "m", "f", "2"), Change(Kind.MASK, "m", "4", "1")
    assert merge([first], [second]) == (Change(Kind.MASK, "m", "f", "1"),)


def test_the_order_does_not_depend_on_how_changes_came() -> None:
    for seen in (UNIFIED, LEGACY):
        changes = decide(seen, CORES, isolated=False)
        assert ordered(reversed(changes)) == changes


def test_a_record_survives_its_text() -> None:
    record = raise_it(FakeKernel(LEGACY), FakeBook())
    assert decode(encode(record)) == record


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "boot": "b"}'])
def test_what_is_no_record_is_told_from_one(text: str) -> None:
    with pytest.raises(UsageError):
        decode(text)


def test_arguments_for_the_kernel() -> None:
    wanted = arguments(frozenset({2, 3, 4, 5}), CORES)
    line = "isolcpus=managed_irq,domain,2-5 nohz_full=2-5 rcu_nocbs=2-5 irqaffinity=1"
    assert " ".join(map(str, wanted)) == line
    assert absent(f'BOOT_IMAGE=/x "a b" {line} quiet', wanted) == ()
    names = [each.name for each in absent("isolcpus=2-5 nohz_full=2-4 irqaffinity=0-1 rcu_nocbs=2-7", wanted)]
    assert names == ["isolcpus", "nohz_full", "irqaffinity"]
    assert [each.name for each in absent("isolcpus=domain,managed_irq,2-9 nohz_full=x", wanted)] == [
        "nohz_full",
        "rcu_nocbs",
        "irqaffinity",
    ]


def test_a_cgroup_v1_host_gathers_its_programs() -> None:
    kernel, book = FakeKernel(LEGACY), FakeBook()
    raise_it(kernel, book)
    assert kernel.seen.at_root == 0
    assert kernel.seen.hierarchy is Hierarchy.LEGACY


@pytest.mark.parametrize("world", [UNIFIED, LEGACY], ids=["v2", "v1"])
def test_what_an_outsider_writes_to_the_shields_cpusets_is_taken_back_and_told(world: Seen) -> None:
    kernel, book = FakeKernel(world), FakeBook()
    record = shield(kernel, book, CORES, isolated=False)
    told: list[tuple[str, Mapping[str, Any]]] = []
    keeper = ShieldKeeper(kernel, record, lambda line, body: told.append((line, body)))
    assert not keeper.look()
    wanted, target = kernel.settings(), f"{GROUP}/cpuset.cpus"
    kernel.seen = replace(kernel.seen, settings={**wanted, target: "0,2"})
    assert keeper.look()
    assert kernel.settings() == wanted
    assert not keeper.look()
    ((line, body),) = told
    assert line == f"the shield: {target} was '0,2', not '0,2-5'; put back"
    assert body == {"found": [{"target": target, "is": "0,2", "wanted": "0,2-5"}], "put_back": True}


def test_a_partition_that_has_become_none_is_made_one_again() -> None:
    kernel, book = FakeKernel(UNIFIED), FakeBook()
    record = shield(kernel, book, CORES, isolated=False)
    partition = f"{GROUP}/cpuset.cpus.partition"
    for text in ("root invalid (Cpu list in cpuset.cpus not exclusive)", "member"):
        kernel.seen = replace(kernel.seen, settings={**kernel.settings(), partition: text})
        assert ShieldKeeper(kernel, record, lambda *_: None).look()
        assert kernel.settings()[partition] == "root"


def test_what_cannot_be_put_back_is_told_once() -> None:
    kernel, book, told = FakeKernel(UNIFIED), FakeBook(), list[Mapping[str, Any]]()
    record = shield(kernel, book, CORES, isolated=False)
    target = f"{GROUP}/cpuset.cpus"
    kernel.seen = replace(kernel.seen, settings={**kernel.settings(), target: "0,2"})
    kernel.refuses = frozenset({target})
    keeper = ShieldKeeper(kernel, record, lambda _, body: told.append(body))
    assert not keeper.look()
    assert not keeper.look()
    assert [each["put_back"] for each in told] == [False]
