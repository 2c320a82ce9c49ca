// Reductions of each row of a matrix (rows, columns) by one warp, in a fixed order. NaN is the largest of all, as in
// NumPy; of equal values the first counts. Constants: real.

__device__ bool before(real a, int at_a, real b, int at_b) {
    bool nan_a = a != a, nan_b = b != b, equal = a == b || (nan_a && nan_b);
    return equal ? at_a < at_b : nan_a || a > b;
}

__device__ real largest(const real* values, int columns, int* where) {
    int at = threadIdx.x % 32 < columns ? threadIdx.x % 32 : 0;
    real best = values[at];
    for (int k = at + 32; k < columns; k += 32)
        if (before(values[k], k, best, at)) best = values[k], at = k;
    for (int distance = 16; distance > 0; distance /= 2) {
        real other = __shfl_xor_sync(0xffffffffu, best, distance);
        int there = __shfl_xor_sync(0xffffffffu, at, distance);
        if (before(other, there, best, at)) best = other, at = there;
    }
    *where = at;
    return best;
}

extern "C" __global__ void row_sum(int threads, const real* values, real* out, int columns) {
    int lane = threadIdx.x % 32, row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= threads / 32) return;  // a whole warp
    real sum = 0;
    for (int k = lane; k < columns; k += 32) sum += values[(long long)row * columns + k];
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    if (lane == 0) out[row] = sum;
}

extern "C" __global__ void row_amax(int threads, const real* values, real* out, int columns) {
    int where, row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= threads / 32) return;
    real best = largest(values + (long long)row * columns, columns, &where);
    if (threadIdx.x % 32 == 0) out[row] = best;
}

extern "C" __global__ void row_argmax(int threads, const real* values, long long* out, int columns) {
    int where, row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= threads / 32) return;
    largest(values + (long long)row * columns, columns, &where);
    if (threadIdx.x % 32 == 0) out[row] = where;
}
