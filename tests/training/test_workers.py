"""Worker processes: the same results, reproducible, and nothing left behind."""

import multiprocessing
import multiprocessing.spawn
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchnet import (
    Adam,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    GumbelSoftmax,
    GumbelSoftmaxCrossEntropy,
    Sequential,
    SoftmaxCrossEntropy,
)
from scratchnet.backend import slice_of
from scratchnet.data import Split
from scratchnet.errors import TrainingError
from scratchnet.layers.layer import Layer
from scratchnet.training import Trainer, workers
from tests.training.problem import dataset, network

ROOT = Path(__file__).parents[2]


def train(workers: int, head: Any, extra: tuple[Layer, ...] = (), epochs: int = 2, dtype: str = "float64") -> Any:
    """Both batches, of 31 and 30 images, are 15 for the second of two workers, as is a prediction of 31."""
    net = network(*extra, dtype=dtype)
    with Trainer(net, head, Adam(), dataset(61, 31), batch_size=31, workers=workers) as trainer:
        assert trainer.workers == workers
        trainer.predict("test")
        losses = [trainer.train_epoch(epoch).loss for epoch in range(1, epochs + 1)]
        logits = trainer.predict("test")
    return losses, logits, net.weights()


@pytest.mark.parametrize(
    ("head", "extra"),
    [(SoftmaxCrossEntropy(), lambda: (BatchNormalization(), Dropout(0.3))), (GumbelSoftmaxCrossEntropy(0.7), tuple)],
)
def test_two_workers_compute_what_one_does(head: Any, extra: Any) -> None:
    """Batches of 31 split unevenly; noise, masks and batch statistics are those of the whole batch."""
    (loss, logits, weights), (loss_2, logits_2, weights_2) = (train(count, head, extra()) for count in (1, 2))
    assert loss_2 == pytest.approx(loss, rel=1e-10)
    np.testing.assert_allclose(logits_2, logits, rtol=1e-6, atol=1e-8)
    for name, array in weights.items():
        np.testing.assert_allclose(weights_2[name], array, rtol=1e-6, atol=1e-8)


def test_the_noise_in_a_prediction_is_of_the_image_not_of_the_worker() -> None:
    """One image 300 times, through a layer that draws: no two the same, and the same for one worker and two."""
    data, logits = dataset(), []
    images = np.repeat(data.test.images[:1], 300, 0)
    data = replace(data, test=Split(images, np.zeros(300, np.int64)))
    for count in (1, 2):
        net = Sequential([Flatten(), Dense(6), GumbelSoftmax(0.7), Dense(5)])
        net.build((8, 8, 3), dtype="float64")
        with Trainer(net, SoftmaxCrossEntropy(), Adam(), data, batch_size=32, workers=count) as trainer:
            logits.append(trainer.predict("test"))
    assert len(np.unique(logits[0], axis=0)) == 300
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-12)


def test_two_runs_with_two_workers_give_the_same_bits() -> None:
    first, second = (train(2, GumbelSoftmaxCrossEntropy(), (Dropout(0.3),), dtype="float32") for _ in range(2))
    assert first[0] == second[0]
    assert all(first[2][name].tobytes() == second[2][name].tobytes() for name in first[2])


def test_there_are_never_more_workers_than_images_in_a_batch() -> None:
    with Trainer(network(), SoftmaxCrossEntropy(), Adam(), dataset(91), batch_size=30, workers=2) as trainer:
        assert trainer.workers == 1  # the last batch has one image
        trainer.train_epoch(1)


@pytest.mark.parametrize(("size", "replicas"), [(64, 2), (31, 2), (7, 3), (5, 5)])
def test_shares_cover_the_batch(size: int, replicas: int) -> None:
    shares = [slice_of(size, rank, replicas) for rank in range(replicas)]
    assert [row for share in shares for row in range(share.start, share.start + share.size)] == list(range(size))
    assert max(share.size for share in shares) - min(share.size for share in shares) <= 1


