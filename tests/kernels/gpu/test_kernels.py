"""The CUDA kernels, run on the host or on a GPU, against the loops that define them and against NumPy."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchnet import Adam
from scratchnet.backend import BatchSlice, FlatLayout, Memory, StepCounter, get_device, noise
from scratchnet.backend.cuda import MOST, REAL, THREADS, Kernel, source
from scratchnet.backend.layout import PITCH
from scratchnet.heads import GumbelSoftmaxCrossEntropy, SoftmaxCrossEntropy
from scratchnet.kernels.geometry import Convolution, Windows
from scratchnet.kernels.gpu.batch import GpuBatch, GpuNoise
from scratchnet.kernels.gpu.convolution import GpuConvolution
from scratchnet.kernels.gpu.rows import GpuBlocks
from scratchnet.layers import Dense
from tests.kernels.gpu.host_cuda import NEEDS_COMPILER, HostCuda, KernelDevice
from tests.reference import reference, strategies
from tests.reference.checks import TOLERANCE, assert_close

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
FEW = settings(max_examples=12)  # each shape is compiled
GUARD = 300  # numbers, more than a block of threads


@pytest.fixture(
    scope="module", params=[pytest.param("host", marks=NEEDS_COMPILER), pytest.param("gpu", marks=pytest.mark.gpu)]
)
def device(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The loops do not round factors to TF32, and the device is not to either."""
    device: Any = KernelDevice() if request.param == "host" else get_device("gpu", "fp32")
    with device.session():
        yield device


def guarded(device: Any, array: np.ndarray) -> tuple[Any, Any]:
    """A copy on the device in the middle of a larger array, and that array's margins, which nobody may touch."""
    whole = device.to_device(np.zeros(array.size + 2 * GUARD, array.dtype))
    whole[GUARD : GUARD + array.size] = device.to_device(array.ravel())
    return whole[GUARD : GUARD + array.size].reshape(array.shape), whole


def joined(device: Any, kernel: np.ndarray, bias: np.ndarray | None) -> tuple[Any, dict[str, Any], Any]:
    """Kernel and bias as the one matrix that the kernels take, views of both, and the array in whose middle it is."""
    arrays = {"kernel": kernel} | ({} if bias is None else {"bias": bias})
    vector = FlatLayout({name: array.shape for name, array in arrays.items()}, joined=True)
    part, whole = guarded(device, np.zeros(vector.size, kernel.dtype))
    views = vector.views(part)
    for name, array in arrays.items():
        views[name][...] = to_device(device, array)[0]
    return vector.matrix(part), views, whole


def assert_padding(matrix: np.ndarray, *views: np.ndarray) -> None:
    """What lies beside kernel and bias is still 0, and there is as much of it as tensor cores want."""
    assert np.count_nonzero(matrix) == sum(map(np.count_nonzero, views))
    assert all(length % PITCH == 0 for length in matrix.shape)


def assert_margins(*wholes: Any) -> None:
    for whole in wholes:
        assert not whole[:GUARD].any()
        assert not whole[-GUARD:].any()


def to_device(device: Any, *arrays: Any, dtype: Any = None) -> list[Any]:
    return [device.to_device(np.ascontiguousarray(array, dtype)) for array in arrays]


# --- launches


@pytest.mark.parametrize("threads", [1, THREADS - 1, THREADS, THREADS + 1, 5 * THREADS + 7])
def test_a_launch_covers_every_element_once(
    device: Any, threads: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "count.cu").write_text(
        'extern "C" __global__ void count(int threads, real* seen) {\n'
        "    int e = blockIdx.x * blockDim.x + threadIdx.x;\n    if (e < threads) seen[e] += 1;\n}\n"
    )
    monkeypatch.setattr("scratchnet.backend.cuda.FOLDER", tmp_path)
    seen, whole = guarded(device, np.zeros(threads))
    Kernel(device, "count.cu", "count", np.dtype("float64"))(threads, seen)
    assert (seen == 1).all()
    assert_margins(whole)


def test_a_launch_refuses_what_32_bits_cannot_count(device: Any) -> None:
    kernel = Kernel(device, "adam.cu", "adam", np.dtype("float64"))
    with pytest.raises(ValueError, match="lower the batch size"):
        kernel(MOST + 1)
    view = np.broadcast_to(np.float64(0), MOST + 1)  # of which few threads read a part, as a large stride has it
    with pytest.raises(ValueError, match=f"{MOST + 1} values"):
        kernel(1, view)


def test_a_launch_refuses_strides_that_the_kernel_is_not_told(device: Any) -> None:
    kernel = Kernel(device, "adam.cu", "adam", np.dtype("float64"))
    (wide,) = to_device(device, np.ones((3, 5)))
    with pytest.raises(AssertionError, match="no kernel is told of"):
        kernel(6, wide[:, :2], wide, wide, wide, wide)


