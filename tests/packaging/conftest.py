"""The wheel, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

in_suites = pytest.mark.skipif(
    os.environ.get("ORCHESTRATOR_SUITES") != "all",
    reason="takes minutes; ORCHESTRATOR_SUITES=all has it, as `make suites` sets it",
)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as `make wheel` does, from this environment's setuptools: no network is needed."""
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(["make", "wheel", f"DIST={out}"], cwd=ROOT, check=True, capture_output=True)
    (found,) = out.glob("orchestrator-*.whl")
    return found


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clean environment with the wheel in it, whose dependencies are those that the tests have."""
    directory = tmp_path_factory.mktemp("clean")
    venv.create(directory, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(directory / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True, cwd=directory)
    (packages,) = directory.glob("lib/python3*/site-packages")
    (packages / "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    return directory
