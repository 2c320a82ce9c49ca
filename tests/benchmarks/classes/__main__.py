"""The study's command; a part of it is a file beside this one."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.classes import groupings, milliseconds, operations, prediction, seconds, share
from tests.benchmarks.report import machine


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.benchmarks.classes", description="What K classes cost.")
    parts = made.add_subparsers(dest="part", required=True)
    parts.add_parser("operations", help="multiply-adds, exponentials, logarithms, random numbers")
    timed = parts.add_parser("milliseconds", help="output layer and head against the number of classes")
    timed.add_argument("--seconds", type=float, default=milliseconds.SECONDS, help="(default: %(default)s)")
    timed.add_argument("--figure", type=Path, help="draw the milliseconds into this PNG file")
    drawn = parts.add_parser("prediction", help="the largest logit, and one draw from the softmax in two ways")
    drawn.add_argument("--seconds", type=float, default=prediction.SECONDS, help="(default: %(default)s)")
    shared = parts.add_parser("share", help="of output layer and head in a step of same-padding")
    shared.add_argument("--seconds", type=float, default=share.SECONDS, help="(default: %(default)s)")
    trained = parts.add_parser("pairs", help="train 10,000 real classes for equal seconds")
    trained.add_argument("--seconds", type=float, default=seconds.SECONDS, help="of each (default: %(default)s)")
    trained.add_argument("--learning-rate", type=float, default=seconds.LEARNING_RATE, help="(default: %(default)s)")
    trained.add_argument("--figure", type=Path, help="draw the cross-entropies into this PNG file")
    grouped = parts.add_parser("groupings", help="two-level softmax on CIFAR-100 by superclass and by chance")
    for part, cases in (trained, seconds.CASES), (grouped, groupings.CASES):
        part.add_argument("--output", type=Path, required=True, help="what is finished there is not done again")
        part.add_argument("--heads", nargs="+", choices=cases, default=[*cases], help="(default: all)")
        part.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="(default: 0 1 2)")
        part.add_argument("--data", default="auto", help="as in train_cifar.py (default: auto)")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = parser().parse_args(arguments)
    print(machine(), flush=True)
    if chosen.part == "operations":
        lines = operations.printed()
    elif chosen.part == "milliseconds":
        times = milliseconds.times(seconds=chosen.seconds)
        lines = milliseconds.printed(times)
        if chosen.figure:
            chosen.figure.write_bytes(milliseconds.figure(times))
    elif chosen.part == "prediction":
        lines = prediction.printed(prediction.times(seconds=chosen.seconds))
    elif chosen.part == "share":
        lines = share.printed(share.shares(seconds=chosen.seconds))
    elif chosen.part == "pairs":
        settings = chosen.data, chosen.seconds, chosen.learning_rate, chosen.figure
        lines = seconds.study(chosen.output, chosen.heads, chosen.seeds, *settings)
    else:
        lines = groupings.study(chosen.output, chosen.heads, chosen.seeds, chosen.data)
    print(*lines, sep="\n\n", flush=True)


if __name__ == "__main__":
    main()
