"""No test here sees the user's data or cache, or reaches the network; CIFAR-100 is small."""

from pathlib import Path

import pytest

from scratchnet.data import cifar100, download
from tests.data import synthetic


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache directory, which does not exist yet."""
    monkeypatch.delenv("SCRATCHNET_DATA", raising=False)
    for variable in ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "URL", "http://127.0.0.1:1/nothing-listens-here")
    return download.user_cache_directory()


@pytest.fixture
def small_cifar100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar100, "TRAIN_RECORDS", synthetic.TRAIN_RECORDS)
    monkeypatch.setattr(cifar100, "TEST_RECORDS", synthetic.TEST_RECORDS)
