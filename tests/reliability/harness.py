"""Real runs of train_cifar.py whose processes, files and final bits can be watched; Linux only, as it reads /proc."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from scratchnet import Sequential
from scratchnet.experiments.artifacts import ASIDE
from scratchnet.experiments.reading import read_tensors
from scratchnet.experiments.result import PREDICTIONS, Names

ROOT = Path(__file__).parents[2]
DIGITS = "--data", "digits", "--device", "cpu"
LIMIT = 300.0  # seconds after which whatever is waited for will not come
SHARED_MEMORY = Path("/dev/shm")
WEIGHTS = "weights.safetensors"


class Run:
    """train_cifar.py in a session of its own, with `folder/out` as output folder and `folder/tmp` for temporary files.

    It finds a matplotlib that cannot be imported, as plots take longer than the training here.
    """

    def __init__(self, folder: Path, *arguments: object, **environment: str) -> None:
        self.folder, self.output, self.temporary = folder, folder / "out", folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        modules = folder / "modules"
        modules.mkdir(exist_ok=True)
        (modules / "matplotlib.py").write_text("raise ImportError('no plots, please')\n")
        words = sys.executable, "-W", "error", ROOT / "train_cifar.py", "--output", self.output, *arguments
        paths = {"PYTHONPATH": f"{modules}{os.pathsep}{ROOT}", "TMPDIR": str(self.temporary)}
        with open(folder / "stdout", "wb") as stdout, open(folder / "stderr", "wb") as stderr:
            self.process = subprocess.Popen(
                list(map(str, words)), stdout=stdout, stderr=stderr, env=os.environ | paths | environment,
                cwd=folder, start_new_session=True,
            )  # fmt: skip
        self.pid = self.process.pid

    def out(self) -> str:
        return (self.folder / "stdout").read_text()

    def error(self) -> str:
        """The last line on standard error: what follows the bars of the epochs."""
        lines = (self.folder / "stderr").read_text().replace("\r", "\n").splitlines()
        return lines[-1] if lines else ""

    def until(self, what: Callable[[], object], pause: float = 0.003) -> bool:
        """Wait until something is so; False where the run ended before."""
        end = time.monotonic() + LIMIT
        while not what():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < end, f"still waiting after {LIMIT:.0f} seconds"
            time.sleep(pause)
        return True

    def training(self) -> bool:
        """Wait until the run has all it needs and is about to train."""
        return self.until(lambda: "files go to" in self.out())

    def writing(self) -> bool:
        """Wait until a checkpoint is being written."""
        return self.until(lambda: any("checkpoint" in name for name in asides(self.output)), pause=0.0003)

    def workers(self) -> list[int]:
        return [pid for pid in session(self.pid) if b"spawn_main" in _read(pid, "cmdline")]

    def wait(self) -> int:
        return self.process.wait(LIMIT)

    def survivors(self, patience: float = 10.0) -> list[int]:
        """The processes of this run that have not ended by themselves by now, which are ended then."""
        end = time.monotonic() + patience
        while (left := session(self.pid)) and time.monotonic() < end:
            time.sleep(0.01)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""


def session(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        state, _, _, number, *_ = _read(pid, "stat").rpartition(b")")[2].split() or [b"Z", 0, 0, 0]
        if int(number) == leader and state not in b"ZX":
            found.append(pid)
    return found


def asides(folder: Path) -> list[str]:
    """Files that were being written, or would have been moved into place next."""
    try:
        return [name for name in os.listdir(folder) if name.startswith(ASIDE)]
    except FileNotFoundError:
        return []


def segments() -> set[str]:
    """The names of Python's shared memory and semaphores that no living process has mapped."""
    found = os.listdir(SHARED_MEMORY) if SHARED_MEMORY.exists() else ()
    names = {name for name in found if name.startswith(("pym-", "psm_", "sem.mp-"))}
    mapped = b"".join(_read(int(pid), "maps") for pid in os.listdir("/proc") if pid.isdecimal()) if names else b""
    return {name for name in names if os.fsencode(SHARED_MEMORY / name) not in mapped}


def results(folder: Path) -> dict[str, bytes]:
    """All that a run computed, without how long it took; raises where a file is not whole."""
    found = {}
    files = {}
    if (folder / WEIGHTS).exists():
        files[WEIGHTS] = Sequential.load(folder / WEIGHTS).weights()
    if (folder / PREDICTIONS).exists():
        names, files[PREDICTIONS] = read_tensors(folder / PREDICTIONS, Names)
        found[PREDICTIONS] = repr(names).encode()
    for name, arrays in files.items():
        for key, array in arrays.items():
            found[f"{name} {key}"] = f"{array.dtype} {array.shape} ".encode() + array.tobytes()
    if (folder / "metrics.json").exists():
        metrics = json.loads((folder / "metrics.json").read_bytes())
        for epoch in metrics["epochs"]:
            del epoch["seconds"]
        found["metrics.json"] = json.dumps(metrics).encode()
    if (folder / "history.csv").exists():
        with open(folder / "history.csv", newline="") as file:
            rows = [{name: row[name] for name in row if name != "seconds"} for row in csv.DictReader(file)]
        found["history.csv"] = json.dumps(rows).encode()
        found["confusion.csv"] = (folder / "confusion.csv").read_bytes()
    return found


def differing_bits(ours: dict[str, bytes], theirs: dict[str, bytes]) -> int:
    """In how many bits two results differ; where only one has something, all its bits count."""
    total = 0
    for name in ours.keys() | theirs.keys():
        one, other = (np.frombuffer(content.get(name, b""), np.uint8) for content in (ours, theirs))
        if one.size == other.size:
            total += int(np.bitwise_count(one ^ other).sum())
        else:
            total += 8 * max(one.size, other.size)
    return total
