"""A kernel in memory, as far as a shield has to do with it, and a record that is lost with nothing but its own end.

As in Linux before 6.2: whenever a partition comes or goes, every thread that can be moved may run wherever it could at
most. Both count what is done and end like a killed process when it is enough.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from orchestrator.core.cpulist import parse_cpulist
from orchestrator.core.shield import GROUP, REST, Change, Hierarchy, Kind, Seen, Task
from orchestrator.core.shield_record import ShieldRecord, decode, encode
from orchestrator.errors import FailedError

_PARTITION = f"{GROUP}/cpuset.cpus.partition"


class KilledError(BaseException):
    """The process has been killed here: nothing below may catch it."""


@dataclass(slots=True)
class Life:
    """How many more steps the process lives; every half step can be its last, and None is for ever."""

    left: int | None = None

    def step(self) -> None:
        """End if it is time."""
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KilledError


@dataclass(slots=True)
class FakeKernel:
    """Implements `Kernel`. `refuses` are targets that cannot be set; `newborn` appear once something is made."""

    seen: Seen
    life: Life = field(default_factory=Life)
    boot: str = "b1"
    refuses: frozenset[str] = frozenset()
    newborn: list[Task] = field(default_factory=list)

    def see(self) -> Seen:
        """Return the settings."""
        self.life.step()
        return copy.deepcopy(self.seen)

    def settings(self) -> dict[str, str]:
        """Return the settings that decide."""
        return dict(self.seen.settings)

    def make(self, change: Change) -> None:
        """Bring about `after`."""
        self._do(change, change.after)
        if self.newborn:
            self._let({task.key: task for task in (*self.seen.tasks, *self.newborn)}.values())
            self.newborn.clear()

    def undo(self, change: Change) -> None:
        """Bring about `before`."""
        if change.kind is Kind.SETTING and not change.target.endswith(".partition"):
            return
        if change.kind is not Kind.GATHER and self._is_there(change):
            self._do(change, change.before)

    def _is_there(self, change: Change) -> bool:
        return change.kind in (Kind.THREAD, Kind.MASK, Kind.CPUSET) or change.target in self.seen.settings

    def _do(self, change: Change, value: str) -> None:
        self.life.step()
        if change.target in self.refuses and value == change.after:
            raise FailedError(f"{change.target}: cannot be set to {value!r}: Input/output error")
        match change.kind:
            case Kind.THREAD:
                self._pin(change.target, parse_cpulist(value))
            case Kind.MASK:
                self.seen = replace(self.seen, masks={**self.seen.masks, change.target: value})
            case Kind.CPUSET:
                self.seen = replace(self.seen, cpusets={**self.seen.cpusets, change.target: value})
            case Kind.GATHER:
                self.seen = replace(self.seen, at_root=0)
                self._everywhere(parse_cpulist(self.seen.settings[f"{REST}/cpuset.cpus"]))
            case _:
                self._group(change, value)
        self.life.step()

    def _group(self, change: Change, value: str) -> None:
        settings = dict(self.seen.settings)
        if change.kind is Kind.CONTROLLER:
            others = [word for word in settings[change.target].split() if word != "cpuset"]
            settings[change.target] = " ".join(["cpuset", *others] if value == "+cpuset" else others)
        elif change.kind is Kind.SETTING:
            assert change.target.rpartition("/")[0] in settings
            settings[change.target] = value
        elif value:
            settings |= {change.target: "made", f"{change.target}/cpuset.cpus": ""}
            if change.target == GROUP and self.seen.hierarchy is Hierarchy.UNIFIED:
                settings |= {_PARTITION: "member", f"{GROUP}/cgroup.subtree_control": ""}
        else:
            settings = {path: text for path, text in settings.items() if not f"{path}/".startswith(f"{change.target}/")}
        self.seen = replace(self.seen, settings=settings)
        if change.target == _PARTITION:
            inside = parse_cpulist(settings[f"{GROUP}/cpuset.cpus"])
            self._everywhere(self.seen.online - inside if value != "member" else self.seen.online)
        if change.target == REST and not value:
            self.seen = replace(self.seen, at_root=3)
            self._everywhere(self.seen.online)

    def _everywhere(self, cores: frozenset[int]) -> None:
        self._let(task if task.fixed else replace(task, allowed=cores) for task in self.seen.tasks)

    def _pin(self, key: str, cores: frozenset[int]) -> None:
        inside = parse_cpulist(self.seen.settings.get(f"{GROUP}/cpuset.cpus", ""))
        if self.seen.settings.get(_PARTITION, "member") != "member":
            cores -= inside
        if not cores:
            raise FailedError(f"{key}: Invalid argument")
        self._let(replace(task, allowed=cores) if task.key == key else task for task in self.seen.tasks)

    def _let(self, tasks: Iterable[Task]) -> None:
        self.seen = replace(self.seen, tasks=tuple(tasks))


@dataclass(slots=True)
class FakeBook:
    """Implements `ShieldBook`."""

    life: Life = field(default_factory=Life)
    text: str | None = None

    def load(self) -> ShieldRecord | None:
        """Return the record."""
        return None if self.text is None else decode(self.text)

    def save(self, record: ShieldRecord) -> None:
        """Keep it."""
        self.life.step()
        self.text = encode(record)
        self.life.step()

    def drop(self) -> None:
        """Forget it."""
        self.life.step()
        self.text = None
        self.life.step()
