"""A graph bound to rows of a batch: who owns which buffer, which layers work as one, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from scratchnet.backend import Array, BatchSlice, Memory, owned_by
from scratchnet.layers.activations import ReLU
from scratchnet.layers.convolution import Conv2D
from scratchnet.layers.graph import Edge, Graph, Node
from scratchnet.layers.layer import Layer
from scratchnet.layers.module import print_table
from scratchnet.layers.pooling import MaxPooling2D
from scratchnet.layers.recorded import refuse_unrecorded


class Fusion(NamedTuple):
    """Layers of exactly these types, one after the other, are done by the first, if `suits` says so of the last.

    Of exactly these types: what a subclass does otherwise must not be lost.
    """

    types: tuple[type[Layer], ...]
    suits: Callable[[Any], bool]


FUSIONS = (  # the first that fits is taken
    Fusion((Conv2D, ReLU, MaxPooling2D), lambda pooling: pooling.halves),
    Fusion((Conv2D, ReLU), lambda relu: True),
)


class Plan:
    """The work of a graph on these rows of a batch, in buffers of this memory.

    `x` and `dx`, `y` and `dy` are its ends; `output` are the buffers for y and dy, where their reader has some. Without
    `input_gradient` nobody reads dx, and what only leads there is left out. `fuse=False` keeps each layer by itself.
    """

    def __init__(
        self,
        graph: Graph,
        batch: BatchSlice,
        memory: Memory,
        *,
        input_gradient: bool = True,
        output: tuple[Array, Array] | None = None,
        fuse: bool = True,
    ) -> None:
        self.graph, self.batch, self.memory = graph, batch, memory
        self.nodes: list[tuple[Layer, Node]] = []  # bound layers, and what they read and write
        self.bytes: list[int] = []  # of each one's buffers
        self.going_back: list[Layer] = []  # those whose gradients somebody needs
        needed = {graph.input: input_gradient}
        for layers, node in _fused(graph) if fuse else [([node.layer], node) for node in graph.nodes]:
            first, before = layers[0], memory.lasting
            if first.replays is None:
                refuse_unrecorded(first)
            reaches_input = any(needed[edge] for edge in node.inputs)
            twin = first.bound(batch, memory, tuple(layers[1:]), input_gradient=reaches_input)
            goes_back = reaches_input or any(layer.shapes and layer.trainable for layer in layers)
            needed |= dict.fromkeys(node.outputs, goes_back)
            self.nodes.append((twin, node))
            self.bytes.append(memory.lasting - before)
            if goes_back:
                self.going_back.insert(0, twin)
        ends = output or tuple(memory.activation(batch.size, graph.output.shape) for _ in range(2))
        buffers: dict[Edge, tuple[Array, Array]] = {graph.output: ends}
        for number, (twin, node) in reversed(list(enumerate(self.nodes))):
            self.bytes[number] -= memory.lasting
            twin.write_to(*(buffers[edge] for edge in node.outputs))
            self.bytes[number] += memory.lasting
            buffers |= dict(zip(node.inputs, twin.reads(), strict=True))
        (self.x, self.dx), (self.y, self.dy) = buffers[graph.input], ends

    def compute(self, training: bool) -> None:
        for layer, _ in self.nodes:
            owned_by(layer.name)
            layer.compute(training)

    def compute_gradients(self) -> None:
        for layer in self.going_back:
            owned_by(layer.name)
            layer.compute_gradients()

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Print a table of the nodes: what works as one, what it reads and writes, who does the work, and its bytes."""
        rows: list[tuple[str, ...]] = [("Node", "Reads", "Writes", "Work", "Back", "Bytes")]
        writers = {edge: twin.name for twin, node in self.nodes for edge in node.outputs} | {self.graph.input: "input"}
        for (twin, node), size in zip(self.nodes, self.bytes, strict=True):
            name = " + ".join((twin.name, *(layer.name for layer in twin.fused)))
            reads = ", ".join(f"{writers[edge]} {edge.shape}" for edge in node.inputs)
            work = type(getattr(twin, "work", twin)).__name__
            back = "no" if twin not in self.going_back else "yes" if twin.input_gradient else "dw only"
            rows.append((name, reads, str(node.outputs[0].shape), work, back, f"{size:,}"))
        graph, batch = self.graph, self.batch
        print_fn(f'Plan of "{graph.name}" for {batch.size} rows of {batch.total} on {graph.device.name}')
        print_table(rows, print_fn, right=1)
        print_fn(f"Buffers: {self.memory.lasting:,} bytes")


def _fused(graph: Graph) -> Iterator[tuple[list[Layer], Node]]:
    """The nodes in their order, those that work as one as one node: a value inside it has no other reader."""
    readers = {edge: node for node in graph.nodes for edge in node.inputs}
    done: list[Node] = []
    for node in graph.nodes:
        if any(node is other for other in done):
            continue
        chain = [node]
        while len(chain[-1].outputs) == 1 and (after := readers.get(chain[-1].outputs[0])):
            chain.append(after)
        for fusion in FUSIONS:
            part = chain[: len(fusion.types)]
            if tuple(type(each.layer) for each in part) == fusion.types and fusion.suits(part[-1].layer):
                break
        else:
            part = [node]
        done += part
        yield [each.layer for each in part], Node(node.layer, node.inputs, part[-1].outputs)
