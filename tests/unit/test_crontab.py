"""The block in a crontab, and the systemd units: what stays, what is put in, what cannot be said."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.crontab import BEGIN, END, block, install, installed, remove
from orchestrator.core.timer import SERVICE, TIMER, units
from orchestrator.errors import UsageError

PROGRAM, FILE = "/opt/o/bin/orchestrator", "/etc/orchestrator/lab.toml"
OURS = block(PROGRAM, FILE, {}, "ann")
THEIRS = "# mine\nMAILTO=me@example.org\n0 5 * * * /home/ann/backup --all % data\n"


def test_the_block_runs_the_policy_each_minute() -> None:
    assert OURS.splitlines() == [
        BEGIN,
        f"# it runs {FILE}",
        "MAILTO=ann",
        f"* * * * * {PROGRAM} policy run {FILE} | logger -t orchestrator",
        END,
    ]


def test_other_lines_stay_and_the_block_comes_and_goes() -> None:
    once = install(THEIRS, OURS)
    assert once.startswith(THEIRS)
    assert once[len(THEIRS) :] == OURS.replace("MAILTO=ann\n", "")  # an earlier line says whom to write to
    assert install(once, OURS) == once
    assert installed(once) == FILE
    assert remove(once) == remove(THEIRS) == THEIRS
    assert installed(THEIRS) is None


def test_lines_after_the_block_keep_their_mail() -> None:
    after = "0 6 * * * echo later\n"
    table = install(OURS + after, block(PROGRAM, "/other.toml", {}, "ann"))
    assert table.startswith(after), "the block sets MAILTO for what comes after it, so nothing may"
    assert installed(table) == "/other.toml"
    assert remove(table) == after


def test_a_last_line_without_an_end_is_ended() -> None:
    assert install("@daily true", OURS) == "@daily true\n" + OURS


lines = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20).map(lambda text: f"{text}\n"))


@settings(deadline=None, max_examples=60)
@given(lines, lines)
def test_whatever_else_is_there_stays_as_it_is(before: list[str], after: list[str]) -> None:
    others = "".join(before + after)
    table = install("".join(before) + OURS + "".join(after), OURS)
    assert remove(table) == others
    assert installed(table) == FILE
    assert install(table, OURS) == table


def as_cron_reads_it(table: str) -> list[str]:
    r"""Return the words of the command, as crontab(5) says: \% is %, a bare % the end; then the shell has it."""
    line = next(line for line in table.splitlines() if line.startswith("* "))
    command = line.split(maxsplit=5)[5]
    assert "%" not in command.replace(r"\%", "")
    return shlex.split(command.replace(r"\%", "%"))


@pytest.mark.parametrize("odd", ["/a b.toml", "/100%.toml", "/it's.toml", '/"q";rm -rf $HOME #.toml', "/é | x.toml"])
def test_odd_paths_reach_the_program_as_they_are(odd: str) -> None:
    table = block(odd, odd, {"ORCHESTRATOR_SOCKET": odd}, "ann")
    assert as_cron_reads_it(table) == [
        f"ORCHESTRATOR_SOCKET={odd}",
        *(odd, "policy", "run", odd),
        *("|", "logger", "-t", "orchestrator"),
    ]
    assert installed(table) == odd


@pytest.mark.parametrize("path", ["/a\nb", "/a\\b", "/a\tb", "/\x7f"])
def test_a_path_that_cannot_be_told_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="cron cannot be told this path"):
        block(PROGRAM, path, {}, "ann")
    with pytest.raises(UsageError, match="systemd cannot be told this path"):
        units(PROGRAM, path, {})


@pytest.mark.parametrize("table", [f"{BEGIN}\n1\n", f"{END}\n", f"{END}\n{BEGIN}\n", OURS + OURS])
def test_a_block_that_has_been_taken_apart_is_left_to_the_user(table: str) -> None:
    for act in (remove, installed, lambda text: install(text, OURS)):
        with pytest.raises(UsageError, match="mend it with `crontab -e`"):
            act(table)


def test_a_block_that_was_edited_is_still_ours() -> None:
    assert installed(f"{BEGIN}\n0 5 * * * true\n{END}\n") == "a file that is no more to be made out"


def test_the_units_run_the_policy_each_minute_and_end_no_guest() -> None:
    texts = units(PROGRAM, "/a b/100%$x.toml", {"ORCHESTRATOR_SOCKET": "/s p"})
    assert set(texts) == {SERVICE, TIMER}
    service = texts[SERVICE].splitlines()
    assert f'ExecStart={PROGRAM} policy run "/a b/100%%$$x.toml"' in service
    assert 'Environment="ORCHESTRATOR_SOCKET=/s p"' in service
    assert "KillMode=process" in service
    assert "OnCalendar=*-*-* *:*:00" in texts[TIMER].splitlines()
