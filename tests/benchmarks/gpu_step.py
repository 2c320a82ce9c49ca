"""Our training step on a GPU against PyTorch's: eager, as one CUDA graph, and compiled.

`python -m tests.benchmarks.gpu_step [--recipe NAME] [--precision fp32|tf32] [--rounds N] [--images N] [--epochs N]
[--square N]`; with `--rounds 1 --images 128 --epochs 1 --square 64` it only shows that everything runs.

All contenders have 50,000 uint8 images on the GPU and gather, convert and scale each batch there; PyTorch's work in
channels_last with fused Adam and the same rule for TF32 in products and convolutions. Each has a process of its own,
and rounds interleave them; one that fails is left out and named. Times are medians: of single steps by events on the
GPU's stream, and of epochs of steps, end to end, by the clock. Then come ten epochs as train_cifar.py makes them, with
evaluation, and how far the gradients of a first step are from those in float64 at each precision. Torch and CuPy are
imported inside functions, because our workers import the modules of whoever starts them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from scratchnet import Adam, SoftmaxCrossEntropy
from scratchnet.backend import get_device
from scratchnet.backend.device import PRECISIONS
from scratchnet.data import Dataset, Split
from scratchnet.experiments.recipes import RECIPES
from scratchnet.layers import Conv2D, Dense
from scratchnet.training import Trainer
from tests.benchmarks import report
from tests.benchmarks.floor import multiply_adds
from tests.benchmarks.setting import CLASSES, IMAGE_SHAPE, Setting, chosen_recipes, options
from tests.benchmarks.timing import Contender

WARM = 20  # steps, or an epoch of them
CUDA = "cuda"  # PyTorch's name of the GPU


@dataclass(frozen=True)
class Run(Setting):
    """`square` is the size of the matrices whose product and copy tell what the card can do."""

    precision: str = "tf32"
    images: int = 50_000
    epochs: int = 10
    square: int = 8192

    @property
    def steps(self) -> int:
        return self.images // self.batch_size


@dataclass
class Step:
    """A contender ready to run: `step(i)` puts one step on the stream; the rest looks at the GPU."""

    step: Callable[[int], None]
    synchronize: Callable[[], None]
    events: Callable[[], tuple[Any, Any]]
    milliseconds: Callable[[Any, Any], float]
    peak_bytes: Callable[[], int]


def images(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    source = np.random.default_rng(0)
    pixels = source.integers(0, 256, (count, *IMAGE_SHAPE), dtype=np.uint8)
    return pixels, source.integers(0, CLASSES, count), source.permutation(count)


def trainer(setting: Run, device: Any, dtype: str = "float32") -> Trainer:
    """Ours, for float32's initial parameters whatever the dtype; the order of the images is shuffled."""
    pixels, labels, order = images(setting.images)
    names, few = tuple(map(str, range(CLASSES))), -(-setting.images // 5)
    test = Split(pixels[:few], labels[:few])
    dataset = Dataset("random", Split(pixels, labels), test, names, (), np.empty(0, np.int64))
    start, network = (RECIPES[setting.recipe].network(CLASSES) for _ in range(2))
    start.build(IMAGE_SHAPE)
    network.build(IMAGE_SHAPE, dtype=dtype, device=device)
    network.set_weights(start.weights())
    made = Trainer(network, SoftmaxCrossEntropy(), Adam(), dataset, batch_size=setting.batch_size, workers=1)
    device.load(order, out=made.engine.arrays["order"])
    return made


@contextmanager
def ours(setting: Run) -> Iterator[Step]:
    import cupy

    device: Any = get_device("gpu", setting.precision)
    with device.session(), trainer(setting, device) as training:
        engine: Any = training.engine
        size = setting.batch_size

        def step(index: int) -> None:
            engine.train(index % setting.steps * size, size, index)

        for index in range(2):
            step(index)
        program = engine.replica.programs["train", size]
        if len(program.calls) != len(program.preparations) + 1:
            raise RuntimeError(f"{len(program.calls)} calls make a step that was to be preparations and one graph")
        yield Step(
            step,
            device.cuda.stream.synchronize,
            lambda: (cupy.cuda.Event(), cupy.cuda.Event()),
            cupy.cuda.get_elapsed_time,
            cupy.get_default_memory_pool().total_bytes,
        )


@contextmanager
def theirs(setting: Run, mode: str) -> Iterator[Step]:
    import torch
    from torch.nn.functional import cross_entropy

    from tests.benchmarks.torch_peer import torch_network

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = setting.precision == "tf32"
    torch.backends.cudnn.benchmark = True
    pixels, labels, order = (torch.from_numpy(array).to(CUDA) for array in images(setting.images))
    pixels = pixels.permute(0, 3, 1, 2)  # channels_last, as it lies
    model = torch_network(setting.network()).to(CUDA, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True, capturable=mode == "graph")
    size = setting.batch_size
    rows = order[:size].clone()

    def loss(rows: Any) -> Any:
        x = pixels[rows].to(torch.float32, memory_format=torch.channels_last) / 255
        return cross_entropy(model(x), labels[rows])

    if mode == "compiled":
        for array in pixels, labels, rows:
            torch._dynamo.mark_static_address(array)  # or the graph would copy all images in every step
        loss = torch.compile(loss, mode="reduce-overhead")

    def eager() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(rows).backward()
        optimizer.step()

    work = eager
    if mode == "graph":
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                eager()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            loss(rows).backward()
            optimizer.step()
        work = graph.replay

    def step(index: int) -> None:
        start = index % setting.steps * size
        rows.copy_(order[start : start + size])
        work()

    yield Step(
        step,
        torch.cuda.synchronize,
        lambda: (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)),
        lambda start, end: start.elapsed_time(end),
        torch.cuda.max_memory_reserved,
    )


