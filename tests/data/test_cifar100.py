import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest

from scratchnet.data import Dataset, download, load_dataset
from scratchnet.data.cifar100 import read_cifar100
from scratchnet.errors import DataError
from tests.data import synthetic
from tests.data.synthetic import PICKLES, TEST, TRAIN, binary_file, binary_files, python_content, python_files

REAL_DATA = os.environ.get("SCRATCHNET_DATA")


def check(dataset: Dataset) -> None:
    assert dataset.name == "cifar100"
    assert dataset.num_classes == 100
    assert list(dataset.class_names) == synthetic.CLASS_NAMES
    assert list(dataset.superclass_names) == synthetic.SUPERCLASS_NAMES
    np.testing.assert_array_equal(dataset.superclasses, synthetic.SUPERCLASSES, strict=True)
    for split, (pixels, fine, _) in ((dataset.train, TRAIN), (dataset.test, TEST)):
        assert len(split) == len(fine)
        np.testing.assert_array_equal(split.labels, fine.astype(np.int64), strict=True)
        row, column, channel = np.indices((32, 32, 3))
        np.testing.assert_array_equal(split.images, pixels[:, 1024 * channel + 32 * row + column], strict=True)


@pytest.fixture
def folder(tmp_path: Path, small_cifar100: None) -> Path:
    return synthetic.write_folder(tmp_path / "data" / "cifar-100-binary", binary_files())


@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("form", ["folder", "parent", "tar", "tar.gz", "folder of archive"])
@pytest.mark.usefixtures("small_cifar100")
def test_every_version_and_form(tmp_path: Path, version: str, form: str) -> None:
    files = binary_files() if version == "binary" else python_files()
    place = tmp_path / "data" / f"cifar-100-{version}"
    if form in ("folder", "parent"):
        synthetic.write_folder(place, files)
        place = place.parent if form == "parent" else place
    else:
        place.parent.mkdir()
        archive = place.with_name(f"{place.name}.{'tar' if form == 'tar' else 'tar.gz'}")
        archive.write_bytes(synthetic.tar_bytes(files, mode="w" if form == "tar" else "w:gz"))
        place = archive.parent if form == "folder of archive" else archive
    check(load_dataset(str(place)))


@pytest.mark.parametrize("writer", PICKLES)
@pytest.mark.usefixtures("small_cifar100")
def test_every_way_to_pickle(tmp_path: Path, writer: str) -> None:
    check(read_cifar100(synthetic.write_folder(tmp_path / "folder", python_files(writer))))


def test_the_images_are_not_copied(folder: Path) -> None:
    images = read_cifar100(folder).train.images
    assert images.strides == (3074, 32, 1, 1024)


def test_a_folder_of_an_unknown_name(folder: Path) -> None:
    check(read_cifar100(folder.rename(folder.parent / "some data")))


def refused(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_cifar100(path)
    assert "\n" not in str(caught.value)
    assert "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz" in str(caught.value)


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere does not exist; name the folder or archive of CIFAR-100, or fetch")


@pytest.mark.parametrize("name", binary_files())
def test_a_folder_that_lacks_a_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, r"does not hold CIFAR-100: train.bin, .* or train, test, meta \(Python version\)")


@pytest.mark.parametrize("version", ["binary", "python"])
def test_an_archive_that_lacks_a_file(tmp_path: Path, version: str) -> None:
    files = binary_files() if version == "binary" else python_files()
    for name in files:
        archive = tmp_path / f"without_{name}.tar.gz"
        archive.write_bytes(synthetic.tar_bytes({other: files[other] for other in files if other != name}))
        refused(archive, "does not hold CIFAR-100: .*; put an intact copy of https")


def test_a_damaged_archive_is_left_alone(tmp_path: Path) -> None:
    archive = tmp_path / "cifar-100-binary.tar.gz"
    damaged = synthetic.tar_bytes(binary_files())[:-100]
    archive.write_bytes(damaged)
    refused(archive, r"cifar-100-binary.tar.gz is truncated, corrupted or no tar .*; put an intact copy of https")
    assert archive.read_bytes() == damaged
    assert os.listdir(tmp_path) == [archive.name]


def test_a_file_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Simulated, because the permissions of a file do not bind root.
    def fail(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DataError, match=r"cannot be read .*Permission denied.*check the path and its permissions"):
        read_cifar100(folder)


@pytest.mark.parametrize("change", [-1, 1, -3073])
def test_a_size_that_is_no_multiple_of_a_record(folder: Path, change: int) -> None:
    os.truncate(folder / "train.bin", synthetic.TRAIN_RECORDS * 3074 + change)
    refused(folder, r"train.bin is truncated, corrupted or .* \(cannot reshape .* into shape \(3074\)\); put an")


@pytest.mark.parametrize("name", ["train.bin", "test.bin"])
@pytest.mark.parametrize("change", [-1, 1, -50])
def test_a_wrong_number_of_records(folder: Path, name: str, change: int) -> None:
    count = (folder / name).stat().st_size // 3074
    os.truncate(folder / name, (count + change) * 3074)
    part = {"train.bin": "training", "test.bin": "test"}[name]
    refused(folder, f"its {count + change} {part} records are not {count // 100} of each of 100 classes; put an intact")


