"""Files are complete or as they were before, whatever fails and wherever."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchnet.errors import ScratchnetError
from scratchnet.experiments import artifacts

Write = Callable[[Path], None]
WRITERS: dict[str, Write] = {
    "json": lambda path: artifacts.write_json(path, {"a": [1, None]}),
    "csv": lambda path: artifacts.write_csv(path, [["a", "b"], [1, 0.5]]),
    "npz": lambda path: artifacts.write_npz(path, {"dense/kernel": np.arange(6.0).reshape(2, 3)}),
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Write:
    return WRITERS[request.param]


@pytest.fixture
def existing(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("as it was")
    return path


def test_contents(tmp_path: Path) -> None:
    for name, write_file in WRITERS.items():
        write_file(tmp_path / name)
    assert json.loads((tmp_path / "json").read_text()) == {"a": [1, None]}
    assert (tmp_path / "csv").read_text() == "a,b\n1,0.5\n"
    with np.load(tmp_path / "npz") as arrays:
        np.testing.assert_array_equal(arrays["dense/kernel"], [[0, 1, 2], [3, 4, 5]])
    assert sorted(os.listdir(tmp_path)) == ["csv", "json", "npz"]


def test_new_file_replaces_the_old_one_with_ordinary_permissions(existing: Path, write: Write) -> None:
    write(existing)
    assert b"as it was" not in existing.read_bytes()
    (existing.parent / "plain").touch()
    assert existing.stat().st_mode == (existing.parent / "plain").stat().st_mode


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file_and_nothing_else(
    existing: Path, write: Write, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(ScratchnetError) as caught:
        write(existing)
    assert str(caught.value) == (
        f"cannot write {existing} (No space left on device): free some space or name another folder with --output"
    )
    assert existing.read_text() == "as it was"
    assert os.listdir(existing.parent) == ["file"]


def test_interruption_leaves_the_old_file_and_nothing_else(existing: Path) -> None:
    with pytest.raises(KeyboardInterrupt), artifacts.replacing(existing) as file:  # noqa: PT012
        file.write("half of")
        raise KeyboardInterrupt
    assert existing.read_text() == "as it was"
    assert os.listdir(existing.parent) == ["file"]


def test_file_is_on_the_disk_before_it_takes_its_name(existing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def record(name: str, function: Callable[..., Any]) -> None:
        def recorded(*arguments: Any) -> Any:
            order.append(name)
            return function(*arguments)

        monkeypatch.setattr(os, name, recorded)

    record("fsync", os.fsync)
    record("replace", os.replace)
    artifacts.write_json(existing, {})
    assert order == ["fsync", "replace"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_nan(existing: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.write_json(existing, {"loss": value})
    assert existing.read_text() == "as it was"


def test_prepare_creates_folders_and_leaves_them_empty(tmp_path: Path) -> None:
    artifacts.prepare(tmp_path / "a" / "b")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "b"]


def test_prepare_keeps_what_is_there(existing: Path) -> None:
    artifacts.prepare(existing.parent)
    assert os.listdir(existing.parent) == ["file"]


@pytest.mark.parametrize("below", ["", "deeper"])
def test_prepare_refuses_a_file_in_place_of_a_folder(existing: Path, below: str) -> None:
    with pytest.raises(ScratchnetError, match=r"cannot create the output folder .*: free some space or name another"):
        artifacts.prepare(existing / below)
    assert existing.read_text() == "as it was"
