"""The import rule: who may import whom. The rule's own test builds a wrong tree for each arrow that it forbids."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import orchestrator

PACKAGE = "orchestrator"

LAYERS = {
    "cli": "cli",
    "packaging": "packaging",
    "wiring": "wiring",
    "bench": "bench",
    "lab": "lab",
    "page": "page",
    "simulator": "simulator",
    "guard": "guard",
    "chores": "chores",
    "payloads": "payloads",
    "payload_ports": "ports",
    "backends": "backends",
    "backend_ports": "ports",
    "process_identity": "ports",
    "endings": "ports",
    "beside": "engine",
    "rights": "ports",
    "service": "service",
    "host": "host",
    "engine": "engine",
    "contexts": "engine",
    "wanted": "engine",
    "shelf": "engine",
    "driver": "engine",
    "deeds": "engine",
    "running": "engine",
    "drift": "engine",
    "upkeep": "engine",
    "foreground": "engine",
    "adoption": "engine",
    "admission": "engine",
    "launch": "engine",
    "planner": "engine",
    "inside": "engine",
    "image_proof": "engine",
    "quotas": "engine",
    "reconcile": "engine",
    "recorder": "engine",
    "reseating": "engine",
    "together": "engine",
    "serial": "engine",
    "config": "config",
    "device_checks": "config",
    "policy_file": "config",
    "policy_schema": "config",
    "toml_tables": "config",
    "toml_trees": "config",
    "toml_lines": "config",
    "ports": "ports",
    "wall_clock": "ports",
    "rooms": "ports",
    "group_ports": "ports",
    "process_ports": "ports",
    "shield_ports": "ports",
    "shielding": "engine",
    "shield_keeper": "engine",
    "answer": "ports",
    "shortcut": "ports",
    "file_ports": "ports",
    "state_ports": "ports",
    "monitor_ports": "ports",
    "core": "core",
    "errors": "errors",
}
"""The layer of each module and package directly below `orchestrator`."""

_BELOW = {"ports", "core", "errors"}
MAY_IMPORT = {
    "packaging": {"packaging", "cli", *_BELOW},  # describes the command tree to others
    "cli": {"cli", "wiring", "config", *_BELOW},
    "wiring": {*LAYERS.values()} - {"cli", "packaging"},
    **{
        layer: {layer, *_BELOW}
        for layer in ("bench", "lab", "guard", "chores", "page", "payloads", "backends", "engine", "config")
    },
    "simulator": {"simulator", "config", *_BELOW},
    "service": {"service", "engine", "config", *_BELOW},
    "host": _BELOW,  # and a module of it itself: no adapter knows another
    "ports": _BELOW,
    "core": {"core", "errors"},
    "errors": {"errors"},
}

PURE = {
    *("__future__", "abc", "bisect", "collections", "contextlib", "dataclasses", "enum", "fractions", "functools"),
    *("datetime", "hashlib", "heapq", "itertools", "json", "math", "operator", "re", "string", "types", "typing"),
}
"""What core may import of the standard library: nothing that knows of files, time, chance or other threads.