def test_an_empty_file(folder: Path) -> None:
    os.truncate(folder / "test.bin", 0)
    refused(folder, "is incomplete or corrupted: its 0 test records are not 1 of each of 100 classes")


def test_the_true_number_of_records_is_wanted(tmp_path: Path) -> None:
    folder = synthetic.write_folder(tmp_path / "folder", binary_files())  # without small_cifar100
    refused(folder, "its 200 training records are not 500 of each of 100 classes")


def changed(labels: np.ndarray, index: int, label: int) -> np.ndarray:
    labels = labels.copy()
    labels[index] = label
    return labels


@pytest.mark.parametrize(("fine", "coarse"), [(100, 0), (255, 0), (0, 0)])
def test_labels_out_of_range(folder: Path, fine: int, coarse: int) -> None:
    pixels, fines, coarses = TEST
    (folder / "test.bin").write_bytes(binary_file(pixels, changed(fines, 7, fine), changed(coarses, 7, coarse)))
    refused(folder, "its 100 test records are not 1 of each of 100 classes")


@pytest.mark.parametrize("coarse", [20, 255])
def test_a_superclass_out_of_range(folder: Path, coarse: int) -> None:
    for name, (pixels, fine, coarses) in (("train.bin", TRAIN), ("test.bin", TEST)):
        (folder / name).write_bytes(binary_file(pixels, fine, np.where(fine == 7, coarse, coarses).astype(np.uint8)))
    refused(folder, "its 200 training records are not each of one of 20 superclasses")


@pytest.mark.parametrize("label", [-1, 100, 256, 10**30, "1", None, 1.0])
@pytest.mark.usefixtures("small_cifar100")
def test_pickled_labels_out_of_range(tmp_path: Path, label: object) -> None:
    content = python_content(*TRAIN)
    content["fine_labels"] = [label, *TRAIN[1].tolist()[1:]]
    files = {**python_files("numpy2"), "train": synthetic.python3_pickle(content)}
    refused(synthetic.write_folder(tmp_path / "folder", files), "its 200 training records|: train is truncated")


@pytest.mark.parametrize(
    "labels", [np.array(7, np.uint8), TRAIN[1], [[1]] * 200, "text"], ids=["scalar", "array", "nested", "text"]
)
@pytest.mark.usefixtures("small_cifar100")
def test_pickled_labels_that_are_no_list(tmp_path: Path, labels: object) -> None:
    content = {**python_content(*TRAIN), "coarse_labels": labels}
    files = {**python_files(), "train": synthetic.python3_pickle(content)}
    refused(synthetic.write_folder(tmp_path / "folder", files), ": train is truncated|superclasses, the same")


@pytest.mark.usefixtures("small_cifar100")
def test_pickled_data_of_another_shape(tmp_path: Path) -> None:
    for number, data in enumerate((TRAIN[0].reshape(-1, 3, 32, 32), TRAIN[0].ravel(), TRAIN[0][:, :-1], [1, 2])):
        files = {**python_files(), "train": synthetic.python3_pickle({**python_content(*TRAIN), "data": data})}
        refused(
            synthetic.write_folder(tmp_path / str(number), files),
            r"train is truncated, corrupted or .* \((its data are not 3,072 bytes an image|.* is not in list)",
        )


@pytest.mark.parametrize("key", ["data", "fine_labels", "coarse_labels"])
@pytest.mark.usefixtures("small_cifar100")
def test_pickled_lists_of_different_lengths(tmp_path: Path, key: str) -> None:
    content = python_content(*TRAIN)
    content[key] = content[key][:-1]  # type: ignore[index]
    files = {**python_files(), "train": synthetic.python3_pickle(content)}
    refused(synthetic.write_folder(tmp_path / "folder", files), r"train is truncated, corrupted .* has size 199")


def test_classes_of_unequal_size(folder: Path) -> None:
    pixels, fine, coarse = TRAIN
    sister = next(label for label in range(100) if synthetic.SUPERCLASSES[label] == coarse[0] and label != fine[0])
    (folder / "train.bin").write_bytes(binary_file(pixels, changed(fine, 0, sister), coarse))
    refused(folder, "its 200 training records are not 2 of each of 100 classes")


@pytest.mark.parametrize("name", ["train.bin", "test.bin"])
def test_a_class_in_two_superclasses(folder: Path, name: str) -> None:
    pixels, fine, coarse = TRAIN if name == "train.bin" else TEST
    (folder / name).write_bytes(binary_file(pixels, fine, changed(coarse, 5, (coarse[5] + 1) % 20)))
    part = {"train.bin": "training", "test.bin": "test"}[name]
    refused(folder, f"{part} records are not each of one of 20 superclasses, the same for all of a class; put an")


