"""The command line: arguments in, an exit status out, and one sentence for whatever goes wrong."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from scratchnet.arguments import positive_integer
from scratchnet.errors import ScratchnetError
from scratchnet.experiments.config import ANNEAL, DEVICES, PRECISIONS, SAMPLES, Config, Temperature, configure
from scratchnet.experiments.display import Display, final_block
from scratchnet.experiments.interruption import Interruption, raised
from scratchnet.experiments.recipes import LEARNING_RATE, RECIPES, REPORTED
from scratchnet.experiments.report import write_report
from scratchnet.experiments.report.statistics import BASELINE
from scratchnet.experiments.run import run_experiment
from scratchnet.experiments.study import BACKENDS, TEMPERATURES, plan, run_study
from scratchnet.heads import HEADS


def _temperature(text: str) -> Temperature:
    if text == ANNEAL:
        return ANNEAL
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor {ANNEAL!r}") from None


# The options: the name of the setting, what --help says of it, and what else argparse wants to know.
Options = list[tuple[str, str, dict[str, Any]]]
COMMON: Options = [
    ("recipe", "network and settings; all: those of the two reports, with --compare (default: same-padding)",
     {"choices": [*RECIPES, "all"]}),
    ("epochs", "passes over the training images (default: the report's)", {"type": int}),
    ("batch_size", "images in a step (default: the report's)", {"type": int}),
    ("learning_rate", f"of Adam (default: {LEARNING_RATE})", {"type": float}),
    ("seed", "of all random numbers (default: 0)", {"type": int}),
    ("device", "auto: a GPU where CuPy can use one, else the CPU", {"choices": DEVICES}),
    ("precision", "of a GPU's products (default: tf32 where it has it, else fp32)", {"choices": PRECISIONS}),
    ("workers", "processes (default: one a physical core; on a GPU, one)", {"type": int}),
    ("data", "cifar100, digits, the path of a folder or archive of CIFAR-100, or auto: cifar100 where it can be had, "
     "else digits (default: auto)", {}),
    ("output", "folder for the files (default: runs/RECIPE-HEAD-seedSEED; with --compare studies/RECIPE)",
     {"type": Path}),
    ("checkpoint_every", "epochs, such as 2, or steps, such as 500steps, from one checkpoint to the next (default: 1)",
     {"metavar": "N"}),
    ("quiet", "print nothing but the final figures, warnings and errors", {"action": "store_true"}),
]  # fmt: skip
RUN: Options = [
    ("head", f"output and loss (default: {BASELINE})", {"choices": HEADS}),
    ("temperature", "of a head that has one: a number above 0, or 'anneal' for max(0.5, exp(-1e-4 step)) (default: the "
     "report's)", {"type": _temperature}),
    ("samples", f"of the head 'sampled', in each step (default: {SAMPLES}, or all classes)", {"type": int}),
    ("resume", "go on with the run in the output folder", {"action": "store_true"}),
]  # fmt: skip
STUDY: Options = [
    ("compare", "train several heads of the recipe and write report.md and report.html", {"action": "store_true"}),
    ("heads", f"to compare with {BASELINE} (default: those of the recipe's report)", {"choices": HEADS, "nargs": "+"}),
    ("seeds", "how many, beginning with --seed (default: 3)", {"type": int}),
    ("temperature_study", "also train the heads of this recipe that have a temperature at the temperatures "
     f"{', '.join(map(str, TEMPERATURES))}", {"choices": RECIPES, "metavar": "RECIPE"}),
    ("jobs", "runs at a time (default: one a physical core; on a cluster, as many as it takes)", {"type": int}),
    ("backend", "of joblib, what the runs are handed to (default: loky, processes here)", {"choices": BACKENDS}),
]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one experiment.

    Returns 0, 1 for a failure, 2 for a wrong argument or no usable GPU, 130 for Ctrl-C and 143 for SIGTERM.
    """
    _prepare_streams()
    parser = _parser()
    given = vars(parser.parse_args(argv))  # only what was given
    try:
        command = shlex.join(["python", "train_cifar.py", *(sys.argv[1:] if argv is None else argv)])
        work, folder = _study(given, command) if given.pop("compare", False) else _run(given)
    except ValueError as error:
        parser.error(str(error))
    try:
        with raised():
            return work()
    except Interruption as stop:
        words = sys.orig_argv if argv is None else ["python", "train_cifar.py", *argv]
        words = [*(word for word in words if word != "--resume"), "--resume"]
        message = f"interrupted, with a checkpoint in {folder}; to go on, type: {shlex.join(words)}"
        return _fail(message, _status(stop))
    except KeyboardInterrupt as stop:
        return _fail(f"interrupted; what finished epochs wrote is in {folder}", _status(stop))
    except ScratchnetError as error:
        return _fail(str(error), error.exit_status)
    except BrokenPipeError:
        return _fail("standard output was closed before the run was done", 1)
    except OSError as error:
        return _fail(f"the system refused: {error}; check free space, memory and permissions", 1)
    except MemoryError as error:
        return _fail(f"memory is exhausted ({error}): lower --batch-size or --workers", 1)


