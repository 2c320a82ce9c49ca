"""What the two reports published: final figures and curves, read from published.toml."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import msgspec


@dataclass(frozen=True)
class Report:
    """One trained network of a report.

    `accuracy` to `f1` are its final figures on the 10,000 test images. The curves have one value per epoch, the first
    of them for epoch `first_epoch`; `nan` stands where the report itself printed nan. Where `noisy_loss`, the losses
    are those of the noisy logits and not comparable with a clean cross-entropy; where `noisy_prediction`, the noise
    was on at evaluation too, so that each prediction is a sample.
    """

    source: str
    epochs: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    train_loss: tuple[float, ...]
    train_accuracy: tuple[float, ...]
    test_loss: tuple[float, ...]
    test_accuracy: tuple[float, ...]
    first_epoch: int = 1
    noisy_loss: bool = False
    noisy_prediction: bool = False

    @property
    def evaluation(self) -> str:
        return "noise on" if self.noisy_prediction else "argmax"

    def curve(self, figure: str) -> tuple[float, ...]:
        """The curve that means the same as ours of this name (see result.Epoch); empty where there is none."""
        if self.noisy_prediction:
            return self.test_accuracy if figure == "test_accuracy_sampled" else ()
        if figure == "test_accuracy_sampled" or (figure == "test_loss" and self.noisy_loss):
            return ()
        return getattr(self, figure)


_TEXT = Path(__file__).with_name("published.toml").read_text()
PUBLISHED = msgspec.convert(tomllib.loads(_TEXT), dict[str, dict[str, Report]])  # by recipe and head
