"""What a training step launches on a GPU: how much, how it lies, and what another number of images compiles."""

from collections import Counter

import pytest

from scratchnet.experiments.recipes import RECIPES, REPORTED
from tests.benchmarks.gpu_count import HEADS, Launch, recorded

SECTOR = 16  # bytes: what the fast kernels of cuBLAS ask of addresses, rows and distances between them
STEP = {
    "gather": 1, "im2col": 3, "epilogue": 3, "cross_entropy": 1, "totals": 1, "epilogue_backward": 3, "col2im": 2,
    "product": 14, "ufunc": 3, "adam": 1,
}  # fmt: skip


@pytest.fixture(params=[(recipe, head) for recipe in REPORTED for head in HEADS], ids="-".join)
def step(request: pytest.FixtureRequest) -> list[Launch]:
    recipe, head = request.param
    return recorded(recipe, head, [RECIPES[recipe].batch_size])[1][0]


def test_a_step_is_32_launches(step: list[Launch]) -> None:
    """The three ufuncs are the ReLU between the dense layers. If a number falls, let it fall here too."""
    assert Counter(launch.name for launch in step) == STEP
    assert len(step) == 32


def test_every_product_lies_as_tensor_cores_want_it(step: list[Launch]) -> None:
    for launch in step:
        if launch.name == "product":
            for matrix in launch.arrays:
                together, apart = sorted(zip(matrix.strides, matrix.shape, strict=True))
                assert together[0] == matrix.itemsize
                numbers = matrix.ctypes.data, together[1] * matrix.itemsize, apart[0]
                assert all(number % SECTOR == 0 for number in numbers), (matrix.shape, matrix.strides)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("recipe", REPORTED)
def test_another_number_of_images_compiles_nothing(recipe: str, head: str) -> None:
    compiled = []
    for sizes in ([5], [5, 3, 1]):
        device, steps = recorded(recipe, head, sizes)
        compiled.append(device.cuda.compiled)
    assert len({len(step) for step in steps}) == 1
    assert compiled[0] == compiled[1] > 0