def _prepare_streams() -> None:
    """Let standard output and error take any text, even where they are closed or know only ASCII."""
    for name in "stdout", "stderr":
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="backslashreplace")


def _run(given: dict[str, Any]) -> tuple[Callable[[], int], Path]:
    """Work that does the experiment of these arguments, and its folder; ValueError where they cannot be."""
    _refuse(STUDY, given, "without")
    quiet = given.pop("quiet", False)
    config = configure(**given)
    return partial(_train, config, quiet), config.output


def _study(given: dict[str, Any], command: str) -> tuple[Callable[[], int], Path]:
    """The same of a study."""
    _refuse(RUN, given, "with")
    defaults = {"recipe": "same-padding", "seed": 0, "seeds": 3, "jobs": None, "backend": BACKENDS[0], "quiet": False}
    recipe, seed, seeds, jobs, backend, _ = (given.pop(name, default) for name, default in defaults.items())
    folder = given.pop("output", Path("studies", recipe))
    if jobs is not None:
        positive_integer(jobs, "jobs", "study")
    seeds = range(seed, seed + positive_integer(seeds, "seeds", "study"))
    recipes = REPORTED if recipe == "all" else (recipe,)
    configs = plan(recipes, seeds, folder, **{"workers": 1} | given)
    return partial(_compare, configs, folder, command, jobs, backend), folder


def _refuse(options: Options, given: dict[str, Any], how: str) -> None:
    for name, *_ in options:
        if name in given:
            raise ValueError(f"--{name.replace('_', '-')} has no meaning {how} --compare: leave it out")


def _compare(configs: list[Config], folder: Path, command: str, jobs: int | None, backend: str) -> int:
    try:
        write_report(folder, run_study(configs, jobs, backend), command)
    except KeyboardInterrupt as stop:
        return _fail(f"interrupted; to go on with what {folder} has, type: {command}", _status(stop))
    print(
        f"The report: {folder / 'report.html'} and {folder / 'report.md'}; a row for each run: {folder / 'results.csv'}"
    )
    return 0


def _train(config: Config, quiet: bool) -> int:
    with nullcontext() if quiet else closing(Display(config)) as display:
        result = run_experiment(config, display)
    print(final_block(result, config.output), flush=True)
    return 0


def _status(stop: KeyboardInterrupt) -> int:
    """What shells have for a process that a signal ended."""
    return 128 + getattr(stop, "signum", signal.SIGINT)


def _fail(message: str, status: int) -> int:
    with suppress(OSError):  # where standard error is full or closed, the exit status must do
        print(f"error: {message}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help lists all options)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        description="Train the network of one of two reports on CIFAR-100, and compare with what the report published.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    study = parser.add_argument_group(
        "comparison", "Heads over several seeds, and a report; run again, it does only what is not yet done."
    )
    for group, options in (parser, COMMON + RUN), (study, STUDY):
        for name, text, details in options:
            group.add_argument(f"--{name.replace('_', '-')}", help=text, **details)
    return parser
