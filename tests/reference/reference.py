"""What every kernel must compute, in plain loops over float64: the definition the fast kernels are tested against.

Activations are (N, H, W, C), kernels (kh, kw, Cin, Cout). Sizes are an int or a pair. Nothing here is meant to be fast.
"""

import math
from collections.abc import Iterator

import numpy as np

Array = np.ndarray
Pair = int | tuple[int, int]
Tap = tuple[int, int, int, int]


def window_axis(size: int, window: int, stride: int, padding: str, dilation: int = 1) -> tuple[int, int]:
    """Returns along one axis the number of output positions and the padding before the first input (Keras's rules)."""
    extent = (window - 1) * dilation + 1
    if padding == "valid":
        return (size - extent) // stride + 1, 0
    positions = math.ceil(size / stride)
    return positions, max((positions - 1) * stride + extent - size, 0) // 2


def conv2d(
    x: Array, kernel: Array, bias: Array, strides: Pair = 1, padding: str = "valid", dilation_rate: Pair = 1
) -> Array:
    """Returns the cross-correlation of x with the kernel, plus the bias: (N, OH, OW, Cout)."""
    x, kernel, bias = _float64(x, kernel, bias)
    kh, kw, channels, filters = kernel.shape
    y = np.zeros((*_positions(x, (kh, kw), strides, padding, dilation_rate), filters)) + bias
    for (n, i, j), taps in _windows(x, (kh, kw), strides, padding, dilation_rate):
        for f in range(filters):
            for r, s, h, w in taps:
                for c in range(channels):
                    y[n, i, j, f] += x[n, h, w, c] * kernel[r, s, c, f]
    return y


def conv2d_backward(
    x: Array, kernel: Array, dy: Array, strides: Pair = 1, padding: str = "valid", dilation_rate: Pair = 1
) -> tuple[Array, Array, Array]:
    """Returns dx, dkernel and dbias: each product of the forward pass hands dy to both of its factors."""
    x, kernel, dy = _float64(x, kernel, dy)
    kh, kw, channels, filters = kernel.shape
    dx, dkernel, dbias = np.zeros(x.shape), np.zeros(kernel.shape), np.zeros(filters)
    for (n, i, j), taps in _windows(x, (kh, kw), strides, padding, dilation_rate):
        for f in range(filters):
            dbias[f] += dy[n, i, j, f]
            for r, s, h, w in taps:
                for c in range(channels):
                    dx[n, h, w, c] += dy[n, i, j, f] * kernel[r, s, c, f]
                    dkernel[r, s, c, f] += dy[n, i, j, f] * x[n, h, w, c]
    return dx, dkernel, dbias


def max_pooling2d(x: Array, pool_size: Pair, strides: Pair, padding: str = "valid") -> Array:
    """Returns the largest element of each window; padding is never the largest."""
    (x,) = _float64(x)
    y = np.zeros((*_positions(x, pool_size, strides, padding), x.shape[3]))
    for (n, i, j), taps in _windows(x, pool_size, strides, padding):
        for c in range(x.shape[3]):
            y[n, i, j, c] = max(x[n, h, w, c] for _, _, h, w in taps)
    return y


def max_pooling2d_backward(x: Array, dy: Array, pool_size: Pair, strides: Pair, padding: str = "valid") -> Array:
    """Returns dx: each dy goes to the first largest element of its window, in row-major order."""
    x, dy = _float64(x, dy)
    dx = np.zeros(x.shape)
    for (n, i, j), taps in _windows(x, pool_size, strides, padding):
        for c in range(x.shape[3]):
            largest = max(x[n, h, w, c] for _, _, h, w in taps)
            first_h, first_w = next((h, w) for _, _, h, w in taps if x[n, h, w, c] == largest)
            dx[n, first_h, first_w, c] += dy[n, i, j, c]
    return dx