def test_a_killed_worker_ends_the_run_with_one_sentence_and_no_process() -> None:
    trainer = Trainer(network(), SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=30, workers=2)
    processes = trainer.engine.processes  # type: ignore[union-attr]
    trainer.train_epoch(1)
    os.kill(processes[1].pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(TrainingError, match=r"worker 1 of 2 died \(signal 9\)"):
        trainer.train_epoch(2)
    assert time.monotonic() - began < 10
    assert not any(process.is_alive() for process in processes)
    trainer.close()
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
@pytest.mark.parametrize("order", ["train", "predict"])
def test_a_worker_that_hangs_ends_the_run_with_one_sentence_and_no_process(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worker 0 waits at the barrier of the training step for worker 1, which alone is to blame."""
    trainer = Trainer(network(), SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=30, workers=2)
    trainer.train_epoch(1)
    monkeypatch.setattr(workers, "PATIENCE", 1)
    monkeypatch.setattr(workers, "IMAGE_PATIENCE", 0)
    processes = trainer.engine.processes  # type: ignore[union-attr]
    os.kill(processes[1].pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(TrainingError, match=r"^worker 1 of 2 gave no answer for 1 seconds.*Train again"):
        trainer.train_epoch(2) if order == "train" else trainer.predict()
    assert 1 <= time.monotonic() - began < 8
    assert not any(alive(process.pid) for process in processes)
    trainer.close()
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
def test_the_patience_grows_with_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Giant batches and long predictions may take long: 37 images are worth the silence of this stopped worker."""
    monkeypatch.setattr(workers, "PATIENCE", 0)
    monkeypatch.setattr(workers, "IMAGE_PATIENCE", 10 / 37)
    with Trainer(network(), SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=30, workers=2) as trainer:
        trainer.predict()
        pid = trainer.engine.processes[1].pid  # type: ignore[union-attr]
        os.kill(pid, signal.SIGSTOP)
        wake = threading.Timer(1.2, os.kill, (pid, signal.SIGCONT))
        wake.start()
        trainer.predict()
        wake.join()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
def test_a_suspended_run_goes_on(tmp_path: Path) -> None:
    """Ctrl-Z, or a machine that sleeps, for longer than the patience: that is nobody's silence."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("epoch = 0", "workers.PATIENCE, workers.IMAGE_PATIENCE = 2, 0; epoch = 0"))
    run = [sys.executable, script]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(run, stdout=subprocess.PIPE, env=environment, text=True, start_new_session=True) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        os.killpg(parent.pid, signal.SIGSTOP)
        time.sleep(3.5)
        os.killpg(parent.pid, signal.SIGCONT)
        time.sleep(0.5)
        assert parent.poll() is None
        parent.kill()


def test_nothing_of_a_run_has_a_name_that_could_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that even a kill of all processes at once, the resource tracker among them, leaves nothing behind."""
    names: list[object] = []
    monkeypatch.setattr(resource_tracker, "register", lambda *what: names.append(what))
    before = set(Path("/dev/shm").glob(f"*{os.getpid()}*"))  # joblib, of another test, may keep a folder there
    with Trainer(network(), SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=30, workers=2):
        assert names == []
        assert set(Path("/dev/shm").glob(f"*{os.getpid()}*")) <= before


def test_a_worker_that_dies_before_it_has_its_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is sent fits into a pipe that nobody reads: where it does not, Python waits for ever."""
    net = Sequential([Dense(2000)])
    net.build((2000,))
    assert len(pickle.dumps(net.unbuilt())) < 4096
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", b"/bin/false")
    with pytest.raises(TrainingError, match=r"worker [01] of 2 died \(exit status 1\)"):
        Trainer(network(), SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=30, workers=2)
    assert multiprocessing.active_children() == []


def test_a_worker_that_fails_says_why() -> None:
    trainer = Trainer(network(), SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=30, workers=2)
    with pytest.raises(TrainingError, match=r"worker [01] of 2 failed.*KeyError: 'nothing images'") as caught:
        trainer.engine.predict("nothing", 0, 30)
    assert "Traceback" not in str(caught.value)
    trainer.close()
    assert multiprocessing.active_children() == []


def test_a_worker_in_the_middle_of_a_step_ends_with_its_parent(tmp_path: Path) -> None:
    """The parent dies when one of two workers has its orders, and waits at the barrier for the other."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("epoch = 0", "trainer.engine.pipes[0].send(('train', (0, 30, 0))); os._exit(1)"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, script], capture_output=True, env=environment, text=True, timeout=60)
    deadline, pids = time.monotonic() + 5, [int(pid) for pid in result.stdout.split()]
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


SCRIPT = """
import os
import sys
from scratchnet import Adam, SoftmaxCrossEntropy
from scratchnet.training import Trainer, workers
from tests.training.problem import dataset, network
if __name__ == "__main__":
    with Trainer(network(), SoftmaxCrossEntropy(), Adam(), dataset(), batch_size=30, workers=2) as trainer:
        print(*(process.pid for process in trainer.engine.processes), flush=True)
        epoch = 0
        while True:
            epoch += 1
            trainer.train_epoch(epoch)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(how: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    for pid in pids:  # since its first moment
        assert re.search(r"SigBlk:\s+0*4002\n", Path(f"/proc/{pid}/status").read_text())
    time.sleep(0.3)
    parent.send_signal(how)
    parent.communicate(timeout=20)
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
