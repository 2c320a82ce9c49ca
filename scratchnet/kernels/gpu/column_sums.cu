// sums[slab, c] = the sum of values[r, c] over the rows of a slab: eight rows, then the next eight SLABS further on. A
// block takes one slab and 32 columns, a warp a row. Launched once more on its own result it leaves one row; there are
// no atomics, so the order of every sum is fixed. Constants: real, ROWS, COLUMNS, SLABS.

#define TILES ((COLUMNS + 31) / 32)

extern "C" __global__ void column_sums(const real* values, real* sums) {
    __shared__ real part[8][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int slab = blockIdx.x / TILES, c = blockIdx.x % TILES * 32 + lane;
    real sum = 0;
    if (c < COLUMNS)
        for (int r = slab * 8 + warp; r < ROWS; r += SLABS * 8) sum += values[r * COLUMNS + c];
    part[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || c >= COLUMNS) return;
    for (int k = 1; k < 8; ++k) sum += part[k][lane];
    sums[slab * COLUMNS + c] = sum;
}
