"""The sections of a report, each a list of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from scratchnet.experiments.report import figures, findings
from scratchnet.experiments.report.pages import Block, Picture, Points, Table, Text
from scratchnet.experiments.report.statistics import (
    ARGMAX,
    BINS,
    CALIBRATION,
    CROSS_ENTROPY,
    EXPECTED,
    MEASURES,
    Group,
    Measure,
    over_images,
    over_seeds,
    readable,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scratchnet.experiments.head_cost import HeadCost

TITLE = "Softmax and Gumbel-softmax heads compared"
SCORES = "accuracy", "precision", "recall", "f1"
MOST_DIFFERENT = 10
Pairs = Sequence[tuple[Group, Group]]
Studies = Sequence[tuple[Group, Sequence[Group]]]


def compose(groups: Sequence[Group], cost: HeadCost | None, command: str) -> list[Block]:
    """The whole report; `groups` have both heads, with their reports' temperature, of one recipe at least."""
    own = [group for group in groups if group.temperature in (None, group.recipe.temperature)]
    pairs = [(first, second) for first, second in pairwise(own) if first.recipe is second.recipe]  # softmax is first
    heads = [group for pair in pairs for group in pair]
    gumbel = [(one, [group for group in groups if group.recipe is one.recipe and group.temperature]) for one in own]
    studies = [(one, study) for one, study in gumbel if one.temperature and len(study) > 1]
    return [
        Text("h1", TITLE),
        *_findings(pairs, studies, cost),
        *_published(heads),
        *_curves(pairs),
        *_confusion(heads),
        *_class_f1(pairs),
        *_calibration(pairs, heads),
        *_paired(pairs),
        *_temperature(studies),
        *_cost(cost),
        *_made(groups, command),
    ]


def _findings(pairs: Pairs, studies: Studies, cost: HeadCost | None) -> list[Block]:
    explained = (
        "A difference is stated only where its 95 % interval over seeds excludes zero. Of twenty comparisons without a "
        "true difference, one is expected to have such an interval all the same."
    )
    content: list[Block] = [Text("h2", "Findings"), Text("p", explained)]
    for softmax, gumbel in pairs:
        content += [Text("h3", f"Recipe {gumbel.recipe.name}"), Points(findings.between_heads(softmax, gumbel))]
    for own, study in studies:
        title = f"Temperature, with the recipe {own.recipe.name}"
        content += [Text("h3", title), Points(findings.between_temperatures(own, study))]
    return content if cost is None else [*content, Text("h3", "Cost"), Points(findings.of_cost(cost))]


def _published(heads: Sequence[Group]) -> list[Block]:
    rows = []
    for group in heads:
        name, loss = f"{_name(group)}, {group.epochs} epochs", _mean(group, CROSS_ENTROPY)
        for evaluation, suffix, last in ("ours, argmax", "", loss), ("ours, noise on", "_sampled", ""):
            scores = ([100 * getattr(run.final, score + suffix) for run in group.runs] for score in SCORES)
            rows.append([name, evaluation, *(_spread(values) for values in scores), last])
        rows.append([name, "ours, noise on, expected", _mean(group, EXPECTED), *[""] * 4])
        if (report := group.report) is not None:
            evaluation = f"{report.source}, {'noise on' if report.noisy_prediction else 'argmax'}"
            rows.append([name, evaluation, *(f"{100 * getattr(report, score):.2f}" for score in SCORES), ""])
    explained = (
        "With the noise on, a prediction is a sample from softmax(logits), whatever the head and its temperature; its "
        "expected accuracy is the mean of softmax(logits)[label], which takes no sampling. A report's figures stand "
        "only beside runs on its data set, cifar100, with its settings."
    )
    caption = (
        "Final figures on the test images in %, clean cross-entropy in nats: mean ± standard deviation over seeds. "
        "Precision, recall and F1 are macro averages."
    )
    header = "network", "evaluation", "accuracy", "precision", "recall", "F1", CROSS_ENTROPY.name
    return [Text("h2", "The reports' figures and ours"), Text("p", explained), Table(caption, 2, header, rows)]