def test_the_grid_is_within_what_cuda_allows() -> None:
    seen: list[Any] = []
    kernel = object.__new__(Kernel)
    kernel.dtype, kernel.function = np.dtype("float32"), lambda *launch: seen.append(launch)
    for threads in (1, THREADS, THREADS + 1, MOST):
        kernel(threads)
    assert [grid for grid, _, _ in seen] == [(1,), (1,), (2,), (MOST // THREADS,)]
    assert {block for _, block, _ in seen} == {(THREADS,)}
    assert MOST + THREADS <= 2**31  # so no thread's number overflows
    assert MOST // THREADS < 2**31 - 1
    assert THREADS <= 1024


@NEEDS_COMPILER
def test_the_host_refuses_arguments_of_other_types() -> None:
    device = KernelDevice()
    kernel = Kernel(device, "adam.cu", "adam", np.dtype("float64"))
    single, double = to_device(device, np.zeros(5), dtype="float32"), to_device(device, np.zeros(5))
    with pytest.raises(AssertionError, match="float32 where real"):
        kernel(3, *single * 5)
    with pytest.raises(AssertionError, match="adam takes"):
        kernel(3, *double * 4)


@NEEDS_COMPILER
def test_the_host_sees_threads_that_wait_for_ever() -> None:
    source = 'extern "C" __global__ void stuck(real* x) { if (threadIdx.x) __syncthreads(); }'
    with pytest.raises(AssertionError, match="wait for ever"):
        HostCuda().kernel(source, "stuck", {"real": "float"})((1,), (64,), (np.uintp(0),))


# --- kernels


@DTYPES
@pytest.mark.parametrize("margins", [((0, 0), (0, 0)), ((1, 2), (3, 0))])
def test_gather_is_the_batch_divided_by_255(device: Any, dtype: str, margins: Any) -> None:
    source, rows, start = np.random.default_rng(0), 7, 5
    images, labels = source.integers(0, 256, (20, 3, 5, 6), dtype=np.uint8), source.integers(0, 9, 20)
    order = source.permutation(20)
    memory = Memory(device, dtype)
    x, padded = memory.padded_activation(rows, (5, 6, 3), margins)
    batch_labels, whole = guarded(device, np.full(rows, -1))
    arrays = to_device(device, images, labels, order)
    for chosen, by_order in ((order[start : start + rows], arrays[2:]), (np.arange(start, start + rows), [])):
        batch = GpuBatch(arrays[0], x, batch_labels, memory, lambda: start)
        memory.record.load()
        batch.load(*arrays[:2], *by_order)
        np.testing.assert_array_equal(
            device.to_host(x), images[chosen].transpose(0, 2, 3, 1).astype(dtype) / np.dtype(dtype).type(255)
        )
        np.testing.assert_array_equal(device.to_host(batch_labels), labels[chosen])
        assert_margins(whole)
    assert float(padded.sum()) == pytest.approx(float(x.sum()))  # nothing beside it


@DTYPES
@FEW
@given(case=strategies.convolutions(), relu=st.booleans(), pool=st.booleans(), bias=st.booleans(), margin=st.booleans())
def test_convolution_and_its_epilogue(
    device: Any, dtype: str, case: strategies.Convolution, relu: bool, pool: bool, bias: bool, margin: bool
) -> None:
    geometry = Windows(case.input_shape, case.kernel_size, case.strides, case.padding, case.dilation_rate)
    pool = pool and min(geometry.outputs) >= 2
    source = np.random.default_rng(case.seed)
    x, kernel, offset = (
        source.standard_normal(shape).astype(dtype)
        for shape in (
            (case.batch, *case.input_shape), (*case.kernel_size, case.channels, case.filters), (case.filters,)
        )
    )  # fmt: skip
    arguments = case.strides, case.padding, case.dilation_rate
    z = reference.conv2d(x, kernel, offset * bias, *arguments)
    active = np.maximum(z, 0) if relu else z
    y = reference.max_pooling2d(active, (2, 2), (2, 2), "valid") if pool else active
    dy = source.standard_normal(y.shape).astype(dtype)
    dz = reference.max_pooling2d_backward(active, dy, (2, 2), (2, 2), "valid") if pool else dy
    expected = [y, *reference.conv2d_backward(x, kernel, dz * (z > 0) if relu else dz, *arguments)]

    memory = Memory(device, dtype)
    (weights, views, whole), (dweights, dviews, dwhole) = (
        joined(device, kernel, offset if bias else None) for _ in range(2)
    )
    what = Convolution(case.batch, case.input_shape, case.filters, geometry, relu, pool)
    work = GpuConvolution(what, memory, weights.shape, bias)
    around = ((1, 2), (2, 1)) if margin else ((0, 0), (0, 0))
    outs = [memory.padded_activation(case.batch, y.shape[1:], around)[0] for _ in range(2)]
    for _ in range(2):  # the second time on buffers that the first has left dirty
        work.x[...], outs[1][...] = to_device(device, x, dy)
        work.forward(weights, outs[0])
        work.backward(weights, outs[1], dweights)
    for actual, want in zip([outs[0], work.dx, *dviews.values()], expected, strict=False):
        assert_close(device.to_host(actual), want, TOLERANCE[dtype])
    assert_margins(whole, dwhole)
    assert_padding(device.to_host(weights), *map(device.to_host, views.values()))
    assert_padding(device.to_host(dweights), *map(device.to_host, dviews.values()))


def test_of_equal_values_the_first_is_the_maximum_and_nan_stays(device: Any) -> None:
    memory = Memory(device, "float64")
    weights, _, _ = joined(device, np.ones((1, 1, 1, 1)), None)
    geometry = Windows((2, 4, 1), (1, 1), (1, 1), "valid")
    work = GpuConvolution(Convolution(1, (2, 4, 1), 1, geometry, True, True), memory, weights.shape, False)
    work.x[...] = to_device(device, np.array([[1.0, 2, 3, 4], [2, 2, np.nan, 5]])[None, :, :, None])[0]
    y, dy = to_device(device, np.zeros((1, 1, 2, 1)), np.full((1, 1, 2, 1), 7.0))
    work.forward(weights, y)
    work.backward(weights, dy, weights.copy())
    np.testing.assert_array_equal(device.to_host(y).ravel(), [2, np.nan])
    np.testing.assert_array_equal(device.to_host(work.dx)[0, :, :2, 0], [[0, 7], [0, 0]])


@DTYPES
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "inputs", "units"), [(1, 1, 1), (5, 8, 16), (9, 15, 7), (40, 70, 30)])
def test_dense(device: Any, dtype: str, bias: bool, rows: int, inputs: int, units: int) -> None:
    source, layer = np.random.default_rng(rows), Dense(units, use_bias=bias)
    layer.build((inputs,), dtype, device)
    arrays = [source.standard_normal(shape).astype(dtype) for shape in ((rows, inputs), (inputs, units), (rows, units))]
    (x, kernel, dy), offset = arrays, source.standard_normal(units).astype(dtype) * bias
    for parameter, value in zip(layer.parameters.values(), (kernel, offset), strict=False):
        parameter[...] = to_device(device, value)[0]
    for _ in range(2):
        y, dx = layer.forward(to_device(device, x)[0]), layer.backward(to_device(device, dy)[0])
    expected = [reference.dense(x, kernel, offset), *reference.dense_backward(x, kernel, dy)]
    for actual, want in zip([y, dx, *layer.gradients.values()], expected, strict=False):
        assert_close(device.to_host(actual), want, TOLERANCE[dtype])
    for part, views in zip(layer.flat, (layer.parameters, layer.gradients), strict=False):
        assert_padding(device.to_host(layer.layout.matrix(part)), *map(device.to_host, views.values()))


