"""How the time of a training step grows with the batch, with the number of filters and with the workers.

`python -m tests.benchmarks.scaling`. Each row is a comparison with PyTorch (channels_last) of its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np

from scratchnet.experiments.recipes import RECIPES
from tests.benchmarks import ours, report, torch_peer
from tests.benchmarks.setting import Setting, chosen_recipes, options
from tests.benchmarks.timing import Contender, prepared, serve_steps, time_rounds

BATCHES = 16, 32, 64, 128, 256, 512
CHANNELS = 0.5, 1.0, 2.0
WARM, STEPS = 2, 5


def settings(recipe: str, workers: int) -> Iterator[tuple[str, Setting]]:
    usual = RECIPES[recipe].batch_size
    for batch in BATCHES:
        yield f"batch {batch}", Setting(recipe, batch, workers)
    for channels in CHANNELS:
        yield f"batch {usual}, filters x {channels:g}", Setting(recipe, usual, workers, channels)
    for number in range(1, workers + 1):
        yield f"batch {usual}, workers (threads) {number}", Setting(recipe, usual, number)


def compare(contenders: Sequence[Contender], recipe: str, workers: int, rounds: int) -> str:
    """A table; the contenders are ours and PyTorch's."""
    rows = []
    for name, setting in settings(recipe, workers):
        with prepared(contenders, setting):
            seconds = time_rounds(contenders, rounds, WARM, STEPS)
        mine, theirs = 1e3 * np.median(seconds, axis=0)
        each = f"{1e3 * mine / setting.batch_size:.0f}"
        rows.append((name, float(mine), each, float(theirs), *report.spread(seconds[:, 0] / seconds[:, 1])))
    header = "a step of", "ours, ms", "µs an image", "PyTorch, ms", *report.SPREAD
    return report.table(header, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options("Step time against batch size, filters and workers.", rounds=12).parse_args(arguments)
    print(report.machine())
    with ExitStack() as stack:
        contenders = [
            stack.enter_context(Contender("ours", serve_steps, ours.training_step)),
            stack.enter_context(
                Contender("PyTorch", serve_steps, partial(torch_peer.training_step, channels_last=True))
            ),
        ]
        for recipe in chosen_recipes(chosen.recipe):
            print(f"\n{recipe}: medians of {chosen.rounds} rounds; ratio: ours to PyTorch, channels_last", flush=True)
            print(compare(contenders, recipe, chosen.workers, chosen.rounds), flush=True)


if __name__ == "__main__":
    main()
