"""Two-level softmax: first the cluster, then the class in it."""

from collections.abc import Sequence
from math import isqrt

import numpy as np

from scratchnet.arguments import positive_integer
from scratchnet.backend import Array, view
from scratchnet.heads.own_weights import OwnWeights


class TwoLevelSoftmax(OwnWeights):
    """loss = mean of -log p(cluster of label) - log p(label | its cluster), each a softmax of its own of features x.

    log p(y) = log softmax(U x)[c(y)] + log softmax(V_c(y) x)[y in c(y)]. `superclasses` has the cluster of each class;
    without, the classes lie in their order in clusters of ceil(sqrt(classes)). A step computes all clusters and of the
    classes those in the label's cluster; `correct` is that of `greedy`. Raises ValueError where a class has no cluster.
    Source: Goodman 2001, "Classes for fast maximum entropy training".
    """

    name = "two-level"

    cluster_kernel: Array
    dcluster_kernel: Array

    def __init__(self, classes: int, superclasses: Sequence[int] | np.ndarray = ()) -> None:
        super().__init__()
        owner = f"{self.name} head"
        self.classes = positive_integer(classes, "classes", owner)
        size = isqrt(self.classes - 1) + 1
        given = np.asarray(superclasses if len(superclasses) else np.arange(self.classes) // size)
        self.superclasses = given.tolist()
        if given.shape != (self.classes,) or given.dtype.kind not in "iu" or given.min() < 0:
            shown = np.array2string(given, threshold=6, max_line_width=1000)
            raise ValueError(
                f"{owner}: superclasses are {shown} where each of {classes} classes has a cluster, from 0 on"
            )
        self.cluster = np.unique(given, return_inverse=True)[1]  # of each class, without gaps
        members = np.bincount(self.cluster)
        self.clusters, self.size = len(members), int(members.max())
        self.class_at = np.full((self.clusters, self.size), -1)  # -1 fills up what is smaller than the largest
        self.class_at[np.arange(self.size) < members[:, None]] = np.argsort(self.cluster, kind="stable")
        self.place = np.argsort(np.argsort(self.cluster, kind="stable")) - (np.cumsum(members) - members)[self.cluster]

    def infer(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = super().infer(input_shape)
        self.class_weights("cluster_kernel", (self.clusters,), *input_shape)
        self.class_weights("kernel", (self.clusters, self.size), *input_shape)
        return shape

    def allocate(self) -> None:
        super().allocate()
        self.upper, self.lower = self.cross_entropy_of(self.clusters), self.cross_entropy_of(self.size)
        to_device = self.device.to_device
        self.cluster_of, self.place_of = to_device(self.cluster), to_device(self.place)
        self.ruled_out = to_device(np.where(self.class_at < 0, -np.inf, 0).astype(self.dtype))
        self.in_order = to_device(self.cluster * self.size + self.place)  # of the classes, among all places
        self.of_rows, self.both = self.memory.buffer(self.batch.size, self.size), self.memory.buffer(self.batch.size)
        self.correct = self.memory.buffer()

    def compute(self, training: bool) -> None:
        ops, upper, lower = self.ops, self.upper, self.lower
        ops.take(self.cluster_of, self.labels, out=upper.labels)
        ops.take(self.place_of, self.labels, out=lower.labels)
        ops.matmul(self.inputs, self.cluster_kernel.T, out=upper.x)
        self.blocks.products(self.kernel, upper.labels, self.inputs, lower.x, self.memory)
        ops.take(self.ruled_out, upper.labels, out=self.of_rows)
        ops.add(lower.x, self.of_rows, out=lower.x)
        for level in upper, lower:
            level.compute(training)
        ops.add(upper.loss, lower.loss, out=self.loss)
        ops.multiply(upper.hits, lower.hits, out=self.both)
        ops.sum(self.both, axis=0, out=self.correct)

    def compute_gradients(self) -> None:
        ops, upper, lower = self.ops, self.upper, self.lower
        self.blocks.products_back(self.kernel, upper.labels, self.inputs, lower.dx, self.dinputs, self.memory)
        ops.matmul(upper.dx.T, self.inputs, out=self.dcluster_kernel)
        with self.memory.scratch() as take:
            of_upper = take(*self.dinputs.shape)
            ops.matmul(upper.dx, self.cluster_kernel, out=of_upper)
            ops.add(self.dinputs, of_upper, out=self.dinputs)

    def scores(self) -> Array:
        """log p of every class."""
        ops, rows, memory = self.ops, self.batch.size, self.memory
        out = memory.buffer(rows, self.classes)
        with memory.scratch() as take:
            upper, lower = take(rows, self.clusters), take(rows, self.clusters, self.size)
            ops.matmul(self.inputs, self.cluster_kernel.T, out=upper)
            ops.matmul(self.inputs, view(self.kernel, -1, self.kernel.shape[-1]).T, out=view(lower, rows, -1))
            ops.add(lower, self.ruled_out, out=lower)
            for z in upper, lower:
                self._log_softmax(z)
            ops.add(lower, upper[..., None], out=lower)
            ops.take(view(lower, rows, -1), self.in_order, out=out, axis=1)
        return out

    def _log_softmax(self, z: Array) -> None:
        """In place, over the last axis."""
        with self.memory.scratch() as take:
            row, part = take(*z.shape[:-1]), take(*z.shape)
            self.ops.max(z, axis=-1, out=row)
            self.ops.subtract(z, row[..., None], out=z)
            self.ops.exp(z, out=part)
            self.ops.sum(part, axis=-1, out=row)
            self.ops.log(row, out=row)
            self.ops.subtract(z, row[..., None], out=z)

    def own_figures(self, scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return {"accuracy_greedy": float((self.greedy(scores) == labels).mean())}

    def greedy(self, scores: np.ndarray) -> np.ndarray:
        """Another prediction than the largest score: the best class of the best cluster, (N,)."""
        from scipy.special import logsumexp

        by_cluster = np.full((len(scores), self.clusters, self.size), -np.inf)
        by_cluster[:, self.cluster, self.place] = scores
        best = logsumexp(by_cluster, axis=2).argmax(axis=1)
        place = by_cluster[np.arange(len(scores)), best].argmax(axis=1)
        return self.class_at[best, place]
