"""What may go wrong around a run: each fault ends it with a sentence, leaves nothing behind and harms no good file."""

import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tqdm.std

from scratchnet import Adam, SoftmaxCrossEntropy
from scratchnet.data import Dataset, Split, cifar100, load_dataset
from scratchnet.errors import ScratchnetError
from scratchnet.experiments import cli, configure, run
from scratchnet.experiments.checkpoint import NAME, PREVIOUS, Checkpoints
from scratchnet.experiments.display import Display
from scratchnet.experiments.result import Result
from scratchnet.training import Progress, Trainer, workers
from tests.data import synthetic
from tests.reliability.harness import DIGITS, ROOT, Run, asides, differing_bits, results, segments
from tests.training.problem import dataset, network

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="faults are made with what Linux has")

STEPS, IMAGES = 3, 120  # of an epoch
SETTINGS = *DIGITS, "--workers", 1, "--batch-size", 40, "--epochs", 2, "--checkpoint-every", "1step"


@dataclass
class Ended:
    status: int
    out: str
    error: str

    def with_one_sentence(self, *parts: str) -> bool:
        """Whether all it says of the failure is a line, below what is left of the epoch's bar."""
        lines = self.error.replace("\r", "\n").splitlines()
        assert self.status == 1
        assert "Traceback" not in self.error
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:], self.error
        return all(part in lines[-1] for part in parts) or pytest.fail(lines[-1])


