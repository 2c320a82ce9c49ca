"""The training step against PyTorch and Keras on TensorFlow: `python -m tests.benchmarks.step`.

A step is forward, backward and Adam on one batch, float32 for all; what bfloat16 would give PyTorch on a processor that
has it is another question. Ours begins with the uint8 images in memory and includes gathering and converting them; the
others are given float32 tensors that are there already. All are timed from fresh weights, and again from the weights
and moments that as many steps as an epoch has leave behind: then units have died, and their moments decay.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np

from scratchnet.experiments.recipes import RECIPES
from tests.benchmarks import breakdown, floor, keras_peer, memory, ours, report, scaling, torch_peer
from tests.benchmarks.setting import Setting, chosen_recipes, options
from tests.benchmarks.timing import STEPS, WARM, Contender, prepared, serve_steps, time_rounds

ROUNDS = 16
IMAGES = 50_000  # of an epoch
PEERS = {
    "PyTorch, default layout": partial(torch_peer.training_step, channels_last=False),
    "PyTorch, channels_last": partial(torch_peer.training_step, channels_last=True),
    "PyTorch, channels_last, compiled": partial(torch_peer.training_step, channels_last=True, compiled=True),
    "Keras on TensorFlow": keras_peer.training_step,
}
MISSING = {
    "PyTorch, channels_last, compiled": torch_peer.cannot_compile,
    "Keras on TensorFlow": keras_peer.missing,
}


def compare(contenders: Sequence[Contender], setting: Setting, rounds: int, trained: Sequence[Contender] = ()) -> str:
    """A table; the first contender is ours. Those of `trained` make the steps of an epoch before they are timed."""
    with prepared(contenders, setting):
        for contender in trained:
            contender.ask((IMAGES // setting.batch_size, 1))
        seconds = time_rounds(contenders, rounds, WARM, STEPS)
        usages = [memory.usage(contender.process.pid or 0) for contender in contenders]
    rows = []
    for contender, taken, usage in zip(contenders, seconds.T, usages, strict=True):
        ratio = report.spread(seconds[:, 0] / taken) if contender is not contenders[0] else [""] * len(report.SPREAD)
        megabytes = (f"{size / 1e6:.0f}" for size in (usage.proportional, usage.summed_peaks))
        rows.append((contender.name, float(1e3 * np.median(taken)), *ratio, *megabytes))
    return report.table(("", "ms a step", *report.SPREAD, "PSS, MB", "peak RSS, MB"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options("Our training step against PyTorch and Keras on TensorFlow.", ROUNDS).parse_args(arguments)
    print(report.machine())
    everyone = {"ours": ours.training_step} | PEERS
    for name, missing in MISSING.items():
        if reason := missing():
            del everyone[name]
            print(f"{name} is left out: {reason}")
    speed = floor.product_speed(chosen.workers)
    with ExitStack() as stack:
        contenders = [stack.enter_context(Contender(name, serve_steps, make)) for name, make in everyone.items()]
        for recipe in chosen_recipes(chosen.recipe):
            setting = Setting(recipe, RECIPES[recipe].batch_size, chosen.workers)
            print(
                f"\n{recipe}, batch {setting.batch_size}, {chosen.workers} workers (threads); "
                f"medians of {chosen.rounds} interleaved rounds; ratio: our time to theirs"
            )
            print(compare(contenders, setting, chosen.rounds))
            with Contender("ours, fresh", serve_steps, ours.training_step) as fresh:
                print("  the same, trained for an epoch before")
                print(compare([*contenders, fresh], setting, chosen.rounds, trained=contenders))
            print("  " + floor.describe(floor.multiply_adds(setting), speed, chosen.workers))
            print(breakdown.describe(breakdown.profiles(setting)), flush=True)
            pair = [contenders[0], contenders[list(everyone).index("PyTorch, channels_last")]]
            print("  the same for other settings; ratio: ours to PyTorch, channels_last")
            print(scaling.compare(pair, recipe, chosen.workers, chosen.rounds), flush=True)


if __name__ == "__main__":
    main()
