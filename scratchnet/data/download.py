"""Downloads the official archive of CIFAR-100 into the user's cache."""

import hashlib
import os
import sys
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from scratchnet.errors import DataError

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
OFFICIAL = {  # SHA-256, as TensorFlow Datasets and Keras have them; of unpacked files the MD5, as torchvision has it
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec": "cifar-100-binary.tar.gz",
    "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7": "cifar-100-python.tar.gz",
    "16019d7e3df5f24257cddd939b257f8d": "train, unpacked from it",
    "f0ef6b0ae62326f3e7ffdfab6717acfc": "test, unpacked from it",
    "7973b15100ade9c7d40fb424638fde48": "meta, unpacked from it",
}
ADVICE = f"fetch {URL} by other means and name it with --data PATH or $SCRATCHNET_DATA"
TIMEOUT_SECONDS = 10  # to connect, and between two pieces of data
ATTEMPTS = 5
CHUNK_BYTES = 1 << 18


def user_cache_directory() -> Path:
    """The folder for what this user's scratchnet has downloaded; DataError where the user has no home directory."""
    places = {"win32": ("LOCALAPPDATA", "~/AppData/Local"), "darwin": ("", "~/Library/Caches")}
    variable, usual = places.get(sys.platform, ("XDG_CACHE_HOME", "~/.cache"))
    try:
        return Path(os.environ.get(variable) or usual).expanduser() / "scratchnet"
    except RuntimeError as error:
        raise DataError(f"there is no home directory to keep CIFAR-100 in; {ADVICE}") from error


def is_official(path: Path) -> bool:
    """Whether the file has the checksum of an official one."""
    for kind in ("sha256", "md5"):
        with path.open("rb") as file:
            if hashlib.file_digest(file, kind).hexdigest() in OFFICIAL:
                return True
    return False


def download(target: Path, *, progress: bool) -> None:
    """Download the archive to `target`, which appears only once it is complete and its checksum right.

    What arrives is kept beside it in `target.part`, from where a broken download goes on, now or in a later call.
    Raises DataError where the address cannot be reached, the checksum is wrong or the folder cannot be written.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not any(_fetch(part, progress) for _ in range(ATTEMPTS)):
            raise DataError(f"the download of {URL} broke off {ATTEMPTS} times; try again to go on from {part}")
        if not is_official(part):
            part.unlink()
            raise DataError(f"what {URL} gave has not the official checksum and was deleted; {ADVICE}")
        os.replace(part, target)
    except (OSError, HTTPException) as error:
        problem = f"CIFAR-100 cannot be downloaded to {part} ({error})"
        raise DataError(f"{problem}; check the network, or permission and room (170 MB) there, or {ADVICE}") from error


def _fetch(part: Path, progress: bool) -> bool:
    """Fetch what `part` lacks; False where the connection broke before the end."""
    offset = part.stat().st_size if part.exists() else 0
    request = Request(URL, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        response = urlopen(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # range not satisfiable: nothing is lacking, or the checksum will tell
            return True
        raise
    with response:
        if response.status != 206:  # partial content: any other answer is the whole file again
            offset = 0
        total = None if response.length is None else offset + response.length
        # Writing at a position, not appending, makes two downloads at the same time write the same bytes.
        with (
            part.open("r+b" if offset else "wb") as file,
            tqdm(desc="CIFAR-100", total=total, initial=offset, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            file.seek(offset)
            with suppress(HTTPException, TimeoutError, ConnectionError):
                while chunk := response.read1(CHUNK_BYTES):  # read would lose what came before a time-out
                    file.write(chunk)
                    bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
            return total is None or file.tell() == total
