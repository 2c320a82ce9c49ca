from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets

from scratchnet.data import load_dataset
from scratchnet.errors import DataError
from tests.data import synthetic
from tests.data.server import serve

ARCHIVE = synthetic.tar_bytes(synthetic.binary_files())

pytestmark = pytest.mark.usefixtures("small_cifar100")


def test_the_environment_variable_comes_first(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(parents=True)
    (cache / "cifar-100-binary.tar.gz").write_bytes(b"never read")
    folder = synthetic.write_folder(tmp_path / "folder", synthetic.binary_files())
    monkeypatch.setenv("SCRATCHNET_DATA", str(folder))
    assert load_dataset().name == "cifar100"


@pytest.mark.parametrize("source", ["auto", "cifar100"])
def test_an_unusable_environment_variable_is_an_error(
    source: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir(parents=True)
    (cache / "cifar-100-binary.tar.gz").write_bytes(ARCHIVE)
    monkeypatch.setenv("SCRATCHNET_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"\$SCRATCHNET_DATA: .*nowhere does not exist"):
        load_dataset(source)


def test_an_explicit_path_ignores_the_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = synthetic.write_folder(tmp_path / "folder", synthetic.binary_files())
    monkeypatch.setenv("SCRATCHNET_DATA", str(tmp_path / "nowhere"))
    assert load_dataset(str(folder)).name == "cifar100"


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_the_cache_needs_no_network(form: str, cache: Path) -> None:
    if form == "folder":
        synthetic.write_folder(cache / "cifar-100-python", synthetic.python_files())
    else:
        cache.mkdir(parents=True)
        (cache / "cifar-100-binary.tar.gz").write_bytes(ARCHIVE)
    assert load_dataset("cifar100").name == "cifar100"


@pytest.mark.parametrize("source", ["auto", "cifar100"])
def test_downloads_once(
    source: str, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(ARCHIVE, monkeypatch) as server:
        first = load_dataset(source)
        assert "100%" in capsys.readouterr().err
        second = load_dataset(source)
        assert capsys.readouterr().err == ""
    assert server.ranges == [None]
    assert [path.name for path in cache.iterdir()] == ["cifar-100-binary.tar.gz"]
    assert first.name == second.name == "cifar100"
    np.testing.assert_array_equal(first.test.images, second.test.images)


def test_a_silent_download(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(ARCHIVE, monkeypatch):
        load_dataset(progress=False)
    assert capsys.readouterr() == ("", "")


def test_no_network_means_digits_and_a_loud_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_dataset("auto").name == "digits"
    warning = capsys.readouterr().err
    assert "WARNING: THIS IS NOT CIFAR-100, WHICH COULD BE NEITHER FOUND NOR DOWNLOADED." in warning
    assert "refused" in warning
    assert "--data" in warning
    assert warning.startswith("*" * 80)
    assert len(warning.splitlines()) >= 6


def test_no_network_is_an_error_where_cifar100_is_demanded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"cannot be downloaded .*, or fetch https://.* and name it with --data PATH"):
        load_dataset("cifar100")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("source", ["auto", "cifar100"])
def test_a_damaged_cache_is_an_error(source: str, cache: Path) -> None:
    cache.mkdir(parents=True)
    archive = cache / "cifar-100-binary.tar.gz"
    archive.write_bytes(ARCHIVE[:-100])
    with pytest.raises(DataError, match=r"cifar-100-binary.tar.gz is truncated, corrupted .*put an intact copy of"):
        load_dataset(source)
    assert archive.read_bytes() == ARCHIVE[:-100]


def test_a_cache_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # Simulated, because the permissions of a folder do not bind root.
    def fail(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", fail)
    with pytest.raises(DataError, match=r"scratchnet cannot be read .*Permission denied.*; fetch https"):
        load_dataset("cifar100")


def test_digits() -> None:
    dataset = load_dataset("digits")
    assert dataset.name == "digits"
    assert dataset.class_names == tuple("0123456789")
    assert dataset.num_classes == 10
    assert dataset.superclass_names == ()
    assert dataset.superclasses.shape == (0,)
    assert (len(dataset.train), len(dataset.test)) == (1442, 355)
    original = sklearn.datasets.load_digits()
    seen = []
    for split in (dataset.train, dataset.test):
        assert split.images.shape == (len(split), 32, 32, 3)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert np.bincount(split.labels).min() >= 0.095 * len(split)
        np.testing.assert_array_equal(split.images[..., 0], split.images[..., 2])
        small = split.images[:, ::4, ::4, 1]
        np.testing.assert_array_equal(split.images[:, 3::4, 2::4, 1], small)
        seen += [
            (np.rint(image * (16 / 255)).tobytes(), label) for image, label in zip(small, split.labels, strict=True)
        ]
    assert sorted(seen) == sorted((i.tobytes(), t) for i, t in zip(original.images, original.target, strict=True))
    np.testing.assert_array_equal(dataset.test.images, load_dataset("digits").test.images)
