"""What the tests of the experiments share: the command, run as a user runs it, and one finished run of it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchnet.heads import HEADS, SoftmaxCrossEntropy

SCRIPT = Path(__file__).parents[2] / "train_cifar.py"
BROKEN_CUPY = "this CuPy cannot be imported"
Train = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", str(SCRIPT), *map(str, arguments)]


def train_in(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environment}
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


def broken_cupy(folder: Path) -> dict[str, str]:
    """The environment of a process that fails where it imports CuPy, whether there is a GPU or not."""
    (folder / "cupy.py").write_text(f"raise ImportError({BROKEN_CUPY!r})\n")
    return {"PYTHONPATH": str(folder)}


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """`train("--epochs", 1, VARIABLE="value")` runs train_cifar.py in an empty folder."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return train_in(tmp_path, *arguments, **environment)

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder and the output of a finished run on the digits: two epochs with the Gumbel head and the seed 3."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = "--data", "digits", "--device", "cpu", "--head", "gumbel", "--epochs", 2, "--seed", 3
    done = train_in(folder, *arguments, **broken_cupy(tmp_path_factory.mktemp("cupy")))
    return folder / "runs" / "same-padding-gumbel-seed3", done


class Third(SoftmaxCrossEntropy):
    """A head that no report had, and that is to know the classes."""

    name = "third head"

    def __init__(self, classes: int, superclasses: np.ndarray) -> None:
        super().__init__()
        self.classes, self.superclasses = classes, superclasses


@pytest.fixture
def third_head(monkeypatch: pytest.MonkeyPatch) -> str:
    """Its name in the table of heads, where it stands for the time of a test."""
    monkeypatch.setitem(HEADS, "third", Third)
    return "third"
