"""What containers say of their layers: which there are, in which order they work, and what each reads and writes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scratchnet.backend import Device, StepCounter

if TYPE_CHECKING:
    from scratchnet.layers.layer import Layer


@dataclass(frozen=True, eq=False)
class Edge:
    """A value that one layer writes and one reads; `shape` is without the batch axis."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Node:
    layer: Layer
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]


class Graph:
    """The nodes in the order of their work. To add a layer is to tell it its name, its shapes and its noise stream."""

    def __init__(
        self, name: str, input_shape: tuple[int, ...], dtype: np.dtype[Any], device: Device, clock: StepCounter
    ) -> None:
        self.name, self.dtype, self.device, self.clock = name, dtype, device, clock
        self.nodes: list[Node] = []
        self.input = self.output = Edge(input_shape)
        self.names: Counter[str] = Counter()

    def add(self, layer: Layer, *inputs: Edge) -> tuple[Edge, ...]:
        """Put the layer after those that are there; returns what it writes. Raises ValueError where it does not fit."""
        if any(node.layer is layer for node in self.nodes):
            raise ValueError(
                f"{self.name}: the same layer, {layer.name}, stands twice; make a second one, as layers share no "
                "parameters here"
            )
        if layer.built and layer.clock is not self.clock:
            raise ValueError(
                f"{self.name}: layer {len(self.nodes)}, {layer.name}, is in use already, alone or in another network: "
                "make a new one, or take its unbuilt() copy"
            )
        layer.name = layer.kind + (f"_{self.names[layer.kind]}" if self.names[layer.kind] else "")
        self.names[layer.kind] += 1
        layer.noise_stream, layer.clock = len(self.nodes), self.clock
        shape = layer.settle(*(edge.shape for edge in inputs), dtype=self.dtype, device=self.device)
        outputs = tuple(Edge(shape) for _ in range(layer.outputs))
        self.nodes.append(Node(layer, inputs, outputs))
        return outputs
