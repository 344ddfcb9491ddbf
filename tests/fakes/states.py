"""States on a disk in memory, and QEMU programs that are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.core.context import Mark
from orchestrator.core.model import Architecture
from orchestrator.core.stream import without_window
from orchestrator.core.xml.domain import Accelerator
from orchestrator.errors import FailedError, RefusedError
from orchestrator.state_ports import Draft, EmulatorFacts, StateRecord
from tests.fakes.host import FakeHost

ROOT = "/states"


class FakeStates:
    """States are files of the host in memory; `changed` are marks that have been given to files since."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self._drafts: set[str] = set()
        self.changed: dict[str, Mark | None] = {}

    async def begin(self, owner: str, kind: str, name: str) -> Draft:
        if self._there(self._path(owner, kind, name)):
            raise self._taken(kind, name)
        draft = Draft(owner=owner, kind=kind, name=name, directory=f"{ROOT}/.unfinished/{next(self._host.pids)}")
        self._drafts.add(draft.directory)
        self._host.disk[f"{draft.directory}/."] = b""
        return draft

    async def copy(self, source: str, target: str) -> None:
        *_, name, file = source.split("/")
        content = self._host.files.get(name, {}).get(file, self._host.disk.get(source))
        if content is None:
            raise FailedError(f"{source}: cannot be copied: it is not there")
        self._host.disk[target] = content

    async def forget_window(self, path: str) -> None:
        changed = without_window(self._host.disk[path])
        if changed is None:
            raise FailedError(f"{path}: tells of no window")
        self._host.disk[path] = changed

    async def drop(self, path: str) -> None:
        self._host.disk.pop(path, None)

    async def publish(self, draft: Draft, manifest: str) -> str:
        path = self._path(draft.owner, draft.kind, draft.name)
        if self._there(path):
            raise self._taken(draft.kind, draft.name)
        self._host.disk[f"{draft.directory}/manifest.json"] = manifest.encode()
        self._move(draft.directory, path)
        self._drafts.discard(draft.directory)
        return path

    async def abandon(self, draft: Draft) -> None:
        self._delete(draft.directory)
        self._drafts.discard(draft.directory)

    async def records(self, kind: str, owner: str | None = None) -> Sequence[StateRecord]:
        found = []
        for path in sorted(self._host.disk):
            parts = path.removeprefix(f"{ROOT}/").split("/")
            if len(parts) == 4 and parts[1] == kind and parts[3] == "manifest.json" and owner in (None, parts[0]):
                found.append(StateRecord(path.removesuffix("/manifest.json"), self._host.disk[path].decode()))
        return found

    async def marks(self, paths: Sequence[str]) -> Mapping[str, Mark | None]:
        return {path: self.changed.get(path, Mark(path, 1, 1)) for path in paths}

    async def size(self, directory: str) -> int:
        return sum(len(content) for path, content in self._host.disk.items() if path.startswith(f"{directory}/"))

    async def remove(self, directory: str) -> None:
        if not self._there(directory):
            raise FailedError(f"{directory}: cannot be removed: it is not there")
        self._delete(directory)

    async def sweep(self) -> Sequence[str]:
        aside = {"/".join(path.split("/")[:4]) for path in self._host.disk if path.startswith(f"{ROOT}/.unfinished/")}
        strays = sorted(aside - self._drafts)
        for stray in strays:
            self._delete(stray)
        return strays

    def _there(self, directory: str) -> bool:
        return any(path.startswith(f"{directory}/") for path in self._host.disk)

    def _move(self, source: str, target: str) -> None:
        for path in [each for each in self._host.disk if each.startswith(f"{source}/")]:
            self._host.disk[f"{target}{path.removeprefix(source)}"] = self._host.disk.pop(path)

    def _delete(self, directory: str) -> None:
        for path in [each for each in self._host.disk if each.startswith(f"{directory}/")]:
            del self._host.disk[path]

    def _path(self, owner: str, kind: str, name: str) -> str:
        return f"{ROOT}/{owner}/{kind}/{name}"

    def _taken(self, kind: str, name: str) -> RefusedError:
        what = "a saved guest" if kind == "saved" else f"a {kind}"
        return RefusedError(f"{name}: there is {what} of this name already; remove it, or take another name with --as")


class FakeEmulators:
    """One program for all architectures; `facts_here` can be replaced."""

    def __init__(self) -> None:
        machines = frozenset({"pc-i440fx-7.2", "virt-7.2"})
        self.here = EmulatorFacts("/usr/bin/qemu", "7.2.22", machines, Accelerator.TCG, "a processor")

    async def facts(self, _: Architecture) -> EmulatorFacts:
        return self.here
