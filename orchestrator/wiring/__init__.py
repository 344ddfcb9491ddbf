"""Puts the adapters of `host/` behind the ports: the only package that names both them and the engine.

Its modules are imported when they are first used (PEP 562), and heavy ones inside the functions that need them:
the command line must answer at once.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.wiring import (
        admin,
        bench,
        bench_all,
        client,
        definitions,
        doctor,
        foreground,
        guard,
        guard_bench,
        guests,
        inspect,
        journals,
        lab,
        metrics,
        noise,
        payloads,
        pins,
        policy_check,
        policy_cron,
        policy_run,
        report,
        serial,
        service,
        shield,
        shipped,
        simulate,
        site,
        states,
        top,
    )

__all__ = [
    "admin",
    "bench",
    "bench_all",
    "client",
    "definitions",
    "doctor",
    "foreground",
    "guard",
    "guard_bench",
    "guests",
    "inspect",
    "journals",
    "lab",
    "metrics",
    "noise",
    "payloads",
    "pins",
    "policy_check",
    "policy_cron",
    "policy_run",
    "report",
    "serial",
    "service",
    "shield",
    "shipped",
    "simulate",
    "site",
    "states",
    "top",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
