"""Memory on huge pages and on chosen nodes: bound where it is wanted, and no thread leaves its cores to allocate it."""

from __future__ import annotations

from itertools import product

import pytest
from lxml import etree

from orchestrator.core.model import GIB, MIB, NumaWish, Size
from orchestrator.core.xml.audit import audit
from orchestrator.core.xml.render import render
from orchestrator.core.xml.verdict import Kind
from tests.golden.cases import domain

WITHOUT_THREAD_CONTEXT = '<qemu:del capability="thread-context"/>'


@pytest.mark.parametrize(
    ("hugepages", "nodes", "numa"), [*product((None, Size(2 * MIB), Size(GIB)), ((), (0,), (0, 1)), NumaWish)]
)
def test_no_memory_wish_opens_a_reserved_core(hugepages: Size | None, nodes: tuple[int, ...], numa: NumaWish) -> None:
    xml = render(domain(memory=Size(2 * GIB), hugepages=hugepages, nodes=nodes, numa=numa))
    verdict = audit(xml.encode())
    assert (verdict.kind, verdict.cautions) == (Kind.CONFINED, ())
    assert (WITHOUT_THREAD_CONTEXT in xml) == bool(hugepages and nodes)


def test_it_is_the_missing_capability_that_keeps_the_threads_in() -> None:
    xml = render(domain(hugepages=Size(2 * MIB), nodes=(0,)))
    for other in (
        "",
        WITHOUT_THREAD_CONTEXT.replace("thread-context", "blockdev"),
        WITHOUT_THREAD_CONTEXT.replace("del", "add"),
    ):
        assert "preallocated" in audit(xml.replace(WITHOUT_THREAD_CONTEXT, other).encode()).cautions[0]


@pytest.mark.parametrize(
    ("numa", "nodes", "mode"),
    [
        (NumaWish.STRICT, (1,), "strict"),
        (NumaWish.PREFER, (1,), "preferred"),
        (NumaWish.PREFER, (0, 1), "interleave"),
    ],
)
def test_memory_is_on_the_nodes_of_the_cores(numa: NumaWish, nodes: tuple[int, ...], mode: str) -> None:
    memory = etree.fromstring(render(domain(numa=numa, nodes=nodes))).find("numatune/memory")
    assert dict(memory.attrib) == {"mode": mode, "nodeset": ",".join(map(str, nodes))}
