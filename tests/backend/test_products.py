"""Matrix products in pieces against whole ones."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchnet.backend import Ops, Program, products
from scratchnet.backend.products import pieces
from tests.reference.strategies import generators

LIMIT = 3000  # multiply-adds, so that small matrices have pieces


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "SMALL", LIMIT)


@given(
    sizes=st.tuples(st.integers(1, 300), st.integers(1, 12), st.integers(1, 300)),
    stack=st.sampled_from([(), (3,)]),
    of_b=st.booleans(),
    lying=st.tuples(*[st.booleans()] * 3),
    rng=generators(),
)
def test_pieces_make_the_product(sizes: Any, stack: Any, of_b: bool, lying: Any, rng: np.random.Generator) -> None:
    """Of matrices and stacks of them, each lying by rows or by columns."""
    rows, terms, columns = sizes
    shapes = (*stack, rows, terms), (*(stack if of_b else ()), terms, columns), (*stack, rows, columns)
    a, b, out = (
        rng.normal(size=shape) if by_rows else rng.normal(size=(*shape[:-2], shape[-1], shape[-2])).mT
        for shape, by_rows in zip(shapes, lying, strict=True)
    )
    expected = np.matmul(a, b)
    out.fill(np.nan)
    with Program() as program:
        Ops(np).matmul(a, b, out=out)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)
    out.fill(np.nan)
    program.replay()
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)


@given(rows=st.integers(1, 9), terms=st.integers(1, 2000), columns=st.integers(1, 9), rng=generators())
def test_parts_of_a_sum_make_the_product(rows: int, terms: int, columns: int, rng: np.random.Generator) -> None:
    a, b, out = rng.normal(size=(rows, terms)), rng.normal(size=(terms, columns)), np.full((rows, columns), np.nan)
    count = products.parts(rows, terms, columns)
    assert count == 1 or (terms % count == 0 and terms // count * rows * columns <= LIMIT)
    with Program() as program:
        Ops(np).matmul_in_parts(a, b, out, lambda *shape: np.full(shape, np.nan))
    out.fill(np.nan)
    program.replay()
    np.testing.assert_allclose(out, a @ b, rtol=1e-11, atol=1e-11)


def test_parts_of_the_sums_of_the_published_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "SMALL", 10**6)
    assert products.parts(27, 6144, 32) == 6  # the first convolution's kernel gradient
    assert products.parts(32, 2048, 256) == 32  # a dense layer
    assert products.parts(64, 480, 32) == products.parts(300, 2000, 300) == 1


def test_every_piece_is_small() -> None:
    a, b, out = np.zeros((1000, 9)), np.zeros((9, 7)), np.zeros((1000, 7))
    shapes = lambda rows: [part.shape for part, _, _ in pieces(a[:rows], b, out[:rows])]  # noqa: E731
    assert shapes(47) == [(47, 9)]
    assert shapes(96) == [(3, 32, 9)]
    assert shapes(1000) == [(31, 32, 9), (8, 9)]
    wide = pieces(np.zeros((2, 1000)), np.zeros((1000, 500)), np.zeros((2, 500)))
    assert [part.shape for part, _, _ in wide] == [(2, 1000)]  # no piece of 16 columns is small
