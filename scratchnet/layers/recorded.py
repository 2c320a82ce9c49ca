"""A program repeats what was recorded and nothing else: a layer that computes beside the record is refused."""

import numpy as np

from scratchnet.backend import Array, Memory, Program, whole
from scratchnet.layers.layer import Layer

ROWS = 3
RESULTS = "y", "dx", "a gradient", "a moving average"
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
    twin.replays = True
    twin.build(layer.input_shape, "float64", layer.device)
    with twin.device.session(), np.errstate(all="ignore"):
        for training in (False, True):
            _check_pass(twin, training)


def _check_pass(layer: Layer, training: bool) -> None:
    source, memory, device = np.random.default_rng(0), Memory(layer.device, layer.dtype), layer.device
    plan, (_, gradients, moving) = layer.bind(whole(ROWS), memory), layer.flat
    before = moving.copy()

    def begin(values: list[Array]) -> None:
        plan.dx.fill(0)  # first, as it may be dy in another shape
        gradients.fill(0)
        plan.x[...], plan.dy[...], moving[...] = *values, before

    def step() -> None:
        memory.record.load()
        plan.compute(training)
        plan.compute_gradients()

    shapes = (ROWS, *layer.input_shape), (ROWS, *layer.output_shape)
    first, other = ([device.to_device(source.standard_normal(shape)) for shape in shapes] for _ in range(2))
    begin(first)
    with Program() as program:
        step()
    bound, _ = plan.nodes[0]
    ends = (bound.x, plan.x), (bound.dx, plan.dx), (bound.y, plan.y), (bound.dy, plan.dy)
    if any(now is not then for now, then in ends):
        raise TypeError(
            f"{layer.name}: it replaces one of its buffers x, dx, y and dy while it computes, which cuts it off from "
            f"its neighbours: {HOW}"
        )
    found = []
    for run_it in (program.replay, step, step):
        begin(other)
        run_it()
        found.append([device.to_host(array) for array in (plan.y, plan.dx, gradients, moving)])
        for now, given in zip((plan.x, plan.dy), other, strict=True):
            if not np.array_equal(device.to_host(now), device.to_host(given)):
                raise TypeError(f"{layer.name}: it writes into x or dy, which its neighbours read too: {HOW}")
    for name, replayed, anew, again in zip(RESULTS, *found, strict=True):
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
