"""The fixture of all tests that call the program."""

from __future__ import annotations

import pytest

from tests.functional.program import GUEST, Program


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    found = Program(tmp_path_factory.mktemp("cli"))  # a short path: sockets go below it
    found.write("payload.elf", b"\x7fELF")
    found.write("guest.toml", GUEST)
    found.write("none.toml", '[cores]\nreserved = "2-65535"\n')
    return found