Main = Callable[..., Ended]
AtStep = Callable[[int, Callable[[], object]], None]


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Few images, and no figures."""

    def load(source: str, progress: bool) -> Dataset:
        data = load_dataset(source, progress=progress)
        few = (Split(split.images[:IMAGES], split.labels[:IMAGES]) for split in (data.train, data.test))
        return replace(data, **dict(zip(("train", "test"), few, strict=True)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "load_dataset", load)
        for name in "matplotlib", "matplotlib.figure":
            patch.setitem(sys.modules, name, None)
        yield


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    before = segments()
    yield
    assert multiprocessing.active_children() == []
    assert segments() <= before
    assert asides(tmp_path / "out") == []


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Main:
    """`main(...)` is train_cifar.py in this process, with `tmp_path/out` as output folder."""

    def train(*arguments: object) -> Ended:
        status = cli.main([str(word) for word in (*arguments, "--output", tmp_path / "out")])
        return Ended(status, *capsys.readouterr())

    return train


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> AtStep:
    """`at_step(4, deed)` does it as soon as the 4th step from now is done, before its checkpoint."""

    def arrange(number: int, deed: Callable[[], object]) -> None:
        left = iter(range(number - 1, -1, -1))

        def step(self: Display, *figures: Any) -> None:
            if next(left, None) == 0:
                deed()

        monkeypatch.setattr(Display, "step", step)

    return arrange


@pytest.fixture(scope="module")
def whole(quick: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run gives to which nothing happens."""
    folder = tmp_path_factory.mktemp("whole")
    assert cli.main([str(word) for word in (*SETTINGS, "--quiet", "--output", folder)]) == 0
    return results(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# --- the disk


@contextmanager
def small_files(limit: int) -> Iterator[Callable[[], None]]:
    """Calling it makes the system refuse to let a file grow beyond a size: for everyone what a full disk is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def system(*command: object) -> None:
    """What root may do in most places, but not in every container."""
    try:
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot be had here: {error}")


@pytest.mark.parametrize("limit", [0, 3_000_000])
def test_disk_full(limit: int, main: Main, at_step: AtStep, tmp_path: Path, whole: dict[str, bytes]) -> None:
    good = {}
    with small_files(limit) as fill:
        at_step(STEPS + 2, lambda: (good.update(contents(tmp_path / "out")), fill()))
        assert main(*SETTINGS).with_one_sentence("cannot write ", f"out/{NAME} (File too large): free some space")
    assert contents(tmp_path / "out") == good
    assert main(*SETTINGS, "--resume").status == 0
    assert differing_bits(results(tmp_path / "out"), whole) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts; test_disk_full is for everyone")
def test_file_system_full(main: Main, tmp_path: Path) -> None:
    """It has room for two checkpoints of 7.4 MB, but not for a third beside them."""
    (tmp_path / "out").mkdir()
    system("mount", "-t", "tmpfs", "-o", "size=18m", "tmpfs", tmp_path / "out")
    try:
        assert main(*SETTINGS).with_one_sentence(f"out/{NAME} (No space left on device): free some space")
        assert sorted(contents(tmp_path / "out")) == [".lock", PREVIOUS, NAME]
        system("mount", "-o", "remount,size=40m", tmp_path / "out")
        assert "going on after step 2 of 6" in main(*SETTINGS, "--resume").out
    finally:
        system("umount", tmp_path / "out")


def test_folder_becomes_read_only(main: Main, at_step: AtStep, tmp_path: Path, whole: dict[str, bytes]) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    root = os.geteuid() == 0  # whom permissions do not stop
    at_step(STEPS + 2, lambda: system("chattr", "+i", folder) if root else folder.chmod(0o500))
    try:
        assert main(*SETTINGS).with_one_sentence("cannot write ", f"out/{NAME} (")
        assert main(*SETTINGS, "--resume").with_one_sentence("cannot create the output folder", "or write there")
    finally:
        system("chattr", "-i", folder) if root else folder.chmod(0o700)
    assert "going on after step 4 of 6" in main(*SETTINGS, "--resume").out
    assert differing_bits(results(folder), whole) == 0


def test_folder_vanishes(main: Main, at_step: AtStep, tmp_path: Path) -> None:
    at_step(STEPS + 1, lambda: shutil.rmtree(tmp_path / "out"))
    assert main(*SETTINGS).with_one_sentence("cannot write ", f"out/{NAME} (No such file or directory)")
    assert not (tmp_path / "out").exists()


def test_checkpoint_vanishes(main: Main, at_step: AtStep, tmp_path: Path, whole: dict[str, bytes]) -> None:
    """The next one is written as ever; where there is none to go on from, a run says so and begins again."""
    at_step(2, lambda: [(tmp_path / "out" / NAME).unlink(), signal.raise_signal(signal.SIGTERM)])
    assert main(*SETTINGS).status == 128 + signal.SIGTERM
    assert "going on after step 2 of 6" in main(*SETTINGS, "--resume").out
    for name in NAME, PREVIOUS:
        (tmp_path / "out" / name).unlink()
    assert "no checkpoint in" in main(*SETTINGS, "--resume").out
    assert differing_bits(results(tmp_path / "out"), whole) == 0


def test_data_vanish(main: Main, at_step: AtStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has read them; one that is resumed names what it misses, and leaves all as it is."""
    monkeypatch.setattr(cifar100, "TRAIN_RECORDS", synthetic.TRAIN_RECORDS)
    monkeypatch.setattr(cifar100, "TEST_RECORDS", synthetic.TEST_RECORDS)
    archive = tmp_path / "cifar.tar.gz"
    archive.write_bytes(synthetic.tar_bytes(synthetic.python_files()))
    settings = "--data", archive, "--device", "cpu", "--workers", 1, "--batch-size", 40
    at_step(1, archive.unlink)
    assert main(*settings, "--epochs", 1).status == 0
    good = contents(tmp_path / "out")
    assert main(*settings, "--epochs", 2, "--resume").with_one_sentence(str(archive))
    assert contents(tmp_path / "out") == good


# --- checkpoints


class Little:
    """The checkpoints of a training so small that a thousand of them can be read in a second."""

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self.trainer, self.notes = trainer, list[str]()
        config = configure(data="digits", epochs=9, output=folder)
        self.checkpoints = Checkpoints(config)
        self.result = Result(config.settings, {})

    def save(self, step: int) -> None:
        self.trainer.progress = Progress(epoch=1, steps=step)
        self.trainer.engine.arrays["parameters"][:] = step
        self.checkpoints.save(self.result, self.trainer)

    def load(self) -> int:
        """The step of the checkpoint that was taken, whose parameters are those of that step."""
        self.trainer.engine.arrays["parameters"][:] = 0
        self.checkpoints.load(self.result, self.trainer, self.notes.append)
        step = self.trainer.progress.steps
        assert (self.trainer.engine.arrays["parameters"] == step).all()
        return step


@pytest.fixture
def little(tmp_path: Path) -> Iterator[Little]:
    with Trainer(network(), SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=30, workers=1) as trainer:
        yield Little(tmp_path, trainer)


def damaged(content: bytes) -> Iterator[bytes]:
    """Cut at every length of the header and at random places, longer, and with a bit of each byte flipped."""
    draw, header = random.Random(0), 8 + int.from_bytes(content[:8], "little")
    assert 600 < header < 6000
    yield from (content[:length] for length in range(header + 1))
    yield from (content[: draw.randrange(header, len(content))] for _ in range(100))
    yield from (content + bytes(1), content + content, bytes(len(content)))
    places = [8 * byte + draw.randrange(8) for byte in range(header)]
    places += [draw.randrange(8 * header, 8 * len(content)) for _ in range(300)]
    for place in places:
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        yield bytes(flipped)


def test_damaged_checkpoint(little: Little, tmp_path: Path) -> None:
    """It is never taken for a good one; where there is none, the run is refused."""
    little.save(1)
    path = tmp_path / NAME
    contents = list(damaged(path.read_bytes()))
    assert len(contents) > 1500
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ScratchnetError, match=r"^cannot resume, as no checkpoint in .* is usable .*: remove them"):
            little.load()


def test_checkpoint_before_a_damaged_one(little: Little, tmp_path: Path) -> None:
    little.save(1)
    little.save(2)
    draw, contents = random.Random(0), list(damaged((tmp_path / NAME).read_bytes()))
    for content in draw.sample(contents, 200):
        (tmp_path / NAME).write_bytes(content)
        little.notes.clear()
        assert little.load() == 1
        assert little.notes[0].startswith(NAME)
        assert little.notes[0].endswith("the checkpoint before it is taken")


