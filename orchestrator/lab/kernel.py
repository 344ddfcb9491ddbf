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
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.errors import FailedError, HostError
from orchestrator.lab.image import extract_vmlinux

_META_PACKAGE: Final = "linux-image-amd64"
_DIRECTORY: Final = "linux-image"


@dataclass(frozen=True, slots=True)
class LabKernel:
    """An unpacked kernel package: `version` as in ``uname -r``, `root` holds ``boot`` and ``lib/modules``."""

    version: str
    root: Path

    @property
    def vmlinuz(self) -> Path:
        """The bzImage, as packaged."""
        return self.root / "boot" / f"vmlinuz-{self.version}"

    @property
    def vmlinux(self) -> Path:
        """The ELF image from inside it, which needs no decompression at boot."""
        return self.root / "boot" / "vmlinux"

    @property
    def modules(self) -> Path:
        """The directory of modules, with modules.dep; it belongs at ``/lib/modules/VERSION``."""
        return self.root / "lib" / "modules" / self.version


def default_cache(environment: Mapping[str, str]) -> Path:
    """Return ``$XDG_CACHE_HOME/orchestrator/lab``, by default below ``~/.cache``."""
    base = environment.get("XDG_CACHE_HOME", "")
    # The base directory specification has relative paths ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "orchestrator" / "lab"


def obtain_kernel(cache: Path) -> LabKernel:
    """Return the kernel in `cache`, fetching it first if it is not there (70 MB to load, 430 MB unpacked).

    Whoever comes second waits for the first; the directory appears whole or not at all. It stays until
    somebody removes it, so later labs need no network.

    Raises `HostError` if this machine cannot provide it, `FailedError` if the download or unpacking fails.
    """
    if platform.machine() != "x86_64":
        raise HostError(
            f"the lab needs an x86_64 host: it runs this machine's own programs, and this is {platform.machine()}"
        )
    root = cache / _DIRECTORY
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "lock"):
        if not root.is_dir():
            _fetch(_emptied(cache / "fetching")).rename(root)
            _emptied(cache / "fetching").rmdir()
    (modules,) = (root / "lib" / "modules").iterdir()
    return LabKernel(version=modules.name, root=root)


def _fetch(scratch: Path) -> Path:
    """Download, unpack and prepare the kernel below `scratch`; return the unpacked directory."""
    _require("apt-get", "apt-cache", "dpkg-deb", "depmod")
    package = _newest_package()
    _run(["apt-get", "download", package], cwd=scratch)
    (archive,) = scratch.glob("*.deb")
    root = scratch / "root"
    _run(["dpkg-deb", "--extract", str(archive), str(root)])
    kernel = LabKernel(version=package.removeprefix("linux-image-"), root=root)
    _run(["depmod", "-b", str(root), kernel.version])
    kernel.vmlinux.write_bytes(extract_vmlinux(kernel.vmlinuz.read_bytes()))
    return root


def _emptied(directory: Path) -> Path:
    """Return `directory`, new and empty: one that was interrupted may have left its own."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    return directory


def _newest_package() -> str:
    """Return the versioned package that the generic kernel's meta package depends on."""
    package = _dependency()
    if package is None and os.geteuid() == 0:
        _run(["apt-get", "update"])
        package = _dependency()
    if package is None:
        raise HostError(f"apt does not know {_META_PACKAGE}, the lab's kernel; on Debian run: sudo apt-get update")
    return package


def _dependency() -> str | None:
    told = subprocess.run(
        ["apt-cache", "depends", _META_PACKAGE],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(),
    )
    found = re.search(r"^\s*\|?Depends: (linux-image-\d\S*)$", told.stdout, re.MULTILINE)
    return None if found is None else found[1]


def _require(*programs: str) -> None:
    packages = {"apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg", "depmod": "kmod"}
    for program in programs:
        if shutil.which(program, path=_environment()["PATH"]) is None:
            raise HostError(
                f"the lab's kernel cannot be fetched: {program} is missing; "
                f"on Debian run: sudo apt-get install {packages[program]}"
            )


def _environment() -> dict[str, str]:
    # depmod lives in sbin, which is not on everybody's path; messages are parsed, so no translations.
    path = os.environ.get("PATH", os.defpath)
    return {**os.environ, "PATH": f"{path}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise FailedError(f"the lab's kernel could not be prepared: {' '.join(command)}: {last}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; it dies with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