`datetime` is there to count with; that core never asks it what time it is has a test of its own.
"""

ALSO_PURE = {"lxml": "core.xml.", "cronsim": "core.times"}
"""Libraries that do nothing but compute, with the part of core that may use each. cronsim imports but `calendar` and
`datetime`, and takes the time from which it counts as an argument."""


def modules(root: Path) -> dict[str, Path]:
    """Return every module below `root`, the directory of the package, by its dotted name."""
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join((PACKAGE, *(part for part in parts if part != "__init__")))] = path
    return names


def imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything a module imports, in functions and for type checkers too."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = origin(node, package)
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield node.lineno, submodule if submodule in known else base


def origin(node: ast.ImportFrom, package: str) -> str:
    """Return the dotted name behind ``from``; a dot there stands for the package, each further one for its parent."""
    if not node.level:
        return str(node.module)
    parts = package.split(".")
    return ".".join((*parts[: len(parts) + 1 - node.level], *filter(None, [node.module])))


def why_wrong(importer: str, target: str) -> str | None:
    """Say why this arrow is not allowed; None if it is."""
    layer = layer_of(importer)
    if not f"{target}.".startswith(f"{PACKAGE}."):
        return None if layer != "core" or is_pure(importer, target) else "core is pure"
    aim = layer_of(target)
    if target == PACKAGE or (layer == "host" and target == importer):
        return None
    return None if aim in MAY_IMPORT[layer] else f"{layer} may not import {aim}"


def layer_of(name: str) -> str:
    part = f"{name}.".split(".")[1]
    return LAYERS.get(part, f"no layer ({part})") if part else "errors"  # the package itself holds nothing


def is_pure(importer: str, target: str) -> bool:
    top = target.partition(".")[0]
    return top in PURE or (top in ALSO_PURE and f"{importer}.".startswith(f"{PACKAGE}.{ALSO_PURE[top]}"))


def wrong_arrows(root: Path) -> list[str]:
    """Return a line for each import that breaks the rule, and for each module that is in no layer."""
    known = modules(root)
    wrong = []
    for name, path in known.items():
        if layer_of(name) not in MAY_IMPORT:
            wrong.append(f"{name}: {layer_of(name)}; say in LAYERS where it belongs")
            continue
        for line, target in imported(name, path, known):
            why = why_wrong(name, target)
            if why is not None:
                wrong.append(f"{name}:{line}: imports {target}: {why}")
    return wrong


def test_every_import_of_the_package_is_allowed() -> None:
    root = Path(orchestrator.__file__).parent
    assert len(modules(root)) > 50
    assert wrong_arrows(root) == []


def tree(root: Path, files: dict[str, str]) -> Path:
    """Write a package: dotted module names without the package's own, to their text."""
    for name in ("", *files):
        parts = name.split(".") if name else []
        for depth in range(len(parts) + 1):
            package = root.joinpath(*parts[:depth]) if depth < len(parts) or not parts else root
            package.mkdir(parents=True, exist_ok=True)
            (package / "__init__.py").touch()
        if name:
            root.joinpath(*parts).with_suffix(".py").write_text(files[name])
    return root


ALLOWED = {
    "cli.main": "import typer\nfrom orchestrator import wiring, errors\nfrom orchestrator.wiring import guests",
    "wiring.guests": "import orchestrator.host.a\nfrom orchestrator import engine, lab, config",
    "wiring.site": "from . import guests\nfrom ..core import model",
    "lab.launch": "import os\nfrom .shape import x\nfrom orchestrator.errors import y",
    "lab.shape": "",
    "simulator.world": "from .scenario import x\nfrom orchestrator.core import model",
    "simulator.scenario": "from orchestrator import config\nfrom orchestrator.toml_tables import x",
    "chores.process": "import os\nfrom .messages import x\nfrom orchestrator.ports import y",
    "service.desk": "import asyncio\nfrom .callers import x\nfrom orchestrator.engine import y",
    "service.callers": "from orchestrator import config, launch",
    "chores.messages": "from orchestrator.core import model",
    "host.a": "import os\nfrom orchestrator.ports import x\nfrom orchestrator.core.xml.render import y",
    "engine": "from orchestrator.ports import x\nimport asyncio",
    "foreground": "from orchestrator.engine import x",
    "config": "from orchestrator.toml_tables import x",
    "toml_tables": "from orchestrator.core import model",
    "ports": "from orchestrator.core.model import x",
    "core.model": "import re\nfrom collections.abc import x\nfrom orchestrator.core.xml import render",
    "core.times": "from cronsim import CronSim\nfrom datetime import datetime",
    "core.xml.render": "from lxml import etree\nimport lxml.etree",
    "errors": "import dataclasses",
}


def test_the_allowed_arrows_are_allowed(tmp_path: Path) -> None:
    assert wrong_arrows(tree(tmp_path, ALLOWED)) == []


