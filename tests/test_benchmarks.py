"""The benchmarks run and count what they say they count. No test looks at a time."""

import subprocess
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchnet.data import load_dataset
from tests.benchmarks import (
    attention,
    breakdown,
    epoch,
    floor,
    keras_peer,
    memory,
    ours,
    report,
    scaling,
    step,
    timing,
    torch_epoch,
    torch_peer,
)
from tests.benchmarks.setting import BATCHES, IMAGE_SHAPE, Setting

torch = pytest.importorskip("torch", reason="the benchmarks compare with PyTorch: pip install 'scratchnet[test]'")

RECIPES = "same-padding", "valid-padding"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little work for each benchmark."""
    monkeypatch.delitem(step.PEERS, "PyTorch, default layout")  # it takes seconds to import torch once more
    monkeypatch.delitem(step.PEERS, "PyTorch, channels_last, compiled")  # half a minute
    monkeypatch.delitem(step.MISSING, "PyTorch, channels_last, compiled")
    monkeypatch.setattr(step, "IMAGES", 64)
    monkeypatch.setattr(step, "STEPS", 2)
    monkeypatch.setattr(step, "WARM", 1)
    monkeypatch.setattr(scaling, "BATCHES", (4,))
    monkeypatch.setattr(scaling, "CHANNELS", (0.5,))
    monkeypatch.setattr(floor, "SIZE", 64)
    monkeypatch.setattr(breakdown, "STEPS", 2)


@pytest.fixture
def threads() -> Iterator[None]:
    """PyTorch's number of threads is put back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("small")
def test_step_prints_the_comparison_the_floor_the_breakdown_and_the_scaling(capfd: pytest.CaptureFixture[str]) -> None:
    step.main(["--recipe", "valid-padding", "--rounds", "2", "--workers", "1"])
    lines = capfd.readouterr().out.splitlines()
    name = "  PyTorch, channels_last"
    cells = next(line for line in lines if line.startswith(name)).removeprefix(name).split()
    milliseconds, ratio, low, high, least, most, *_ = map(float, cells)
    assert 0 < least <= low <= ratio <= high <= most
    assert milliseconds > 0
    reason = keras_peer.missing()
    assert any("Keras on TensorFlow" in line and (reason is None or reason in line) for line in lines)
    for text in (
        "ours, fresh ",
        "floor ",
        "conv2d_1 backward",
        "matrix products: ",
        "batch 4 ",
        "filters x 0.5 ",
        "workers (threads) 1 ",
    ):
        assert any(text in line for line in lines), text


def test_attention_prints_the_comparison_and_the_key_dim_that_pytorch_has_not(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "STEPS", 1)
    attention.main(["--rounds", "2", "--workers", "2", "--images", "3"])
    lines = capfd.readouterr().out.splitlines()
    (cells,) = (line.split()[1:] for line in lines if line.startswith("  PyTorch "))
    milliseconds, ratio, low, high, least, most = map(float, cells)
    assert 0 < least <= low <= ratio <= high <= most
    assert milliseconds > 0
    assert [line.split()[0] for line in lines if line.split()[:1] in (["ours"], ["key_dim"])] == ["key_dim", "ours"] * 2


def test_the_attentions_that_are_timed_are_the_same(threads: None) -> None:
    setting = attention.Attention(16, 2)
    layer = setting.layer()
    layer.build((setting.tokens, setting.features))
    assert sum(p.numel() for p in attention.pytorchs(setting).parameters()) == layer.count_parameters()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_compiled_peer_trains(threads: None) -> None:
    assert torch_peer.cannot_compile() is None
    with torch_peer.training_step(Setting("valid-padding", 4, 1), channels_last=True, compiled=True) as train:
        train()


