"""What is timed is what a head does in training, forward and backward, and the figures are medians in milliseconds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scratchnet import GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from scratchnet.backend import Noise
from scratchnet.data import Dataset, Split
from scratchnet.experiments import RECIPES, Recipe
from scratchnet.layers import Dense, Flatten
from scratchnet.training.replica import Replica
from tests.benchmarks import head_cost, timing
from tests.benchmarks.head_cost import HeadTime, StepShare, head_times, step_shares
from tests.benchmarks.timing import MIN_ROUNDS, time_works
from tests.reference.checks import assert_close

IMAGES, CLASSES, BATCH = 10, 3, 4
HEADS = SoftmaxCrossEntropy, GumbelSoftmaxCrossEntropy


@pytest.fixture
def dataset() -> Dataset:
    random = np.random.default_rng(0)
    split = Split(random.integers(0, 256, (IMAGES, 32, 32, 3), np.uint8), random.integers(0, CLASSES, IMAGES))
    return Dataset("tiny", split, split, ("a", "b", "c"), (), np.empty(0, np.int64))


@pytest.fixture
def recipe() -> Recipe:
    return replace(RECIPES["same-padding"], layers=lambda classes, seed: [Flatten(), Dense(classes)], batch_size=BATCH)


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All heads that are bound from here on."""
    found: list[Any] = []
    bound: Callable[..., Any] = SoftmaxCrossEntropy.bound

    def noted(*arguments: Any, **options: Any) -> Any:
        found.append(bound(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(SoftmaxCrossEntropy, "bound", noted)
    return found


def fake_clock(monkeypatch: pytest.MonkeyPatch, *durations: float) -> list[Callable[[], None]]:
    """Works that take so many seconds each, by a clock that only they move."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def work(seconds: float) -> Callable[[], None]:
        return lambda: now.__setitem__(0, now[0] + seconds)

    return [work(seconds) for seconds in durations]


def test_a_round_does_every_work_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    found = time_works(fake_clock(monkeypatch, 0.25, 0.5), seconds=7.4)
    assert found.tolist() == [[250, 500]] * 10
    assert len(time_works(fake_clock(monkeypatch, 0.25), seconds=0)) == MIN_ROUNDS


def test_the_figures_are_medians_and_quartiles(
    monkeypatch: pytest.MonkeyPatch, dataset: Dataset, recipe: Recipe
) -> None:
    """Alone, softmax takes 1 to 5 ms and Gumbel 10 to 50; in the steps they take 2 of 8 ms and 6 of 8."""
    alone = np.array([[3, 30], [1, 10], [5, 50], [2, 20], [4, 40]], float)
    steps = np.array([[8, 2, 8, 6]] * MIN_ROUNDS, float)
    monkeypatch.setattr(head_cost, "time_works", lambda works, seconds: {2: alone, 4: steps}[len(works)])
    times, shares = head_times([7], BATCH), step_shares(dataset, recipe)
    assert times == [HeadTime("softmax", 7, 3, 2, 4), HeadTime("gumbel", 7, 30, 20, 40)]
    assert shares == [
        StepShare("same-padding", "softmax", 2, 8, 0.25),
        StepShare("same-padding", "gumbel", 6, 8, 0.75),
    ]
    first, sentence, second = head_cost.printed(times, shares)
    assert [line.split() for line in first.splitlines()[1:]] == [
        ["7", "softmax", "3", "2", "4"], ["7", "gumbel", "30", "20", "40"]
    ]  # fmt: skip
    assert sentence.startswith("gumbel takes longer than softmax at 1 of 1 numbers of classes, and less long at 0 ")
    assert sentence.endswith("the ratio of the medians is 10.00 to 10.00")
    assert second.splitlines()[2].split() == ["same-padding", "gumbel", "6", "8", "75"]


@pytest.mark.parametrize(("ratio", "longer", "shorter"), [(2.0, 3, 0), (0.5, 0, 3), (1.05, 0, 0)])
def test_times_differ_where_their_quartiles_do(ratio: float, longer: int, shorter: int) -> None:
    times = [
        HeadTime(head, classes, slow * classes, 0.9 * slow * classes, 1.1 * slow * classes)
        for classes in (10, 1_000, 100_000)
        for head, slow in (("softmax", 1e-3), ("gumbel", ratio * 1e-3))
    ]
    _, sentence, _ = head_cost.printed(times, [])
    assert f"at {longer} of 3 " in sentence
    assert f"less long at {shorter} " in sentence
    assert f"{ratio:.2f} to {ratio:.2f}" in sentence


def test_every_figure_is_there(dataset: Dataset, recipe: Recipe) -> None:
    times, shares = head_times([2, 10_000], BATCH, seconds=0.2), step_shares(dataset, recipe, seconds=0.1)
    assert [(time.classes, time.head) for time in times] == [
        (classes, head) for classes in (2, 10_000) for head in ("softmax", "gumbel")
    ]
    assert all(0 < time.low <= time.milliseconds <= time.high for time in times)
    for few, many in zip(times[:2], times[2:], strict=True):
        assert many.low > few.high, "5,000 times the work takes no longer"
    for share in shares:
        assert 0 < share.head_milliseconds < share.step_milliseconds
        assert 0 < share.share < 1
    assert head_cost.figure(times).startswith(b"\x89PNG\r\n")


def test_the_head_alone_goes_forward_and_backward_with_new_noise(twins: list[Any]) -> None:
    """After the last of the timed steps, loss and gradient are those of that step."""
    head_times([CLASSES], BATCH, seconds=0)
    assert [twin.name for twin in twins] == ["softmax", "gumbel"]
    for twin, head in zip(list(twins), HEADS, strict=True):
        assert twin.clock.step == MIN_ROUNDS
        loss, dlogits = head()(twin.x, twin.labels, step=MIN_ROUNDS)
        assert_close(twin.loss, loss)
        assert_close(twin.dx, dlogits)
        assert np.ptp(twin.x) > 0
        assert np.ptp(dlogits) > 0


def test_only_the_gumbel_head_draws_noise(
    monkeypatch: pytest.MonkeyPatch, twins: list[Any], dataset: Dataset, recipe: Recipe
) -> None:
    """In every step alone; in training, once in each step and once more where the head is timed."""
    drawn: list[tuple[int, int]] = []
    draw = Noise._draw
    monkeypatch.setattr(
        Noise, "_draw", lambda noise, out: (drawn.append((id(noise), noise.clock.step)), draw(noise, out))[1]
    )
    head_times([CLASSES], BATCH, seconds=0)
    step_shares(dataset, recipe, seconds=0)
    _, alone, softmax, trained = twins
    assert softmax.name == "softmax"
    assert softmax.clock.step == trained.clock.step == MIN_ROUNDS
    steps = {id(head.drawn): [step for owner, step in drawn if owner == id(head.drawn)] for head in (alone, trained)}
    assert sum(map(len, steps.values())) == len(drawn)
    assert steps[id(alone.drawn)] == list(range(MIN_ROUNDS + 1))
    assert steps[id(trained.drawn)] == [step for step in range(MIN_ROUNDS + 1) for _ in range(2)]


def test_the_steps_go_round_whole_shuffled_batches(
    monkeypatch: pytest.MonkeyPatch, dataset: Dataset, recipe: Recipe
) -> None:
    trained: list[tuple[int, int, int]] = []
    train = Replica.train

    def noted(replica: Replica, *arguments: int) -> None:
        order = replica.arrays["order"]
        assert order.tolist() != sorted(order) == list(range(IMAGES))
        trained.append(arguments)  # type: ignore[arg-type]
        train(replica, *arguments)

    monkeypatch.setattr(Replica, "train", noted)
    step_shares(dataset, recipe, seconds=0)
    batches = [(step % 2 * BATCH, BATCH, step) for step in range(MIN_ROUNDS + 1)]
    assert sorted(trained, key=lambda batch: batch[2]) == sorted(2 * batches, key=lambda batch: batch[2])
