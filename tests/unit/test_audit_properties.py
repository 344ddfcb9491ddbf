"""Random pin layouts, judged by `audit` and by a model of a few lines that shares no code with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.xml.audit import audit
from orchestrator.core.xml.verdict import Kind, Verdict

HOST = frozenset(range(8))
CORES = st.frozensets(st.sampled_from(sorted(HOST)), min_size=1)


@dataclass(frozen=True)
class Layout:
    """A domain's pins; thread ids map to cores, and None is an element that is not there."""

    auto: str  # "" or the element that asks numad
    default: frozenset[int] | None
    emulator: frozenset[int] | None
    vcpus: tuple[frozenset[int] | None, ...]
    iothreads: tuple[frozenset[int] | None, ...]


PIN = st.none() | CORES
LAYOUTS = st.builds(
    Layout,
    auto=st.sampled_from(["", "", "", "vcpu", "memory"]),
    default=PIN,
    emulator=PIN,
    vcpus=st.lists(PIN, min_size=1, max_size=6).map(tuple),
    iothreads=st.lists(PIN, max_size=4).map(tuple),
)


def cpuset(cores: frozenset[int]) -> str:
    """Write a set of cores the long way round: all of the host, less those that are not in it."""
    return ",".join(["0-7", *(f"^{core}" for core in sorted(HOST - cores))])


def xml(layout: Layout) -> bytes:
    placement = " placement='auto'" if layout.auto == "vcpu" else ""
    default = "" if layout.default is None else f" cpuset='{cpuset(layout.default)}'"
    pins = [
        f"<vcpupin vcpu='{number}' cpuset='{cpuset(cores)}'/>"
        for number, cores in enumerate(layout.vcpus)
        if cores is not None
    ]
    pins += [
        f"<iothreadpin iothread='{number}' cpuset='{cpuset(cores)}'/>"
        for number, cores in enumerate(layout.iothreads, start=1)
        if cores is not None
    ]
    if layout.emulator is not None:
        pins.append(f"<emulatorpin cpuset='{cpuset(layout.emulator)}'/>")
    memory = "<numatune><memory placement='auto'/></numatune>" if layout.auto == "memory" else ""
    return (
        f"<domain type='kvm'><name>vm</name>"
        f"<vcpu{placement}{default} current='1'>{len(layout.vcpus)}</vcpu>"
        f"<iothreads>{len(layout.iothreads)}</iothreads><cputune>{''.join(pins)}</cputune>{memory}</domain>"
    ).encode()


def expected(layout: Layout, reserved: frozenset[int]) -> dict[str, frozenset[int]]:
    """The model: a pin of its own, else numad's whim, else the cpuset, else the whole host."""
    default = HOST if layout.default is None or layout.auto == "vcpu" else layout.default
    allowed = {"emulator": layout.emulator}
    allowed |= {f"vCPU {number}": cores for number, cores in enumerate(layout.vcpus)}
    allowed |= {f"I/O thread {number}": cores for number, cores in enumerate(layout.iothreads, start=1)}
    reach = {name: (default if cores is None else cores) & reserved for name, cores in allowed.items()}
    return {name: cores for name, cores in reach.items() if cores}


def found(verdict: Verdict) -> dict[str, frozenset[int]]:
    """The exposures, one thread each, from labels such as ``vCPUs 0-2,5``."""
    threads: dict[str, frozenset[int]] = {}
    for exposure in verdict.exposures:
        kind, _, ids = exposure.thread.rpartition(" ")
        names = [exposure.thread]
        if kind.endswith("s"):
            spans = [span.partition("-")[::2] for span in ids.split(",")]
            numbers = [n for first, last in spans for n in range(int(first), int(last or first) + 1)]
            names = [f"{kind[:-1]} {number}" for number in numbers]
        for name in names:
            assert name not in threads
            threads[name] = frozenset(exposure.cores)
    return threads


@settings(deadline=None, max_examples=200)
@given(LAYOUTS, st.frozensets(st.sampled_from(sorted(HOST)), max_size=3))
def test_the_audit_agrees_with_the_model(layout: Layout, reserved: frozenset[int]) -> None:
    verdict = audit(xml(layout), reserved)
    model = expected(layout, reserved)
    assert found(verdict) == model
    assert verdict.kind is (Kind.EXPOSED if model else Kind.CONFINED)
    assert all(exposure.reason and exposure.line for exposure in verdict.exposures)


@settings(deadline=None)
@given(LAYOUTS)
def test_pinning_every_thread_to_the_pool_confines_whatever_else_is_there(layout: Layout) -> None:
    pool = frozenset({2, 3})
    vcpus = (pool,) * len(layout.vcpus)
    iothreads = (pool,) * len(layout.iothreads)
    pinned = replace(layout, emulator=pool, vcpus=vcpus, iothreads=iothreads)
    assert audit(xml(pinned)).kind is Kind.CONFINED
