"""The command line: arguments in, an exit status out, and one sentence for whatever goes wrong."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from scratchnet.arguments import positive_integer
from scratchnet.errors import ScratchnetError
from scratchnet.experiments.config import ANNEAL, DEVICES, HEADS, PRECISIONS, Config, Temperature, configure
from scratchnet.experiments.display import Display, final_block
from scratchnet.experiments.interruption import Interruption, raised
from scratchnet.experiments.recipes import LEARNING_RATE, RECIPES
from scratchnet.experiments.run import run_experiment
from scratchnet.experiments.study import BACKENDS, TEMPERATURES, compare, plan


def main(argv: Sequence[str] | None = None) -> int:
    """Run one experiment.

    Returns 0, 1 for a failure, 2 for a wrong argument or no usable GPU, 130 for Ctrl-C and 143 for SIGTERM.
    """
    _prepare_streams()
    parser = _parser()
    arguments = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    quiet = arguments.pop("quiet")
    try:
        command = shlex.join(["python", "train_cifar.py", *(sys.argv[1:] if argv is None else argv)])
        work, folder = _work(arguments, quiet, command)
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


def _work(arguments: dict[str, Any], quiet: bool, command: str) -> tuple[Callable[[], int], Path]:
    """What the arguments ask for, and the folder it writes to; ValueError where they cannot be or contradict."""
    compare = arguments.pop("compare")
    foreign = ("head", "temperature", "resume") if compare else ("seeds", "temperature_study", "jobs", "backend")
    for name in foreign:
        if name in arguments:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} has no meaning {'with' if compare else 'without'} --compare: leave it out")
    if not compare:
        config = configure(**arguments)
        return partial(_run, config, quiet), config.output
    recipe, seed, seeds = arguments.pop("recipe", "same-padding"), arguments.pop("seed", 0), arguments.pop("seeds", 3)
    recipes = tuple(RECIPES) if recipe == "all" else (recipe,)
    folder = arguments.pop("output", Path("studies", recipe))
    jobs, backend = arguments.pop("jobs", None), arguments.pop("backend", BACKENDS[0])
    if jobs is not None:
        positive_integer(jobs, "jobs", "study")
    arguments = {"workers": 1} | arguments
    configs = plan(recipes, range(seed, seed + positive_integer(seeds, "seeds", "study")), folder, **arguments)
    return partial(_compare, configs, folder, command, jobs, backend), folder


def _compare(configs: list[Config], folder: Path, command: str, jobs: int | None, backend: str) -> int:
    try:
        compare(configs, folder, command, jobs, backend)
    except KeyboardInterrupt as stop:
        return _fail(f"interrupted; to go on with what {folder} has, type: {command}", _status(stop))
    print(
        f"The report: {folder / 'report.html'} and {folder / 'report.md'}; a row for each run: {folder / 'results.csv'}"
    )
    return 0


def _run(config: Config, quiet: bool) -> int:
    if quiet:
        result = run_experiment(config)
    else:
        display = Display(config)
        try:
            result = run_experiment(config, display)
        finally:
            display.close()
    print(final_block(result, config), flush=True)
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


def _temperature(text: str) -> Temperature:
    if text == ANNEAL:
        return ANNEAL
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor {ANNEAL!r}") from None


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        description="Train the network of one of two reports on CIFAR-100, and compare with what the report published.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option(
        "--recipe",
        choices=[*RECIPES, "all"],
        help="network and settings; all: both, with --compare (default: same-padding)",
    )
    option("--head", choices=HEADS, help="output and loss (default: softmax)")
    option(
        "--temperature",
        type=_temperature,
        help="of the gumbel head: a number above 0, or 'anneal' for max(0.5, exp(-1e-4 step)) (default: the report's)",
    )
    option("--epochs", type=int, help="passes over the training images (default: the report's)")
    option("--batch-size", type=int, help="images in a step (default: the report's)")
    option("--learning-rate", type=float, help=f"of Adam (default: {LEARNING_RATE})")
    option("--seed", type=int, help="of all random numbers (default: 0)")
    option("--device", choices=DEVICES, help="auto: a GPU where CuPy can use one, else the CPU")
    option("--precision", choices=PRECISIONS, help="of a GPU's products (default: tf32 where it has it, else fp32)")
    option("--workers", type=int, help="processes (default: one a physical core; on a GPU, one)")
    option(
        "--data",
        help="cifar100, digits, the path of a folder or archive of CIFAR-100, or auto: cifar100 where it can be had, "
        "else digits (default: auto)",
    )
    option(
        "--output",
        type=Path,
        help="folder for the files (default: runs/RECIPE-HEAD-seedSEED; with --compare studies/RECIPE)",
    )
    option(
        "--checkpoint-every",
        metavar="N",
        help="epochs, such as 2, or steps, such as 500steps, from one checkpoint to the next (default: 1)",
    )
    option("--resume", action="store_true", default=None, help="go on with the run in the output folder")
    option("--quiet", action="store_true", help="print nothing but the final figures, warnings and errors")
    study = parser.add_argument_group(
        "comparison", "Both heads over several seeds, and a report; run again, it does only what is not yet done."
    ).add_argument
    study("--compare", action="store_true", help="train both heads of the recipe and write report.md and report.html")
    study("--seeds", type=int, help="how many, beginning with --seed (default: 3)")
    study(
        "--temperature-study",
        choices=RECIPES,
        metavar="RECIPE",
        help=f"also train this recipe's gumbel head at the temperatures {', '.join(map(str, TEMPERATURES))}",
    )
    study("--jobs", type=int, help="runs at a time (default: one a physical core; on a cluster, as many as it takes)")
    study("--backend", choices=BACKENDS, help="of joblib, what the runs are handed to (default: loky, processes here)")
    return parser