@pytest.mark.parametrize("name", ["fine_label_names.txt", "coarse_label_names.txt"])
def test_wrong_class_names(folder: Path, name: str) -> None:
    names = (folder / name).read_text().split()
    for wrong in (names[1:], [*names, "one_more"], [names[1], *names[1:]], [*names, names[0]]):
        (folder / name).write_text("\n".join(wrong))
        refused(folder, f"is corrupted: it does not name {len(names)} different classes")


@pytest.mark.usefixtures("small_cifar100")
def test_wrong_pickled_class_names(tmp_path: Path) -> None:
    for number, names in enumerate((list(range(100)), TRAIN[0], np.array(7, np.uint8), [["nested"]] * 100)):
        meta = synthetic.python3_pickle({"fine_label_names": names, "coarse_label_names": synthetic.SUPERCLASS_NAMES})
        folder = synthetic.write_folder(tmp_path / str(number), {**python_files(), "meta": meta})
        refused(folder, "meta is truncated, corrupted or not|it does not name 100 different classes")


OFFICIAL_COPIES = {  # by form: what is official of it
    "binary archive": ("binary", "sha256"),
    "python archive": ("python", "sha256"),
    "python folder": ("python", "md5"),
}


def write_copy(place: Path, form: str, files: dict[str, bytes]) -> list[Path]:
    """The files whose checksums tell whether the copy at `place` is official."""
    if form.endswith("folder"):
        folder = synthetic.write_folder(place, files)
        return [folder / name for name in files]
    place.write_bytes(synthetic.tar_bytes(files, mode="w"))
    return [place]


@pytest.mark.parametrize("form", OFFICIAL_COPIES)
@pytest.mark.usefixtures("small_cifar100")
def test_a_flipped_pixel_of_an_official_copy_is_noted(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version, kind = OFFICIAL_COPIES[form]
    files = binary_files() if version == "binary" else python_files()
    place = tmp_path / "copy"
    sums = [hashlib.new(kind, path.read_bytes()).hexdigest() for path in write_copy(place, form, files)]
    monkeypatch.setattr(download, "OFFICIAL", sums)
    intact = read_cifar100(place)
    assert capsys.readouterr() == ("", "")

    name = next(iter(files))
    contents = bytearray(files[name])
    contents[contents.index(TRAIN[0][-1].tobytes()) + 3071] ^= 1  # the last pixel of the last image
    write_copy(tmp_path / "other", form, files | {name: bytes(contents)})
    changed = read_cifar100(tmp_path / "other")
    assert intact.digest != changed.digest
    assert np.sum(intact.train.images != changed.train.images) == 1
    assert capsys.readouterr().err == (
        f"note: {tmp_path / 'other'} is no official copy of CIFAR-100, so its content could not be verified: it is "
        f"complete and has the SHA-256 {changed.digest}\n"
    )


def test_a_binary_folder_cannot_be_verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_cifar100(folder)
    assert f"note: {folder} is no official copy of CIFAR-100" in capsys.readouterr().err


@pytest.mark.usefixtures("small_cifar100")
def test_the_digest_is_that_of_the_records_whatever_holds_them(tmp_path: Path) -> None:
    copies = [synthetic.write_folder(tmp_path / writer, python_files(writer)) for writer in PICKLES]
    copies.append(synthetic.write_folder(tmp_path / "binary", binary_files()))
    (tmp_path / "archive").write_bytes(synthetic.tar_bytes(binary_files()))
    digests = {read_cifar100(copy).digest for copy in [*copies, tmp_path / "archive"]}
    assert len(digests) == 1
    assert re.fullmatch("[0-9a-f]{64}", digests.pop())


@pytest.mark.skipif(REAL_DATA is None, reason="needs the real CIFAR-100: set SCRATCHNET_DATA to its folder or archive")
def test_the_real_data() -> None:
    assert REAL_DATA is not None
    dataset = load_dataset(REAL_DATA)
    assert (len(dataset.train), len(dataset.test)) == (50_000, 10_000)
    for split, mean, deviation in (
        (dataset.train, [129.30416561, 124.0699627, 112.43405006], [68.1702429, 65.39180804, 70.41837019]),
        (dataset.test, [129.74308525, 124.28521836, 112.69526387], None),
    ):
        np.testing.assert_allclose(split.images.mean((0, 1, 2)), mean, rtol=1e-9)
        if deviation is not None:
            histograms = [np.bincount(split.images[..., channel].ravel(), minlength=256) for channel in range(3)]
            values = np.arange(256)
            deviations = [np.sqrt(h @ values**2 / h.sum() - (h @ values / h.sum()) ** 2) for h in histograms]
            np.testing.assert_allclose(deviations, deviation, rtol=1e-8)
    assert dataset.class_names[:3] == ("apple", "aquarium_fish", "baby")
    assert dataset.class_names[99] == "worm"
    names = {c: dataset.superclass_names[s] for c, s in zip(dataset.class_names, dataset.superclasses, strict=True)}
    assert names["apple"] == "fruit_and_vegetables"
    assert names["worm"] == "non-insect_invertebrates"
    np.testing.assert_array_equal(np.bincount(dataset.superclasses), np.full(20, 5))
