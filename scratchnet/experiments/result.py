"""What an experiment found: the content of its metrics.json."""

from dataclasses import dataclass, field

from scratchnet.experiments.config import Temperature


@dataclass(frozen=True)
class Epoch:
    """One epoch: the seconds its training took, means over that training, and the test split after it.

    `train_loss` is the head's own loss; `test_loss` is the clean cross-entropy, which alone can be compared between
    heads and temperatures. `test_accuracy` is that of the argmax, `test_accuracy_sampled` of one noisy prediction.
    """

    epoch: int
    seconds: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    test_accuracy_sampled: float


@dataclass(frozen=True)
class Final:
    """Accuracy and macro averages on the test split: of the argmax, of noisy predictions, and their expectation."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    accuracy_sampled: float
    precision_sampled: float
    recall_sampled: float
    f1_sampled: float
    expected_sampled_accuracy: float


@dataclass
class Result:
    """One experiment; `final` is None until its last epoch is done."""

    recipe: str
    head: str
    temperature: Temperature | None
    seed: int
    device: str
    dataset: str
    batch_size: int
    learning_rate: float
    workers: int
    versions: dict[str, str]
    precision: str = "fp32"
    epochs: list[Epoch] = field(default_factory=list)
    final: Final | None = None

    @property
    def title(self) -> str:
        temperature = "" if self.temperature is None else f", temperature {self.temperature}"
        return f"{self.dataset}: {self.recipe}, {self.head}{temperature}, seed {self.seed}, {self.device}"

    @property
    def comparable(self) -> bool:
        """Whether the figures of the reports, which are all of CIFAR-100, may stand beside these."""
        return self.dataset == "cifar100"
