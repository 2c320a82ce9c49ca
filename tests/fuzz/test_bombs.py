"""Files that declare or unpack to more than an honest one has are refused within a stated bound of memory."""

import json
import subprocess
import sys

import pytest

from tests.fuzz import bombs

NAMES = [name for *_, group in bombs.GROUPS for name in group]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[str, int, int]]:
    """By bomb: what reading it in a process of limited memory came to, the bytes it took, and those it may take."""
    command = [sys.executable, "-W", "error", "-m", "tests.fuzz.bombs"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {name: tuple(rest) for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells and limits the address space of a process")
@pytest.mark.parametrize("name", NAMES)
def test_a_bomb_is_refused(name: str, outcomes: dict[str, tuple[str, int, int]]) -> None:
    outcome, taken, bound = outcomes[name]
    assert outcome.startswith("refused: ")
    assert taken <= bound
