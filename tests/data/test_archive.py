import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scratchnet.data import archive
from scratchnet.data.archive import read_archive, read_folder
from scratchnet.errors import DataError
from tests.data.synthetic import python3_pickle, tar_bytes, write_folder

FILES = {"train.bin": bytes(range(256)) * 40, "test.bin": b"0123456789" * 100}


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, linkname
    return info


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.tar.gz"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_reads_the_wanted_files_and_writes_nothing(path: Path, mode: str) -> None:
    path.write_bytes(tar_bytes({**FILES, "other": b"not wanted"}, mode=mode))
    assert read_archive(path, ("train.bin", "test.bin", "absent")) == FILES
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    "name", ["../train.bin", "a/../../train.bin", "/etc/train.bin", "..\\train.bin", "\\train.bin", "C:train.bin"]
)
def test_a_path_out_of_the_archive_is_a_name_and_no_more(path: Path, name: str) -> None:
    path.write_bytes(tar_bytes({"test.bin": b"1"}, member(name)))
    assert read_archive(path, FILES) == {"test.bin": b"1", "train.bin": b""}
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["folder/train.bin", "folder/other"])
def test_a_member_that_is_no_plain_file(path: Path, kind: bytes, name: str) -> None:
    path.write_bytes(tar_bytes({"test.bin": b""}, member(name, kind, linkname="/etc/passwd")))
    with pytest.raises(DataError, match=r"archive.tar.gz: its member '.*' is a link or device, "):
        read_archive(path, FILES)


@pytest.mark.parametrize("name", ["folder/train.bin", "folder/other"])
def test_a_member_that_claims_to_be_huge(path: Path, name: str) -> None:
    path.write_bytes(member(name, size=10**12).tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match=f"its member '{name}' is a link .* or makes more than 400,000,000 bytes"):
        read_archive(path, FILES)


@pytest.mark.parametrize("name", ["folder/train.bin", "folder/other"])
def test_a_member_of_negative_size(path: Path, name: str) -> None:
    path.write_bytes(member(name, size=-512).tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match=f"its member '{name}' is a link .* or makes more than 400,000,000 bytes"):
        read_archive(path, FILES)


def test_extended_headers_are_skipped(path: Path) -> None:
    info = member("folder/other", size=0)
    info.pax_headers = {"path": "folder/train.bin", "size": "1", "GNU.sparse.map": "nonsense"}
    path.write_bytes(tar_bytes(FILES, info))
    assert read_archive(path, FILES) == FILES


def test_a_folder_with_the_name_of_a_file(path: Path) -> None:
    path.write_bytes(tar_bytes({"test.bin": b"1"}, member("train.bin", tarfile.DIRTYPE)))
    assert read_archive(path, FILES) == {"test.bin": b"1"}


@pytest.mark.parametrize("where", ["members", "after the members"])
def test_an_archive_that_unpacks_to_too_much(path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1_000_000)
    monkeypatch.setattr(archive, "CHUNK_BYTES", 10_000)
    if where == "members":
        path.write_bytes(tar_bytes({f"other_{i}": bytes(600_000) for i in range(2)}))
    else:
        path.write_bytes(gzip.compress(tar_bytes(FILES, mode="w") + bytes(1_000_000)))
    with pytest.raises(DataError, match=r"more than 1,000,000 bytes together|\(there is more behind its end\)"):
        read_archive(path, FILES)


def test_a_cifar100_of_bright_pixels_pickled_by_python_3_is_not_too_large() -> None:
    images = 600
    content = {"data": np.full((images, 3072), 255, np.uint8), "filenames": ["x" * 30] * images}
    assert len(python3_pickle(content)) * 60_000 / images < archive.MAX_BYTES


def test_a_file_that_is_there_twice(path: Path) -> None:
    path.write_bytes(tar_bytes(FILES, member("elsewhere/test.bin")))
    with pytest.raises(DataError, match=r"its member 'elsewhere/test\.bin' is .* there twice"):
        read_archive(path, FILES)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.8])
def test_a_truncated_archive(path: Path, mode: str, kept: float) -> None:
    contents = tar_bytes({"train.bin": os.urandom(20_000)}, mode=mode)
    path.write_bytes(contents[: int(kept * 20_000)])
    with pytest.raises(DataError, match=r"archive.tar.gz is truncated, corrupted or no tar"):
        read_archive(path, FILES)


def test_a_lost_end_of_gzip(path: Path) -> None:
    path.write_bytes(tar_bytes(FILES)[:-8])  # the checksum and the length, which come after all the contents
    with pytest.raises(DataError, match="is truncated, corrupted or no tar"):
        read_archive(path, FILES)


def test_a_changed_bit_in_gzip(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "CHUNK_BYTES", 1024)  # else the first header would already meet all damage
    contents = tar_bytes(FILES)
    harmless = set()
    for position in range(len(contents)):
        path.write_bytes(contents[:position] + bytes([contents[position] ^ 4]) + contents[position + 1 :])
        try:
            assert read_archive(path, FILES) == FILES
            harmless.add(position)
        except DataError as error:
            assert "is truncated, corrupted or no tar" in str(error)  # noqa: PT017
    assert harmless <= set(range(3, 10))  # flags, time and system, which gzip does not protect


def test_other_kinds_of_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.bin", FILES["train.bin"])
    with pytest.raises(DataError, match=r"no tar or tar.gz archive"):
        read_archive(path, FILES)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 3 * 512 - 1), value=st.integers(0, 255))
def test_a_changed_header_harms_nobody(path: Path, position: int, value: int) -> None:
    contents = bytearray(tar_bytes({"train.bin": b"x"}, member("folder/" + 150 * "x"), mode="w"))
    contents[position] = value
    for start in (0, 512):  # a valid checksum, so that the change is believed
        header = contents[start : start + 512]
        contents[start + 148 : start + 156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    path.write_bytes(contents)
    try:
        files = read_archive(path, FILES)
    except DataError:
        return
    assert set(files) <= {"train.bin"}


def test_reads_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", {**FILES, "other": b"not wanted"})
    assert read_folder(folder, ("train.bin", "test.bin", "absent")) == FILES


def test_a_huge_file_in_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", FILES)
    with (folder / "train.bin").open("r+b") as file:
        file.truncate(10**9)  # a hole: it takes no room on the disk
    with pytest.raises(DataError, match="folder is too large: all files of CIFAR-100 have less than 400,000,000 bytes"):
        read_folder(folder, FILES)


def test_a_bare_tar_without_its_end(path: Path) -> None:
    buffer = io.BytesIO(tar_bytes(FILES, mode="w"))
    path.write_bytes(buffer.getvalue().rstrip(b"\0"))
    with pytest.raises(DataError, match="unexpected end of data"):
        read_archive(path, {"test.bin"})
