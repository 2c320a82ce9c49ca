"""The public face of every layer and network: built once, then called; it checks, copies in and copies out."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from scratchnet import arguments
from scratchnet.backend import Array, BatchSlice, Device, Memory, StepCounter, get_device, whole
from scratchnet.errors import ScratchnetError
from scratchnet.layers.graph import Edge, Graph

BLOCK = 256  # images at once in `predict`


class Module:
    """What layers and networks share: `build`, `forward`, `backward`, `predict`, and weights by name.

    A module is a description: it knows its layers, their parameters and shapes. Inside a step nothing is checked or
    copied: `bind` makes a plan, which has buffers for one batch size and does the work.
    """

    name: str
    dtype: np.dtype[Any]
    device: Device
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    graph: Graph
    flat: tuple[Array, Array, Array]  # parameters, gradients and moving averages of all layers
    built = False

    def __init__(self) -> None:
        self.clock = StepCounter()
        self._plan: Any = None
        self._plan_of: Any = None

    # --- what layers and networks state, each in its way

    def emit(self, graph: Graph, edge: Edge) -> Edge:
        """Add the layers to the graph; returns what the last one writes."""
        raise NotImplementedError

    def unbuilt(self) -> Self:
        """A copy with the same arguments and no arrays."""
        twin = object.__new__(type(self))
        vars(twin).update({name: value for name, value in vars(self).items() if name not in ("flat", "graph")})
        twin.built, twin._plan, twin._plan_of, twin.clock = False, None, None, StepCounter()
        return twin

    @property
    def trainable(self) -> bool:
        """Whether steps change the parameters; set it to False to freeze them, before a trainer takes the network."""
        raise NotImplementedError

    # --- building

    @property
    def leaves(self) -> list[Any]:
        """All layers of a built module, in the order of their work."""
        return [node.layer for node in self.graph.nodes]

    def build(
        self, input_shape: tuple[int, ...], dtype: Any = "float32", device: str | Device | None = None, seed: int = 0
    ) -> tuple[int, ...]:
        """Create the parameters for inputs of this shape (without the batch axis); returns the output shape.

        The same seed gives the same parameters. Raises ValueError that names the layer where a shape does not fit,
        TypeError for a dtype other than float32 and float64.
        """
        arguments.seed(seed, self.name)
        self.configure(input_shape, dtype, as_device(device))
        self.attach(*(self.device.zeros(size, self.dtype) for size in self.sizes))
        # Number only layers with arrays, so adding a Dropout does not change the initial weights of the others.
        for number, layer in enumerate(layer for layer in self.leaves if layer.arrays()):
            layer.initialize(seed, number)
        return self.output_shape

    def configure(self, input_shape: tuple[int, ...], dtype: Any, device: Device) -> None:
        """Shapes, names and the places of all parameters in the flat vectors, without any array."""
        self.built, self._plan = False, None  # and so it stays if a shape does not fit
        shape = arguments.shape(input_shape, self.name)
        self.dtype, self.device = arguments.dtype(dtype, self.name), device
        graph = Graph(self.name, shape, self.dtype, device, self.clock)
        graph.output = self.emit(graph, graph.input)
        self.graph, self.input_shape, self.output_shape = graph, shape, graph.output.shape

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The lengths of the flat vectors."""
        size = sum(layer.layout.size for layer in self.leaves)
        return size, size, sum(layer.moving_layout.size for layer in self.leaves)

    def attach(self, parameters: Array, gradients: Array, moving: Array) -> None:
        """Use these flat vectors; the layers get views of them."""
        self.flat = parameters, gradients, moving
        start = moving_start = 0
        for layer in self.leaves:
            part = slice(start, start := start + layer.layout.size)
            moving_part = slice(moving_start, moving_start := moving_start + layer.moving_layout.size)
            layer.hold(parameters[part], gradients[part], moving[moving_part])
        self.built, self._plan = True, None

    def __reduce__(self) -> Any:
        """Pickles and copies hold the weights by name, since flat vectors and views of them belong together."""
        if not self.built:
            return _new, (type(self), vars(self) | {"_plan": None})
        streams = [layer.noise_stream for layer in self.leaves]
        build, weights = (self.input_shape, self.dtype, self.device), list(self.weights().values())
        return _restored, (self.unbuilt(), build, self.clock.step, streams, weights)

    # --- use

    def bind(self, batch: BatchSlice, memory: Memory, **options: Any) -> Any:
        """A plan for these rows of a batch (options as in Plan)."""
        from scratchnet.layers.plan import Plan  # which knows layers by name

        return Plan(self.graph, batch, memory, **options)

    def plan(self, batch: int) -> Any:
        """A plan for batches of this size on the module's device: `plan(64).summary()` prints it."""
        self._needs_build("plan")
        size = arguments.positive_integer(batch, "batch", self.name)
        return self.bind(whole(size), Memory(self.device, self.dtype))

    def forward(self, x: Array, training: bool = False) -> Array:
        """The output for a batch `x` of shape (N, *input_shape); what backward needs is kept until the next forward.

        A module not yet built is built for the shape and dtype of `x`. Raises ValueError for a wrong shape and
        TypeError for a wrong dtype.
        """
        if not self.built:
            if not hasattr(x, "dtype"):
                raise TypeError(f"{self.name}: x is a {type(x).__name__}, not an array")
            self.build(np.shape(x)[1:], dtype=x.dtype)
        self._check(x, (None, *self.input_shape), "x")
        with self.device.session(), np.errstate(over="ignore"):  # what overflows is infinite, and to be seen
            made_for = len(x), *(layer.trainable for layer in self.leaves)
            if self._plan is None or self._plan_of != made_for:
                self._plan, self._plan_of = self.plan(len(x)), made_for
            self._plan.x[...] = x
            self.clock.inference = 0 if training else self.clock.inference + 1
            self._plan.memory.record.load()
            self._plan.compute(training)
            if training:
                self.clock.step += 1
            return self._fresh(self._plan.y)

    def backward(self, dy: Array) -> Array:
        """The gradient of sum(y * dy) by `x`, for the last forward; fills `gradients`.

        Raises RuntimeError before the first forward, ValueError for a wrong shape and TypeError for a wrong dtype.
        """
        if self._plan is None:
            raise RuntimeError(f"{self.name}: backward needs the values of a forward pass: call forward first")
        self._check(dy, tuple(self._plan.y.shape), "dy")
        with self.device.session():
            self._plan.dy[...] = dy
            self._plan.compute_gradients()
            return self._fresh(self._plan.dx)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The outputs for any number of images, without training: a NumPy array (N, *output_shape).

        Bytes (uint8) count from 0 to 255 and are divided by 255, as the trainer does; floats are taken as they are.
        """
        self._needs_build("predict")
        x = np.asarray(x)
        if x.dtype.kind not in "uf" or x.ndim != len(self.input_shape) + 1 or x.shape[1:] != self.input_shape:
            raise ValueError(
                f"{self.name}: predict is given {x.dtype} {x.shape} where uint8 or floats of the shape "
                f"(N, {str(self.input_shape)[1:]} are wanted"
            )
        out = np.empty((len(x), *self.output_shape), self.dtype)
        for start in range(0, len(x), BLOCK):
            part = x[start : start + BLOCK]
            part = np.divide(part, 255, dtype=self.dtype) if x.dtype.kind == "u" else part.astype(self.dtype)
            out[start : start + BLOCK] = self.device.to_host(self.forward(self.device.to_device(part)))
        return out

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """softmax of `predict`: for a classifier, the probabilities of its classes, (N, K)."""
        from scipy.special import softmax

        return softmax(self.predict(x), axis=-1)

    def _fresh(self, array: Array) -> Array:
        return self.device.xp.array(array, order="C")

    def _check(self, array: Array, wanted: tuple[int | None, ...], what: str) -> None:
        dtype, shape = getattr(array, "dtype", None), np.shape(array)
        if dtype != self.dtype:
            raise TypeError(
                f"{self.name}: {what} has the dtype {dtype or type(array).__name__} where the layer was built for "
                f"{self.dtype}: convert it, or build the layer with that dtype"
            )
        if not isinstance(array, self.device.xp.ndarray):
            raise TypeError(f"{self.name}: {what} is a {type(array).__name__}, not an array of the {self.device.name}")
        if len(shape) != len(wanted) or any(w not in (None, s) for s, w in zip(shape, wanted, strict=True)):
            text = "(" + ", ".join("N" if w is None else str(w) for w in wanted) + ")"
            raise ValueError(f"{self.name}: {what} has the shape {shape} where {text} is wanted")
        if not len(shape) or shape[0] == 0:
            raise ValueError(f"{self.name}: {what} holds no images (shape {shape}); a batch has at least one")

    # --- weights

    def _arrays(self) -> dict[str, Array]:
        return {f"{layer.name}/{name}": array for layer in self.leaves for name, array in layer.arrays().items()}

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and moving averages as NumPy arrays by name, such as "conv2d_1/bias"."""
        self._needs_build("weights")
        return {name: self.device.to_host(array) for name, array in self._arrays().items()}

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Copy in what `weights` gave; ValueError where names or shapes differ from this network's."""
        self._needs_build("set_weights")
        own = self._arrays()
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

    def arguments(self) -> dict[str, Any]:
        """What the constructor is to be given for another one like this: the attributes of its arguments' names."""
        names = inspect.signature(type(self)).parameters
        if missing := [name for name in names if not hasattr(self, name)]:
            raise ScratchnetError(
                f"{self.name}: it cannot be saved, as nothing tells what its argument {missing[0]} was: keep it as "
                f"self.{missing[0]}"
            )
        return {name: getattr(self, name) for name in names}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write layers and weights to one file, in the format of safetensors; nothing is lost if that fails."""
        from scratchnet.layers.saved import save

        self._needs_build("save")
        save(self, path)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], device: str | Device | None = None, custom: Sequence[type["Module"]] = ()
    ) -> Self:
        """The built network that `save` wrote; `custom` are the types of layers that are not this library's.

        A head is loaded by its own type, such as `TwoLevelSoftmax.load`. Raises ScratchnetError where the file is
        damaged, or is another network than its description says.
        """
        from scratchnet.layers.saved import load

        module = load(path, device, (*custom, cls))
        if not isinstance(module, cls):
            raise ScratchnetError(f"{os.fspath(path)} holds a {type(module).__name__}, not a {cls.__name__}")
        return module

    def count_parameters(self) -> int:
        """How many numbers training finds (the flat vector is a little longer: it is padded to cache lines)."""
        return sum(layer.count_parameters() for layer in self.leaves)

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Print a table of the layers, their output shapes and their numbers of parameters."""
        self._needs_build("summary")
        rows: list[tuple[str, ...]] = [("Layer (type)", "Output shape", "Parameters")]
        for layer in self.leaves:
            shape = ", ".join(map(str, (None, *layer.output_shape)))
            rows.append((f"{layer.name} ({type(layer).__name__})", f"({shape})", f"{layer.count_parameters():,}"))
        print_fn(f'Model: "{self.name}"')
        print_table(rows, print_fn, right=1)
        total = sum(array.size for array in self._arrays().values())
        free = sum(layer.count_parameters() for layer in self.leaves if layer.trainable)
        print_fn(f"Total parameters: {total:,}")
        if total > free:
            print_fn(f"Trainable parameters: {free:,}")
            print_fn(f"Non-trainable parameters: {total - free:,}")

    def _needs_build(self, what: str) -> None:
        if not self.built:
            raise RuntimeError(f"{self.name}: {what} needs the shapes: call build(input_shape) first")


def _new(kind: type[Module], attributes: dict[str, Any]) -> Module:
    module = object.__new__(kind)
    vars(module).update(attributes)
    return module


def _restored(
    module: Module, build: tuple[Any, ...], step: int, streams: list[int], weights: list[np.ndarray]
) -> Module:
    module.build(*build)
    for array, values in zip(module._arrays().values(), weights, strict=True):
        module.device.load(values, out=array)
    for layer, stream in zip(module.leaves, streams, strict=True):  # a layer of a network is alone now
        layer.noise_stream = stream
    module.clock.step = step
    return module


def print_table(rows: list[tuple[str, ...]], print_fn: Callable[[str], Any], right: int) -> None:
    """A header and rows, with lines between and below; the last `right` columns are numbers."""
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(len(rows[0]))]
    for index, row in enumerate(rows):
        sides = "<" * (len(row) - right) + ">" * right
        print_fn("".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)))
        if index in (0, len(rows) - 1):
            print_fn("=" * sum(widths))


def as_device(device: str | Device | None) -> Device:
    return device if isinstance(device, Device) else get_device("cpu" if device is None else device)