def average_pooling2d(x: Array, pool_size: Pair, strides: Pair, padding: str = "valid") -> Array:
    """Returns the mean of each window's elements; padding is not counted."""
    (x,) = _float64(x)
    y = np.zeros((*_positions(x, pool_size, strides, padding), x.shape[3]))
    for (n, i, j), taps in _windows(x, pool_size, strides, padding):
        for c in range(x.shape[3]):
            y[n, i, j, c] = sum(x[n, h, w, c] for _, _, h, w in taps) / len(taps)
    return y


def average_pooling2d_backward(x: Array, dy: Array, pool_size: Pair, strides: Pair, padding: str = "valid") -> Array:
    """Returns dx: each dy is shared equally among the elements of its window."""
    x, dy = _float64(x, dy)
    dx = np.zeros(x.shape)
    for (n, i, j), taps in _windows(x, pool_size, strides, padding):
        for c in range(x.shape[3]):
            for _, _, h, w in taps:
                dx[n, h, w, c] += dy[n, i, j, c] / len(taps)
    return dx


def dense(x: Array, kernel: Array, bias: Array) -> Array:
    """Returns x @ kernel + bias of x (N, ..., in) and kernel (in, out)."""
    x, kernel, bias = _float64(x, kernel, bias)
    y = np.zeros((*x.shape[:-1], len(bias))) + bias
    for *row, i, o in np.ndindex(*x.shape[:-1], *kernel.shape):
        y[*row, o] += x[*row, i] * kernel[i, o]
    return y


def dense_backward(x: Array, kernel: Array, dy: Array) -> tuple[Array, Array, Array]:
    """Returns dx, dkernel and dbias."""
    x, kernel, dy = _float64(x, kernel, dy)
    dx, dkernel, dbias = np.zeros(x.shape), np.zeros(kernel.shape), np.zeros(dy.shape[-1])
    for *row, o in np.ndindex(dy.shape):
        dbias[o] += dy[*row, o]
        for i in range(len(kernel)):
            dx[*row, i] += dy[*row, o] * kernel[i, o]
            dkernel[i, o] += dy[*row, o] * x[*row, i]
    return dx, dkernel, dbias


def batch_normalization(x: Array, gamma: Array, beta: Array, epsilon: float = 1e-3) -> tuple[Array, Array, Array]:
    """Returns y and each channel's mean and biased variance over the other axes (Ioffe, Szegedy 2015, algorithm 1)."""
    x, gamma, beta = _float64(x, gamma, beta)
    rows = x.reshape(-1, x.shape[-1])  # (M, C)
    y, mean, variance = np.zeros(rows.shape), np.zeros(len(gamma)), np.zeros(len(gamma))
    for c in range(len(gamma)):
        mean[c] = sum(rows[:, c]) / len(rows)
        variance[c] = sum((value - mean[c]) ** 2 for value in rows[:, c]) / len(rows)
        for m in range(len(rows)):
            y[m, c] = gamma[c] * (rows[m, c] - mean[c]) / math.sqrt(variance[c] + epsilon) + beta[c]
    return y.reshape(x.shape), mean, variance


def batch_normalization_backward(
    x: Array, gamma: Array, dy: Array, epsilon: float = 1e-3
) -> tuple[Array, Array, Array]:
    """Returns dx, dgamma, dbeta; d xhat_k / d x_m = ([k = m] - (1 + xhat_k xhat_m) / M) / sqrt(variance + epsilon)."""
    x, gamma, dy = _float64(x, gamma, dy)
    xhat, _, variance = batch_normalization(x, np.ones(len(gamma)), np.zeros(len(gamma)), epsilon)
    xhat, dy = xhat.reshape(-1, len(gamma)), dy.reshape(-1, len(gamma))  # (M, C)
    dx, dgamma, dbeta = np.zeros(xhat.shape), np.zeros(len(gamma)), np.zeros(len(gamma))
    for k, c in np.ndindex(xhat.shape):
        dgamma[c] += dy[k, c] * xhat[k, c]
        dbeta[c] += dy[k, c]
        for m in range(len(xhat)):
            jacobian = ((k == m) - (1 + xhat[k, c] * xhat[m, c]) / len(xhat)) / math.sqrt(variance[c] + epsilon)
            dx[m, c] += gamma[c] * dy[k, c] * jacobian
    return dx.reshape(x.shape), dgamma, dbeta


