// Uniform numbers for the rows of a batch, a thread a tick of eight. now = step, the batch's first row.
// Constants: real, COLUMNS.

#include "philox.cuh"

#define TICKS ((COLUMNS + 7) / 8)

extern "C" __global__ void noise(int threads, const long long* now, word seed, word stream, real* out) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= threads) return;
    int row = e / TICKS, tick = e % TICKS;
    word words[4];
    draw(words, (word)now[1] + row, TICKS, tick, (word)now[0], seed, stream);
    for (int j = 0, k = tick * 8; j < 8 && k < COLUMNS; ++j, ++k) out[row * COLUMNS + k] = uniform(words, j);
}
