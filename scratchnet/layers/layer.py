"""What every layer is: equations on buffers, the parameters they use, and what helps to state them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, Self

import numpy as np

from scratchnet import arguments
from scratchnet.backend import Array, BatchSlice, Device, FlatLayout, Memory, Noise
from scratchnet.backend.noise import INITIALIZERS, generator
from scratchnet.initializers import Initializer, get_initializer
from scratchnet.kernels.table import on
from scratchnet.layers.graph import Edge, Graph, Node
from scratchnet.layers.module import Module


class Layer(Module):
    """One layer: the equations of its forward and backward pass, and the parameters they use.

    A layer states `infer` (shapes and parameters), `allocate` (the buffers of its *input*, laid out as it likes),
    `compute` (x -> y) and `compute_gradients` (dy -> dx and parameter gradients). A plan lets the layer before write
    its output straight into these buffers, so `y` and `dy` belong to the successor. All work goes through `self.ops`,
    or `run(function, *arguments)` of scratchnet.backend, into buffers made in `allocate`; a replay repeats that alone.
    """

    outputs = 1  # how many readers it writes for
    by_image = True  # whether the output for an image depends on no other image of the batch
    joined = False  # whether kernel and bias are one matrix, on a device whose kernels want that
    noise_stream = 0  # keeps the noise of a network's layers apart
    replays: bool | None = None  # whether a replay of its step is known to be its step
    results: tuple[str, ...] = ("y",)  # what a step computes beside gradients

    # of a bound twin
    x: Array
    dx: Array
    y: Array
    dy: Array
    batch: BatchSlice
    memory: Memory
    input_gradient: bool
    fused: tuple["Layer", ...]  # the layers that follow, whose work this one does too

    def __init__(self) -> None:
        super().__init__()
        self.name = self.kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        self._trainable = True
        self._forget()

    def _forget(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}  # of the parameters
        self.moving_shapes: dict[str, tuple[int, ...]] = {}  # of what forward changes and is saved
        self.initializers: dict[str, Initializer] = {}
        self.parameters: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}
        self.moving: dict[str, Array] = {}

    # --- what a layer states

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Output shape for an input shape, both without the batch axis; states the parameters."""
        return input_shape

    def allocate(self) -> None:
        """The buffers of a bound twin, for `batch.size` rows: at least `x` and `dx`."""
        self.x, self.dx = self.activation(), self.activation()

    def compute(self, training: bool) -> None:
        """y from x."""
        raise NotImplementedError

    def compute_gradients(self) -> None:
        """dx and the parameters' gradients from dy."""
        raise NotImplementedError

    # --- what helps to state it

    def parameter(self, name: str, shape: tuple[int, ...], initializer: str | Initializer = "zeros") -> None:
        """In `infer`: a trained array, `self.name`, and its gradient, `self.dname`."""
        self.shapes[name], self.initializers[name] = shape, get_initializer(initializer)

    def moving_average(self, name: str, shape: tuple[int, ...], initializer: str | Initializer = "zeros") -> None:
        """In `infer`: an array that forward changes, and that is saved with the parameters."""
        self.moving_shapes[name], self.initializers[name] = shape, get_initializer(initializer)

    @property
    def ops(self) -> Any:
        """The recorded operations of the device."""
        return self.device.ops

    def activation(self, shape: tuple[int, ...] | None = None, dtype: Any = None) -> Array:
        """In `allocate`: a lasting buffer for the rows, of this shape or else the input's, zero at first."""
        return self.memory.activation(self.batch.size, self.input_shape if shape is None else shape, dtype)

    @contextmanager
    def scratch(self, shape: tuple[int, ...] | None = None) -> Iterator[Array]:
        """The same for the time of a `with`, not zeroed: the next layer uses that memory again."""
        with self.memory.scratch() as take:
            yield self.memory.activation(self.batch.size, self.input_shape if shape is None else shape, take=take)

    def sum_to_last(self, values: Array, out: Array) -> None:
        """out[c] = sum of values[..., c], by image and then over the images: short sums have small rounding errors."""
        with self.memory.scratch() as take:
            if values.ndim > 2:
                by_image = take(self.batch.size, out.size)
                self.ops.sum(values, axis=tuple(range(1, values.ndim - 1)), out=by_image)
                values = by_image
            self.ops.sum(values, axis=0, out=out)

    def noise(
        self, seed: int, shape: tuple[int, ...] | None = None, source: int = 0, rows: BatchSlice | None = None
    ) -> Any:
        """Uniform numbers in (0, 1) for each row, of this shape or else the input's: `noise(seed).draw(out)` in a step.

        A layer that has several takes another `source` for each. `rows` are some of the batch.
        """
        stream, shape = self.noise_stream + (source << 48), self.input_shape if shape is None else shape
        return on(self.device, Noise)(seed, stream, self.clock, rows or self.batch, shape, self.memory)

    # --- what all layers share

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = arguments.boolean(value, "trainable", self.name)

    def emit(self, graph: Graph, edge: Edge) -> Edge:
        return graph.add(self, edge)[0]

    def settle(self, *input_shapes: tuple[int, ...], dtype: np.dtype[Any], device: Device) -> tuple[int, ...]:
        """Shapes and the places of the parameters, for inputs of these shapes."""
        self.built, self._plan, self.dtype, self.device = False, None, dtype, device
        self._forget()
        self.input_shape, self.output_shape = input_shapes[0], self.infer(*input_shapes)
        self.layout = FlatLayout(self.shapes, joined=on(device, type(self)).joined)
        self.moving_layout = FlatLayout(self.moving_shapes)
        return self.output_shape

    @property
    def leaves(self) -> list["Layer"]:
        return [self]

    def bind(self, batch: BatchSlice, memory: Memory, **options: Any) -> Any:
        graph = Graph(self.name, self.input_shape, self.dtype, self.device, self.clock)
        graph.output = Edge(self.output_shape)
        graph.nodes.append(Node(self, (graph.input,), (graph.output,)))
        self.graph = graph
        return super().bind(batch, memory, **options)

    def hold(self, parameters: Array, gradients: Array, moving: Array) -> None:
        """Use these parts of flat vectors: views of them become `kernel`, `dkernel`, ..., `moving_mean`, ..."""
        self.flat = parameters, gradients, moving
        self.parameters, self.gradients = self.layout.views(parameters), self.layout.views(gradients)
        self.moving = self.moving_layout.views(moving)
        named = {f"d{name}": array for name, array in self.gradients.items()}
        vars(self).update(self.parameters | named | self.moving)
        self.built = True

    def unbuilt(self) -> Self:
        twin = super().unbuilt()
        for name in (*self.parameters, *(f"d{name}" for name in self.gradients), *self.moving):
            vars(twin).pop(name, None)
        twin._forget()
        return twin

    def initialize(self, seed: int, number: int = 0) -> None:
        """Draw the parameters; `number` counts the layers of a network that have arrays."""
        source = generator(seed, INITIALIZERS, number)
        for name, array in self.arrays().items():
            drawn = np.asarray(self.initializers[name](array.shape, source), self.dtype)
            if drawn.shape != array.shape:
                raise ValueError(f"{self.name}: the initializer of {name} gave {drawn.shape}, not {array.shape}")
            self.device.load(drawn, out=array)

    def bound(self, batch: BatchSlice, memory: Memory, fused: tuple["Layer", ...], *, input_gradient: bool) -> Self:
        """A twin that shares the parameters and has buffers of its own; a frozen one's gradients go nowhere."""
        twin = object.__new__(on(self.device, type(self)))
        vars(twin).update(vars(self))
        twin.batch, twin.memory, twin.fused, twin.input_gradient = batch, memory, fused, input_gradient
        if self.shapes and not self.trainable:
            self.flat[1].fill(0)  # what was there from before it was frozen
            twin.hold(self.flat[0], memory.buffer(self.layout.size), self.flat[2])
        twin.allocate()
        return twin

    def reads(self) -> list[tuple[Array, Array]]:
        """Of a bound twin: for each input, the buffers of its value and its gradient."""
        return [(self.x, getattr(self, "dx", None))]

    def write_to(self, *outputs: tuple[Array, Array]) -> None:
        """Use these buffers of the readers; a layer that only sees its input in another shape gives up its own."""
        ((self.y, self.dy),) = outputs

    def arrays(self) -> dict[str, Array]:
        """Everything that is saved: parameters and moving averages."""
        return self.parameters | self.moving

    def shapes_of_arrays(self) -> dict[str, tuple[int, ...]]:
        return self.shapes | self.moving_shapes

    def count_parameters(self) -> int:
        return sum(prod(shape) for shape in self.shapes.values())


def image_shape(input_shape: tuple[int, ...], name: str) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise ValueError(f"{name}: the input shape is {input_shape} where (H, W, C) is wanted")
    return input_shape[0], input_shape[1], input_shape[2]


def token_shape(input_shape: tuple[int, ...], name: str) -> tuple[int, int]:
    if len(input_shape) != 2:
        raise ValueError(f"{name}: the input shape is {input_shape} where (T, D) is wanted")
    return input_shape[0], input_shape[1]
