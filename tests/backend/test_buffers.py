"""Aligned buffers, scratch space and views."""

import numpy as np
import pytest

from scratchnet.backend import Memory, get_device, view
from scratchnet.backend.buffers import LARGE, LINE


@pytest.fixture
def memory() -> Memory:
    return Memory(get_device("cpu"), np.float32)


def test_buffers_are_aligned_zeroed_and_apart(memory: Memory) -> None:
    buffers = [memory.buffer(*shape) for shape in ((3, 5), (), (0, 4), (7,))]
    buffers.append(memory.buffer(9, dtype=bool))
    for number, buffer in enumerate(buffers):
        assert buffer.ctypes.data % LINE == 0
        assert not buffer.any()
        buffer.fill(number + 1)
    for number, buffer in enumerate(buffers):
        assert (buffer == (True if buffer.dtype == bool else number + 1)).all()


def test_a_buffer_larger_than_a_block_has_a_block_of_its_own(memory: Memory) -> None:
    large = memory.buffer(LARGE // 4 + 1000)
    small = memory.buffer(10)
    large[-1] = 1
    assert small.sum() == 0
    assert large.size == LARGE // 4 + 1000


def test_scratch_is_a_stack(memory: Memory) -> None:
    with memory.scratch() as take:
        first = take(100)
        with memory.scratch() as inner:
            second = inner(100)
            assert not np.shares_memory(first, second)
        with memory.scratch() as inner:
            assert np.shares_memory(second, inner(100))
    with memory.scratch() as take:
        assert np.shares_memory(first, take(100))


def test_scratch_that_grows_stays_a_stack(memory: Memory) -> None:
    with memory.scratch() as take:
        first = take(10)
        with memory.scratch() as inner:
            large = inner(LARGE // 4 + 1)  # a second block
            assert not np.shares_memory(first, large)
        again = take(10)
        assert not np.shares_memory(first, again)


def test_activations_have_logical_axes_and_margins(memory: Memory) -> None:
    inside, padded = memory.padded_activation(2, (4, 5, 3), ((1, 2), (3, 0)))
    assert inside.shape == (2, 4, 5, 3)
    assert padded.shape == (2, 7, 8, 3)
    inside.fill(1)
    assert padded.sum() == inside.size
    assert padded[:, 1:5, 3:8].sum() == inside.size
    assert padded.transpose(1, 2, 0, 3).flags.c_contiguous  # rows, columns, images, channels
    assert memory.activation(2, (7,)).shape == (2, 7)


def test_a_view_never_copies() -> None:
    array = np.arange(24).reshape(4, 6)
    view(array, 2, 2, 6)[1, 1, 5] = -1
    assert array[3, 5] == -1
    with pytest.raises(ValueError, match="copy"):
        view(array.T, 24)
