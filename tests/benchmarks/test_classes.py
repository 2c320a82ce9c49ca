"""The study of what K classes cost counts, times and trains what it says. No test looks at how long anything takes."""

from collections import Counter
from dataclasses import replace
from itertools import count
from math import exp, log, prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchnet.data import Dataset, Split
from scratchnet.experiments import RECIPES
from scratchnet.experiments.report.statistics import Run
from scratchnet.layers import BatchNormalization, Dense, Flatten, ReLU
from scratchnet.training import Trainer
from tests.benchmarks import timing
from tests.benchmarks.breakdown import function_name
from tests.benchmarks.classes import __main__ as command
from tests.benchmarks.classes import groupings, milliseconds, seconds
from tests.benchmarks.classes.contenders import CONTENDERS, OutputStep, TouchedRows
from tests.benchmarks.classes.milliseconds import ADAM, Times, verdict
from tests.benchmarks.classes.operations import FORMULAS, Operations, clusters, operations
from tests.benchmarks.classes.pairs import pairs
from tests.benchmarks.classes.prediction import Prediction, repeated, repeats
from tests.benchmarks.classes.seconds import Point, Training, seconds_to, train
from tests.benchmarks.classes.share import half, printed, shares
from tests.benchmarks.classes.slopes import slope
from tests.benchmarks.setting import Setting
from tests.benchmarks.timing import MIN_ROUNDS
from tests.experiments.report import made
from tests.reference.checks import assert_close

CLASSES, IMAGES = 3, 6  # of the small data set, and of each class


@pytest.fixture
def small() -> Dataset:
    """Every image is of one value: of the training images 0 to 17, of the test images 100 to 108; class by class."""
    splits = []
    for first, number in (0, IMAGES), (100, CLASSES):
        values = first + np.arange(CLASSES * number, dtype=np.uint8)
        images = np.broadcast_to(values[:, None, None, None], (len(values), 32, 32, 3))
        splits.append(Split(images, np.repeat(np.arange(CLASSES), number)))
    return Dataset("small", *splits, ("a", "b", "c"))


# --- operations