def forbidden() -> Iterator[tuple[str, str]]:
    """Yield every pair of modules of which the first may not import the second, by the rule's own words."""
    order = ["cli", "wiring", "*", "ports", "core", "errors"]
    rank = {name: index for index, name in enumerate(order)}
    places = {
        "cli.main": "cli",
        "wiring.guests": "wiring",
        "lab.launch": "*",
        "simulator.world": "*",
        "chores.process": "*",
        "service.desk": "*",
        "engine": "*",
        "foreground": "*",
        "host.a": "*",
        "config": "*",
        "policy_file": "*",
        "policy_schema": "*",
        "toml_tables": "*",
        "toml_trees": "*",
        "toml_lines": "*",
        "bench.place": "*",
        "ports": "ports",
        "wall_clock": "ports",
        "core.model": "core",
        "errors": "errors",
    }
    granted = {("simulator", "config"), ("service", "config"), ("service", "engine")}
    for importer, start in places.items():
        for target, aim in places.items():
            leftward = rank[aim] < rank[start]
            layer, beside = (LAYERS[name.split(".")[0]] for name in (importer, target))
            sideways = start == aim == "*" and layer != beside and (layer, beside) not in granted
            past_wiring = start == "cli" and aim == "*" and beside != "config"
            if leftward or sideways or past_wiring:
                yield importer, target


@pytest.mark.parametrize(("importer", "target"), [*forbidden(), ("host.a", "host.b")])
def test_each_forbidden_arrow_is_caught_however_it_is_written(tmp_path: Path, importer: str, target: str) -> None:
    parent, _, leaf = f"{PACKAGE}.{target}".rpartition(".")
    ways = [
        f"import {PACKAGE}.{target}",
        f"import {PACKAGE}.{target} as it",
        f"from {parent} import {leaf}",
        f"from {parent}.{leaf} import it",
        f"def later():\n    from {parent}.{leaf} import it",
        f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from {parent}.{leaf} import it",
        f"from {'.' * (importer.count('.') + 1)}{target} import it",
    ]
    caught = []
    for number, way in enumerate(ways):
        caught += wrong_arrows(tree(tmp_path / str(number), {target: "", importer: way}))
    assert len(caught) == len(ways)
    assert all(line.startswith(f"{PACKAGE}.{importer}:") for line in caught)
    assert all(f"imports {PACKAGE}.{target}: " in line for line in caught)


@pytest.mark.parametrize(
    "module", ["os", "pathlib", "time", "asyncio", "subprocess", "logging", "libvirt", "lxml", "cronsim"]
)
def test_what_is_impure_is_caught_in_core(tmp_path: Path, module: str) -> None:
    text = f"import re\ndef later():\n    import {module}.parts"
    assert wrong_arrows(tree(tmp_path, {"core.model": text})) == [
        f"orchestrator.core.model:3: imports {module}.parts: core is pure"
    ]


def asks_for_the_time(text: str) -> list[int]:
    """Return the lines of a module that ask `datetime` what time it is now, or which time zone is here."""
    calls = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute))
    return [
        node.lineno
        for node in calls
        if node.attr in {"now", "today", "utcnow", "fromtimestamp", "astimezone"}
        and isinstance(node.value, ast.Name)
        and node.value.id in {"date", "datetime"}
    ]


def test_core_never_asks_what_time_it_is() -> None:
    core = Path(orchestrator.__file__).parent / "core"
    assert {path.name: lines for path in core.rglob("*.py") if (lines := asks_for_the_time(path.read_text()))} == {}
    assert asks_for_the_time("from datetime import datetime\nlate = datetime.now() > x.now\n") == [2]


def test_a_module_that_is_in_no_layer_is_caught(tmp_path: Path) -> None:
    assert wrong_arrows(tree(tmp_path, {"helpers": "import os"})) == [
        "orchestrator.helpers: no layer (helpers); say in LAYERS where it belongs"
    ]
