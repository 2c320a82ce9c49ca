"""What a GPU is asked for in a training step: launches, and the bytes they move. A count, not a measurement; no GPU.

`python -m tests.benchmarks.gpu_count [--recipe NAME] [--bandwidth GB_A_SECOND] [--node US] [--graph US]`

A step is recorded on a stand-in for a GPU whose kernels and products do nothing. Bytes: each array that a launch names
is moved once, and twice where it is changed in place; a second-level cache that holds it moves less. The time is that
of a graph's launch, of its nodes and of the bytes, one after the other, and leaves the arithmetic out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from scratchnet import Adam, GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from scratchnet.backend import Ops, run
from scratchnet.data import Dataset, Split
from scratchnet.experiments.recipes import RECIPES
from scratchnet.training import Trainer
from tests.backend.strict_device import StrictDevice
from tests.benchmarks import report
from tests.benchmarks.setting import CLASSES, IMAGE_SHAPE, chosen_recipes, options

BANDWIDTH, NODE, GRAPH = 3350.0, 0.6, 15.0  # of an H100: its memory's GB/s by NVIDIA; µs of a node and of a launch
HEADS = {"softmax": SoftmaxCrossEntropy, "gumbel": GumbelSoftmaxCrossEntropy}
IN_PLACE = {"adam": 3}  # how many of its last arrays a kernel both reads and writes


@dataclass(frozen=True)
class Launch:
    """One node of the graph: a kernel by its name, "product" or "ufunc", and the arrays it moves."""

    name: str
    arrays: tuple[Any, ...]

    @property
    def bytes_moved(self) -> int:
        twice = self.arrays[len(self.arrays) - IN_PLACE.get(self.name, 0) :]
        return sum(array.nbytes for array in (*self.arrays, *twice))


class Nothing:
    """In place of backend.cuda.Cuda: kernels that do nothing; counts those compiled."""

    def __init__(self) -> None:
        self.compiled = 0

    def kernel(self, source: str, name: str, constants: Mapping[str, int | str]) -> Callable[..., None]:
        self.compiled += 1
        return partial(nothing, name)


class Products(Ops):
    """Operations whose products do nothing."""

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        run(partial(nothing, "product"), None, None, (a, b, out))


def nothing(name: str, grid: Any, block: Any, arguments: Any) -> None: ...


class Counted(StrictDevice):
    """The stand-in for a GPU that computes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.ops, self.cuda = Products(self.xp), Nothing()  # type: ignore[assignment]


def recorded(recipe: str, head: str, sizes: Sequence[int]) -> tuple[Counted, list[list[Launch]]]:
    """The device, and what a step's graph launches, for each of these numbers of images in turn."""
    images, labels = np.zeros((max(sizes), *IMAGE_SHAPE), np.uint8), np.zeros(max(sizes), np.int64)
    split, device = Split(images, labels), Counted()
    dataset = Dataset("zeros", split, split, tuple(map(str, range(CLASSES))), (), np.empty(0, np.int64))
    network, steps = RECIPES[recipe].network(CLASSES), []
    network.build(IMAGE_SHAPE, device=device)
    with Trainer(network, HEADS[head](), Adam(), dataset, batch_size=max(sizes), workers=1) as trainer:
        engine: Any = trainer.engine
        for size in sizes:
            engine.train(0, size, 0)
            program = engine.replica.programs["train", size]
            calls = [call for place, call in enumerate(program.calls) if place not in program.preparations]
            steps.append([_launch(*call) for call in calls])
    return device, steps


def _launch(function: Any, arguments: Any) -> Launch:
    if isinstance(function, partial) and function.func is nothing:
        return Launch(function.args[0], tuple(array for array in arguments[2] if isinstance(array, np.ndarray)))
    out = function.keywords.get("out") if isinstance(function, partial) else None
    return Launch("ufunc", tuple(array for array in (*arguments, out) if isinstance(array, np.ndarray)))


def main() -> None:
    parser = options(__doc__.split("\n")[0])
    parser.add_argument("--bandwidth", type=float, default=BANDWIDTH, help="GB a second (default: %(default)s)")
    parser.add_argument("--node", type=float, default=NODE, help="us a node of a graph (default: %(default)s)")
    parser.add_argument("--graph", type=float, default=GRAPH, help="us a graph's launch (default: %(default)s)")
    chosen = parser.parse_args()
    rows = []
    for recipe in chosen_recipes(chosen.recipe):
        size = RECIPES[recipe].batch_size
        for head in HEADS:
            _, (launches,) = recorded(recipe, head, [size])
            products = sum(launch.name == "product" for launch in launches)
            others = sum(launch.name == "ufunc" for launch in launches)
            moved = sum(launch.bytes_moved for launch in launches)
            launching, moving = chosen.graph + chosen.node * len(launches), moved / chosen.bandwidth / 1e3
            rows.append((f"{recipe}, {head}", len(launches), products, len(launches) - products - others, others,
                         moved / 1e6, launching, moving, launching + moving))  # fmt: skip
    print(f"counted, not measured: {chosen.bandwidth:g} GB/s, {chosen.node:g} us a node, {chosen.graph:g} us a graph")
    header = "a step of", "launches", "products", "kernels", "ufuncs", "MB", "us launching", "us moving", "us"
    print(report.table(header, rows))


if __name__ == "__main__":
    main()
