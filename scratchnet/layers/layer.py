"""What every layer is: equations on buffers, and a public face that checks, copies in and copies out."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np

from scratchnet import arguments
from scratchnet.backend import Array, Clock, Device, Memory, Noise, get_device, view
from scratchnet.backend.noise import INITIALIZERS, generator
from scratchnet.initializers import Initializer
from scratchnet.kernels.gpu.noise import Noise as GpuNoise

ALIGN = 16  # parameters start at multiples of 16 numbers in the flat vector: whole cache lines
PITCH = 8  # a matrix of a GPU has a multiple of 8 rows and columns: its tensor cores want 16 bytes, memory 32


@dataclass(frozen=True)
class Share:
    """The rows of a batch that one replica computes, and how it sums an array over all replicas (None: it is alone)."""

    start: int
    size: int
    total: int
    all_reduce: Callable[[Array], None] | None = None


def whole(batch: int) -> Share:
    return Share(0, batch, batch)


class Vector:
    """The places of named arrays in a flat vector: saving, all-reduce and the optimizer are each one operation on it.

    Each array starts at a whole cache line. Or, `joined`, they lie below each other as the rows of one matrix, a kernel
    and then its bias, with zeros on the right and below; `matrix` is then the whole of it.
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]], joined: bool = False) -> None:
        self.shapes, self.places, self.size, self.pitch = shapes, {}, 0, 0
        for name, shape in shapes.items():
            self.pitch = padded(shape[-1]) if joined else shape[-1]
            self.places[name] = slice(self.size, self.size + prod(shape[:-1]) * self.pitch)
            self.size = self.places[name].stop + (0 if joined else -prod(shape) % ALIGN)
        if joined:
            self.size = padded(self.size // self.pitch) * self.pitch

    def views(self, vector: Array) -> dict[str, Array]:
        rows = {name: view(vector[place], prod(self.shapes[name][:-1]), -1) for name, place in self.places.items()}
        return {name: view(rows[name][:, : shape[-1]], *shape) for name, shape in self.shapes.items()}

    def matrix(self, vector: Array) -> Array:
        return view(vector, -1, self.pitch)


def padded(size: int) -> int:
    return size + -size % PITCH


class Module:
    """The public face shared by layers and networks.

    Inside a step nothing is checked or copied: `bind` makes a twin that shares the parameters and has buffers for one
    batch size, and `compute` and `compute_gradients` work on those.
    """

    name: str
    dtype: np.dtype[Any]
    device: Device
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    built = False
    _bound: Any = None

    def __init__(self) -> None:
        self.clock = Clock()

    def build(
        self, input_shape: tuple[int, ...], dtype: Any = "float32", device: str | Device | None = None, seed: int = 0
    ) -> tuple[int, ...]:
        raise NotImplementedError

    def bind(self, share: Share, memory: Memory, *, input_gradient: bool = True) -> Any:
        raise NotImplementedError

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
        with self.device.session():
            if self._bound is None or len(self._bound.x) != len(x):
                self._bound = self.bind(whole(len(x)), Memory(self.device, self.dtype))
            self._bound.x[...] = x
            self.clock.inference = 0 if training else self.clock.inference + 1
            self._bound.compute(training)
            if training:
                self.clock.step += 1
            return self._fresh(self._bound.y)

    def backward(self, dy: Array) -> Array:
        """The gradient of sum(y * dy) by `x`, for the last forward; fills `gradients`.

        Raises RuntimeError before the first forward, ValueError for a wrong shape and TypeError for a wrong dtype.
        """
        if self._bound is None:
            raise RuntimeError(f"{self.name}: backward needs the values of a forward pass: call forward first")
        self._check(dy, tuple(self._bound.y.shape), "dy")
        with self.device.session():
            self._bound.dy[...] = dy
            self._bound.compute_gradients()
            return self._fresh(self._bound.dx)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_bound": None}

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


def as_device(device: str | Device | None) -> Device:
    return device if isinstance(device, Device) else get_device("cpu" if device is None else device)


class Layer(Module):
    """One layer: the equations of its forward and backward pass, and the parameters they use.

    A layer states `infer` (shapes), `allocate` (the buffers of its *input*, laid out as it likes), `compute` (x -> y)
    and `compute_gradients` (dy -> dx and parameter gradients). A network lets the layer before write its output
    straight into these buffers, so `y` and `dy` belong to the successor.
    """

    stream = 0  # keeps the noise of a network's layers apart
    by_image = True  # whether the output for an image depends on no other image of the batch
    multiplies = False  # whether a GPU is to have kernel and bias as one matrix

    vector: Vector
    state_vector: Vector
    flat: tuple[Array, Array, Array]  # this layer's parts of the parameters, the gradients and the state

    # of a bound twin
    x: Array
    dx: Array
    y: Array
    dy: Array
    share: Share
    memory: Memory
    input_gradient: bool

    def __init__(self) -> None:
        super().__init__()
        self.name = self.kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        self.shapes: dict[str, tuple[int, ...]] = {}  # of the parameters; known after infer
        self.state_shapes: dict[str, tuple[int, ...]] = {}  # of what forward changes and is saved: moving averages
        self.initializers: dict[str, Initializer] = {}
        self.parameters: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}
        self.state: dict[str, Array] = {}

    # --- what a layer states

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Output shape for an input shape, both without the batch axis; sets `shapes`, or raises ValueError."""
        return input_shape

    def allocate(self) -> None:
        """The buffers of a bound twin, for `share.size` rows: at least `x` and `dx`."""
        self.x = self.memory.activation(self.share.size, self.input_shape)
        self.dx = self.memory.activation(self.share.size, self.input_shape)

    def write_to(self, y: Array, dy: Array) -> None:
        """Use these buffers of a successor; a layer that only sees its input in another shape gives up its own."""
        self.y, self.dy = y, dy

    def compute(self, training: bool) -> None:
        """y from x."""
        raise NotImplementedError

    def compute_gradients(self) -> None:
        """dx and the parameters' gradients from dy."""
        raise NotImplementedError

    def absorb(self, layer: "Layer") -> bool:
        """Take over the work of the layer that follows, if this one can do both at once; asked of bound twins."""
        return False

    # --- what all layers share

    def configure(self, input_shape: tuple[int, ...], dtype: Any, device: Device) -> tuple[int, ...]:
        self.built = False  # and so it stays if the shape does not fit
        self.input_shape = arguments.shape(input_shape, self.name)
        self.dtype, self.device = arguments.dtype(dtype, self.name), device
        self.output_shape = self.infer(self.input_shape)
        self.vector = Vector(self.shapes, joined=self.multiplies and device.cuda is not None)
        self.state_vector = Vector(self.state_shapes)
        self._bound = None
        return self.output_shape

    def attach(self, parameters: Array, gradients: Array, state: Array) -> None:
        """Use these parts of flat vectors: views of them become `kernel`, `dkernel`, ..., `moving_mean`, ..."""
        self.flat = parameters, gradients, state
        self.parameters, self.gradients = self.vector.views(parameters), self.vector.views(gradients)
        self.state = self.state_vector.views(state)
        named = {f"d{name}": array for name, array in self.gradients.items()}
        vars(self).update(self.parameters | named | self.state)
        self.built = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.built:
            self.attach(*self.flat)  # what was pickled one by one belongs together

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        vars(twin).update(self.__getstate__())
        return twin

    def initialize(self, seed: int, number: int = 0) -> None:
        """Draw the parameters; `number` counts the layers of a network that have any."""
        source = generator(arguments.seed(seed, self.name), INITIALIZERS, number)
        for name, array in self.arrays().items():
            drawn = np.asarray(self.initializers[name](array.shape, source), self.dtype)
            if drawn.shape != array.shape:
                raise ValueError(f"{self.name}: the initializer of {name} gave {drawn.shape}, not {array.shape}")
            self.device.load(drawn, out=array)

    def build(
        self, input_shape: tuple[int, ...], dtype: Any = "float32", device: str | Device | None = None, seed: int = 0
    ) -> tuple[int, ...]:
        """Create the parameters for inputs of this shape (without the batch axis); returns the output shape.

        Raises ValueError where the shape does not fit the layer, TypeError for a dtype other than float32 and float64.
        """
        output_shape = self.configure(input_shape, dtype, as_device(device))
        sizes = self.vector.size, self.vector.size, self.state_vector.size
        self.attach(*(self.device.zeros(size, self.dtype) for size in sizes))
        self.initialize(seed)
        return output_shape

    def unbuilt(self) -> Self:
        """A copy with the same arguments and no arrays."""
        twin = copy.copy(self)
        for name in (*self.parameters, *(f"d{name}" for name in self.gradients), *self.state, "flat"):
            vars(twin).pop(name, None)
        twin.parameters, twin.gradients, twin.state = {}, {}, {}
        twin.built, twin._bound, twin.clock = False, None, Clock()
        return twin

    def twin(self, share: Share, memory: Memory, *, input_gradient: bool) -> Self:
        """A copy that shares the parameters and is about to have buffers of its own."""
        twin = copy.copy(self)
        twin.share, twin.memory, twin.input_gradient = share, memory, input_gradient
        return twin

    def bind(self, share: Share, memory: Memory, *, input_gradient: bool = True) -> Self:
        twin = self.twin(share, memory, input_gradient=input_gradient)
        twin.allocate()
        twin.write_to(*(memory.activation(share.size, self.output_shape) for _ in range(2)))
        return twin

    def noise(self, seed: int) -> Any:
        """Uniform numbers in (0, 1) for the rows of a bound twin's input: `noise(seed).draw(out)` in every step."""
        kind: Any = Noise if self.device.cuda is None else GpuNoise
        share = self.share
        return kind(seed, self.stream, self.clock, share.start, share.size, self.input_shape, self.memory)

    def arrays(self) -> dict[str, Array]:
        """Everything that is saved: parameters and state."""
        return self.parameters | self.state

    def count_parameters(self) -> int:
        return sum(prod(shape) for shape in self.shapes.values())

    @property
    def ops(self) -> Any:
        return self.device.ops


def image_shape(input_shape: tuple[int, ...], name: str) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise ValueError(f"{name}: the input shape is {input_shape} where (H, W, C) is wanted")
    return input_shape[0], input_shape[1], input_shape[2]