class Dead(BaseException):
    """What a process does no more once it was killed."""


def mortal(function: Callable[..., Any], calls: Iterator[int]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if next(calls, None) is None:
            raise Dead
        return function(*arguments, **options)

    return call


@pytest.mark.parametrize("damage", [False, True])
def test_killed_at_every_step_of_a_write(
    damage: bool, little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a death before each call that changes the folder there is the new checkpoint, or the newest good one."""
    found = set()
    for deadline in range(20):
        for name in NAME, PREVIOUS:
            (tmp_path / name).unlink(missing_ok=True)
        for step in 1, 2:
            little.save(step)
        if damage:
            (tmp_path / NAME).write_bytes(b"damaged")
            assert little.load() == 1
        calls = iter(range(deadline))
        with monkeypatch.context() as patch:
            for owner, name in ((os, "fsync"), (os, "replace"), (Path, "unlink")):
                patch.setattr(owner, name, mortal(getattr(owner, name), calls))
            with suppress(Dead):
                little.save(3)
                break
        found.add(little.load())
        for aside in asides(tmp_path):
            (tmp_path / aside).unlink()
    assert found == ({1, 3} if damage else {2, 3})
    assert 2 < deadline < 19
    assert little.load() == 3


# --- processes, clocks and memory


def test_two_runs_in_one_folder(main: Main, tmp_path: Path) -> None:
    """The second is refused as long as the first lives, and a kill of the first leaves no lock."""
    first = Run(tmp_path, *SETTINGS, "--epochs", 999)
    try:
        assert first.training(), first.error()
        began = time.monotonic()
        assert main(*SETTINGS).with_one_sentence("another run is writing to", "or choose another folder")
        assert time.monotonic() - began < 5
        assert first.until(lambda: (tmp_path / "out" / NAME).exists()), first.error()
    finally:
        first.process.kill()
        first.wait()
    assert main(*SETTINGS).with_one_sentence("has the checkpoint of an unfinished run: go on with --resume")
    assert first.survivors() == []


def test_hung_worker(main: Main, at_step: AtStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        monkeypatch.setattr(workers, "PATIENCE", 1)
        monkeypatch.setattr(workers, "IMAGE_PATIENCE", 0)
        os.kill(multiprocessing.active_children()[1].pid or 0, signal.SIGSTOP)

    settings = *SETTINGS, "--workers", 2
    at_step(2, stop)
    assert main(*settings).with_one_sentence("gave no answer for 1 seconds", "Train again")
    assert sorted(contents(tmp_path / "out")) == [".lock", PREVIOUS, NAME]
    monkeypatch.undo()
    assert "going on after step 2 of 6" in main(*settings, "--resume").out


def test_clock_jumps(main: Main, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """By years, back and forth, at each look; the seconds that are reported go on."""
    draw = random.Random(0)
    for owner in time, tqdm.std:
        monkeypatch.setattr(owner, "time", lambda: draw.choice([0.0, 1e9, 4e9]))
    assert main(*SETTINGS).status == 0
    assert differing_bits(results(tmp_path / "out"), whole) == 0


def test_nothing_reads_the_clock_of_the_wall() -> None:
    """Nor the times of files, which come from it."""
    wall, files = r"\btime\.(time|localtime|gmtime|ctime)|from time import (?!perf_counter\n)|datetime", r"[mac]time\b"
    forbidden = re.compile(f"{wall}|{files}")
    for path in (ROOT / "scratchnet").rglob("*.py"):
        assert forbidden.search(path.read_text()) is None, path


ONE_GROUP = """
import sys
from scratchnet.experiments.cli import main
from scratchnet.kernels.batch import Batch
Batch.group = 10**6
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.mark.parametrize(("processes", "megabytes"), [(1, 900), (2, 800)])
def test_memory_exhausted(processes: int, megabytes: int, tmp_path: Path) -> None:
    """A group of all images needs some gigabytes; Python and its libraries alone have 600 megabytes of addresses."""
    script = tmp_path / "one_group.py"
    script.write_text(ONE_GROUP)
    arguments = *DIGITS, "--workers", processes, "--batch-size", 1437, "--epochs", 1, "--output", tmp_path / "out"
    command = "sh", "-c", f'ulimit -v {megabytes * 1000}; exec "$@"', "sh", sys.executable, script
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP")}
    done = subprocess.run(
        list(map(str, (*command, *arguments))),
        capture_output=True, text=True, env=os.environ | threads, cwd=tmp_path, timeout=100, check=False,
    )  # fmt: skip
    cause = "memory is exhausted (" if processes == 1 else "of 2 failed, and the run with it: "
    assert Ended(done.returncode, done.stdout, done.stderr).with_one_sentence(cause, "Unable to allocate")


def test_standard_error_full(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no place for a sentence, and the exit status alone tells what happened."""
    full = open("/dev/full", "w", buffering=1)  # noqa: SIM115
    monkeypatch.setattr(sys, "stderr", full)
    assert main("--data", "/nowhere").status == 1
    with suppress(OSError):
        full.close()
