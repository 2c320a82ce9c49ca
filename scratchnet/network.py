"""A network: layers one after the other, on one vector of parameters and one of gradients."""

import copyreg
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np

from scratchnet import arguments
from scratchnet.backend import Array, Clock, Device, Memory, owned_by
from scratchnet.layers.layer import Layer, Module, Share, as_device


class BoundNetwork:
    """A network's layers with buffers for one batch size: each layer's output is its successor's input."""

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers
        self.x, self.y, self.dy = layers[0].x, layers[-1].y, layers[-1].dy

    @property
    def dx(self) -> Array:
        return self.layers[0].dx

    def compute(self, training: bool) -> None:
        for layer in self.layers:
            owned_by(layer.name)
            layer.compute(training)

    def compute_gradients(self) -> None:
        for layer in reversed(self.layers):
            owned_by(layer.name)
            layer.compute_gradients()


class Sequential(Module):
    """Layers applied one after the other.

    `build(input_shape)` creates all parameters in one flat vector, `parameters`, with one of `gradients` beside it and
    one of `state` (moving averages); the layers hold views of them. `forward(x, training=False)` and `backward(dy)` are
    those of a layer. Arrays start at whole cache lines, so the vectors are a little longer than
    `count_parameters()`; what lies between stays 0.
    """

    parameters: Array
    gradients: Array
    state: Array

    def __init__(self, layers: Sequence[Layer], name: str = "sequential") -> None:
        super().__init__()
        if not isinstance(layers, Iterable):
            raise TypeError(f"{name}: a {type(layers).__name__} is given where a list of layers is wanted")
        self.name, self.layers = name, list(layers)
        if not self.layers:
            raise ValueError(f"{name}: a network has at least one layer")
        for index, layer in enumerate(self.layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"{name}: entry {index} is a {type(layer).__name__}, not a layer")
        if len({id(layer) for layer in self.layers}) < len(self.layers):
            raise ValueError(
                f"{name}: the same layer stands twice; make a second one, as layers share no parameters here"
            )

    def build(
        self, input_shape: tuple[int, ...], dtype: Any = "float32", device: str | Device | None = None, seed: int = 0
    ) -> tuple[int, ...]:
        """Create the parameters for inputs of this shape (without the batch axis); returns the output shape.

        The same seed gives the same parameters. Raises ValueError that names the layer where a shape does not fit.
        """
        output_shape = self.configure(input_shape, dtype, as_device(device))
        parameters = sum(layer.vector.size for layer in self.layers)
        state = sum(layer.state_vector.size for layer in self.layers)
        self.attach(*(self.device.zeros(size, self.dtype) for size in (parameters, parameters, state)))
        # Counted among those with parameters: a dropout more or less leaves the start of all others as it was.
        for number, layer in enumerate(layer for layer in self.layers if layer.parameters):
            layer.initialize(seed, number)
        return output_shape

    def configure(self, input_shape: tuple[int, ...], dtype: Any, device: Device) -> tuple[int, ...]:
        """Shapes, names and the places of all parameters in the flat vectors, without any array."""
        self.built = False  # and so it stays if a shape does not fit
        self.dtype, self.device, self._bound = arguments.dtype(dtype, self.name), device, None
        shape = self.input_shape = arguments.shape(input_shape, self.name)
        names: Counter[str] = Counter()
        for stream, layer in enumerate(self.layers):
            if layer.built and layer.clock is not self.clock:
                raise ValueError(
                    f"{self.name}: layer {stream}, {layer.name}, is in use already, alone or in another network: "
                    "make a new one, or take its unbuilt() copy"
                )
            layer.name = layer.kind + (f"_{names[layer.kind]}" if names[layer.kind] else "")
            names[layer.kind] += 1
            layer.stream, layer.clock = stream, self.clock
            shape = layer.configure(shape, self.dtype, device)
        self.output_shape = shape
        return shape

    def attach(self, parameters: Array, gradients: Array, state: Array) -> None:
        """Use these flat vectors; the layers get views of them."""
        self.parameters, self.gradients, self.state = parameters, gradients, state
        start = state_start = 0
        for layer in self.layers:
            part = slice(start, start := start + layer.vector.size)
            state_part = slice(state_start, state_start := state_start + layer.state_vector.size)
            layer.attach(parameters[part], gradients[part], state[state_part])
        self.built, self._bound = True, None

    def unbuilt(self) -> Self:
        """A copy with the same layers and no arrays."""
        twin = object.__new__(type(self))
        arrays = "parameters", "gradients", "state"
        vars(twin).update({name: value for name, value in vars(self).items() if name not in arrays})
        twin.layers, twin.clock = [layer.unbuilt() for layer in self.layers], Clock()
        twin.built, twin._bound = False, None
        return twin

    def __reduce__(self) -> Any:
        if not self.built:
            return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]
        return _restore, (self.unbuilt(), self.input_shape, self.dtype, self.device, self.clock.step, self.weights())

    def bind(
        self,
        share: Share,
        memory: Memory,
        *,
        input_gradient: bool = True,
        output: tuple[Array, Array] | None = None,
    ) -> BoundNetwork:
        """Twins of the layers with buffers for these rows of a batch; neighbours that can work as one become one.

        `output` are the buffers for y and dy, where their reader has some. Without `input_gradient` the first layer,
        which has nobody to pass it to, leaves out dx.
        """
        twins: list[Layer] = []
        for layer in self.layers:
            twin = layer.twin(share, memory, input_gradient=input_gradient or bool(twins))
            if not (twins and twins[-1].absorb(twin)):
                twins.append(twin)
        for twin in twins:
            twin.allocate()
        twins[-1].write_to(*(output or (memory.activation(share.size, self.output_shape) for _ in range(2))))
        for successor, twin in pairwise(reversed(twins)):
            twin.write_to(successor.x, successor.dx)
        return BoundNetwork(twins)

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and moving averages as NumPy arrays by name, such as "conv2d_1/bias"."""
        self._needs_build("weights")
        arrays = [(f"{layer.name}/{name}", array) for layer in self.layers for name, array in layer.arrays().items()]
        return {name: self.device.to_host(array) for name, array in arrays}

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Copy in what `weights` gave; ValueError where names or shapes differ from this network's."""
        self._needs_build("set_weights")
        own = {f"{layer.name}/{name}": array for layer in self.layers for name, array in layer.arrays().items()}
        if set(weights) != set(own):
            raise ValueError(
                f"{self.name}: the weights have the names {sorted(weights)} where {sorted(own)} are wanted: "
                "they belong to another network"
            )
        for name, array in own.items():
            if np.shape(weights[name]) != array.shape:
                raise ValueError(f"{self.name}: {name} has the shape {np.shape(weights[name])}, not {array.shape}")
        for name, array in own.items():
            self.device.load(np.asarray(weights[name], self.dtype), out=array)

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Print a table of the layers, their output shapes and their numbers of parameters."""
        self._needs_build("summary")
        rows = [("Layer (type)", "Output shape", "Parameters")]
        for layer in self.layers:
            shape = ", ".join(map(str, (None, *layer.output_shape)))
            rows.append((f"{layer.name} ({type(layer).__name__})", f"({shape})", f"{layer.count_parameters():,}"))
        widths = [max(len(row[column]) for row in rows) + 2 for column in range(3)]
        line = "=" * sum(widths)
        print_fn(f'Model: "{self.name}"')
        print_fn(line)
        for index, (layer_text, shape_text, count_text) in enumerate(rows):
            print_fn(f"{layer_text:<{widths[0]}}{shape_text:<{widths[1]}}{count_text:>{widths[2]}}")
            if index in (0, len(rows) - 1):
                print_fn(line)
        trainable = self.count_parameters()
        state = sum(array.size for layer in self.layers for array in layer.state.values())
        print_fn(f"Total parameters: {trainable + state:,}")
        if state:
            print_fn(f"Trainable parameters: {trainable:,}")
            print_fn(f"Non-trainable parameters: {state:,}")

    def count_parameters(self) -> int:
        """How many trainable numbers there are (the flat vector is a little longer: it is padded to cache lines)."""
        return sum(layer.count_parameters() for layer in self.layers)

    def _needs_build(self, what: str) -> None:
        if not self.built:
            raise RuntimeError(f"{self.name}: {what} needs the shapes: call build(input_shape) first")


def _restore(
    network: Sequential, input_shape: tuple[int, ...], dtype: Any, device: Device, step: int, weights: Any
) -> Sequential:
    """What unpickling and copying make of a built network: the layers' views and the flat vectors belong together."""
    network.build(input_shape, dtype, device)
    network.set_weights(weights)
    network.clock.step = step
    return network