def test_epoch_prints_both_epochs_and_the_parts_of_ours(capfd: pytest.CaptureFixture[str], small: None) -> None:
    epoch.main(["--recipe", "valid-padding", "--rounds", "2", "--workers", "1", "--data", "digits"])
    lines = capfd.readouterr().out.splitlines()
    dataset = load_dataset("digits")
    assert any(f"{len(dataset.train):,} and {len(dataset.test):,} images" in line for line in lines)
    for number in (1, 2):
        cells = next(line for line in lines if line.startswith(f"  epoch {number} ")).split()[2:]
        training, evaluating, their_training, their_evaluating, ratio, *_ = map(float, cells)
        assert min(training, evaluating, their_training, their_evaluating) > 0
        assert ratio == pytest.approx((training + evaluating) / (their_training + their_evaluating), rel=0.1)
    cells = next(line for line in lines if line.startswith("  whole epochs ")).split()[2:]
    assert cells == [f"{ratio:.3f}"] * 5  # of the second epoch alone
    for text in ("floor ", "reading the data set", "shuffling", "uint8 to float32", "evaluating the", "together"):
        assert any(text in line for line in lines), text


def test_epoch_wants_to_know_where_cifar_100_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SCRATCHNET_DATA", raising=False)
    with pytest.raises(SystemExit, match="2"):
        epoch.main([])
    assert "$SCRATCHNET_DATA is not set" in capsys.readouterr().err


@pytest.mark.slow
def test_memory_prints_the_peaks_of_both_runs(capsys: pytest.CaptureFixture[str]) -> None:
    memory.main(["--recipe", "valid-padding", "--data", "digits"])
    lines = capsys.readouterr().out.splitlines()
    for name in ("train_cifar.py, 2 workers", "PyTorch's script, 2 threads"):
        cells = next(line for line in lines if line.strip().startswith(name)).removeprefix(f"  {name}").split()
        proportional, unique, resident, peaks = (float(cell.replace(",", "")) for cell in cells)
        assert 50 < unique <= proportional <= resident <= peaks


MB = 10**6