@DTYPES
@pytest.mark.parametrize("gumbel", [False, True])
@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (9, 8), (5, 100), (2, 300)])
def test_cross_entropy(device: Any, dtype: str, gumbel: bool, rows: int, classes: int) -> None:
    source, memory, temperature, step, seed, first = (
        np.random.default_rng(classes),
        Memory(device, dtype),
        0.5,
        11,
        3,
        6,
    )
    logits, labels = 3 * source.standard_normal((rows, classes)), source.integers(0, classes, rows)
    logits = logits.astype(dtype)
    logits[[0, -1]] = 1  # ties: the first is the answer
    labels[0], labels[-1] = classes - 1, 0
    z = logits.astype(np.float64)
    if gumbel:
        z = (z + GumbelSoftmaxCrossEntropy(seed=seed).noise(step, first + rows, classes)[first:]) / temperature
    loss, dlogits = reference.softmax_cross_entropy(z, labels)
    whole_head = GumbelSoftmaxCrossEntropy(temperature, seed) if gumbel else SoftmaxCrossEntropy()
    whole_head.build((classes,), dtype, device)
    whole_head.clock.step = step
    head: Any = whole_head.bound(BatchSlice(first, rows, rows), memory, (), input_gradient=True)
    memory.record.load()
    buffers, wholes = zip(
        *(guarded(device, a) for a in (np.zeros_like(logits), np.zeros((), dtype), np.zeros((), int), np.zeros(2))),
        strict=True,
    )
    head.dx, head.loss, head.correct, metrics = buffers
    head.x, head.labels = to_device(device, logits, labels)
    head.compute(training=True)
    assert not metrics.any()  # nobody asked
    head.metrics = metrics
    for _ in range(2):
        head.compute(training=True)
    assert_close(device.to_host(buffers[1]), loss, 5 * TOLERANCE[dtype])
    assert_close(device.to_host(buffers[0]), dlogits / (temperature if gumbel else 1), 5 * TOLERANCE[dtype])
    correct = np.sum(logits.argmax(1) == labels)
    assert int(buffers[2]) == correct
    assert_close(device.to_host(metrics), np.array([2 * rows * loss, 2 * correct]), 5 * TOLERANCE[dtype])
    assert_margins(*wholes)


