"""What the two reports published: final figures and curves, as printed there (macro averages over the 100 classes)."""

from dataclasses import dataclass
from math import nan


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


FIRST_SOFTMAX = Report(
    source="first report",
    epochs=10,
    accuracy=0.4152, precision=0.4343, recall=0.4152, f1=0.4157,
    train_loss=(3.7353, 2.9103, 2.5231, 2.2481, 2.0225, 1.8245, 1.6435, 1.4725, 1.3063, 1.1504),
    train_accuracy=(0.1350, 0.2793, 0.3590, 0.4162, 0.4663, 0.5084, 0.5512, 0.5921, 0.6320, 0.6699),
    test_loss=(3.1932, 2.7204, 2.5277, 2.4319, 2.3233, 2.4229, 2.3812, 2.4191, 2.5040, 2.5935),
    test_accuracy=(0.2280, 0.3233, 0.3539, 0.3833, 0.4087, 0.4000, 0.4186, 0.4205, 0.4220, 0.4152),
)  # fmt: skip

FIRST_GUMBEL = Report(
    source="first report",
    epochs=10,
    accuracy=0.4152, precision=0.4465, recall=0.4152, f1=0.4164,
    train_loss=(8.1812, 6.6097, 5.8226, 5.2898, 4.8556, 4.5082, 4.2134, 3.8780, 3.6298, 3.3675),
    train_accuracy=(0.1134, 0.2415, 0.3176, 0.3677, 0.4093, 0.4474, 0.4816, 0.5108, 0.5437, 0.5715),
    test_loss=(7.3058, 6.2432, 5.8222, 5.4696, 5.3970, 5.1709, 5.0980, 5.1593, 5.0969, 5.2798),
    test_accuracy=(0.1862, 0.2715, 0.3307, 0.3536, 0.3689, 0.3908, 0.4075, 0.4006, 0.4169, 0.4152),
    noisy_loss=True,
)  # fmt: skip

SECOND_SOFTMAX = Report(
    source="second report",
    epochs=10,
    accuracy=0.3605, precision=0.3799, recall=0.3605, f1=0.3521,
    train_loss=(3.9757, 3.2992, 2.9632, 2.7325, 2.5713, 2.4431, 2.3340, 2.2350, 2.1452, 2.0582),
    train_accuracy=(0.0877, 0.2014, 0.2641, 0.3102, 0.3423, 0.3692, 0.3903, 0.4111, 0.4294, 0.4494),
    test_loss=(3.5539, 3.1320, 2.9262, 2.7574, 2.6666, 2.6199, 2.5730, 2.5296, 2.5392, 2.5523),
    test_accuracy=(0.1515, 0.2333, 0.2729, 0.3092, 0.3298, 0.3407, 0.3455, 0.3653, 0.3643, 0.3605),
)  # fmt: skip

SECOND_GUMBEL = Report(
    source="second report",
    epochs=30,
    accuracy=0.3024, precision=0.3044, recall=0.3023, f1=0.2981,
    first_epoch=21,
    train_loss=(2.2017, 2.1664, 2.1183, 2.0564, 2.0151, nan, 1.9253, 1.8774, 1.8327, 1.7892),
    train_accuracy=(0.4598, 0.4689, 0.4738, 0.4892, 0.4992, 0.5057, 0.5169, 0.5243, 0.5326, 0.5427),
    test_loss=(3.8224, 3.8476, 4.0555, 4.0123, 4.1067, 4.2307, 4.3594, 4.3232, 4.4539, nan),
    test_accuracy=(0.2992, 0.3088, 0.2986, 0.3086, 0.3083, 0.2952, 0.3013, 0.3020, 0.3071, 0.3024),
    noisy_loss=True,
    noisy_prediction=True,
)  # fmt: skip
