"""The same network and training step in Keras on TensorFlow, the reports' own software."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import cycle
from typing import TYPE_CHECKING

from scratchnet import Sequential
from scratchnet.layers import Conv2D, Dense, Flatten, MaxPooling2D, ReLU
from tests.benchmarks.setting import IMAGE_SHAPE, Setting

if TYPE_CHECKING:
    import keras


def missing() -> str | None:
    """Why there can be no comparison; None where there can."""
    if find_spec("tensorflow") is None:
        return "TensorFlow is not installed (pip install 'scratchnet[bench]')"
    return None


def keras_network(network: Sequential) -> "keras.Sequential":
    """The same layers."""
    import keras

    layers: list[keras.Layer] = [keras.Input(IMAGE_SHAPE)]
    for layer in network.layers:
        match layer:
            case Conv2D():
                layers.append(keras.layers.Conv2D(layer.filters, layer.kernel_size, padding=layer.padding))
            case ReLU():
                layers.append(keras.layers.ReLU())
            case MaxPooling2D():
                layers.append(keras.layers.MaxPooling2D(layer.pool_size))
            case Flatten():
                layers.append(keras.layers.Flatten())
            case Dense():
                layers.append(keras.layers.Dense(layer.units))
            case _:
                raise TypeError(f"{layer.name} has no counterpart here")
    return keras.Sequential(layers)


@contextmanager
def training_step(setting: Setting) -> Iterator[Callable[[], None]]:
    """A function that makes one step on a batch that is there already, as a float32 tensor.

    A tf.function without XLA, which is not slower than `model.train_on_batch`; with XLA both take twice as long.
    """
    os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(setting.workers)
    tf.config.threading.set_inter_op_parallelism_threads(setting.workers)
    model = keras_network(setting.network())
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    batches = cycle([(tf.constant(x), tf.constant(y)) for x, y in setting.float_batches()])

    @tf.function
    def compiled(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = cross_entropy(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables))
        return loss

    yield lambda: compiled(*next(batches))
    keras.backend.clear_session()
