"""A policy's runs in a crontab: the entry, and the marked block that holds it among a user's own lines.

Texts only; every line outside the block stays as it is, byte by byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.errors import UsageError

BEGIN = (
    "# >>> orchestrator policy >>> (`orchestrator policy cron` writes these lines, and takes them out with --remove)"
)
END = "# <<< orchestrator policy <<<"

_FIRST = "# >>> orchestrator policy >>>"
_MAILTO = re.compile(r"""\s*["']?MAILTO["']?\s*=""")
_FILE = "# it runs "
_PLAIN = re.compile(r"[A-Za-z0-9@+,./:=_-]+")


def block(program: str, file: str, variables: Mapping[str, str], mailto: str) -> str:
    """Return the lines for a run each minute: its summary goes to the system's log, errors by mail to `mailto`.

    `program` and `file` are absolute paths. UsageError if cron could not be told one of them.
    """
    words = [f"{name}={_word(value)}" for name, value in sorted(variables.items())]
    command = " ".join([*words, _word(program), "policy", "run", _word(file)])
    return f"{BEGIN}\n{_FILE}{file}\nMAILTO={mailto}\n* * * * * {command} | logger -t orchestrator\n{END}\n"


def _word(text: str) -> str:
    r"""Quote a word for the shell and for cron, to which a bare % is the end of the command, and which takes \ away."""
    if "\\" in text or not text.isprintable():
        raise UsageError(f"{text!r}: cron cannot be told this path: it has a backslash or an unprintable character")
    quoted = text if _PLAIN.fullmatch(text) else "'" + text.replace("'", "'\"'\"'") + "'"
    return quoted.replace("%", r"\%")


def installed(table: str) -> str | None:
    """Return which file the block in a crontab runs, None if there is no block. UsageError if the block has no end."""
    _, inside, _ = _parts(table)
    if not inside:
        return None
    said = (line.removeprefix(_FILE).rstrip("\n") for line in inside if line.startswith(_FILE))
    return next(said, "a file that is no more to be made out")


def install(table: str, lines: str) -> str:
    """Return a crontab with this block at its end, in place of the one it has.

    The block's MAILTO would hold for all lines after it, so it is left out where an earlier line sets one.
    """
    before, _, after = _parts(table)
    others = [*before, *after]
    if others and not others[-1].endswith("\n"):
        others[-1] += "\n"
    if any(_MAILTO.match(line) for line in others):
        lines = "".join(line for line in lines.splitlines(keepends=True) if not _MAILTO.match(line))
    return "".join(others) + lines


def remove(table: str) -> str:
    """Return a crontab without the block; as it is, if it has none."""
    before, _, after = _parts(table)
    return "".join([*before, *after])


def _parts(table: str) -> tuple[list[str], list[str], list[str]]:
    """Return the lines before the block, the block's, and those after it."""
    lines = table.splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines) if line.startswith(_FIRST)]
    ends = [number for number, line in enumerate(lines) if line.rstrip("\n") == END]
    if not begins and not ends:
        return lines, [], []
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        raise UsageError(
            f"the crontab has {len(begins)} lines {_FIRST!r} and {len(ends)} lines {END!r}, where one of each, in this "
            "order, marks what is ours; mend it with `crontab -e`"
        )
    first, last = begins[0], ends[0] + 1
    return lines[:first], lines[first:last], lines[last:]
