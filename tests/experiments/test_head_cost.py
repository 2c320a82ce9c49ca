"""What is timed is what a head does in training, forward and backward, and the figures are medians in milliseconds."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from scratchnet import GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from scratchnet.backend import Noise
from scratchnet.data import Dataset, Split
from scratchnet.experiments import RECIPES, Recipe, head_cost
from scratchnet.experiments.head_cost import ROUNDS, HeadCost, HeadTime, StepShare, measure_head_cost, time_rounds
from scratchnet.layers import Dense, Flatten
from scratchnet.training.replica import Replica
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
    return replace(RECIPES["same-padding"], layers=lambda classes: [Flatten(), Dense(classes)], batch_size=BATCH)


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All heads that are bound from here on."""
    found: list[Any] = []
    bind: Callable[..., Any] = SoftmaxCrossEntropy.bind

    def noted(*arguments: Any) -> Any:
        found.append(bind(*arguments))
        return found[-1]

    monkeypatch.setattr(SoftmaxCrossEntropy, "bind", noted)
    return found


def fake_clock(monkeypatch: pytest.MonkeyPatch, *durations: float) -> list[Callable[[], None]]:
    """Works that take so many seconds each, by a clock that only they move."""
    now = [0.0]
    monkeypatch.setattr(head_cost, "perf_counter", lambda: now[0])

    def work(seconds: float) -> Callable[[], None]:
        return lambda: now.__setitem__(0, now[0] + seconds)

    return [work(seconds) for seconds in durations]


def test_a_round_does_every_work_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    found = time_rounds(fake_clock(monkeypatch, 0.25, 0.5), seconds=7.4)
    assert found.tolist() == [[250, 500]] * 10
    assert len(time_rounds(fake_clock(monkeypatch, 0.25), seconds=0)) == ROUNDS


def test_the_figures_are_medians_and_quartiles(
    monkeypatch: pytest.MonkeyPatch, dataset: Dataset, recipe: Recipe
) -> None:
    """Alone, softmax takes 1 to 5 ms and Gumbel 10 to 50; in the steps they take 2 of 8 ms and 6 of 8."""
    alone = np.array([[3, 30], [1, 10], [5, 50], [2, 20], [4, 40]], float)
    steps = np.array([[8, 2, 8, 6]] * ROUNDS, float)
    monkeypatch.setattr(head_cost, "time_rounds", lambda works, seconds: {2: alone, 4: steps}[len(works)])
    assert measure_head_cost(dataset, [recipe], [7], BATCH) == HeadCost(
        (HeadTime("softmax", 7, BATCH, 3, 2, 4), HeadTime("gumbel", 7, BATCH, 30, 20, 40)),
        (StepShare("same-padding", "softmax", 2, 8, 0.25), StepShare("same-padding", "gumbel", 6, 8, 0.75)),
    )


def test_every_figure_is_there_and_survives_json(dataset: Dataset, recipe: Recipe) -> None:
    cost = measure_head_cost(dataset, [recipe], [2, 10_000], BATCH, seconds=0.3)
    assert [(time.classes, time.head) for time in cost.times] == [
        (classes, head) for classes in (2, 10_000) for head in ("softmax", "gumbel")
    ]
    assert all(0 < time.low <= time.milliseconds <= time.high for time in cost.times)
    for few, many in zip(cost.times[:2], cost.times[2:], strict=True):
        assert many.low > few.high, "5,000 times the work takes no longer"
    for share in cost.shares:
        assert 0 < share.head_milliseconds < share.step_milliseconds
        assert 0 < share.share < 1
    assert HeadCost.of(json.loads(json.dumps(asdict(cost)))) == cost


def test_the_head_alone_goes_forward_and_backward_with_new_noise(twins: list[Any]) -> None:
    """After the last of the timed steps, loss and gradient are those of that step."""
    measure_head_cost(None, [], [CLASSES], BATCH, seconds=0)  # type: ignore[arg-type]
    assert [twin.name for twin in twins] == ["softmax", "gumbel"]
    for twin, head in zip(list(twins), HEADS, strict=True):
        assert twin.clock.step == ROUNDS
        loss, dlogits = head()(twin.logits, twin.labels, step=ROUNDS)
        assert_close(twin.loss, loss)
        assert_close(twin.dlogits, dlogits)
        assert np.ptp(twin.logits) > 0
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
    measure_head_cost(dataset, [recipe], [CLASSES], BATCH, seconds=0)
    _, alone, softmax, trained = twins
    assert softmax.name == "softmax"
    assert softmax.clock.step == trained.clock.step == ROUNDS
    steps = {id(head.drawn): [step for owner, step in drawn if owner == id(head.drawn)] for head in (alone, trained)}
    assert sum(map(len, steps.values())) == len(drawn)
    assert steps[id(alone.drawn)] == list(range(ROUNDS + 1))
    assert steps[id(trained.drawn)] == [step for step in range(ROUNDS + 1) for _ in range(2)]


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
    measure_head_cost(dataset, [recipe], [], seconds=0)
    batches = [(step % 2 * BATCH, BATCH, step) for step in range(ROUNDS + 1)]
    assert sorted(trained, key=lambda batch: batch[2]) == sorted(2 * batches, key=lambda batch: batch[2])
