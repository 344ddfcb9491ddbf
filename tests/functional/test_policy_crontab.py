"""`policy cron --install` with crontab(1) itself, on a spool that only this test sees."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.functional.program import GUEST, PROGRAM, Program

THEIRS = "# mine\nMAILTO=somebody@example.org\n@yearly /bin/true % keep\n"

SCRIPT = """
set -e
mount -t tmpfs tmpfs /var/spool/cron/crontabs
chown root:crontab /var/spool/cron/crontabs && chmod 1730 /var/spool/cron/crontabs
"$PROGRAM" policy cron "$POLICY" --install 2>/dev/null
"$PROGRAM" policy cron "$POLICY" --remove
crontab -l; echo "-- empty before"
printf %s "$THEIRS" | crontab -
"$PROGRAM" policy cron "$POLICY" --install 2>/dev/null
crontab -l; echo "-- installed"
"$PROGRAM" policy cron "$POLICY" --install 2>/dev/null
"$PROGRAM" policy cron "$POLICY" --remove
crontab -l; echo "-- removed"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a spool of one's own is a mount, which takes root")
def test_the_lines_come_and_go_among_a_users_own(program: Program) -> None:
    program.write("guest.toml", GUEST)
    policy = program.write("100% o'dd.toml", '[[guest]]\ndefinition = "guest.toml"\n')
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(program.directory),
        "THEIRS": THEIRS,
        "PROGRAM": str(PROGRAM),
        "POLICY": policy,
        "ORCHESTRATOR_RUNTIME_DIR": str(program.directory / "r"),
    }
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SCRIPT],
        cwd=program.directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, installed, removed, _ = done.stdout.split("-- ")
    path = program.directory / policy
    assert first.splitlines() == [f"{policy}: in your crontab", f"{policy}: taken out of your crontab"]
    lines = installed.removeprefix("empty before\n").removeprefix(f"{policy}: in your crontab\n")
    assert lines.startswith(THEIRS)
    assert f"# it runs {path}\n" in lines
    assert lines.count("MAILTO=") == 1, "an earlier line says whom to write to"
    quoted = str(path).replace("%", r"\%").replace("'", "'\"'\"'")
    assert f" policy run '{quoted}' | logger -t orchestrator\n" in lines
    told = ("in your crontab, as it was before", "taken out of your crontab")
    assert removed == "installed\n" + "".join(f"{policy}: {line}\n" for line in told) + THEIRS