def _curves(pairs: Pairs) -> list[Block]:
    explained = (
        "On the test images after each epoch: the mean over seeds, with a band from the lowest seed to the highest. "
        "The loss is the clean cross-entropy, the only one that means the same for both heads. Dotted are the reports' "
        "curves, where they mean the same as ours."
    )
    content: list[Block] = [Text("h2", "Learning curves"), Text("p", explained)]
    for pair in pairs:
        recipe = pair[0].recipe.name
        shows = f"Clean cross-entropy and accuracy by epoch with both heads, recipe {recipe}"
        content += [Text("h3", recipe), _picture(f"curves-{recipe}", shows, figures.curves, *pair)]
    return content


def _confusion(heads: Sequence[Group]) -> list[Block]:
    kind = "superclass" if len(heads[0].runs[0].predictions.superclass_names) else "class"
    explained = f"Predictions by argmax, of all seeds together, in % of the images of a true {kind}."
    content: list[Block] = [Text("h2", f"Confusion of {kind}es"), Text("p", explained)]
    columns = []
    for group in heads:
        names, counts = group.confusion()
        columns.append([f"{share:.1f}" for share in 100 * counts.diagonal() / counts.sum(axis=1).clip(1)])
        name, shows = f"confusion-{group.recipe.name}-{group.head}", f"Predicted by true {kind}, {_name(group)}"
        content += [Text("h3", _name(group)), _picture(name, shows, figures.confusion, group)]
    caption = f"Images predicted to be of their own {kind}, in %; the labels are those of the figures"
    labels = map(str, range(len(names)))
    rows = list(zip(names, labels, *columns, strict=True))
    return [*content, Table(caption, 1, [kind, "label", *map(_name, heads)], rows)]


def _class_f1(pairs: Pairs) -> list[Block]:
    content: list[Block] = [Text("h2", "F1 of each class")]
    for pair in pairs:
        recipe, names = pair[0].recipe.name, readable(pair[0].runs[0].predictions.class_names)
        softmax, gumbel = (np.array([run.f1 for run in group.runs]) for group in pair)
        away, rows = gumbel.mean(axis=0) - softmax.mean(axis=0), []
        for i in np.argsort(-np.abs(away), kind="stable")[:MOST_DIFFERENT]:
            seeds = (f"{f1.mean():.3f} ({f1.min():.3f} to {f1.max():.3f})" for f1 in (softmax[:, i], gumbel[:, i]))
            rows.append([names[i], *seeds, f"{away[i]:+.3f}"])
        caption = (
            f"{recipe}: the {len(rows)} classes that differ most; mean (lowest to highest seed). They are the largest "
            f"of {len(names)} differences, so part of their size is chance."
        )
        shows = f"F1 of each class with Gumbel-softmax against that with softmax, recipe {recipe}"
        content += [Text("h3", recipe), _picture(f"f1-{recipe}", shows, figures.class_f1, *pair)]
        content.append(Table(caption, 1, ["class", *(group.name for group in pair), "difference"], rows))
    return content


def _calibration(pairs: Pairs, heads: Sequence[Group]) -> list[Block]:
    explained = (
        "Confidence is the largest of softmax(logits), accuracy how often that prediction is right, in "
        f"{BINS} bins of equal width (Guo et al. 2017). Below the diagonal a network is too confident. The expected "
        "calibration error is the mean distance from the diagonal, weighted by images, of each seed alone."
    )
    content: list[Block] = [Text("h2", "Calibration"), Text("p", explained)]
    for pair in pairs:
        recipe = pair[0].recipe.name
        shows = f"Accuracy against confidence with both heads, and the share of images, recipe {recipe}"
        content += [Text("h3", recipe), _picture(f"calibration-{recipe}", shows, figures.calibration, *pair)]
    rows = [[_name(group), _mean(group, ARGMAX), _mean(group, CALIBRATION)] for group in heads]
    return [*content, Table("In %: mean ± standard deviation over seeds", 1, ["network", "accuracy", "error"], rows)]


def _paired(pairs: Pairs) -> list[Block]:
    explained = (
        "Over seeds: runs with one seed are a pair, as they have the same starting weights and order of images. "
        "Student's t interval speaks of networks trained anew with other seeds, on these test images; the findings use "
        "it. Over images: each test image is a pair, its values averaged over the seeds. That interval speaks of other "
        "images of the same kind, for these trained networks only. The calibration error is no mean over images."
    )
    rows = []
    for first, second in pairs:
        for measure in MEASURES:
            images = "" if measure is CALIBRATION else str(over_images(first, second, measure))
            rows.append([first.recipe.name, _titled(measure), str(over_seeds(first, second, measure)), images])
    table = Table(
        "Gumbel-softmax less softmax, with 95 % intervals", 2, ["recipe", "measure", "over seeds", "over images"], rows
    )
    return [Text("h2", "Paired test of the difference between heads"), Text("p", explained), table]


