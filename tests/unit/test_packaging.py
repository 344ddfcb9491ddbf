"""Manual pages and systemd units, as texts."""

from __future__ import annotations

import typer

from orchestrator.cli.main import app
from orchestrator.core import timer
from orchestrator.packaging.manual import escaped, pages
from orchestrator.packaging.units import CAPABILITIES, units

TREE = typer.main.get_command(app)

NAMESPACES = (
    "Protect",
    "Private",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "InaccessiblePaths",
    "TemporaryFileSystem",
    "Bind",
)
"""Directives that give a service a mount namespace begin so; guests' files are held fast by mounts of the host's."""


def test_there_is_a_page_for_each_command_and_the_first_names_them_all() -> None:
    found = pages(TREE, "1.2")
    assert found["orchestrator-policy-run.1"].startswith('.TH ORCHESTRATOR\\-POLICY\\-RUN 1 "" "Orchestrator 1.2"')
    for name in found:
        assert name == "orchestrator.1" or f"{escaped(name.removesuffix('.1'))}\\fR(1)" in found["orchestrator.1"]
    run = found["orchestrator-run.1"]
    assert "\\fB\\-\\-heartbeats\\fR \\fIHEARTBEATS\\fR\nEnd each guest once" in run
    assert "\\fISPEC...\\fR" in run
    assert all("\n\n" not in text for text in found.values()), "roff takes an empty line for a paragraph"


def test_no_text_is_taken_for_a_request_of_roffs() -> None:
    assert escaped(".so /etc/passwd") == r"\&.so /etc/passwd"
    assert escaped("'quoted' a\\b --all") == r"\(aqquoted\(aq a\eb \-\-all"


def test_the_units_let_guests_live_and_keep_the_hosts_mounts() -> None:
    texts = units("/usr/bin/orchestrator")
    for name, command in (("orchestrator", "serve"), ("orchestrator-guard", "guard")):
        lines = texts[f"systemd/system/{name}.service"].splitlines()
        for line in ("KillMode=process", "NoNewPrivileges=yes"):
            assert line in lines
        assert f"ExecStart=/usr/bin/orchestrator {command} --policy /etc/orchestrator/policy.toml" in lines
        assert f"CapabilityBoundingSet={' '.join(CAPABILITIES)}" in lines
        assert not [line for line in lines if line.startswith(NAMESPACES)]
        assert not [line for line in lines if line.startswith("CPUAffinity")], (
            "a shielded host lets no unit have core 0"
        )
    assert "Type=notify" in texts["systemd/system/orchestrator.service"].splitlines()
    assert {f"systemd/system/{timer.SERVICE}", f"systemd/system/{timer.TIMER}"} < set(texts)
