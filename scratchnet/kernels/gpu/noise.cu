// Uniform numbers for the rows of a batch, a thread a tick of eight. now = step, the batch's first row. Constants: real.

#include "philox.cuh"

extern "C" __global__ void noise(const long long* now, word seed, word stream, real* out, int rows, int columns) {
    int ticks = (columns + 7) / 8, e = blockIdx.x * blockDim.x + threadIdx.x;
    int row = e / ticks, tick = e % ticks;
    if (row >= rows) return;
    word words[4];
    draw(words, (word)now[1] + row, ticks, tick, (word)now[0], seed, stream);
    for (int j = 0, k = tick * 8; j < 8 && k < columns; ++j, ++k) out[row * columns + k] = uniform(words, j);
}
