"""Memory of a process and all it has started; as a command, the peak of a training run beside PyTorch's script.

`python -m tests.benchmarks.memory` runs one epoch of train_cifar.py and of `tests.benchmarks.torch_epoch` on the same
data. Memory that several processes share is counted once in `proportional` (PSS), not at all in `unique` (USS), and in
each process in `resident` (RSS). `summed peaks` adds up the largest RSS each process ever had, whenever that was.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import report
from tests.benchmarks.setting import chosen_recipes, options

ROOT = Path(__file__).parents[2]
INTERVAL = 0.05  # seconds between two looks


class Usage(NamedTuple):
    """Bytes."""

    proportional: int
    unique: int
    resident: int
    summed_peaks: int

    def megabytes(self) -> list[float]:
        return [size / 1e6 for size in self]


HEADER = tuple(f"{name.replace('_', ' ')}, MB" for name in Usage._fields)


def descendants(pid: int) -> list[int]:
    """The process and all that it, and those, have started."""
    found = [pid]
    for parent in found:
        with suppress(OSError):  # it may be gone by now
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def _fields(path: Path) -> dict[str, int]:
    """The lines "name: number kB" of a file, in bytes."""
    fields = (line.split() for line in path.read_text().splitlines() if line.endswith(" kB"))
    return {name.rstrip(":"): 1024 * int(number) for name, number, _ in fields}


def usage(pid: int, peaks: dict[int, int] | None = None) -> Usage:
    """Of the process and its descendants now; `peaks`, by process, are remembered between calls."""
    peaks = {} if peaks is None else peaks
    total = [0, 0, 0]
    for process in descendants(pid):
        with suppress(OSError, KeyError):  # it may be ending, and then has no memory to tell of
            now = _fields(Path(f"/proc/{process}/smaps_rollup"))
            peaks[process] = _fields(Path(f"/proc/{process}/status"))["VmHWM"]
            for place, size in enumerate((now["Pss"], now["Private_Clean"] + now["Private_Dirty"], now["Rss"])):
                total[place] += size
    return Usage(*total, sum(peaks.values()))


def peak(command: Sequence[str]) -> Usage:
    """The largest usage seen while the command ran, field by field; CalledProcessError where it fails."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    largest = Usage(0, 0, 0, 0)
    while process.poll() is None:
        largest = Usage(*map(max, largest, usage(process.pid, peaks)))
        time.sleep(INTERVAL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return largest


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options("Peak memory of a training run of one epoch, with evaluation, ours and PyTorch's.")
    parser.add_argument("--data", default="cifar100", help="as train_cifar.py takes it (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    print(report.machine())
    for recipe in chosen_recipes(chosen.recipe):
        common = ["--recipe", recipe, "--workers", str(chosen.workers), "--data", chosen.data, "--epochs", "1"]
        with tempfile.TemporaryDirectory() as folder:
            output = ["--device", "cpu", "--quiet", "--output", folder]
            ours = peak([sys.executable, "train_cifar.py", *common, *output])
        theirs = peak([sys.executable, "-m", "tests.benchmarks.torch_epoch", *common])
        rows = [
            (f"train_cifar.py, {chosen.workers} workers", *ours.megabytes()),
            (f"PyTorch's script, {chosen.workers} threads", *theirs.megabytes()),
            ("ratio", *(f"{a / b:.2f}" for a, b in zip(ours, theirs, strict=True))),
        ]
        print(f"\n{recipe}, one epoch of {chosen.data}: peak memory, all processes of a run together")
        print(report.table(("", *HEADER), rows, decimals=0))


if __name__ == "__main__":
    main()
