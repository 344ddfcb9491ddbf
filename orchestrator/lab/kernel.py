"""The lab's kernel: Debian's generic one, downloaded once and only unpacked, never installed."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from orchestrator.errors import FailedError, HostError
from orchestrator.lab.image import extract_vmlinux

_META_PACKAGE: Final = "linux-image-amd64"
_PROGRAMS: Final = {"apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg", "depmod": "kmod"}
"""What fetching runs, and the Debian package of each."""


@dataclass(frozen=True, slots=True)
class LabKernel:
    """An unpacked kernel package: `version` as in ``uname -r``; `root` holds ``boot`` and ``lib/modules``."""

    version: str
    root: Path

    @property
    def vmlinuz(self) -> Path:
        """The bzImage, as packaged."""
        return self.root / "boot" / f"vmlinuz-{self.version}"

    @property
    def vmlinux(self) -> Path:
        """The ELF image from inside it, which has nothing left to decompress at boot."""
        return self.root / "boot" / f"vmlinux-{self.version}"

    @property
    def modules(self) -> Path:
        """The directory of modules, with modules.dep; it belongs at ``/lib/modules/VERSION``."""
        return self.root / "lib" / "modules" / self.version


def default_cache(environment: Mapping[str, str]) -> Path:
    """Return ``$XDG_CACHE_HOME/orchestrator/lab``, by default below ``~/.cache``."""
    base = environment.get("XDG_CACHE_HOME", "")
    # A relative path is to be ignored there: XDG Base Directory Specification, "Environment variables".
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "orchestrator" / "lab"


def find_kernel(cache: Path) -> LabKernel | None:
    """Return the kernel that `cache` holds, or None; nothing is fetched."""
    root = cache / "linux-image"
    modules = root / "lib" / "modules"
    return LabKernel(next(modules.iterdir()).name, root) if modules.is_dir() else None


def obtain_kernel(cache: Path) -> LabKernel:
    """Return the kernel in `cache`, fetching it first if it is not there (70 MB to load, 470 MB unpacked).

    Whoever comes second waits for the first; the directory appears whole or not at all. It stays until
    somebody removes it, so later labs need no network.

    Raises `HostError` if this machine cannot provide it, `FailedError` if unpacking fails.
    """
    if platform.machine() != "x86_64":
        raise HostError(
            f"the lab runs this machine's own programs in an x86_64 guest, and this is {platform.machine()}; "
            "use an x86_64 host"
        )
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / "lock"):
            return find_kernel(cache) or _fetch(cache)
    except OSError as error:
        raise HostError(f"the lab's kernel cannot be kept in {cache}: {error.strerror}") from error


def _fetch(cache: Path) -> LabKernel:
    """Download, unpack and prepare the kernel aside, and move it to its place when it is complete."""
    for program, package in _PROGRAMS.items():
        if shutil.which(program, path=_environment()["PATH"]) is None:
            raise HostError(
                f"the lab's kernel cannot be fetched: {program} is missing; "
                f"on Debian run: sudo apt-get install {package}"
            )
    # A fetch that was killed may have left its own; under the lock it can only be a dead one's.
    scratch = cache / "fetching"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        kernel = _unpack(_download(scratch), scratch / "linux-image")
        root = kernel.root.rename(cache / "linux-image")
    finally:
        shutil.rmtree(scratch)
    return replace(kernel, root=root)


def _unpack(archive: Path, root: Path) -> LabKernel:
    _run(["dpkg-deb", "--extract", str(archive), str(root)])
    kernel = LabKernel(next((root / "lib" / "modules").iterdir()).name, root)
    # An installed package would have run this itself.
    _run(["depmod", "-b", str(root), kernel.version])
    kernel.vmlinux.write_bytes(extract_vmlinux(kernel.vmlinuz.read_bytes()))
    return kernel


def _download(directory: Path) -> Path:
    """Return the package file, from apt's lists as they are or, where they are stale, refreshed."""
    try:
        return _download_known(directory)
    except FailedError as error:
        if os.geteuid() != 0:
            raise HostError(f"{error}; on Debian run: sudo apt-get update") from error
    _run(["apt-get", "update"])
    return _download_known(directory)


def _download_known(directory: Path) -> Path:
    depends = _run(["apt-cache", "depends", _META_PACKAGE])
    found = re.search(r"^\s*\|?Depends: (linux-image-\d\S*)$", depends, re.MULTILINE)
    if found is None:
        raise FailedError(f"the lab's kernel could not be fetched: apt knows no {_META_PACKAGE}")
    _run(["apt-get", "download", found[1]], cwd=directory)
    return next(directory.glob("*.deb"))


def _run(command: Sequence[str], cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise FailedError(f"the lab's kernel could not be fetched: {' '.join(command)}: {said}")
    return done.stdout


def _environment() -> dict[str, str]:
    # depmod lives in sbin, which is not on everybody's path; apt's answers are parsed, so untranslated.
    path = os.environ.get("PATH", os.defpath)
    return {**os.environ, "PATH": f"{path}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; it dies with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
