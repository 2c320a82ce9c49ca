"""Multi-head attention, forward and backward, against PyTorch's: `python -m tests.benchmarks.attention`.

64 tokens of 128 features, 8 heads, batch 128, float32, training without dropout. Ours are as many processes as PyTorch
has threads, each with its part of the batch, in groups of at most 64 images as in a training; a step ends when all are
done. PyTorch's layer is as fast as it goes: `batch_first`, `need_weights=False`. It has `key_dim` = 128 / 8 only.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from scratchnet import MultiHeadAttention
from scratchnet.backend import Memory, Program, slice_of
from scratchnet.kernels.batch import Batch
from scratchnet.training.replica import quick_ufuncs
from tests.benchmarks import report
from tests.benchmarks.timing import Contender, prepared, serve_steps, time_rounds

ROUNDS, WARM, STEPS = 16, 2, 6
KEY_DIMS = 16, 128


@dataclass(frozen=True)
class Attention:
    """What is timed: `workers` are our processes and the threads of the others."""

    key_dim: int
    workers: int
    images: int = 128
    tokens: int = 64
    features: int = 128
    heads: int = 8

    def layer(self) -> MultiHeadAttention:
        return MultiHeadAttention(self.heads, self.key_dim)

    def arrays(self, images: int) -> tuple[np.ndarray, np.ndarray]:
        """x and dy."""
        source = np.random.default_rng(0)
        x, dy = (source.standard_normal((images, self.tokens, self.features), np.float32) for _ in range(2))
        return x, dy


def part_of_a_step(setting: Attention, rank: int) -> Callable[[], None]:
    """One worker's: its part of the batch group by group, recorded and then replayed."""
    layer = setting.layer()
    layer.build((setting.tokens, setting.features))
    rows = slice_of(setting.images, rank, setting.workers)
    programs, plans = [], {}
    for start in range(0, rows.size, Batch.group):
        size = min(Batch.group, rows.size - start)
        if size not in plans:
            memory = Memory(layer.device, layer.dtype)
            plans[size] = layer.bind(slice_of(size, 0, 1), memory)
            plans[size].x[...], plans[size].dy[...] = setting.arrays(size)
        with Program() as program:
            plans[size].compute(True)
            plans[size].compute_gradients()
        programs.append(program)

    def work() -> None:
        for program in programs:
            program.replay()

    return work


def serve_parts(pipe: Connection, setting: Attention, rank: int) -> None:
    """As the target of a contender: a part of a step whenever asked."""
    with threadpool_limits(1), quick_ufuncs():
        work = part_of_a_step(setting, rank)
        while True:
            pipe.recv()
            work()
            pipe.send("done")


@contextmanager
def our_step(setting: Attention) -> Iterator[Callable[[], None]]:
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Contender(f"worker {rank}", serve_parts, setting, rank))
            for rank in range(setting.workers)
        ]

        def step() -> None:
            for worker in workers:
                worker.pipe.send("go")
            for worker in workers:
                worker.answer()

        step()
        yield step


def pytorchs(setting: Attention) -> Any:
    import torch

    torch.set_num_threads(setting.workers)
    return torch.nn.MultiheadAttention(setting.features, setting.heads, batch_first=True)


@contextmanager
def pytorchs_step(setting: Attention) -> Iterator[Callable[[], None]]:
    import torch

    layer = pytorchs(setting)
    x, dy = map(torch.from_numpy, setting.arrays(setting.images))
    x.requires_grad_()

    def step() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x, x, x, need_weights=False)[0].backward(dy)

    yield step


def compare(contenders: Sequence[Contender], setting: Any, rounds: int) -> str:
    """A table; the first contender is ours."""
    with prepared(contenders, setting):
        seconds = time_rounds(contenders, rounds, WARM, STEPS)
    rows = []
    for contender, taken in zip(contenders, seconds.T, strict=True):
        ratio = [""] * len(report.SPREAD) if contender is contenders[0] else report.spread(seconds[:, 0] / taken)
        rows.append((contender.name, float(1e3 * np.median(taken)), *ratio))
    return report.table(("", "ms a step", *report.SPREAD), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Attention against PyTorch's.", allow_abbrev=False)
    parser.add_argument("--workers", type=int, default=2, help="our processes, their threads (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--images", type=int, default=128, help="of a batch (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    print(report.machine())
    with ExitStack() as stack:
        ours = stack.enter_context(Contender("ours", serve_steps, our_step))
        peer = stack.enter_context(Contender("PyTorch", serve_steps, pytorchs_step))
        for key_dim in KEY_DIMS:
            setting = replace(Attention(key_dim, chosen.workers), images=chosen.images)
            same = setting.heads * key_dim == setting.features
            print(
                f"\nkey_dim {key_dim}, {setting.images} images of {setting.tokens} tokens, {chosen.workers} workers "
                f"(threads); medians of {chosen.rounds} interleaved rounds; ratio: our time to theirs"
            )
            print(compare([ours, peer] if same else [ours], setting, chosen.rounds), flush=True)


if __name__ == "__main__":
    main()
