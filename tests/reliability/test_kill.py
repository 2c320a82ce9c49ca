"""A few kills of every kind; `python -m tests.reliability.kill` does hundreds."""

import sys
from pathlib import Path

import pytest

from tests.reliability.kill import CASES, campaign


@pytest.mark.skipif(sys.platform != "linux", reason="the harness reads /proc")
def test_a_killed_run_that_is_resumed_ends_with_the_same_bits(tmp_path: Path) -> None:
    name = "two workers, gumbel"
    findings = campaign(kills=4, seed=1, epochs=2, cases={name: CASES[name]}, folder=tmp_path)
    assert findings.wrong.total() == 0, findings.table()
    assert findings.kills.total() == 4
    assert findings.resumed >= 1
    assert findings.compared >= 1
