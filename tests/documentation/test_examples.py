"""Every example of a definition or a policy that the documentation shows is valid."""

from __future__ import annotations

import pytest

from orchestrator.config import parse_guest
from orchestrator.policy_file import read_policy
from tests.documentation.commands import DOCUMENTS, ROOT, fenced

EXAMPLES = [
    (f"{document}:{line}", "\n".join(block))
    for document in DOCUMENTS
    for line, block in fenced((ROOT / document).read_text(), "toml")
]


@pytest.mark.parametrize(("place", "text"), EXAMPLES, ids=lambda value: value if "\n" not in value else "")
def test_an_example_is_valid(place: str, text: str) -> None:
    if "architecture =" in text:
        parse_guest(text.encode(), place, directory="/")
    else:
        here = {place: text.encode()}
        read_policy(place, lambda name: here.get(name) or (ROOT / name).read_bytes())


def test_there_are_examples_of_both() -> None:
    assert sum("architecture =" in text for _, text in EXAMPLES) >= 1
    assert len(EXAMPLES) > 10
