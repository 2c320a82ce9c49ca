// What stands around the matrix product of a convolution; a thread an element of the result, so nothing is added from
// two sides and the sums have one order. Images are (N, H, W, C), kernels (KERNEL_H, KERNEL_W, C, F).
//
// Constants: real, IMAGES, HEIGHT, WIDTH, CHANNELS of the input; KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, DILATION_H,
// DILATION_W, TOP, LEFT (padding before); ROWS, COLUMNS, FILTERS of the product; POOL (1 or 2), RELU (0 or 1).

#define TERMS (KERNEL_H * KERNEL_W * CHANNELS)
#define POOLED_ROWS (ROWS / POOL)
#define POOLED_COLUMNS (COLUMNS / POOL)

// columns[n, i, j, r, s, c] = x[n, i stride + r dilation - top, j stride + s dilation - left, c], or 0 outside.
extern "C" __global__ void im2col(const real* x, real* columns) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= IMAGES * ROWS * COLUMNS * TERMS) return;
    int c = e % CHANNELS, s = e / CHANNELS % KERNEL_W, r = e / (CHANNELS * KERNEL_W) % KERNEL_H;
    int j = e / TERMS % COLUMNS, i = e / (TERMS * COLUMNS) % ROWS, n = e / (TERMS * COLUMNS * ROWS);
    int h = i * STRIDE_H + r * DILATION_H - TOP, w = j * STRIDE_W + s * DILATION_W - LEFT;
    bool inside = 0 <= h && h < HEIGHT && 0 <= w && w < WIDTH;
    columns[e] = inside ? x[((n * HEIGHT + h) * WIDTH + w) * CHANNELS + c] : (real)0;
}

// dx[n, h, w, c] = the sum of dcolumns wherever im2col reads x[n, h, w, c].
extern "C" __global__ void col2im(const real* dcolumns, real* dx) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= IMAGES * HEIGHT * WIDTH * CHANNELS) return;
    int c = e % CHANNELS, w = e / CHANNELS % WIDTH, h = e / (CHANNELS * WIDTH) % HEIGHT;
    int n = e / (CHANNELS * WIDTH * HEIGHT);
    real sum = 0;
    for (int r = 0; r < KERNEL_H; ++r) {
        int down = h + TOP - r * DILATION_H, i = down / STRIDE_H;
        if (down < 0 || down % STRIDE_H != 0 || i >= ROWS) continue;
        for (int s = 0; s < KERNEL_W; ++s) {
            int across = w + LEFT - s * DILATION_W, j = across / STRIDE_W;
            if (across < 0 || across % STRIDE_W != 0 || j >= COLUMNS) continue;
            sum += dcolumns[((n * ROWS + i) * COLUMNS + j) * TERMS + (r * KERNEL_W + s) * CHANNELS + c];
        }
    }
    dx[e] = sum;
}

// y = pooled z + bias, and its ReLU; a byte of `choice` keeps which of the four was the largest (the first of equals)
// and, in bit 2, whether y > 0. Bias and ReLU are monotone, so they may come after the maximum. NaN stays NaN.
extern "C" __global__ void epilogue(const real* z, const real* bias, real* y, int y_image, int y_row, int y_column,
                                    unsigned char* choice) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= IMAGES * POOLED_ROWS * POOLED_COLUMNS * FILTERS) return;
    int f = e % FILTERS, j = e / FILTERS % POOLED_COLUMNS, i = e / (FILTERS * POOLED_COLUMNS) % POOLED_ROWS;
    int n = e / (FILTERS * POOLED_COLUMNS * POOLED_ROWS), where = 0;
    const real* window = z + ((n * ROWS + i * POOL) * COLUMNS + j * POOL) * FILTERS + f;
    real best = *window;
    for (int k = 1; k < POOL * POOL; ++k) {
        real value = window[(k / POOL * COLUMNS + k % POOL) * FILTERS];
        if (value > best || value != value) best = value, where = k;
    }
    if (bias) best += bias[f];
    if (RELU && best < 0) best = 0;
    choice[e] = where | (best > 0) << 2;
    y[n * y_image + i * y_row + j * y_column + f] = best;
}

// dz from dy: to the entry that was chosen, if ReLU let it pass.
extern "C" __global__ void epilogue_backward(const real* dy, int dy_image, int dy_row, int dy_column,
                                             const unsigned char* choice, real* dz) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= IMAGES * ROWS * COLUMNS * FILTERS) return;
    int f = e % FILTERS, j = e / FILTERS % COLUMNS, i = e / (FILTERS * COLUMNS) % ROWS;
    int n = e / (FILTERS * COLUMNS * ROWS), p = i / POOL, q = j / POOL;
    int chosen = choice[((n * POOLED_ROWS + p) * POOLED_COLUMNS + q) * FILTERS + f];
    bool passes = (chosen & 3) == i % POOL * POOL + j % POOL && (!RELU || chosen & 4);
    dz[e] = passes ? dy[n * dy_image + p * dy_row + q * dy_column + f] : (real)0;
}