def layer_normalization(x: Array, gamma: Array, beta: Array, epsilon: float = 1e-3) -> tuple[Array, Array, Array]:
    """Returns y and each row's mean and biased variance over its C numbers (Ba, Kiros and Hinton 2016, section 3)."""
    x, gamma, beta = _float64(x, gamma, beta)
    y, mean, variance = np.zeros(x.shape), np.zeros(x.shape[:-1]), np.zeros(x.shape[:-1])
    for row in np.ndindex(x.shape[:-1]):
        mean[row] = sum(x[row]) / len(gamma)
        variance[row] = sum((value - mean[row]) ** 2 for value in x[row]) / len(gamma)
        for c in range(len(gamma)):
            y[*row, c] = gamma[c] * (x[*row, c] - mean[row]) / math.sqrt(variance[row] + epsilon) + beta[c]
    return y, mean, variance


def layer_normalization_backward(
    x: Array, gamma: Array, dy: Array, epsilon: float = 1e-3
) -> tuple[Array, Array, Array]:
    """Returns dx, dgamma, dbeta; d xhat_k / d x_m = ([k = m] - (1 + xhat_k xhat_m) / C) / sqrt(variance + epsilon)."""
    x, gamma, dy = _float64(x, gamma, dy)
    xhat, _, variance = layer_normalization(x, np.ones(len(gamma)), np.zeros(len(gamma)), epsilon)
    dx, dgamma, dbeta = np.zeros(x.shape), np.zeros(len(gamma)), np.zeros(len(gamma))
    for *row, k in np.ndindex(x.shape):
        dgamma[k] += dy[*row, k] * xhat[*row, k]
        dbeta[k] += dy[*row, k]
        for m in range(len(gamma)):
            jacobian = ((k == m) - (1 + xhat[*row, k] * xhat[*row, m]) / len(gamma)) / math.sqrt(
                variance[*row] + epsilon
            )
            dx[*row, m] += gamma[k] * dy[*row, k] * jacobian
    return dx, dgamma, dbeta


def softmax(x: Array) -> Array:
    """Returns exp(x) / sum exp(x) over the last axis; subtracting the largest element first prevents overflow."""
    (x,) = _float64(x)
    y = np.zeros(x.shape)
    for row in np.ndindex(x.shape[:-1]):
        powers = [math.exp(value - np.max(x[row])) for value in x[row]]
        y[row] = [power / sum(powers) for power in powers]
    return y