def test_shared_memory_counts_once_in_the_proportional_set_and_twice_in_the_resident() -> None:
    code = """
import mmap, os
shared = mmap.mmap(-1, 64_000_000)
child = os.fork()
for place in range(0, len(shared), 4096):
    shared[place] = 1
if child:
    own = b"x" * 32_000_000
os.write(1, b"+")
os.read(0, 1)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"++"
        found = memory.usage(process.pid)
        process.communicate(b"..")
    assert 96 * MB < found.proportional < 126 * MB
    assert 32 * MB < found.unique < 62 * MB
    assert 160 * MB < found.resident <= found.summed_peaks


def test_the_peak_of_a_run_is_seen_though_it_ends_with_little() -> None:
    code = "import time; a = b'x' * 80_000_000; time.sleep(0.3); del a; time.sleep(0.1)"
    found = memory.peak([sys.executable, "-c", code])
    assert 80 * MB < found.unique <= found.proportional <= found.resident <= found.summed_peaks < 120 * MB


def test_memory_of_a_command_that_fails_is_not_reported() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        memory.peak([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_floor_counts_the_multiply_adds_that_pytorch_counts(recipe: str, threads: None) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    setting = Setting(recipe, 4, 1)
    with torch_peer.training_step(setting, channels_last=False) as train, FlopCounterMode(display=False) as counter:
        train()
    assert 2 * floor.multiply_adds(setting) == counter.get_total_flops()


@pytest.mark.parametrize("channels", [0.5, 1.0])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_networks_of_others_are_ours(recipe: str, channels: float) -> None:
    network = Setting(recipe, 4, 1, channels).network()
    assert network.layers[0].filters == {"same-padding": 32, "valid-padding": 30}[recipe] * channels
    peer = torch_peer.torch_network(network)
    assert peer(torch.zeros(2, 3, 32, 32)).shape == (2, 100)
    assert sum(parameter.numel() for parameter in peer.parameters()) == network.count_parameters()
    if keras_peer.missing() is None:
        assert keras_peer.keras_network(network).count_params() == network.count_parameters()


def test_our_steps_go_round_all_images() -> None:
    setting = Setting("valid-padding", 4, 1)
    with ours.trainer(setting, ours.random_images(setting)) as trainer:
        assert sorted(trainer.engine.arrays["order"]) == list(range(4 * BATCHES))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_breakdown_covers_each_layer_and_each_product(workers: int, small: None) -> None:
    setting = Setting("same-padding", 6, workers)
    found = breakdown.profiles(setting)
    assert len(found) == workers
    network = setting.network()
    network.build(IMAGE_SHAPE)
    parts = {name for worker in found for name, _ in worker.milliseconds}
    done_by_others = {f"{kind}{number}" for kind in ("re_lu", "max_pooling2d") for number in ("", "_1", "_2")}
    names = {layer.name for layer in network.layers} - done_by_others
    wanted = {f"{name} {way}" for name in names for way in ("forward", "backward")}
    assert parts == wanted | {"head", "Adam", breakdown.IMAGES, breakdown.MEETING}
    for worker in found:
        assert all(milliseconds > 0 for milliseconds in worker.milliseconds.values())
        kinds = {breakdown.column(function) for _, function in worker.milliseconds}
        assert kinds == set(breakdown.COLUMNS) - {"together"} - ({"waiting"} if workers == 1 else set())
    # Winograd's 36 products for 144, here with whole tiles; its transforms; the bias gradients as products.
    winograd = [layer for layer in network.layers if layer.name in ("conv2d_1", "conv2d_2")]
    counts = {row.layer: setting.batch_size * row.total for row in floor.count(network)}
    products = sum(counts.values()) - sum(counts[layer.name] * 3 // 4 for layer in winograd)
    transforms = workers * sum(3 * 36 * layer.kernel.size for layer in winograd)
    transforms += setting.batch_size * sum(2 * 36 * prod(layer.output_shape) for layer in winograd)
    biases = setting.batch_size * (16 * 16 * 32 + 8 * 8 * 64 + 4 * 4 * 128)
    assert sum(worker.multiply_adds for worker in found) == products + transforms + biases


def test_rounds_are_interleaved() -> None:
    asked = []

    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name

        def ask(self, question: Any) -> float:
            asked.append((self.name, question))
            return float(len(asked))

    seconds = timing.time_rounds([Fake("A"), Fake("B")], 3, 1, 2)  # type: ignore[list-item]
    assert asked == [("A", (1, 2)), ("B", (1, 2))] * 3
    np.testing.assert_array_equal(seconds, [[1, 2], [3, 4], [5, 6]])


def test_a_contender_that_fails_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        timing.Contender("the third", timing.serve_steps, None) as contender,
        pytest.raises(RuntimeError, match="the third failed"),
    ):
        contender.ask("a setting")
    assert "TypeError" in capfd.readouterr().err
    assert contender.process.exitcode == 1


def test_pytorch_script_learns(capsys: pytest.CaptureFixture[str], threads: None) -> None:
    torch_epoch.main(["--recipe", "valid-padding", "--data", "digits", "--workers", "1"])
    assert float(capsys.readouterr().out.split("accuracy ")[-1]) > 0.3  # of ten classes


def test_spread_and_table() -> None:
    assert report.spread(np.array([0.5, 0.4, 0.7, 0.6, 0.8])) == ["0.600", "0.500", "0.700", "0.400", "0.800"]
    assert report.table(("", "ms"), [("ours", 1234.56), ("x", 2), ("y", "none")]).splitlines() == [
        "             ms",
        "  ours  1,234.6",
        "  x           2",
        "  y        none",
    ]


def test_the_machine_line_warns_where_the_machine_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.os, "getloadavg", lambda: (0.1, 9.0, 9.0))
    assert "SOMETHING ELSE" not in report.machine()
    monkeypatch.setattr(report.os, "getloadavg", lambda: (1.7, 0.0, 0.0))
    assert "load average 1.70" in report.machine()
    assert "SOMETHING ELSE" in report.machine()


@pytest.mark.parametrize(
    "name", ["attention", "breakdown", "epoch", "floor", "memory", "scaling", "step", "torch_epoch"]
)
def test_every_benchmark_is_a_command_whose_workers_need_not_import_torch(name: str) -> None:
    source = Path(__file__).parent / "benchmarks" / f"{name}.py"
    assert source.read_text().endswith('\n\nif __name__ == "__main__":\n    main()\n')


def test_the_modules_of_the_benchmarks_import_neither_torch_nor_tensorflow() -> None:
    code = (
        "import sys; from tests.benchmarks import attention, epoch, memory, scaling, step, torch_epoch; "
        "sys.exit(bool({'torch', 'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=memory.ROOT, check=False).returncode == 0