@DTYPES
def test_the_noise_is_the_cpus(device: Any, dtype: str) -> None:
    """For whole and broken ticks of several rows, steps, seeds and streams, up to the largest."""
    for row, step, seed, stream in ((0, 0, 0, 0), (5, 1, 2, noise.HEAD), (2**40, 10**6, 2**63 - 1, 2**32 + 9)):
        for shape in ((4, 6), (3, 5)):
            clock, memory = StepCounter(step, row - 5), Memory(device, dtype)
            out, whole = guarded(device, np.zeros((7, *shape), dtype))
            drawn = GpuNoise(seed, stream, clock, BatchSlice(5, 7, 12), shape, memory)
            memory.record.load()
            drawn.draw(out)
            expected = noise.uniform(seed, stream, step, row, 7, math.prod(shape)).reshape(7, *shape)
            np.testing.assert_array_equal(device.to_host(out), expected)
            assert_margins(whole)


@DTYPES
def test_every_bit_pattern_is_the_same_number_as_on_the_cpu(device: Any, dtype: str) -> None:
    """The ends, the powers of two and what lies around them, in both halves of a word."""
    powers = 2 ** np.arange(1, 33, dtype=np.int64)
    k = np.unique(np.r_[0, powers - 1, powers, powers + 1, np.random.default_rng(0).integers(0, 2**32, 300)])
    k = np.resize(k[k < 2**32], 400).astype(np.uint32)
    code = source("philox.cuh") + (
        'extern "C" __global__ void convert(int threads, const word* bits, real* out) {\n'
        "    int e = blockIdx.x * blockDim.x + threadIdx.x;\n"
        "    if (e < threads) out[e] = uniform(bits, e);\n}\n"
    )
    kernel = device.cuda.kernel(code, "convert", {"real": REAL[dtype]})
    (words,), (out, whole) = to_device(device, k.view(np.uint64)), guarded(device, np.zeros(k.size, dtype))
    kernel((2,), (256,), (np.int32(k.size), words, out))
    expected = k.astype(np.float32)
    noise.open_interval(expected)
    np.testing.assert_array_equal(device.to_host(out), expected)
    assert 0 < expected.min() == 2.0**-33 < expected.max() == 1 - 2.0**-24 < 1
    assert_margins(whole)


@FEW
@DTYPES
@given(
    blocks=st.integers(1, 6), shape=st.sampled_from([(1,), (5,), (3, 7), (2, 300)]), parts=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_rows_are_added_by_index(
    device: Any, dtype: str, blocks: int, shape: tuple[int, ...], parts: int, seed: int
) -> None:
    """In their order, so to the same bits, and whatever the gradient held."""
    rng = np.random.default_rng(seed)
    index, rows = rng.integers(0, blocks, parts), rng.normal(size=(parts, *shape)).astype(dtype)
    gradient, whole = guarded(device, rng.normal(size=(blocks, *shape)).astype(dtype))
    expected = np.zeros((blocks, *shape), dtype)
    for block, row in zip(index, rows, strict=True):
        expected[block] += row
    GpuBlocks(gradient, StepCounter(), device).add(*to_device(device, index, rows))
    np.testing.assert_array_equal(device.to_host(gradient), expected)
    assert_margins(whole)


@DTYPES
def test_adam_is_the_optimizers(device: Any, dtype: str) -> None:
    source, size = np.random.default_rng(0), 700
    scalars, (w, m, v, g) = source.uniform(0.1, 0.9, 5), source.uniform(0.1, 1, (4, size)).astype(dtype)
    (ours_w, ours_m, ours_v), wholes = zip(*(guarded(device, a) for a in (w, m, v)), strict=True)
    optimizer = Adam()
    optimizer.step_scalars = lambda: dict(zip(map(str, range(5)), scalars, strict=True))  # type: ignore[method-assign]
    optimizer.build(ours_w, {"m": ours_m, "v": ours_v}, device)
    optimizer.update(*to_device(device, g))
    scalars = scalars.astype(dtype)
    m = m + (g - m) * scalars[0]
    v = v * scalars[1] + g * g * scalars[2]
    for ours, theirs in ((ours_m, m), (ours_v, v), (ours_w, w - m / (np.sqrt(v) + scalars[4]) * scalars[3])):
        assert_close(device.to_host(ours), theirs, TOLERANCE[dtype] / 10)
    assert_margins(*wholes)