def softmax_backward(x: Array, dy: Array) -> Array:
    """Returns dx through the full Jacobian d y_k / d x_m = y_k ([k = m] - y_m)."""
    y, (dy,) = softmax(x), _float64(dy)
    dx = np.zeros(dy.shape)
    for *row, k in np.ndindex(dy.shape):
        for m in range(dy.shape[-1]):
            dx[*row, m] += dy[*row, k] * y[*row, k] * ((k == m) - y[*row, m])
    return dx


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Returns the mean over the batch of -log softmax(logits)[label], and its gradient."""
    (logits,) = _float64(logits)
    loss, dlogits = 0.0, softmax(logits) / len(logits)
    for n, label in enumerate(labels):
        below = [value - np.max(logits[n]) for value in logits[n]]
        loss += (math.log(sum(math.exp(value) for value in below)) - below[label]) / len(logits)
        dlogits[n, label] -= 1 / len(logits)
    return loss, dlogits


def gumbel_softmax_cross_entropy(logits: Array, labels: Array, noise: Array, temperature: float) -> tuple[float, Array]:
    """Returns the softmax cross-entropy of (logits + noise) / temperature, and its gradient with respect to logits."""
    logits, noise = _float64(logits, noise)
    loss, dscaled = softmax_cross_entropy((logits + noise) / temperature, labels)
    return loss, dscaled / temperature


def attention(
    x: Array,
    kernel: Array,
    bias: Array,
    output_kernel: Array,
    output_bias: Array,
    noise: Array,
    temperature: float,
    mask: Array,
) -> tuple[Array, ...]:
    """Returns y and q, k, v, p, o, all by (image, head, token); noise and mask are (image, head, query, key).

    kernel (D, 3, heads, key_dim), output_kernel (heads, key_dim, D) (Vaswani et al. 2017, section 3.2).
    """
    x, kernel, bias, output_kernel, output_bias = _float64(x, kernel, bias, output_kernel, output_bias)
    (images, tokens, features), (_, _, heads, size) = x.shape, kernel.shape
    qkv, scores, o = (
        np.zeros((3, images, heads, tokens, size)),
        np.zeros(noise.shape),
        np.zeros((*noise.shape[:3], size)),
    )
    for i, n, h, t, c in np.ndindex(qkv.shape):
        qkv[i, n, h, t, c] = bias[i, h, c] + sum(x[n, t, d] * kernel[d, i, h, c] for d in range(features))
    q, k, v = qkv
    for n, h, t, u in np.ndindex(scores.shape):
        similarity = sum(q[n, h, t, c] * k[n, h, u, c] for c in range(size)) / math.sqrt(size)
        scores[n, h, t, u] = (similarity + noise[n, h, t, u]) / temperature
    p, y = softmax(scores), np.zeros(x.shape) + output_bias
    for n, h, t, c in np.ndindex(o.shape):
        o[n, h, t, c] = sum(mask[n, h, t, u] * p[n, h, t, u] * v[n, h, u, c] for u in range(tokens))
        for d in range(features):
            y[n, t, d] += o[n, h, t, c] * output_kernel[h, c, d]
    return y, q, k, v, p, o


def attention_backward(
    x: Array, kernel: Array, bias: Array, output_kernel: Array, dy: Array, noise: Array, temperature: float, mask: Array
) -> tuple[Array, ...]:
    """Returns dx, dkernel, doutput_kernel, dbias, doutput_bias."""
    x, kernel, output_kernel, dy = _float64(x, kernel, output_kernel, dy)
    features = x.shape[2]
    _, q, k, v, p, o = attention(x, kernel, bias, output_kernel, np.zeros(features), noise, temperature, mask)
    do, dp, dqkv = np.zeros(o.shape), np.zeros(p.shape), np.zeros((3, *q.shape))
    doutput_kernel, dx, dkernel, dbias = (np.zeros(array.shape) for array in (output_kernel, x, kernel, kernel[0]))
    for n, h, t, c in np.ndindex(o.shape):
        for d in range(features):
            do[n, h, t, c] += dy[n, t, d] * output_kernel[h, c, d]
            doutput_kernel[h, c, d] += dy[n, t, d] * o[n, h, t, c]
    for n, h, t, u, c in np.ndindex(*p.shape, o.shape[3]):
        dp[n, h, t, u] += do[n, h, t, c] * v[n, h, u, c] * mask[n, h, t, u]
        dqkv[2, n, h, u, c] += do[n, h, t, c] * p[n, h, t, u] * mask[n, h, t, u]
    for n, h, t in np.ndindex(p.shape[:3]):
        row = p[n, h, t]
        for u, w, c in np.ndindex(len(row), len(row), o.shape[3]):  # of score u by weight w
            dscore = dp[n, h, t, w] * row[w] * ((u == w) - row[u]) / temperature / math.sqrt(o.shape[3])
            dqkv[0, n, h, t, c] += dscore * k[n, h, u, c]
            dqkv[1, n, h, u, c] += dscore * q[n, h, t, c]
    for i, n, h, t, c in np.ndindex(dqkv.shape):
        dbias[i, h, c] += dqkv[i, n, h, t, c]
        for d in range(features):
            dx[n, t, d] += dqkv[i, n, h, t, c] * kernel[d, i, h, c]
            dkernel[d, i, h, c] += dqkv[i, n, h, t, c] * x[n, t, d]
    return dx, dkernel, doutput_kernel, dbias, dy.sum((0, 1))


def relu(x: Array) -> Array:
    """Returns max(x, 0)."""
    (x,) = _float64(x)
    return np.array([max(value, 0.0) for value in x.flat]).reshape(x.shape)


def relu_backward(x: Array, dy: Array) -> Array:
    """Returns dx: dy where x > 0, and 0 elsewhere."""
    x, dy = _float64(x, dy)
    dx = [slope if value > 0 else 0.0 for value, slope in zip(x.flat, dy.flat, strict=True)]
    return np.array(dx).reshape(x.shape)


def gelu(x: Array, approximate: bool = False) -> Array:
    """Returns x times the standard normal distribution function at x, or its approximation by tanh."""
    (x,) = _float64(x)
    return np.array([value * _normal(value, approximate)[0] for value in x.flat]).reshape(x.shape)


def gelu_backward(x: Array, dy: Array, approximate: bool = False) -> Array:
    """Returns dx by the product rule."""
    x, dy = _float64(x, dy)
    dx = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        probability, density = _normal(x[place], approximate)
        dx[place] = dy[place] * (probability + x[place] * density)
    return dx


def _normal(x: float, approximate: bool) -> tuple[float, float]:
    """The normal distribution function, or its approximation (Hendrycks and Gimpel 2016), and its derivative."""
    if not approximate:
        return 0.5 * (1 + math.erf(x / math.sqrt(2))), math.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    scale = math.sqrt(2 / math.pi)
    inner, slope = scale * (x + 0.044715 * x**3), scale * (1 + 3 * 0.044715 * x**2)
    return 0.5 * (1 + math.tanh(inner)), 0.5 * slope / math.cosh(inner) ** 2


def _float64(*arrays: Array) -> tuple[Array, ...]:
    return tuple(np.asarray(array, dtype=np.float64) for array in arrays)


def _pair(size: Pair) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _positions(x: Array, window: Pair, strides: Pair, padding: str, dilation_rate: Pair = 1) -> tuple[int, int, int]:
    height = window_axis(x.shape[1], _pair(window)[0], _pair(strides)[0], padding, _pair(dilation_rate)[0])[0]
    width = window_axis(x.shape[2], _pair(window)[1], _pair(strides)[1], padding, _pair(dilation_rate)[1])[0]
    return len(x), height, width


def _windows(
    x: Array, window: Pair, strides: Pair, padding: str, dilation_rate: Pair = 1
) -> Iterator[tuple[tuple[int, int, int], list[Tap]]]:
    """Yields each output position (n, i, j) and the taps (r, s, h, w) it reads: window element (r, s) at x[n, h, w].

    Taps that fall into the padding are left out; the others come in row-major order.
    """
    _, height, width, _ = x.shape
    (kh, kw), (stride_h, stride_w), (dilation_h, dilation_w) = _pair(window), _pair(strides), _pair(dilation_rate)
    above = window_axis(height, kh, stride_h, padding, dilation_h)[1]
    left = window_axis(width, kw, stride_w, padding, dilation_w)[1]
    for n, i, j in np.ndindex(_positions(x, window, strides, padding, dilation_rate)):
        taps = []
        for r in range(kh):
            for s in range(kw):
                h, w = i * stride_h + r * dilation_h - above, j * stride_w + s * dilation_w - left
                if 0 <= h < height and 0 <= w < width:
                    taps.append((r, s, h, w))
        yield (n, i, j), taps
