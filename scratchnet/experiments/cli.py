"""The command line: arguments in, an exit status out, and one sentence for whatever goes wrong."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from scratchnet.errors import ScratchnetError
from scratchnet.experiments.config import ANNEAL, DEVICES, HEADS, PRECISIONS, Config, Temperature, configure
from scratchnet.experiments.display import Display, final_block
from scratchnet.experiments.recipes import LEARNING_RATE, RECIPES
from scratchnet.experiments.run import run_experiment

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one experiment; return 0, 1 for a failure, 2 for a wrong argument or no usable GPU, 130 for Ctrl-C."""
    _prepare_streams()
    parser = _parser()
    arguments = vars(parser.parse_args(argv))
    quiet = arguments.pop("quiet")
    try:
        config = configure(**arguments)
    except ValueError as error:
        parser.error(str(error))
    try:
        return _run(config, quiet)
    except KeyboardInterrupt:
        return _fail(f"interrupted; what finished epochs wrote is in {config.output}", INTERRUPTED)
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


def _fail(message: str, status: int) -> int:
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
    option("--recipe", choices=RECIPES, default="same-padding", help="network and settings (default: %(default)s)")
    option("--head", choices=HEADS, default="softmax", help="output and loss (default: %(default)s)")
    option(
        "--temperature",
        type=_temperature,
        help="of the gumbel head: a number above 0, or 'anneal' for max(0.5, exp(-1e-4 step)) (default: the report's)",
    )
    option("--epochs", type=int, help="passes over the training images (default: the report's)")
    option("--batch-size", type=int, help="images in a step (default: the report's)")
    option("--learning-rate", type=float, default=LEARNING_RATE, help="of Adam (default: %(default)s)")
    option("--seed", type=int, default=0, help="of all random numbers (default: %(default)s)")
    option("--device", choices=DEVICES, default="auto", help="auto: a GPU where CuPy can use one, else the CPU")
    option("--precision", choices=PRECISIONS, help="of a GPU's products (default: tf32 where it has it, else fp32)")
    option("--workers", type=int, help="processes (default: one a physical core; on a GPU, one)")
    option(
        "--data",
        default="auto",
        help="cifar100, digits, the path of a folder or archive of CIFAR-100, or auto: cifar100 where it can be had, "
        "else digits (default: %(default)s)",
    )
    option("--output", type=Path, help="folder for the files (default: runs/RECIPE-HEAD-seedSEED)")
    option("--quiet", action="store_true", help="print nothing but the final figures, warnings and errors")
    return parser
