"""Files are complete or as they were before, whatever fails and wherever."""

import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from scratchnet.errors import ScratchnetError
from scratchnet.experiments import artifacts


@pytest.fixture
def existing(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("as it was")
    return path


def test_contents() -> None:
    assert json.loads(artifacts.json_bytes({"a": [1, None]})) == {"a": [1, None]}
    assert artifacts.csv_bytes([["a", "b"], [1, 0.5]]) == b"a,b\n1,0.5\n"
    arrays = load(artifacts.tensors({"a": 1}, {"dense/kernel": np.arange(6.0).reshape(3, 2).T}))
    np.testing.assert_array_equal(arrays["dense/kernel"], [[0, 2, 4], [1, 3, 5]])


def test_new_file_replaces_the_old_one_with_ordinary_permissions(existing: Path) -> None:
    artifacts.write(existing.parent, {"file": b"new", "other": b""})
    assert existing.read_bytes() == b"new"
    assert sorted(os.listdir(existing.parent)) == ["file", "other"]
    (existing.parent / "plain").touch()
    assert existing.stat().st_mode == (existing.parent / "plain").stat().st_mode


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_failure_leaves_the_old_file_and_nothing_else(
    existing: Path, failing: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises((ScratchnetError, KeyboardInterrupt)) as caught:
        artifacts.write(existing.parent, {"file": b"new", "other": b""})
    if isinstance(error, OSError):
        assert str(caught.value) == (
            f"cannot write {existing} (No space left on device): free some space or name another folder with --output"
        )
    assert existing.read_text() == "as it was"
    assert os.listdir(existing.parent) == ["file"]


def test_all_files_are_on_the_disk_before_one_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def record(name: str, function: Callable[..., Any]) -> None:
        def recorded(*arguments: Any) -> Any:
            order.append(name)
            return function(*arguments)

        monkeypatch.setattr(os, name, recorded)

    record("fsync", os.fsync)
    record("replace", os.replace)
    artifacts.write(tmp_path, {"a": b"1", "b": b"2"})
    assert order == ["fsync", "fsync", "replace", "replace", "fsync"]  # the last one is of the folder


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_nan(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.json_bytes({"loss": value})


def test_prepare_creates_folders_and_leaves_them_empty(tmp_path: Path) -> None:
    artifacts.prepare(tmp_path / "a" / "b")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "b"]


def test_prepare_keeps_what_is_there(existing: Path) -> None:
    (existing.parent / ".writable").write_text("mine")
    artifacts.prepare(existing.parent)
    assert sorted(os.listdir(existing.parent)) == [".writable", "file"]
    assert (existing.parent / ".writable").read_text() == "mine"


def test_prepare_finds_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**arguments: object) -> Any:
        return open("/dev/full", "wb")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(ScratchnetError, match=r"or write there \(No space left on device\): free some space"):
        artifacts.prepare(tmp_path)


@pytest.mark.parametrize("below", ["", "deeper"])
def test_prepare_refuses_a_file_in_place_of_a_folder(existing: Path, below: str) -> None:
    with pytest.raises(ScratchnetError, match=r"cannot create the output folder .*: free some space or name another"):
        artifacts.prepare(existing / below)
    assert existing.read_text() == "as it was"
