"""A program repeats what was recorded and nothing else: a layer that computes beside the record is refused."""

import numpy as np

from scratchnet.backend import Array, Memory, Program, whole
from scratchnet.layers.layer import Layer

ROWS = 3
MOVE = 0.1  # of each parameter, relative; of a 0, absolute
HOW = (
    "write into buffers made in `allocate`, by `self.ops.add(self.x, self.z, out=self.y)` or `run(np.tanh, self.x, "
    "self.y)` with run of scratchnet.backend"
)


def refuse_unrecorded(layer: Layer) -> None:
    """Raise TypeError where a replay of a layer's step is not its step, or it replaces or spoils a neighbour's buffer.

    A twin of it makes a step that is recorded, and another one twice: by replaying the record, and anew.
    """
    if type(layer).__module__.startswith("scratchnet."):
        layer.replays = True  # a test of the suite asks it of each
    else:
        check_replay(layer)
        layer.replays = True


def check_replay(layer: Layer) -> None:
    """The check itself, whichever layer it is."""
    twin = layer.unbuilt()
    twin.replays = twin.trainable = True
    twin.build(layer.input_shape, "float64", layer.device)
    move(twin, np.random.default_rng(1))
    with twin.device.session(), np.errstate(all="ignore"):
        for training in (False, True):
            _check_pass(twin, training)


def move(layer: Layer, source: np.random.Generator) -> None:
    """Parameters and moving averages a little: what is forgotten does not show in a gamma of 1 or a bias of 0."""
    for array in layer.arrays().values():
        values, moves = layer.device.to_host(array), MOVE * source.standard_normal(array.shape)
        layer.device.load(values * np.exp(moves) + (values == 0) * moves, out=array)


def _check_pass(layer: Layer, training: bool) -> None:
    source, memory, device = np.random.default_rng(0), Memory(layer.device, layer.dtype), layer.device
    plan, (_, gradients, moving) = layer.bind(whole(ROWS), memory), layer.flat
    before = moving.copy()

    def begin(values: list[Array], turn: int) -> None:
        plan.dx.fill(0)  # first, as it may be dy in another shape
        gradients.fill(0)
        plan.x[...], plan.dy[...], moving[...] = *values, before
        if hasattr(bound, "labels"):  # of a head
            bound.labels[...] = device.to_device((np.arange(ROWS) + turn) % bound.classes)

    def step() -> None:
        memory.record.load()
        plan.compute(training)
        plan.compute_gradients()

    shapes = (ROWS, *layer.input_shape), (ROWS, *layer.output_shape)
    first, other = ([device.to_device(source.standard_normal(shape)) for shape in shapes] for _ in range(2))
    (bound, _), names, found = plan.nodes[0], (*layer.results, "dx"), []
    buffers = {name: getattr(bound, name) for name in ("x", *names, "dy")}
    begin(first, 0)
    with Program() as program:
        step()
    if any(getattr(bound, name) is not buffer for name, buffer in buffers.items()):
        raise TypeError(
            f"{layer.name}: it replaces one of its buffers x, dx, {', '.join(layer.results)} and dy while it computes, "
            f"which cuts it off from its neighbours: {HOW}"
        )
    for run_it in (program.replay, step, step):
        begin(other, 1)
        run_it()
        found.append([device.to_host(array) for array in (*map(buffers.get, names), gradients, moving)])
        for now, given in zip((plan.x, plan.dy), other, strict=True):
            if not np.array_equal(device.to_host(now), device.to_host(given)):
                raise TypeError(f"{layer.name}: it writes into x or dy, which its neighbours read too: {HOW}")
    for name, replayed, anew, again in zip((*names, "a gradient", "a moving average"), *found, strict=True):
        if not np.array_equal(anew, again, equal_nan=True):
            raise TypeError(
                f"{layer.name}: {name} differs between two computations of one step: a layer that draws random numbers "
                "takes them from `self.noise(seed)`, which are the same in the same step"
            )
        if not np.array_equal(replayed, anew, equal_nan=True):
            raise TypeError(
                f"{layer.name}: {name} is another when its step is repeated from the record, so part of its work is "
                f"not recorded and training would leave it out: {HOW}"
            )
