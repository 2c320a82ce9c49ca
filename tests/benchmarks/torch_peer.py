"""The same network and training step in PyTorch, eager or compiled.

Torch is imported inside functions, because our workers import the modules of whoever starts them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from shutil import which
from typing import TYPE_CHECKING

from scratchnet import Sequential
from scratchnet.layers import Conv2D, Dense, Flatten, MaxPooling2D, ReLU
from tests.benchmarks.setting import Setting

if TYPE_CHECKING:
    import torch


def torch_network(network: Sequential) -> "torch.nn.Sequential":
    """The same layers, for images (N, C, H, W)."""
    from torch import nn

    layers: list[nn.Module] = []
    for layer in network.layers:
        match layer:
            case Conv2D():
                (top, _), (left, _) = layer.windows.margins
                channels = layer.input_shape[2]
                layers.append(nn.Conv2d(channels, layer.filters, layer.kernel_size, padding=(top, left)))
            case ReLU():
                layers.append(nn.ReLU())
            case MaxPooling2D():
                layers.append(nn.MaxPool2d(layer.pool_size))
            case Flatten():
                layers.append(nn.Flatten())
            case Dense():
                layers.append(nn.Linear(layer.input_shape[0], layer.units))
            case _:
                raise TypeError(f"{layer.name} has no counterpart here")
    return nn.Sequential(*layers)


def cannot_compile() -> str | None:
    """Why torch.compile cannot be compared with; None where it can."""
    if not (which("c++") or which("g++") or which("clang++")):
        return "there is no C++ compiler"
    return None


@contextmanager
def training_step(setting: Setting, channels_last: bool, compiled: bool = False) -> Iterator[Callable[[], None]]:
    """A function that makes one step on a batch that is there already, as float32 in the wanted memory format."""
    import torch

    torch.set_num_threads(setting.workers)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = torch_network(setting.network()).to(memory_format=memory_format)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, foreach=True)
    forward = torch.compile(model) if compiled else model
    batches = cycle(
        [
            (torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=memory_format), torch.from_numpy(y))
            for x, y in setting.float_batches()
        ]
    )

    def step() -> None:
        x, y = next(batches)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(forward(x), y).backward()
        optimizer.step()

    yield step
