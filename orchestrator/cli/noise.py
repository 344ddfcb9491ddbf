"""`orchestrator host noise`: what disturbs the cores of guests."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator import wiring
from orchestrator.cli.options import JsonFlag, PolicyFile, print_json, print_table

_MOST_NAMES = 3


def noise(
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=3600, help="For how long to look.")] = 10.0,
    policy: PolicyFile = None,
    json: JsonFlag = False,
) -> None:
    """Measure what disturbs core 0 and each pool core: foreign programs, kernel threads, interrupts, stolen time.

    Run times are in milliseconds, by the kernel's counters; MAY RUN counts foreign programs that are allowed there.
    """
    from orchestrator.core.noise import Side, describe

    found = wiring.noise.measure(wiring.site.load_policy(policy), seconds)
    if json:
        print_json({"seconds": seconds, "cores": [{**describe(each), "role": role.value} for each, role in found]})
        return
    rows = []
    for each, role in found:
        loud = each.ran[Side.FOREIGN] + each.ran[Side.KERNEL]
        times = [f"{each.total(side) / 1e6:.1f}" for side in (Side.OURS, Side.FOREIGN, Side.KERNEL)]
        counts = (len(each.may), each.interrupts.total(), each.softirqs.total(), f"{each.steal / 1e6:.0f}")
        rows.append((each.core, role, *times, *counts, " ".join(name for name, _ in loud.most_common(_MOST_NAMES))))
    print_table(("CORE", "ROLE", "OURS", "FOREIGN", "KERNEL", "MAY RUN", "IRQS", "SOFTIRQS", "STEAL", "WHO"), rows)
