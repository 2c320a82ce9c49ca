"""Downloads the official archive of CIFAR-100 into the user's cache."""

import hashlib
import os
import sys
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from scratchnet.errors import DataError

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
MD5 = "03b5dce01913d631647c71ecec9e9cb8"
ADVICE = f"fetch {URL} by other means and name it with --data PATH or $SCRATCHNET_DATA"
TIMEOUT_SECONDS = 10  # to connect, and between two pieces of data
ATTEMPTS = 5
CHUNK_BYTES = 1 << 18


def user_cache_directory() -> Path:
    """The folder for what this user's scratchnet has downloaded; DataError where the user has no home directory."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "scratchnet"
    except RuntimeError as error:
        raise DataError(f"there is no home directory to keep CIFAR-100 in; {ADVICE}") from error


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
        with part.open("rb") as file:
            received = hashlib.file_digest(file, "md5").hexdigest()
        if received != MD5:
            part.unlink()
            raise DataError(f"the downloaded archive has md5 {received}, not {MD5}, and was deleted; {ADVICE}")
        os.replace(part, target)
    except OSError as error:
        problem = f"{part} cannot be written ({error})"
        raise DataError(f"{problem}; give that folder write permission and 170 MB of room, or {ADVICE}") from error


def _fetch(part: Path, progress: bool) -> bool:
    """Fetch what `part` lacks; False where the connection broke before the end. OSError is about the disk alone."""
    offset = part.stat().st_size if part.exists() else 0
    request = Request(URL, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        response = urlopen(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # range not satisfiable: nothing is lacking, or the checksum will tell
            return True
        raise DataError(f"CIFAR-100 cannot be downloaded ({error}); {ADVICE}") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"CIFAR-100 cannot be downloaded ({reason}); {ADVICE}") from error
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
            for chunk in _receive(response):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
            return total is None or file.tell() == total


def _receive(response: HTTPResponse) -> Iterator[bytes]:
    """The pieces of the answer; a broken connection ends them early, whether or not the server said so."""
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES)  # read would lose what came before a time-out
        except (OSError, HTTPException):
            return
        if not chunk:
            return
        yield chunk
