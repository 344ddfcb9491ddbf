"""The lab's shape: what the flags mean, and what QEMU and the kernel are told."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.lab.shape import LabShape, parse_memory, parse_shape

GIB = 1 << 30


def numa_cpus(shape: LabShape) -> list[list[int]]:
    """Return the CPUs of each node, as QEMU would read them."""
    nodes = []
    for argument in shape.qemu_arguments():
        if argument.startswith("node,"):
            first, last = dict(part.split("=") for part in argument.split(",")[1:])["cpus"].split("-")
            nodes.append(list(range(int(first), int(last) + 1)))
    return nodes


def test_six_cores_without_any_flag() -> None:
    assert parse_shape() == LabShape(sockets=1, cores=6, threads=1, nodes=1, memory=4 * GIB, isolate=False)


def test_cpus_are_cores_of_one_socket() -> None:
    shape = parse_shape(cpus=4)
    assert (shape.sockets, shape.cores, shape.threads, shape.cpus) == (1, 4, 1, 4)


def test_topology_with_levels_left_out() -> None:
    shape = parse_shape(topology="threads=2,cores=3")
    assert (shape.sockets, shape.cores, shape.threads, shape.cpus) == (1, 3, 2, 6)


def test_cpus_beside_a_topology_must_agree() -> None:
    assert parse_shape(cpus=8, topology="sockets=2,cores=2,threads=2").cpus == 8
    with pytest.raises(UsageError, match="has 8 CPUs, --cpus says 6"):
        parse_shape(cpus=6, topology="sockets=2,cores=2,threads=2")


@pytest.mark.parametrize(
    ("topology", "says"),
    [
        ("dies=2", "'dies' is not one of sockets, cores, threads"),
        ("cores", "cores needs a whole number"),
        ("cores=two", "cores needs a whole number"),
        ("cores=-1", "cores needs a whole number"),
        ("cores=2,cores=3", "cores is given twice"),
        ("", "'' is not one of"),
        ("cores=0", "cores=0 is not possible"),
        ("sockets=9999,cores=9999", "too many"),
        ("sockets=4,cores=33,threads=2", "too many"),
        ("sockets=2,cores=3", "does not come up"),
    ],
)
def test_topologies_that_cannot_be(topology: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_shape(topology=topology)
    assert len(caught.value.lines()) == 1


def test_a_lab_may_be_too_small_for_a_pool_but_then_has_nothing_to_isolate() -> None:
    assert parse_shape(cpus=1).cpus == 1
    with pytest.raises(UsageError, match="2 CPUs have none"):
        parse_shape(cpus=2, isolate=True)


def test_no_cpus_at_all() -> None:
    with pytest.raises(UsageError, match="cores=0"):
        parse_shape(cpus=0)


def test_the_apic_ids_end_at_254() -> None:
    assert LabShape(cores=255).cpus == 255
    with pytest.raises(UsageError, match="APIC ID 255"):
        LabShape(cores=256)
    # Three cores take two bits of the ID, so few sockets already reach its end.
    assert LabShape(sockets=63, cores=3).cpus == 189
    with pytest.raises(UsageError, match="APIC ID 258"):
        LabShape(sockets=65, cores=3)


@pytest.mark.parametrize(
    ("topology", "nodes"),
    [("cores=6", 4), ("sockets=2,cores=5", 4), ("sockets=3,cores=2", 2), ("cores=2,threads=2", 4), ("cores=2", 0)],
)
def test_nodes_that_would_tear_cores_apart(topology: str, nodes: int) -> None:
    with pytest.raises(UsageError, match=f"--numa {nodes} does not divide|nodes={nodes} is not possible"):
        parse_shape(topology=topology, nodes=nodes)


def test_nodes_share_sockets_and_memory_evenly() -> None:
    arguments = parse_shape(topology="sockets=2,cores=2,threads=2", nodes=2, memory="1537M").qemu_arguments()
    assert arguments == (
        *("-smp", "8,sockets=2,cores=2,threads=2", "-m", "1536M"),
        *("-object", "memory-backend-ram,id=node0,size=768M", "-numa", "node,nodeid=0,cpus=0-3,memdev=node0"),
        *("-object", "memory-backend-ram,id=node1,size=768M", "-numa", "node,nodeid=1,cpus=4-7,memdev=node1"),
    )


@given(st.integers(1, 4), st.integers(1, 8), st.integers(1, 2), st.integers(1, 16), st.integers(4 * GIB, 64 * GIB))
def test_every_shape_that_can_be_built_has_whole_cores_in_each_node(
    sockets: int, cores: int, threads: int, nodes: int, memory: int
) -> None:
    assume((sockets, cores, threads) != (2, 3, 1))
    try:
        shape = LabShape(sockets, cores, threads, nodes, memory)
    except UsageError:
        assert sockets % nodes
        assert nodes % sockets or cores % (nodes // sockets)
        return
    split = numa_cpus(shape)
    assert [cpu for node in split for cpu in node] == list(range(shape.cpus))
    assert len({len(node) for node in split}) == 1
    core_of = [{cpu // threads for cpu in node} for node in split]
    assert sum(map(len, core_of)) == sockets * cores
    for node in split:
        in_sockets = {cpu // (cores * threads) for cpu in node}
        assert len(in_sockets) == 1 or len(node) == len(in_sockets) * cores * threads


def test_isolation_leaves_cores_0_and_1_to_the_kernel() -> None:
    assert parse_shape(isolate=True).kernel_arguments() == ("isolcpus=2-5", "nohz_full=2-5", "rcu_nocbs=2-5")
    assert parse_shape().kernel_arguments() == ()


@pytest.mark.parametrize(("text", "size"), [("512M", 512 << 20), ("4G", 4 << 30), ("4 GiB", 4 << 30), ("1T", 1 << 40)])
def test_memory(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "4", "4g", "G", "-4G", "4.5G", "4GB", "4G\n", "9" * 5000 + "G"])
def test_memory_without_a_sound_number_and_unit(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_memory(text)


@pytest.mark.parametrize(("memory", "nodes", "least"), [("511M", 1, 512), ("1G", 16, 2048)])
def test_too_little_memory(memory: str, nodes: int, least: int) -> None:
    with pytest.raises(UsageError, match=f"{least}M is the least"):
        parse_shape(cpus=16, memory=memory, nodes=nodes)
