"""Gradient checks against finite differences."""

from collections.abc import Callable
from typing import Any

import numpy as np

from scratchnet import arguments
from scratchnet.backend import Array
from scratchnet.errors import ScratchnetError
from scratchnet.heads import Head
from scratchnet.layers.module import Module
from scratchnet.layers.recorded import move

STEPS = 1e-3, 1e-4, 1e-5, 1e-6  # a smaller step is tried where a larger one meets a kink near the point
OWN_STREAM = 20161103  # so that dy is not the x that a caller drew from default_rng(0)
TINY = 1e-9  # a step that still meets a kink at the point itself, and hardly any other
ATTEMPTS = 8
ROUNDING = 1e-14  # of one evaluation, relative to the length of the vector of terms


class NotDifferentiableError(ScratchnetError):
    """The function has a kink at the point of the check, so no finite difference can confirm a gradient there."""


def check_gradients(
    target: Module, x: Array, labels: Array | None = None, *, training: bool = True, directions: int = 3, seed: int = 0
) -> float:
    """The largest relative error of the gradients of a layer, a network or a head at `x`, in float64.

    For a layer or network, L = sum(y * dy) with a random dy; for a head (which needs `labels`), L is its loss. For `x`
    and for every parameter, the gradient's product with random directions is compared with central differences of L;
    the error is relative to the larger of the two, or, where both nearly vanish, to a small part of the gradient's
    length or of L's terms. The target itself is left as it is: a float64 twin is checked, with the noise of dropout or
    Gumbel-softmax held fixed. Its parameters and moving averages are those of the target moved a little, since a
    forgotten factor does not show in a gamma of 1 or a bias of 0; and it has gone forward and backward at another point
    before, so that nothing kept from there goes unseen. A straight-through layer is compared with its soft version,
    whose gradient it promises to have.

    Raises NotDifferentiableError where the point lies on a kink (a ReLU at 0, a tie in max pooling), or so close to
    many that no difference can confirm anything; TypeError for a layer whose step cannot be replayed.
    """
    if not isinstance(target, Module):
        what = target.__name__ if isinstance(target, type) else type(target).__name__
        raise TypeError(f"check_gradients: {what} is not a layer, a network or a head: make one, such as Dense(3)")
    x = np.array(x, np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"{target.name}: x has entries that are not finite, where no gradient can be checked")
    arguments.positive_integer(directions, "directions", "check_gradients")
    source = np.random.default_rng([seed, OWN_STREAM])
    if isinstance(target, Head) == (labels is None):
        raise ValueError(f"{target.name}: labels are for a head, which needs them; a layer or network takes none")
    twin = _moved(target, x, source)
    if isinstance(twin, Head):
        dx, terms = twin(x, labels)[1], lambda: np.array([twin(x, labels)[0]])
    else:
        dx, terms = _of_module(twin, x, target.clock.step, training, source)
    points = [(f"{target.name}: x", x, dx)]
    for layer in twin.leaves:
        for name in layer.parameters if layer.trainable else ():
            points.append((f"{target.name}: {layer.name}/{name}", layer.parameters[name], layer.gradients[name].copy()))
    return max(_error(terms, source, *point) for point in points * directions)


Terms = Callable[[], np.ndarray]  # whose sum is L, for x and the parameters as they are now


def _moved(target: Module, x: np.ndarray, source: np.random.Generator) -> Any:
    """A float64 twin on the CPU whose parameters and moving averages are those of the target, moved a little."""
    if target.built and target.input_shape != x.shape[1:]:
        raise ValueError(f"{target.name}: x has the shape {x.shape} where (N, {str(target.input_shape)[1:]} is wanted")
    twin: Any = target.unbuilt()
    twin.build(x.shape[1:], dtype=np.float64)
    if target.built:
        twin.set_weights(dict(zip(twin.weights(), target.weights().values(), strict=True)))
        for ours, theirs in zip(twin.leaves, target.leaves, strict=True):
            ours.noise_stream = theirs.noise_stream
    for layer in twin.leaves:
        move(layer, source)
    return twin


def _of_module(twin: Any, x: Array, step: int, training: bool, source: np.random.Generator) -> tuple[Array, Terms]:
    """The gradient by x, beside which the twin then has those of its parameters; and the terms of L."""

    def forward(x: Array = x) -> Array:
        twin.clock.step = step
        return twin.forward(x, training)

    y = forward(0.9 * x[::-1])
    twin.backward(source.standard_normal(y.shape))
    dy = source.standard_normal(y.shape)
    forward()
    dx = twin.backward(dy)
    for layer in twin.leaves:
        if getattr(layer, "straight_through", False):
            layer.straight_through, twin._plan = False, None
    return dx, lambda: forward() * dy


def _error(terms: Terms, source: np.random.Generator, name: str, point: np.ndarray, gradient: np.ndarray) -> float:
    """Relative error of <gradient, direction> against central differences of L along a random direction."""
    here, start = terms(), point.copy()
    length = float(np.linalg.norm(here))
    # Where the derivative all but vanishes (a bias in front of a normalisation), what counts is how it compares with L.
    floor = max(1e-2 * float(np.linalg.norm(gradient)), 1e-3 * length, 1e-300)
    rounding = ROUNDING * length

    def slope_and_bend(direction: np.ndarray, step: float) -> tuple[float, float]:
        """The central difference of L, and how far forward and backward difference are apart."""
        point[...] = start + step * direction
        ahead = float(np.sum(terms() - here)) / step  # term by term, as what does not move then cancels exactly
        point[...] = start - step * direction
        behind = float(np.sum(here - terms())) / step
        point[...] = start
        return (ahead + behind) / 2, abs(ahead - behind)

    for attempt in range(ATTEMPTS):
        # A large network has kinks close to any point; moving fewer numbers meets fewer of them.
        direction = source.standard_normal(point.shape) * (source.random(point.shape) < 4.0**-attempt)
        exact = float(np.vdot(gradient, direction))
        for step in STEPS:
            slope, bend = slope_and_bend(direction, step)
            closer, less_bend = slope_and_bend(direction, step / 2)
            size = max(abs(exact), abs(closer), floor)
            # Where L is smooth the bend falls with the step, and not where it has a kink.
            smooth = less_bend <= 0.6 * bend + rounding / step
            if smooth and abs(slope - closer) <= 2e-8 * size + rounding / step:
                return abs(exact - (4 * closer - slope) / 3) / size  # Richardson: step squared cancels
        _, bend = slope_and_bend(direction, TINY)
        if bend > 10 * rounding / TINY:
            raise NotDifferentiableError(
                f"{name}: the function is not differentiable at this point (a ReLU at 0 or a tie in max pooling?) or "
                "drowns in rounding, so its gradient cannot be checked here: move the point"
            )
    raise NotDifferentiableError(
        f"{name}: kinks too close to this point, or rounding, leave no finite difference that could confirm the "
        "gradient: move the point, or check a smaller network"
    )
