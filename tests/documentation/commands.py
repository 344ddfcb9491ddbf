"""The commands that the documentation shows, and how a test treats each: a command that no rule knows is a fault."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "domains/README.md",
    "policies/README.md",
    "orchestrator/README.md",
    "orchestrator/packaging/README.md",
)
"""In the order in which they are read; each begins where the one before ended."""


class Where(StrEnum):
    """Where a command is run by a test."""

    HERE = "here"  # on any host
    LAB = "lab"  # where there are cores for guests
    BOTH = "both"  # it prepares what comes after it
    ELSEWHERE = "elsewhere"


ELSEWHERE = {
    "make run": "tests/lab: the program that it starts; what it installs, only on a new machine",
    "make test": "this run is a part of it",
    "kill %1": "goes on for the documents after this one",
    "make wheel": "tests/packaging/test_wheel.py",
    "make deb": "tests/packaging/test_deb.py",
    "sudo apt-get install --yes pipx": "Debian",
    "pipx install dist/orchestrator-*.whl": "tests/packaging/test_wheel.py, with pip, as pipx does",
    "sudo apt-get install ./dist/orchestrator_*.deb": "tests/packaging/test_deb.py, with dpkg in the lab",
    "sudo systemctl enable --now orchestrator": "tests/packaging/test_deb.py: what the unit starts, without systemd",
    **{f"vagrant {what}": "tests/packaging/test_vagrant.py: that it is valid" for what in ("up", "up second", "ssh")},
}
"""Commands that these tests do not run, and who sees to them."""

BEFORE = (
    r"orchestrator (?:doctor(?! --guest)|host topology|xml|audit xml|simulate|payload|policy|bench (?:place|tick))\b"
)
GUESTS = (
    r"orchestrator (?:run|serve|start|stop|pause|resume|restart|move|resize|kill|rm|ps|show|explain|inspect|debug|cores"
    r"|events|logs|console|report|top|save|restore|clone|gc|audit pins|journal|lab run|saved|snapshot|template"
    r"|doctor --guest|host (?:cores|noise|kernel-args|shield|status|unshield))\b"
)
RULES = (
    (Where.BOTH, r"PATH=\S+|truncate\b.*|cat > \S+ <<.*"),
    (Where.HERE, BEFORE + ".*"),
    (Where.LAB, GUESTS + ".*|curl --unix-socket .*"),
)

NOT_IN_MEMORY = r"orchestrator (?:run|serve|lab run|host|guard|journal|report|audit pins|doctor --guest)\b.*"
"""Which of the commands for the lab need more than a daemon whose guests are in memory: a host, processes, files."""

EXIT_CODES = {"orchestrator doctor": {0, 4}}
"""What commands may end with beside 0, since it tells what they have found: 4 is a host that is too small."""


@dataclass(frozen=True)
class Command:
    """A command as it stands in a document, its comment gone."""

    document: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.text}"

    @property
    def where(self) -> Where | None:
        """Return where it is run; None if no rule knows it."""
        if self.text in ELSEWHERE:
            return Where.ELSEWHERE
        parts = [part.strip() for part in re.split(r"&&|;(?=[^']*$)", self.text) if part.strip()]
        places = [next((place for place, rule in RULES if re.fullmatch(rule, part, re.DOTALL)), None) for part in parts]
        if None in places:
            return None
        return next(place for place in (Where.LAB, Where.HERE, Where.BOTH) if place in places)

    @property
    def needs_only_a_daemon(self) -> bool:
        """Tell whether a daemon with guests in memory can answer it, so that it can be run anywhere."""
        return self.where is Where.LAB and re.fullmatch(NOT_IN_MEMORY, self.text, re.DOTALL) is None

    @property
    def codes(self) -> set[int]:
        """Return the exit codes with which it may end."""
        return EXIT_CODES.get(self.text, {0})

    @property
    def stays(self) -> bool:
        """Tell whether it goes on while those after it are run."""
        return re.search(r"&(?: sleep \d+)?$", self.text) is not None


def commands() -> list[Command]:
    """Return the commands of all documents, in order."""
    return [command for document in DOCUMENTS for command in shown(document, (ROOT / document).read_text())]


def shown(document: str, text: str) -> Iterator[Command]:
    """Yield the commands in the fenced `sh` blocks of a document."""
    for start, block in fenced(text, "sh"):
        for line, command in _commands(block):
            yield Command(document, start + line, command)


def fenced(text: str, language: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the fenced blocks of a language: the number of their first line, and their lines."""
    block: list[str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if block is None:
            block = [] if line == f"```{language}" else None
        elif line == "```":
            yield number - len(block), block
            block = None
        else:
            block.append(line)


def _commands(block: list[str]) -> Iterator[tuple[int, str]]:
    """Yield commands with the number of their first line: as many lines as the shell wants for a whole one."""
    gathered: list[str] = []
    for number, line in enumerate(block):
        gathered.append(line)
        if _is_whole("\n".join(gathered)):
            text = _without_comment("\n".join(gathered))
            if text:
                yield number + 1 - len(gathered), text
            gathered = []
    assert not gathered, f"this is no whole command: {gathered}"


def _is_whole(text: str) -> bool:
    judged = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    if "here-document" in judged.stderr or "unexpected end of file" in judged.stderr:
        return False
    return "unexpected EOF" not in judged.stderr


def _without_comment(text: str) -> str:
    return text if "\n" in text else re.sub(r"(?:^|\s+)#\s.*$", "", text).strip()