def loops(head: str, rows: int, features: int, classes: int, samples: int, groups: int) -> Counter[str]:
    """A step of output layer and head one number at a time, counting what it does."""
    random, done = np.random.default_rng(0), Counter[str]()

    def part(x: list[float], weights: list[list[float]], label: int, noisy: bool = False) -> None:
        logits = []
        for weight in weights:
            logit = 0.0
            for a, b in zip(x, weight, strict=True):
                logit += a * b
                done["forward"] += 1
            if noisy:
                logit += -log(-log(random.random()))
                done["randoms"] += 1
                done["logarithms"] += 2
            logits.append(logit)
        powers = []
        for logit in logits:
            powers.append(exp(logit - max(logits)))
            done["exponentials"] += 1
        log(sum(powers))
        done["logarithms"] += 1
        dx = [0.0] * features
        for index, (weight, power) in enumerate(zip(weights, powers, strict=True)):
            dlogit = power / sum(powers) - (index == label)
            dweight = [0.0] * features
            for place in range(features):
                dweight[place] += dlogit * x[place]
                dx[place] += dlogit * weight[place]
                done["backward"] += 2

    def drawn(number: int) -> list[list[float]]:
        return random.normal(size=(number, features)).tolist()

    if head == "sampled":
        for _ in range(samples):
            random.random()
            done["randoms"] += 1
    for _ in range(rows):
        x = random.normal(size=features).tolist()
        if head == "two-level":
            part(x, drawn(groups), 0)
            part(x, drawn(classes // groups), 0)
        else:
            part(x, drawn(samples + 1 if head == "sampled" else classes), 0, noisy=head == "gumbel")
    return done


@pytest.mark.parametrize("head", FORMULAS)
@pytest.mark.parametrize("size", [(2, 3, 12, 4, 3), (3, 2, 20, 7, 5)])
def test_formulas_are_what_loops_count(head: str, size: tuple[int, int, int, int, int]) -> None:
    rows, features, classes, samples, groups = size
    done = loops(head, rows, features, classes, samples, groups)
    assert operations(head, classes, rows, features, samples, groups) == Operations(
        *(done[name] for name in Operations._fields)
    )


@pytest.mark.parametrize("name", [name for name in CONTENDERS if "softmax" in name or "gumbel" in name])
def test_the_step_makes_the_products_of_the_formula(name: str) -> None:
    classes, rows, features = 40, 6, 10
    step = OutputStep(CONTENDERS[name].make(classes), classes, rows, features)
    products = [arguments for function, arguments in step.program.calls if function_name(function) == "matmul"]
    work = sum(prod(a.shape) * b.shape[-1] for a, b, *_ in products)
    of = operations(CONTENDERS[name].formula, classes, rows, features)
    assert work == of.forward + of.backward


def test_clusters_are_about_the_square_root() -> None:
    assert [clusters(classes) for classes in (1, 2, 100, 101, 1_000, 100_000)] == [1, 2, 10, 11, 32, 317]


# --- slopes


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_slope_of_known_milliseconds(value: float) -> None:
    classes, random = (100, 1_000, 10_000, 100_000), np.random.default_rng(0)
    rounds = 0.01 * np.array(classes) ** value * random.lognormal(0, 0.1, (40, 4))
    found = slope(classes, rounds)
    assert found.low < value < found.high
    assert found.low < found.value < found.high
    assert 0.005 < found.high - found.low < 0.05


def test_a_drift_of_whole_rounds_is_no_slope() -> None:
    """All of a round three times as slow: nothing to see. One of its columns: a wider interval, the median stays."""
    classes = 100, 1_000
    rounds = np.tile([1.0, 10.0], (30, 1))
    drifting = rounds * np.linspace(1, 3, 30)[:, None]
    assert slope(classes, drifting) == pytest.approx((1, 1, 1))
    rounds[:8, 1] *= 3
    assert slope(classes, rounds).value == pytest.approx(1)


def test_the_verdict_is_on_the_last_decades() -> None:
    """With a fixed cost of 1 ms at few classes, which hides the slope there."""
    classes, random = (100, 1_000, 10_000, 100_000), np.random.default_rng(0)

    def rounds(power: float) -> np.ndarray:
        few = np.array([1.0, 1.0, 10**power, 100**power])
        return few * random.lognormal(0, 0.02, (20, 4))

    kinds = {name: {"matrix products": 1.0, "ufuncs": 1.0, "copies": 0.0} for name in CONTENDERS}
    right = {"softmax": 1.0, "gumbel 1": 1.0, "gumbel 0.5": 1.0, "two-level": 0.5, "sampled": 0.0}
    found = Times(classes, {name: rounds(power) for name, power in right.items()} | {ADAM: rounds(1.0)}, kinds)
    assert all(verdict(found, name).met for name in right)
    assert verdict(found, "softmax").all.high < 0.8 < verdict(found, "softmax").last.low
    wrong = Times(classes, {name: rounds(0.7) for name in right} | {ADAM: rounds(1.0)}, kinds)
    assert not any(verdict(wrong, name).met for name in right)
    text = "\n\n".join(milliseconds.printed(wrong))
    assert text.count("missed") == len(right)
    assert "met" not in text.split()
    assert len(milliseconds.figure(found)) < 200_000
    assert milliseconds.figure(found).startswith(b"\x89PNG\r\n")


# --- milliseconds


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_step_goes_forward_and_backward_with_new_labels_and_noise(name: str) -> None:
    """After some steps, loss and gradients are those that the head, called, has for these outputs, labels and step."""
    classes, rows, features = 30, 5, 8
    head = CONTENDERS[name].make(classes)
    step = OutputStep(head, classes, rows, features)
    first = step.bound.labels.copy()
    for _ in range(3):
        step()
    bound = step.bound
    assert head.clock.step == 3
    assert bound.labels.tolist() != first.tolist()
    loss, labels, dx = float(bound.loss), bound.labels.copy(), bound.dx.copy()
    x = bound.x.copy()
    gradients = step.gradients.copy()
    if step.plan is None:
        expected, dx_expected = head(x, labels, step=3)
        assert_close(gradients, head.flat[1])
    else:
        outputs = step.plan.nodes[0][0]
        assert_close(x, step.x @ outputs.kernel + outputs.bias, 1e-5)
        expected, dx_expected = CONTENDERS[name].make(classes)(x, labels, step=3)
        assert_close(outputs.dkernel, step.x.T @ dx_expected, 1e-5)
        assert_close(step.plan.dx, dx_expected @ outputs.kernel.T, 1e-5)
    assert_close(loss, expected, 1e-6)
    assert_close(dx, dx_expected, 1e-6)
    assert np.ptp(gradients) > 0


def test_times_has_a_column_for_every_number_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milliseconds, "ELSEWHERE", 100)
    found = milliseconds.times((20, 40), seconds=0)
    assert set(CONTENDERS) < set(found.rounds)
    assert {rounds.shape for rounds in found.rounds.values()} == {(MIN_ROUNDS, 2)}
    assert all((rounds > 0).all() for rounds in found.rounds.values())
    assert set(found.kinds) == set(CONTENDERS)


def test_what_comes_before_a_step_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Works alternate: one that takes the caches, and one whose time counts."""
    monkeypatch.setattr(milliseconds, "ELSEWHERE", 100)
    monkeypatch.setattr(milliseconds, "time_works", lambda works, *_: np.tile(np.arange(len(works)), (3, 1)))
    found = milliseconds.times((20, 40))
    assert found.rounds["softmax"].tolist() == [[1, 1 + 2 * len(CONTENDERS)]] * 3
    numbers = np.concatenate([rounds[0] for rounds in found.rounds.values()])
    assert sorted(numbers) == list(range(1, 2 * len(numbers), 2))


def test_few_classes_are_timed_several_times_in_a_round() -> None:
    done: list[int] = []
    repeated(lambda: done.append(1), 1_000)()
    assert len(done) == repeats(1_000) == 3
    assert (repeats(100), repeats(100_000)) == (30, 1)


@pytest.mark.parametrize(("head", "most"), [("sampled", 4 + 64), ("two-level", 8 + 4 * 8)])
def test_only_the_rows_that_a_step_reaches_are_updated(head: str, most: int) -> None:
    classes = 64
    update = TouchedRows(head, classes, rows=4, features=2)
    update()
    changed = np.flatnonzero((update.weights != 1).any(axis=1))
    assert_close(update.weights[changed], np.full((len(changed), 2), 0.99), 1e-6)
    assert 0 < len(changed) <= min(most, classes + 8)
    named = [np.arange(len(update.weights))[place] for place in update.places[1]]
    assert changed.tolist() == sorted(np.concatenate(named))
    if head == "two-level":
        assert set(range(classes, classes + 8)) < set(changed.tolist()), "all clusters are reached"
        assert np.bincount(changed[changed < classes] // 8).max() == 8, "and whole clusters of classes"


def test_a_round_does_every_work_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def work(taken: float) -> Any:
        return lambda: now.__setitem__(0, now[0] + taken)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    assert timing.time_works([work(0.25), work(0.5)], seconds=7.4).tolist() == [[250, 500]] * 10
    assert len(timing.time_works([work(0.25)], seconds=0)) == MIN_ROUNDS
    assert timing.time_works([work(0.25)], 0, lambda: 2 * now[0]).tolist() == [[500]] * MIN_ROUNDS


# --- prediction


def test_all_draws_have_the_distribution_of_the_softmax() -> None:
    row = np.array([0.0, 1.0, -1.0, 2.0, 0.5, -3.0, 1.5], np.float32)
    chances = np.exp(row) / np.exp(row).sum()
    way = Prediction(np.tile(row, (20_000, 1)))
    assert way.largest().tolist() == [3] * 20_000
    for draw in way.by_gumbel_max, way.by_cumulative_sum, way.by_blocks:
        shares_drawn = np.bincount(draw(), minlength=len(row)) / 20_000
        assert np.abs(shares_drawn - chances).max() < 4 * 0.5 / np.sqrt(20_000)


@pytest.mark.parametrize("classes", [1, 2, 7, 100, 103])
def test_blocks_draw_what_the_running_sum_draws(classes: int) -> None:
    way = Prediction(np.random.default_rng(0).standard_normal((500, classes), np.float32))
    whole = way.by_cumulative_sum()
    way.step -= 1
    assert np.count_nonzero(way.by_blocks() != whole) <= 1, "where sums are rounded otherwise"


# --- share


def test_half_is_read_off_on_logarithmic_scales() -> None:
    assert half((10, 1_000), np.array([1.0, 100.0]), 10.0) == pytest.approx(100)
    assert half((10, 1_000), np.array([1.0, 100.0]), 101.0) == np.inf
    assert half((10, 1_000), np.array([1.0, 100.0]), 0.5) == -np.inf


def test_share_by_count_is_that_of_the_issue() -> None:
    found = shares(seconds=0, setting=Setting("same-padding", 4, 1), large=(20, 40))
    assert found.steps.shape == (MIN_ROUNDS, 3)
    assert found.large.shape == (MIN_ROUNDS, 4)
    sentence, *_ = printed(found, (20, 40))
    assert "76,800 of 31,730,688" in sentence
    assert "0.24 %" in sentence
    assert sentence.endswith("K = 41,216")


# --- pairs


def test_pairs_are_balanced_and_use_every_image_equally_often(small: Dataset) -> None:
    made_of = pairs(small, per_class=4)
    assert made_of.num_classes == CLASSES**2
    assert made_of.superclasses.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for split, per_class, first, images, times in (
        (made_of.train, 4, 0, CLASSES * IMAGES, 2), (made_of.test, 1, 100, CLASSES**2, 1),
    ):  # fmt: skip
        assert np.bincount(split.labels).tolist() == [per_class] * CLASSES**2
        assert split.images.shape == (CLASSES**2 * per_class, 32, 64, 3)
        left, right = split.images[:, 0, 0, 0] - first, split.images[:, 0, 32, 0] - first
        assert (split.images[:, :, :32] == (left + first)[:, None, None, None]).all()
        assert (split.images[:, :, 32:] == (right + first)[:, None, None, None]).all()
        each = images // CLASSES
        assert (CLASSES * (left // each) + right // each).tolist() == split.labels.tolist()
        for side in left, right:
            assert np.bincount(side).tolist() == [times] * images


def test_pairs_are_drawn_by_the_seed(small: Dataset) -> None:
    assert pairs(small, 4).digest == pairs(small, 4).digest != pairs(small, 4, seed=1).digest


def test_pairs_that_cannot_be_dealt_evenly_are_refused(small: Dataset) -> None:
    with pytest.raises(ValueError, match=r"the 6 train images of class 0 do not go evenly into 3 x 3 pairs on a side"):
        pairs(small, per_class=3)


# --- seconds


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, small: Dataset) -> Dataset:
    """Pairs to train on, and a network that is quick to train."""

    def layers(outputs: int, seed: int) -> list[Any]:
        return [Flatten(), Dense(8), BatchNormalization(), ReLU(), Dense(outputs)]

    monkeypatch.setattr(seconds, "RECIPE", replace(RECIPES["same-padding"], layers=layers, batch_size=5))
    monkeypatch.setattr(seconds, "CHUNK", 4)
    monkeypatch.setattr(seconds, "SAMPLES", 4)
    return pairs(small, per_class=4)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("case", seconds.CASES)
def test_a_training_goes_on_where_it_was_interrupted(case: str, quick: Dataset, tmp_path: Path) -> None:
    """By a clock that ticks once a step, so that both make the same steps."""

    def done_in(folder: Path, notes: Any) -> Training:
        ticks = count()
        folder.mkdir(exist_ok=True)
        return train(case, 3, quick, folder, budget=40.0, points=4, clock=lambda: next(ticks), note=notes)

    whole = done_in(tmp_path / "whole", lambda line: None)
    assert [point.steps for point in whole.points] == sorted({point.steps for point in whole.points})
    assert whole.points[-1].steps > 8 > whole.points[0].steps / 2, "more than an epoch of 8 steps"

    def interrupting(line: str) -> None:
        if len(lines := [*seen, line]) == 3:
            seen.append(line)
            raise Interrupted
        seen[:] = lines

    seen: list[str] = []
    with pytest.raises(Interrupted):
        done_in(tmp_path / "parts", interrupting)
    (checkpoint,) = (tmp_path / "parts").iterdir()
    assert checkpoint.suffix == ".checkpoint"
    parts = done_in(tmp_path / "parts", lambda line: None)
    assert parts == whole
    (left,) = (tmp_path / "parts").iterdir()
    assert left.suffix == ".json"
    assert left.read_bytes() == (tmp_path / "whole" / left.name).read_bytes()
    assert (whole.points[0].greedy is None) == (not case.startswith("two-level"))


def test_a_finished_training_is_not_done_again(quick: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    first = train("softmax", 0, quick, tmp_path, 8.0, 1, clock=lambda: next(ticks), note=lambda line: None)
    monkeypatch.setattr(seconds, "Trainer", None)
    assert train("softmax", 0, quick, tmp_path, 8.0, 1) == first
    with pytest.raises(SystemExit, match="of a training with other settings"):
        train("softmax", 0, quick, tmp_path, budget=9.0, points=1)


def test_the_score_is_that_of_a_whole_prediction(quick: Dataset) -> None:
    head = seconds.CASES["softmax"](quick, 0)
    network = seconds.RECIPE.network(9)
    network.build((32, 64, 3))
    with Trainer(network, head, seconds.Adam(), quick, batch_size=5, workers=1) as trainer:
        trainer.splits["test"].labels[:6] = trainer.predict()[:6].argmax(1)
        loss, accuracy, greedily = seconds.score(trainer)
        assert {"loss": pytest.approx(loss), "accuracy": accuracy} == trainer.evaluate()
        assert accuracy >= 6 / 9
        assert greedily is None


def test_seconds_to_a_level_are_on_straight_lines() -> None:
    points = [Point(10, 1, 9.0, 0, None), Point(20, 2, 7.0, 0, None), Point(30, 3, 7.5, 0, None)]
    training = Training("softmax", 0, 30, 1e-3, "", 1, points, True)
    assert [seconds_to(training, level) for level in (9.5, 9.0, 8.0, 7.0, 6.9)] == [10, 10, 15, 20, None]


def test_the_table_of_trainings_has_differences_by_seed() -> None:
    def training(case: str, seed: int, loss: float) -> Training:
        greedily = 0.25 if case == "two-level" else None
        return Training(case, seed, 8, 1e-3, "", 1, [Point(8, 4, loss, 0.5, greedily)], True)

    found = {
        case: [training(case, seed, 6 + seed + more) for seed in (0, 1)]
        for case, more in (("softmax", 0.0), ("two-level", 0.5))
    }
    text = "\n".join(seconds.printed(found))
    assert "+0.500 (+0.500 to +0.500)" in text
    assert "25.00" in text
    assert "2000.0" in text, "8 s are 4 steps"
    assert seconds.figure(found).startswith(b"\x89PNG\r\n")


# --- groupings


def test_the_table_of_groupings_compares_by_seed() -> None:
    found = {}
    for head, skill, greedy in ("softmax", 2.0, None), ("two-level", 3.0, 0.123), ("two-level-random", 1.0, 0.25):
        runs = [Run(made.result("softmax", seed, skill=skill)) for seed in range(3)]
        for run in runs:
            run.final.update({} if greedy is None else {"accuracy_greedy": greedy})
        found[head] = runs
    first, rows, last = groupings.printed(found)
    assert "3 seeds" in first
    lines = {line.split()[0]: line for line in rows.splitlines()[1:]}
    exact = {head: 100 * np.array([run.final["accuracy"] for run in runs]) for head, runs in found.items()}
    for head, values in exact.items():
        assert f"{values.mean():.2f}" in lines[head]
    away = (exact["two-level"] - exact["softmax"]).mean()
    assert f"{away:+.2f} (" in lines["two-level"]
    assert "12.30" in lines["two-level"]
    assert f"{12.3 - exact['two-level'].mean():+.2f} (" in lines["two-level"]
    assert f": {(exact['two-level'] - exact['two-level-random']).mean():+.2f} (" in last


def test_random_clusters_are_as_large_and_drawn_by_the_seed() -> None:
    superclasses = np.repeat(np.arange(20), 5)
    drawn = [groupings.RandomClusters(100, superclasses, seed).superclasses for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert superclasses.tolist() not in drawn
    assert [np.bincount(each).tolist() for each in drawn] == [[5] * 20] * 3


# --- the command


def test_the_command_prints_the_operations(capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["operations"])
    printed_lines = capsys.readouterr().out
    assert "C + K / C" in printed_lines
    assert "100,000 gumbel" in printed_lines


def test_the_command_trains_pairs_once(
    quick: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(seconds, "load_dataset", lambda data: None)
    monkeypatch.setattr(seconds, "pairs", lambda dataset: quick)
    figure, folder = tmp_path / "pairs.png", tmp_path / "results"
    arguments = [
        "pairs",
        "--output",
        str(folder),
        "--heads",
        "softmax",
        "two-level",
        "--seeds",
        "0",
        "--seconds",
        "0.06",
    ]
    command.main(arguments)
    first = capsys.readouterr().out
    assert first.count("Point(") == 2 * seconds.POINTS
    assert sorted(path.name for path in folder.iterdir()) == ["softmax-seed0.json", "two-level-seed0.json"]
    command.main([*arguments, "--figure", str(figure)])
    again = capsys.readouterr().out
    assert "Point(" not in again
    tables = "0.06 s of training for each head, 1 seeds"
    assert again[again.index(tables) :] == first[first.index(tables) :]
    assert figure.read_bytes().startswith(b"\x89PNG\r\n")


def test_the_command_plans_the_runs_of_the_groupings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = []

    def done(configs: Any, jobs: int) -> list[Any]:
        assert jobs == 1
        planned.extend(configs)
        return [made.result(config.settings.head, config.settings.seed) for config in configs]

    monkeypatch.setattr(groupings, "run_study", done)
    monkeypatch.setitem(groupings.HEADS, "two-level-random", groupings.RandomClusters)  # and away again
    command.main(["groupings", "--output", str(tmp_path), "--seeds", "1", "2", "--data", "cifar100"])
    heads = "softmax", "two-level", "two-level-random", "sampled"
    assert [(config.settings.head, config.settings.seed) for config in planned] == [
        (head, seed) for head in heads for seed in (1, 2)
    ]
    assert {(config.settings.workers, config.settings.epochs, config.resume) for config in planned} == {(1, 10, True)}
    lines = capsys.readouterr().out
    assert "2 seeds" in lines
    assert "by superclass less by random clusters" in lines