def serve(pipe: Connection, make: Any, *arguments: Any) -> None:
    """As the target of a contender: answers "round" with (ms by events, ms by the clock), "facts" with the rest."""
    with make(*arguments) as contender:
        steps = arguments[0].steps
        for index in range(min(WARM, steps)):
            contender.step(index)
        contender.synchronize()
        pipe.send("ready")
        while True:
            if pipe.recv() == "facts":
                pipe.send((kernels(contender), contender.peak_bytes() / 2**20))
            else:
                pipe.send(time_round(contender, steps))


def time_round(contender: Step, steps: int) -> tuple[float, float]:
    singles = []
    for index in range(max(1, steps // 4)):
        start, end = contender.events()
        start.record()
        contender.step(index)
        end.record()
        singles.append((start, end))
    contender.synchronize()
    began = time.perf_counter()
    for index in range(steps):
        contender.step(index)
    contender.synchronize()
    seconds = time.perf_counter() - began
    return float(np.median([contender.milliseconds(*pair) for pair in singles])), 1e3 * seconds / steps


def why_not_torch() -> str | None:
    try:
        import torch
    except ImportError as error:
        return f"PyTorch cannot be imported ({error})"
    return None if torch.cuda.is_available() else f"PyTorch {torch.__version__} finds no GPU or is built without CUDA"


def kernels(contender: Step) -> int | str:
    """Kernels, copies and fills on the GPU during one step, as its profiler sees them, whoever launches them."""
    if reason := why_not_torch():
        print(f"NOT COUNTED: the kernels of a step, which PyTorch's profiler would count: {reason}", flush=True)
        return "?"
    import torch

    def on_gpu(event: Any) -> bool:
        return event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        contender.step(0)
        contender.synchronize()
    return sum(on_gpu(event) for event in profile.events())


def epochs_seconds(setting: Run) -> float:
    """The time of `epochs` epochs of training and evaluation, after one that compiles and captures."""
    device = get_device("gpu", setting.precision)
    with trainer(setting, device) as training:
        for epoch in range(1, setting.epochs + 2):
            training.train_epoch(epoch)
            training.predict("test")
            if epoch == 1:
                began = time.perf_counter()
        return time.perf_counter() - began


def first_gradients(setting: Run, device: Any, dtype: str) -> np.ndarray:
    """Of all parameters, in one vector, for the first batch."""
    with trainer(setting, device, dtype) as training:
        training.engine.train(0, setting.batch_size, 0)
        return device.to_host(training.engine.arrays["gradients"][0]).astype(np.float64)


def differences(setting: Run) -> list[list[str]]:
    """For each precision: the gradients' distance from float64's, of the norms and of the largest entries."""
    exact, rows = first_gradients(setting, get_device("gpu"), "float64"), []
    for precision in PRECISIONS:
        error = first_gradients(setting, get_device("gpu", precision), "float32") - exact
        relative = np.linalg.norm(error) / np.linalg.norm(exact), abs(error).max() / abs(exact).max()
        rows.append([precision, *(f"{value:.1e}" for value in relative)])
    return rows


def floors(setting: Run) -> tuple[float, float]:
    """Milliseconds of a step's multiply-adds and of its least traffic, at the measured speeds of this card.

    The traffic: each layer's input and its gradient written and read once, Adam's vectors read and written, all of it
    to and from the memory; a second-level cache that holds it lets a step come in below.
    """
    import cupy

    device: Any = get_device("gpu", setting.precision)
    a, b, out = (cupy.ones((setting.square, setting.square), np.float32) for _ in range(3))

    def milliseconds(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(10):
            start, end = cupy.cuda.Event(), cupy.cuda.Event()
            start.record()
            work()
            end.record()
            end.synchronize()
            times.append(cupy.cuda.get_elapsed_time(start, end))
        return min(times)

    with device.session():
        per_multiply_add = milliseconds(lambda: device.cublas.product(a, b, out)) / setting.square**3
        per_byte = milliseconds(lambda: cupy.copyto(out, a)) / (2 * a.nbytes)
    network = setting.network()
    inputs = sum(int(np.prod(layer.input_shape)) for layer in network.layers if isinstance(layer, Conv2D | Dense))
    numbers = 4 * setting.batch_size * inputs + 7 * network.count_parameters()
    return multiply_adds(setting) * per_multiply_add, 4 * numbers * per_byte


def card() -> str:
    import cupy

    runtime = cupy.cuda.runtime
    name = runtime.getDeviceProperties(0)["name"].decode()
    return f"{name}, CUDA {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}, CuPy {cupy.__version__}"


def compare(setting: Run, rounds: int) -> None:
    kinds = {"ours": (ours,), **{f"PyTorch {mode}": (theirs, mode) for mode in ("eager", "graph", "compiled")}}
    reason, contenders, times = why_not_torch(), [], []
    for name, (make, *mode) in kinds.items():
        if name != "ours" and reason:
            print(f"LEFT OUT: {name}: {reason}", flush=True)
            continue
        contender = Contender(name, serve, make, setting, *mode)
        try:
            contender.answer()
            contenders.append(contender)
        except RuntimeError as error:
            if name == "ours":
                raise
            print(f"LEFT OUT: {error}", flush=True)
    for _ in range(rounds):
        times.append([contender.ask("round") for contender in contenders])
    facts: list[Sequence[Any]] = [("?", "?") for _ in contenders]
    for place, contender in enumerate(contenders):
        with contender, suppress(RuntimeError):  # the times count without them; its own message is above
            facts[place] = contender.ask("facts")
    events, clock = np.moveaxis(np.array(times), 2, 0)  # each (round, contender)
    rows = []
    for place, (contender, (count, peak)) in enumerate(zip(contenders, facts, strict=True)):
        ratio = np.median(events[:, 0] / events[:, place])
        by_event, by_clock = np.median(events[:, place]), np.median(clock[:, place])
        epoch = by_clock * setting.steps / 1e3
        rows.append([contender.name, by_event, by_clock, f"{ratio:.3f}", epoch, count, peak])
    header = "contender", "ms (events)", "ms (clock)", "ours / it", "epoch s", "kernels", "peak MiB"
    arithmetic, traffic = floors(setting)
    print(f"\n{setting.recipe}, batch {setting.batch_size}, {setting.precision}: "
          f"floor {arithmetic:.3f} ms by arithmetic, {traffic:.3f} ms by bytes")  # fmt: skip
    print(report.table(header, rows, decimals=3))
    print(f"  {setting.epochs} epochs of ours with evaluation: {epochs_seconds(setting):.2f} s", flush=True)


def main() -> None:
    parser = options(__doc__.split("\n")[0], rounds=5)
    parser.add_argument("--precision", choices=PRECISIONS, help="default: one after the other")
    text = "all three smaller than by default make no figures, and show that everything runs (default: %(default)s)"
    for name in ("images", "epochs", "square"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Run, name), help=text)
    arguments = parser.parse_args()
    print(card(), report.machine(), sep="\n")
    sizes = {"images": arguments.images, "epochs": arguments.epochs, "square": arguments.square}
    for recipe in chosen_recipes(arguments.recipe):
        for precision in [arguments.precision] if arguments.precision else PRECISIONS:
            setting = Run(recipe, RECIPES[recipe].batch_size, 1, precision=precision, **sizes)
            compare(setting, arguments.rounds)
        print(f"\n{recipe}, gradients of the first step against float64's")
        print(report.table(("precision", "norm", "largest"), differences(setting)), flush=True)


if __name__ == "__main__":
    main()
