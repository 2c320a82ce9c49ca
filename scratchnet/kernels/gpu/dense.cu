// The ReLU after a dense layer, in place on (rows, UNITS); a thread a value. Constants: real, UNITS.

// y = max(y, 0). NaN stays NaN.
extern "C" __global__ void relu(int threads, real* y, int y_row) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= threads) return;
    real* value = y + e / UNITS * y_row + e % UNITS;
    if (*value < 0) *value = 0;
}

// dy = dy where y > 0, else 0.
extern "C" __global__ void relu_backward(int threads, const real* y, int y_row, real* dy, int dy_row) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= threads) return;
    if (!(y[e / UNITS * y_row + e % UNITS] > 0)) dy[e / UNITS * dy_row + e % UNITS] = 0;
}
