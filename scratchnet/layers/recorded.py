"""A program repeats what was recorded and nothing else: a layer that computes beside the record is refused."""

import numpy as np

from scratchnet.backend import Array, Memory, Program, whole
from scratchnet.layers.layer import Layer

ROWS = 3
HOW = (
    "write into buffers made in `allocate`, by `self.ops.add(self.x, self.z, out=self.y)` or `run(np.tanh, self.x, "
    "self.y)` with run of scratchnet.backend"
)


def refuse_unrecorded(layer: Layer) -> None:
    """Raise TypeError where a replay of a layer's step is not its step, or the layer replaces one of its buffers.

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
    source, memory = np.random.default_rng(0), Memory(twin.device, twin.dtype)
    for training in (False, True):
        plan = twin.bind(whole(ROWS), memory)
        bound, _ = plan.nodes[0]
        ends = plan.x, plan.dx, plan.y, plan.dy
        moving = twin.flat[2].copy()

        def draw() -> tuple[Array, Array]:
            shapes = (ROWS, *twin.input_shape), (ROWS, *twin.output_shape)
            x, dy = (twin.device.to_device(source.standard_normal(shape)) for shape in shapes)
            return x, dy

        def begin(x: Array, dy: Array) -> None:
            twin.flat[2][...], plan.x[...], plan.dy[...] = moving, x, dy
            twin.flat[1].fill(0)
            plan.dx.fill(0)

        def step() -> None:
            memory.record.load()
            plan.compute(training)
            plan.compute_gradients()

        def results() -> list[np.ndarray]:
            return [twin.device.to_host(array) for array in (plan.y, plan.dx, twin.flat[1])]

        with twin.device.session(), np.errstate(all="ignore"):
            begin(*draw())
            with Program() as program:
                step()
            now = bound.x, bound.dx, bound.y, bound.dy
            if any(after is not before for after, before in zip(now, ends, strict=True)):
                raise TypeError(
                    f"{layer.name}: it replaces one of its buffers x, dx, y and dy while it computes, which cuts it "
                    f"off from its neighbours: {HOW}"
                )
            other = draw()
            replayed, anew, again = ([], [], [])
            for run_it, found in ((program.replay, replayed), (step, anew), (step, again)):
                begin(*other)
                run_it()
                found += results()
            for name, first, second, third in zip(("y", "dx", "a gradient"), replayed, anew, again, strict=True):
                if not np.array_equal(second, third, equal_nan=True):
                    raise TypeError(
                        f"{layer.name}: {name} differs between two computations of one step: a layer that draws random "
                        "numbers takes them from `self.noise(seed)`, which are the same in the same step"
                    )
                if not np.array_equal(first, second, equal_nan=True):
                    raise TypeError(
                        f"{layer.name}: {name} is another when its step is repeated from the record, so part of its "
                        f"work is not recorded and training would leave it out: {HOW}"
                    )
