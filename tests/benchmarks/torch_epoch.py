"""Epochs of a recipe in PyTorch: `python -m tests.benchmarks.torch_epoch` is the script a user of PyTorch would write.

It does the work of train_cifar.py in PyTorch's fastest ordinary way: the data set stays in memory as uint8, a random
permutation picks each batch, which becomes float32 and channels_last in one go, and after the epoch the test images are
evaluated with the same metrics. It writes no files.
"""

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np

from scratchnet.backend.noise import SAMPLING, gumbel, uniform
from scratchnet.data import Dataset, Split, load_dataset
from scratchnet.experiments.metrics import Evaluation, evaluate
from scratchnet.experiments.recipes import RECIPES
from tests.benchmarks.setting import Setting, chosen_recipes, options
from tests.benchmarks.torch_peer import torch_network

if TYPE_CHECKING:
    import torch

TEST_BATCH = 250


class Training:
    """A network, its optimizer and the data set."""

    def __init__(self, setting: Setting, dataset: Dataset) -> None:
        import torch

        torch.set_num_threads(setting.workers)
        torch.manual_seed(0)
        self.batch_size = setting.batch_size
        self.model = torch_network(setting.network()).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3, foreach=True)
        self.train_images, self.test_images = self._images(dataset.train), self._images(dataset.test)
        self.labels, self.test_labels = torch.from_numpy(dataset.train.labels), dataset.test.labels

    def _images(self, split: Split) -> "torch.Tensor":
        """The images with axes N, C, H, W that lie as N, H, W, C, from which a batch is converted fastest."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(split.images)).permute(0, 3, 1, 2)

    def _batch(self, images: "torch.Tensor") -> "torch.Tensor":
        import torch

        return images.to(torch.float32, memory_format=torch.channels_last).div_(255)

    def train(self) -> tuple[float, float]:
        """One epoch; returns its mean loss and accuracy."""
        import torch

        loss_sum, hits = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for rows in torch.randperm(len(self.labels)).split(self.batch_size):
            x, y = self._batch(self.train_images[rows]), self.labels[rows]
            self.optimizer.zero_grad()
            logits = self.model(x)
            loss = torch.nn.functional.cross_entropy(logits, y)
            loss.backward()
            self.optimizer.step()
            loss_sum += loss.detach() * len(rows)
            hits += (logits.detach().argmax(1) == y).sum()
        return loss_sum.item() / len(self.labels), hits.item() / len(self.labels)

    def evaluate(self, epoch: int) -> Evaluation:
        import torch

        with torch.inference_mode():
            parts = [self.model(self._batch(images)) for images in self.test_images.split(TEST_BATCH)]
            logits = torch.cat(parts).numpy()
        return evaluate(logits, self.test_labels, noise=gumbel(uniform(0, SAMPLING, epoch, 0, *logits.shape)))


def serve(pipe: Connection, setting: Setting, data: str) -> None:
    """As the target of a contender: for each epoch asked for, the seconds of its training and of its evaluation."""
    training, epoch = Training(setting, load_dataset(data)), 0
    while pipe.recv():
        epoch += 1
        began = time.perf_counter()
        training.train()
        trained = time.perf_counter()
        training.evaluate(epoch)
        pipe.send((trained - began, time.perf_counter() - trained))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options("Train a recipe in PyTorch.")
    parser.add_argument("--data", default="cifar100", help="as train_cifar.py takes it (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    for recipe in chosen_recipes(chosen.recipe):
        setting = Setting(recipe, RECIPES[recipe].batch_size, chosen.workers)
        training = Training(setting, load_dataset(chosen.data))
        for epoch in range(1, chosen.epochs + 1):
            loss, accuracy = training.train()
            test = training.evaluate(epoch)
            print(
                f"{recipe} epoch {epoch}: training loss {loss:.4f}, accuracy {accuracy:.4f}; "
                f"test loss {test.loss:.4f}, accuracy {test.figures['accuracy']:.4f}"
            )


if __name__ == "__main__":
    main()
