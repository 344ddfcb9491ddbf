"""What the kernel must be told when it boots: the part of isolation that nobody can ask for later.

The arguments are those of the kernel's admin guide ("The kernel's command-line parameters").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core.cpulist import format_cpulist, parse_cpulist
from orchestrator.core.shield import Division
from orchestrator.errors import UsageError

_FLAGS = {"nohz", "domain", "managed_irq"}


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: a name, the flags before its CPU list, the CPUs, and what it is for."""

    name: str
    flags: frozenset[str]
    cores: frozenset[int]
    purpose: str

    def __str__(self) -> str:
        return f"{self.name}={','.join((*sorted(self.flags, reverse=True), format_cpulist(self.cores)))}"

    def holds(self, words: Iterable[str]) -> bool:
        """Whether a command line's words say so already, or more. The last of several counts."""
        said = [word.partition("=")[2] for word in words if word.partition("=")[0] == self.name]
        if not said:
            return False
        items = said[-1].split(",")
        flags = {item for item in items if item in _FLAGS} or {"domain"}
        try:
            cores = parse_cpulist(",".join(item for item in items if item not in _FLAGS))
        except UsageError:
            return False
        if self.name == "irqaffinity":
            return bool(cores) and cores <= self.cores
        return self.flags <= flags and self.cores <= cores


def arguments(pool: frozenset[int], division: Division) -> tuple[Argument, ...]:
    """Return what the kernel is to be booted with for this pool. O(cores)."""
    none: frozenset[str] = frozenset()
    return (
        Argument(
            "isolcpus",
            frozenset({"managed_irq", "domain"}),
            pool,
            "no load balancing onto the pool, and no interrupts of devices that manage theirs themselves",
        ),
        Argument("nohz_full", none, pool, "no timer tick where one thread runs alone"),
        Argument("rcu_nocbs", none, pool, "RCU's callbacks run elsewhere"),
        Argument("irqaffinity", none, division.rest, "interrupts go to the service core from the beginning"),
    )


def absent(cmdline: str, wanted: Iterable[Argument]) -> tuple[Argument, ...]:
    """Return those that the kernel was not booted with; `cmdline` is the text of /proc/cmdline. O(its length)."""
    words = cmdline.split()  # none of these has blanks in it
    return tuple(argument for argument in wanted if not argument.holds(words))
