"""Recording and replaying, and the operations that are recorded."""

from typing import Any

import numpy as np
import pytest

from scratchnet.backend import Ops, Program, get_device, owned_by, prepare, run
from scratchnet.errors import DeviceError


def test_what_runs_while_recording_runs_again() -> None:
    ops, x, y = Ops(np), np.arange(4.0), np.zeros(4)
    with Program() as program:
        ops.multiply(x, x, out=y)
        ops.add(y, x, out=y)
    assert y.tolist() == [0, 2, 6, 12]
    x[...] = 2
    program.replay()
    assert y.tolist() == [6, 6, 6, 6]
    assert len(program.calls) == 2


def test_nothing_is_recorded_outside() -> None:
    seen: list[int] = []
    with Program() as program:
        run(seen.append, 1)
    run(seen.append, 2)
    program.replay()
    assert seen == [1, 2, 1]


def test_a_failure_ends_the_recording() -> None:
    program = Program()
    with pytest.raises(ZeroDivisionError), program:
        run(lambda: 1 // 0)
    run(list)
    assert program.calls == []


def test_recordings_do_not_nest() -> None:
    with Program(), pytest.raises(RuntimeError, match="already"), Program():
        pass


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_operation_is_numpys(dtype: type) -> None:
    ops, source = Ops(np), np.random.default_rng(0)
    a, b = (source.uniform(0.5, 2, (3, 4)).astype(dtype) for _ in range(2))
    for name, function in {
        "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide, "maximum": np.maximum,
        "greater": np.greater, "greater_equal": np.greater_equal, "equal": np.equal,
    }.items():  # fmt: skip
        out = np.empty((3, 4), bool if "equal" in name or name == "greater" else dtype)
        getattr(ops, name)(a, b, out=out)
        np.testing.assert_array_equal(out, function(a, b))
    for name, unary in {"exp": np.exp, "log": np.log, "sqrt": np.sqrt, "negative": np.negative}.items():
        out = np.empty((3, 4), dtype)
        getattr(ops, name)(a, out=out)
        np.testing.assert_array_equal(out, unary(a))
    total, largest, where = np.empty(3, dtype), np.empty(3, dtype), np.empty(3, np.int64)
    ops.sum(a, axis=1, out=total)
    ops.max(a, axis=1, out=largest)
    ops.argmax(a, axis=1, out=where)
    np.testing.assert_allclose(total, a.sum(1), rtol=1e-6)
    np.testing.assert_array_equal(largest, a.max(1))
    np.testing.assert_array_equal(where, a.argmax(1))
    product = np.empty((3, 3), dtype)
    ops.matmul(a, b.T, out=product)
    np.testing.assert_allclose(product, a @ b.T, rtol=1e-6)


def test_every_call_has_an_owner() -> None:
    captured: list[tuple[Any, str]] = []

    def capture(calls: Any, owners: Any) -> Any:
        captured.extend(zip([arguments for _, arguments in calls], owners, strict=True))
        return list

    owned_by("nobody")
    with Program(capture) as program:
        run(str, 1)
        owned_by("dense")
        prepare(str, 2)
        run(str, 3)
    program.replay()
    assert captured == [((1,), "the step"), ((3,), "dense")]


def test_an_unknown_device_or_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'tpu'.*'cpu', 'gpu'"):
        get_device("tpu")
    with pytest.raises(ValueError, match=r"device 'gpu': precision is 'half' where 'fp32' or 'tf32' is wanted"):
        get_device("gpu", "half")
    with pytest.raises(ValueError, match=r"device 'cpu': precision is 'tf32'"):
        get_device("cpu", "tf32")
    assert get_device("cpu", "fp32") is get_device("cpu")


def test_a_gpu_that_is_not_there_is_one_sentence() -> None:
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except Exception:
        with pytest.raises(DeviceError, match=r"device 'gpu' needs .*'cpu'") as caught:
            get_device("gpu")
        assert caught.value.exit_status == 2
    else:
        assert get_device("gpu").name == "gpu"
