// (Gumbel-)softmax cross-entropy, a warp a row: loss, whether the largest logit is the label's, and the gradient.
// Constants: real, CLASSES, FIRST_ROW (in the batch), GUMBEL (0 or 1).

#include "philox.cuh"

#define TICKS ((CLASSES + 7) / 8)  // a tick of the counter gives eight numbers; a lane takes whole ticks

__device__ real warp_sum(real value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

__device__ real warp_max(real value) {
    for (int distance = 16; distance > 0; distance /= 2) {
        real other = __shfl_xor_sync(0xffffffffu, value, distance);
        value = other > value ? other : value;
    }
    return value;
}

// now = step, 1 / temperature. A row's scaled logits stand in dlogits until its gradient takes their place.
extern "C" __global__ void cross_entropy(int threads, const real* logits, const long long* labels, const double* now,
                                         word seed, word stream, real per_row, real* dlogits, real* losses, real* hits) {
    int lane = threadIdx.x % 32, row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= threads / 32) return;  // a whole warp
    logits += row * CLASSES, dlogits += row * CLASSES;
    int label = (int)labels[row];
    real scale = GUMBEL ? (real)now[1] : (real)1, wanted = logits[label];
    real largest = log((real)0), total = 0, of_label = 0, beaten = 0;  // minus infinity, for which NVRTC has no name

    for (int tick = lane; tick < TICKS; tick += 32) {
        word words[4];
        if (GUMBEL) draw(words, FIRST_ROW + row, TICKS, tick, (word)now[0], seed, stream);
        for (int j = 0, k = tick * 8; j < 8 && k < CLASSES; ++j, ++k) {
            real z = GUMBEL ? (logits[k] - log(-log1p(-uniform(words, j)))) * scale : logits[k];
            if (logits[k] > wanted || (logits[k] == wanted && k < label)) beaten = 1;
            if (k == label) of_label = z;
            largest = z > largest ? z : largest;
            dlogits[k] = z;
        }
    }
    largest = warp_max(largest), of_label = warp_sum(of_label), beaten = warp_sum(beaten);
    for (int tick = lane; tick < TICKS; tick += 32)
        for (int k = tick * 8; k < tick * 8 + 8 && k < CLASSES; ++k) {
            dlogits[k] = exp(dlogits[k] - largest);
            total += dlogits[k];
        }
    total = warp_sum(total);
    for (int tick = lane; tick < TICKS; tick += 32)
        for (int k = tick * 8; k < tick * 8 + 8 && k < CLASSES; ++k)
            dlogits[k] = (dlogits[k] / total - (k == label)) * per_row * scale;
    if (lane == 0) losses[row] = (log(total) + largest - of_label) * per_row, hits[row] = beaten == 0;
}

// The sums over the rows, by one warp; and to `metrics`, unless it is null, those of the loss of every row and of the
// correct answers are added. `rows` is then the whole batch.
extern "C" __global__ void totals(int threads, int rows, const real* losses, const real* hits, real* loss,
                                  long long* correct, double* metrics) {
    if (threadIdx.x >= threads) return;
    real sum = 0, count = 0;
    for (int row = threadIdx.x; row < rows; row += 32) sum += losses[row], count += hits[row];
    sum = warp_sum(sum), count = warp_sum(count);
    if (threadIdx.x > 0) return;
    *loss = sum, *correct = (long long)count;
    if (metrics) metrics[0] += (double)sum * rows, metrics[1] += count;
}
