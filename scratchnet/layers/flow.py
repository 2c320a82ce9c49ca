"""Networks: layers one after the other, around a shortcut, or side by side, nested as one likes."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Self

from scratchnet.arguments import one_of
from scratchnet.backend import Array
from scratchnet.layers.graph import Edge, Graph
from scratchnet.layers.layer import Layer
from scratchnet.layers.module import Module


class Network(Module):
    """What has modules in it.

    `build(input_shape)` creates all parameters in one flat vector, `parameters`, with one of `gradients` beside it and
    one of `moving` averages; the layers hold views of them. `forward(x, training=False)` and `backward(dy)` are those
    of a layer.
    """

    parameters: Array
    gradients: Array
    moving: Array

    def __init__(self, layers: Sequence[Module], name: str) -> None:
        super().__init__()
        self.name = name
        self.layers: list[Module] = listed(layers, name)
        if not self.layers:
            raise ValueError(f"{name}: a network has at least one layer")
        for index, layer in enumerate(self.layers):
            if not isinstance(layer, Module):
                raise TypeError(f"{name}: entry {index} is a {type(layer).__name__}, not a layer")
        if len({id(layer) for layer in self.layers}) < len(self.layers):
            raise ValueError(
                f"{name}: the same layer stands twice; make a second one, as layers share no parameters here"
            )

    @property
    def trainable(self) -> bool:
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = value  # type: ignore[misc]

    def attach(self, parameters: Array, gradients: Array, moving: Array) -> None:
        super().attach(parameters, gradients, moving)
        self.parameters, self.gradients, self.moving = self.flat

    def unbuilt(self) -> Self:
        twin = super().unbuilt()
        twin.layers = [layer.unbuilt() for layer in self.layers]
        for name in ("parameters", "gradients", "moving"):
            vars(twin).pop(name, None)
        return twin


class Sequential(Network):
    """Layers applied one after the other."""

    def __init__(self, layers: Sequence[Module], name: str = "sequential") -> None:
        super().__init__(layers, name)

    def emit(self, graph: Graph, edge: Edge) -> Edge:
        for layer in self.layers:
            edge = layer.emit(graph, edge)
        return edge


class Parallel(Network):
    """Branches that all read x, put together: side by side in the last axis ("concatenate"), or summed ("add").

    Each branch is a layer, a network or a list of layers; an empty list passes x on. Raises ValueError where the
    shapes of their outputs do not fit together.
    """

    def __init__(
        self, branches: Sequence[Module | Sequence[Module]], merge: str = "concatenate", name: str = "parallel"
    ) -> None:
        super().__init__([as_module(branch, name) for branch in listed(branches, name)], name)
        if len(self.layers) < 2:
            raise ValueError(f"{name}: it has one branch where two or more are wanted")
        self.merge = one_of(merge, ("concatenate", "add"), "merge", name)

    def arguments(self) -> dict[str, Any]:
        return {"branches": self.layers, "merge": self.merge, "name": self.name}

    def emit(self, graph: Graph, edge: Edge) -> Edge:
        edges = graph.add(Fork(len(self.layers)), edge)
        ends = [branch.emit(graph, start) for branch, start in zip(self.layers, edges, strict=True)]
        return graph.add(Add() if self.merge == "add" else Concatenate(), *ends)[0]


class Residual(Parallel):
    """y = layers(x) + shortcut(x), where the shortcut is x itself unless given. Source: He et al. 2015, equation 1."""

    def __init__(
        self, layers: Module | Sequence[Module], shortcut: Module | Sequence[Module] = (), name: str = "residual"
    ) -> None:
        super().__init__([layers, shortcut], "add", name)

    def arguments(self) -> dict[str, Any]:
        return {"layers": self.layers[0], "shortcut": self.layers[1], "name": self.name}


def as_module(branch: Module | Sequence[Module], name: str) -> Module:
    if isinstance(branch, Module):
        return branch
    layers = listed(branch, name)
    return Sequential(layers) if layers else Pass()


def listed(layers: Iterable[Any], name: str) -> list[Any]:
    if not isinstance(layers, Iterable) or isinstance(layers, Module | str):
        raise TypeError(f"{name}: a {type(layers).__name__} is given where a list of layers is wanted")
    return list(layers)


class Pass(Sequential):
    """No layer at all: y = x."""

    def __init__(self) -> None:
        Module.__init__(self)
        self.name, self.layers = "pass", []


class Fork(Layer):
    """One value for several readers: y_i = x, and dx = sum of dy_i. The first reader's buffer serves as x too."""

    def __init__(self, readers: int) -> None:
        super().__init__()
        self.outputs = readers

    def allocate(self) -> None:
        self.dx = self.activation()

    def write_to(self, *outputs: tuple[Array, Array]) -> None:
        (self.x, self.first), *self.others = outputs
        self.y, self.dy = self.x, self.first

    def compute(self, training: bool) -> None:
        for y, _ in self.others:
            self.ops.copy(self.x, out=y)

    def compute_gradients(self) -> None:
        total = self.first
        for _, dy in self.others:
            self.ops.add(total, dy, out=self.dx)
            total = self.dx


class Join(Layer):
    """A layer with several inputs, `xs`, and their gradients, `dxs`."""

    dxs: list[Array]

    def infer(self, *input_shapes: tuple[int, ...]) -> tuple[int, ...]:
        self.input_shapes = input_shapes
        if len({self.common(shape) for shape in input_shapes}) > 1:
            raise ValueError(f"{self.name}: the shapes of its inputs differ: {', '.join(map(str, input_shapes))}")
        return input_shapes[0]

    def common(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What must be the same of all shapes."""
        return shape

    def allocate(self) -> None:
        self.xs = [self.activation(shape) for shape in self.input_shapes]

    def reads(self) -> list[tuple[Array, Array]]:
        return list(zip(self.xs, self.dxs, strict=True))


class Add(Join):
    """y = sum of x_i. Each dx_i is dy, and has its buffer."""

    def write_to(self, *outputs: tuple[Array, Array]) -> None:
        super().write_to(*outputs)
        self.dxs = [self.dy] * len(self.xs)

    def compute(self, training: bool) -> None:
        total = self.xs[0]
        for x in self.xs[1:]:
            self.ops.add(total, x, out=self.y)
            total = self.y

    def compute_gradients(self) -> None:
        pass


class Concatenate(Join):
    """y = the x_i side by side in the last axis."""

    def infer(self, *input_shapes: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().infer(*input_shapes)
        self.ends = list(accumulate(shape[-1] for shape in input_shapes))
        return (*shape[:-1], self.ends[-1])

    def common(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[:-1]

    def allocate(self) -> None:
        super().allocate()
        self.dxs = [self.activation(shape) for shape in self.input_shapes]

    def compute(self, training: bool) -> None:
        for x, end in zip(self.xs, self.ends, strict=True):
            self.ops.copy(x, out=self.y[..., end - x.shape[-1] : end])

    def compute_gradients(self) -> None:
        for dx, end in zip(self.dxs, self.ends, strict=True):
            self.ops.copy(self.dy[..., end - dx.shape[-1] : end], out=dx)
