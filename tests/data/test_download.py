import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scratchnet.data import download as module
from scratchnet.data.download import download, user_cache_directory
from scratchnet.errors import DataError
from tests.data.server import Server, serve

BODY = np.random.default_rng(0).bytes(700_000)
CUT = 300_000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(BODY, monkeypatch) as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "archive.tar.gz"


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def test_fetches_with_a_progress_bar(server: Server, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download(target, progress=True)
    assert target.read_bytes() == BODY
    assert os.listdir(target.parent) == [target.name]
    assert server.ranges == [None]
    shown = capsys.readouterr().err
    assert "CIFAR-100: 100%" in shown
    assert "700k/700k" in shown


def test_progress_can_be_silenced(server: Server, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download(target, progress=False)
    assert capsys.readouterr() == ("", "")


def test_the_target_appears_only_when_complete(server: Server, target: Path) -> None:
    seen = []
    server.during = lambda: seen.append((target.exists(), part_of(target).exists()))
    server.cuts = [CUT]
    download(target, progress=False)
    assert len(seen) == 2
    assert seen[1] == (False, True)
    assert target.read_bytes() == BODY


def test_goes_on_where_the_connection_broke(server: Server, target: Path) -> None:
    server.cuts = [CUT, 7]
    download(target, progress=False)
    assert server.ranges == [None, f"bytes={CUT}-", f"bytes={CUT + 7}-"]
    assert target.read_bytes() == BODY


def test_goes_on_when_the_server_falls_silent(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.5)
    woken = threading.Event()
    server.cuts = [2 * CUT]
    server.during = lambda: woken.wait(5) if len(server.ranges) == 1 else None
    download(target, progress=False)
    woken.set()
    assert server.ranges == [None, f"bytes={CUT}-"]
    assert target.read_bytes() == BODY


def test_a_later_call_goes_on_with_the_part(server: Server, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.cuts = [60_000] * module.ATTEMPTS
    with pytest.raises(DataError, match="broke off 5 times; try again to go on from"):
        download(target, progress=False)
    assert part_of(target).read_bytes() == BODY[:300_000]
    assert not target.exists()
    download(target, progress=True)
    assert server.ranges[-1] == "bytes=300000-"
    assert target.read_bytes() == BODY
    assert "700k/700k" in capsys.readouterr().err


@pytest.mark.parametrize("left", [b"x" * 10, b"x" * (len(BODY) + 10)], ids=["shorter", "longer"])
def test_a_server_without_ranges_starts_again(server: Server, target: Path, left: bytes) -> None:
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(left)
    server.knows_ranges = False
    download(target, progress=False)
    assert server.ranges == [f"bytes={len(left)}-"]
    assert target.read_bytes() == BODY


def test_a_complete_part_is_put_in_place(server: Server, target: Path) -> None:
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(BODY)
    download(target, progress=False)
    assert target.read_bytes() == BODY


def test_a_wrong_checksum_starts_afresh_next_time(server: Server, target: Path) -> None:
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(b"not the beginning")
    with pytest.raises(DataError, match=r"gave has not the official checksum and was deleted; fetch https://www\.cs"):
        download(target, progress=False)
    assert os.listdir(target.parent) == []
    download(target, progress=False)
    assert server.ranges == ["bytes=17-", None]
    assert target.read_bytes() == BODY


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full, a disk that is always full")
def test_a_full_disk(server: Server, target: Path) -> None:
    target.parent.mkdir(parents=True)
    part_of(target).symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"\.part \(.*No space left.*\); check .*room \(170 MB\) there, or fetch https"):
        download(target, progress=False)
    assert not target.exists()


def test_a_disk_that_was_full_keeps_the_part(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    server.cuts = [CUT]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(DataError, match="No space left"):
            download(target, progress=False)
    assert part_of(target).read_bytes() == BODY[:CUT]
    download(target, progress=False)
    assert server.ranges == [None, f"bytes={CUT}-"]
    assert target.read_bytes() == BODY


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be downloaded to .*\.part \(.*\); check .* permission and room"):
        download(tmp_path / "file" / "archive.tar.gz", progress=False)
    assert (tmp_path / "file").read_text() == "in the way"
    assert server.ranges == []


def test_no_write_permission(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Simulated, because the permissions of a folder do not bind root.
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    target.parent.mkdir(parents=True)
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(DataError, match=r"\.part \(.*Permission denied.*\); check .* permission and room"):
        download(target, progress=False)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_server_that_refuses(server: Server, target: Path, status: int) -> None:
    server.status = status
    with pytest.raises(DataError, match=rf"cannot be downloaded .*\(HTTP Error {status}.*\); check the .* or fetch"):
        download(target, progress=False)
    assert len(server.ranges) == 1
    assert os.listdir(target.parent) == []


def test_nothing_listens(target: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be downloaded to .* \(.*refused>\); check the .* fetch .* --data"):
        download(target, progress=False)


def test_something_listens_that_is_no_web_server(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(module, "URL", f"http://127.0.0.1:{listener.getsockname()[1]}/")

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"220 mail at your service\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DataError, match="CIFAR-100 cannot be downloaded"):
            download(target, progress=False)
        thread.join()


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/caches"}, "/caches/scratchnet"),
        ("linux", {"XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/scratchnet"),
        ("darwin", {"XDG_CACHE_HOME": "/caches", "HOME": "/Users/me"}, "/Users/me/Library/Caches/scratchnet"),
        ("win32", {"LOCALAPPDATA": "/Local"}, "/Local/scratchnet"),
    ],
)
def test_the_cache_directory(
    platform: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module.sys, "platform", platform)
    assert user_cache_directory() == Path(expected)


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", fail)
    with pytest.raises(DataError, match="no home directory to keep CIFAR-100 in; fetch"):
        user_cache_directory()
