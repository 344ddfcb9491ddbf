"""Who stands at a console of this machine, by what the kernel says of a process and of those that it comes from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.consoles import NO_LOGIN, Process, serves_remotely, terminal_name, why_not_local

TTY1, TTY_S0, HVC0, PTS3 = 4 << 8 | 1, 4 << 8 | 64, 229 << 8, 136 << 8 | 3
INIT = Process(pid=1, parent=0, session=1, terminal=0, began=1, uid=0, effective=0, program="systemd")
LOGIN = replace(INIT, pid=50, parent=1, session=50, program="login")
SHELL = replace(INIT, pid=60, parent=50, session=60, terminal=TTY1, program="bash", login=0)
ADMIN = replace(SHELL, pid=70, parent=60, program="python3.11")
LINE = (ADMIN, SHELL, LOGIN, INIT)


@pytest.mark.parametrize(
    ("terminal", "name"),
    [
        (0, ""),
        (TTY1, "tty1"),
        (4 << 8 | 63, "tty63"),
        (TTY_S0, "ttyS0"),
        (HVC0 | 2, "hvc2"),
        (PTS3, "pts/3"),
        (137 << 8 | 4, "pts/260"),
        (4 << 8, "device 4:0"),
        (188 << 8 | 1, "device 188:1"),
    ],
)
def test_terminals_have_the_names_that_the_kernel_gives_them(terminal: int, name: str) -> None:
    assert terminal_name(terminal) == name


def on(terminal: int) -> tuple[Process, ...]:
    return tuple(replace(each, terminal=terminal if each.session == 60 else 0) for each in LINE)


@pytest.mark.parametrize("terminal", [TTY1, TTY_S0, HVC0])
def test_root_at_a_console_is_obeyed(terminal: int) -> None:
    assert why_not_local(on(terminal), remote=False) == ""
    assert why_not_local(on(terminal), remote=False, consoles=("tty*", "hvc0")) == ""
    leader = (replace(SHELL, parent=1), INIT)
    assert why_not_local(leader, remote=False) == ""


def without(index: int, **changes: object) -> tuple[Process, ...]:
    line = list(LINE)
    line[index] = replace(line[index], **changes)  # type: ignore[arg-type]  # a field and its value, as the cases say
    return tuple(line)


SSHD = replace(LOGIN, program="sshd")
SUDO = replace(ADMIN, pid=65, parent=60, program="sudo")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ((), "has gone"),
        (without(0, uid=1000), "user 1000 is not root"),
        (without(0, effective=1000), "user 1000 is not root"),
        (on(0), "no controlling terminal"),
        (on(PTS3), "pts/3, which is no console"),
        (on(4 << 8), "device 4:0, which is no console"),
        ((ADMIN, SHELL, SSHD, INIT), "it comes from sshd (50)"),
        ((replace(ADMIN, parent=65), SUDO, SHELL, LOGIN, INIT), "it comes through sudo (65)"),
        ((replace(ADMIN, parent=65), replace(SUDO, program="su"), SHELL, LOGIN, INIT), "it comes through su (65)"),
        (without(1, uid=1000), "it comes from process 60 of user 1000"),
        (without(2, program=""), "process 50, and what that executes cannot be read"),
        (without(0, login=1000), "its login was user 1000's"),
        (LINE[:2], "cannot be followed further than to process 60"),
        (without(0, session=99), "who began its session is no ancestor"),
        (without(1, terminal=TTY_S0), "who began its session is no ancestor"),
    ],
)
def test_everybody_else_is_told_why_he_is_not(line: tuple[Process, ...], why: str) -> None:
    assert why in why_not_local(line, remote=False)


def test_a_session_from_elsewhere_and_consoles_that_the_policy_does_not_name_are_refused() -> None:
    assert why_not_local(LINE, remote=True) == "its login session came over a network"
    assert "the policy does not name tty1 among" in why_not_local(LINE, remote=False, consoles=("tty2", "ttyS*"))
    assert why_not_local(without(0, login=NO_LOGIN), remote=False) == ""


@pytest.mark.parametrize(
    ("groups", "remotely"),
    [
        ("0::/system.slice/ssh.service\n", True),
        ("0::/system.slice/system-ssh.slice/ssh@3-10.0.0.1:22-10.0.0.2:4711.service\n", True),
        ("12:pids:/system.slice/sshd.service\n1:name=systemd:/system.slice/sshd.service\n0::/\n", True),
        ("0::/system.slice/dropbear.service\n", True),
        ("0::/system.slice/system-getty.slice/getty@tty1.service\n", False),
        ("0::/system.slice/system-serial\\x2dgetty.slice/serial-getty@ttyS0.service\n", False),
        ("0::/user.slice/user-0.slice/session-3.scope\n", False),
        ("1:name=systemd:/\n0::/\n", False),
    ],
)
def test_who_left_his_session_is_still_in_the_group_of_the_service_that_let_him_in(groups: str, remotely: bool) -> None:
    assert serves_remotely(groups) is remotely