def _temperature(studies: Studies) -> list[Block]:
    explained = "Annealed is max(0.5, exp(-1e-4 step)), from Jang, Gu and Poole (2016)."
    if not studies:
        explained = "The Gumbel-softmax head was trained with its report's temperature only."
    content: list[Block] = [Text("h2", "Effect of the temperature"), Text("p", explained)]
    header = "temperature", *map(_titled, MEASURES)
    for own, study in studies:
        recipe = own.recipe.name
        means = [[str(group.temperature), *(_mean(group, each) for each in MEASURES)] for group in study]
        away = [
            [str(group.temperature), *(str(over_seeds(own, group, each)) for each in MEASURES)]
            for group in study
            if group is not own
        ]
        shows = f"Accuracies and clean cross-entropy by temperature, recipe {recipe}"
        caption = f"{recipe}: difference from temperature {own.temperature}, with 95 % intervals over seeds"
        content += [
            _picture(f"temperature-{recipe}", shows, figures.temperatures, study),
            Table(f"{recipe}: mean ± standard deviation over seeds", 1, header, means),
            Table(caption, 1, header, away),
        ]
    return content


def _cost(cost: HeadCost | None) -> list[Block]:
    title = Text("h2", "Cost of the head")
    if cost is None:
        return [title, Text("p", "It was not measured in this study.")]
    times = [
        [f"{t.classes:,}", t.head, str(t.batch_size), f"{t.milliseconds:.4g}", f"{t.low:.4g} to {t.high:.4g}"]
        for t in cost.times
    ]
    shares = [
        [s.recipe, s.head, f"{s.head_milliseconds:.3g}", f"{s.step_milliseconds:.3g}", f"{100 * s.share:.2f}"]
        for s in cost.shares
    ]
    shows = "Milliseconds of both heads alone against the number of classes, on logarithmic scales"
    header = "classes", "head", "images", "median", "quartiles"
    return [
        title,
        _picture("cost", shows, figures.cost, cost.times),
        Table("Forward and backward pass of the head alone, in ms", 2, header, times),
        Table("Share of a step of one worker (medians)", 2, ["recipe", "head", "head (ms)", "step (ms)", "%"], shares),
    ]


def _made(groups: Sequence[Group], command: str) -> list[Block]:
    runs = [run for group in groups for run in group.runs]
    results, hours = [run.result for run in runs], sum(run.seconds.sum() for run in runs) / 3600
    facts = {name: _all(result.versions.get(name, "") for result in results) for name in results[0].versions}
    for name in "dataset", "device", "workers":
        facts[name] = _all(str(getattr(result, name)) for result in results)
    facts |= {"runs": str(len(runs)), "training, summed over the runs": f"{hours:.2f} hours"}
    rows = []
    for group in groups:
        seeds = _all(str(run.result.seed) for run in group.runs)
        seconds = _spread([run.seconds_per_epoch for run in group.runs], 1)
        rows.append([_name(group), str(group.temperature or ""), str(group.epochs), seeds, seconds])
    caption = "Seconds per epoch are those of training: of each run the median without the first epoch"
    header = "network", "temperature", "epochs", "seeds", "seconds per epoch"
    return [
        Text("h2", "How this was made"),
        Text("pre", command),
        Points([f"{name}: {value}" for name, value in facts.items()]),
        Table(caption, 1, header, rows),
    ]


def _picture(name: str, alternative: str, draw: Callable[..., Figure], *content: Any) -> Block:
    try:
        return Picture(f"{name}.png", alternative, figures.png(draw(*content)))
    except ImportError as error:
        return Text("p", f"No figure, as matplotlib cannot be imported ({error}): pip install scratchnet[plot]")


def _name(group: Group) -> str:
    return f"{group.recipe.name}, {group.name}"


def _titled(measure: Measure) -> str:
    return f"{measure.name} ({measure.unit})"


def _mean(group: Group, measure: Measure) -> str:
    return _spread(group.values(measure), measure.digits)


def _spread(values: Sequence[float] | np.ndarray, digits: int = 2) -> str:
    """The mean and, of more than one value, the standard deviation."""
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def _all(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))
