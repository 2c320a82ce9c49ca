// What stands around the matrix products of a convolution; a thread an element of the result, so nothing is added from
// two sides and the sums have one order. Images are (N, H, W, C), kernels (KERNEL_H, KERNEL_W, C, F). `threads` is how
// many elements there are, so that only the number of images is not known when this is compiled.
//
// Constants: real, HEIGHT, WIDTH, CHANNELS of the input; KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W,
// TOP, LEFT (padding before); ROWS, COLUMNS, FILTERS of the product; POOL (1 or 2), RELU (0 or 1). A window's terms lie
// TERM_PITCH apart from the next one's, and the filters of a place FILTER_PITCH from those of the next.

#define TERMS (KERNEL_H * KERNEL_W * CHANNELS)
#define POOLED_ROWS (ROWS / POOL)
#define POOLED_COLUMNS (COLUMNS / POOL)

// columns[n, i, j, r, s, c] = x[n, i stride + r dilation - top, j stride + s dilation - left, c], or 0 outside.
extern "C" __global__ void im2col(int threads, const real* x, real* columns) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= threads) return;
    int c = e % CHANNELS, s = e / CHANNELS % KERNEL_W, r = e / (CHANNELS * KERNEL_W) % KERNEL_H;
    int j = e / TERMS % COLUMNS, i = e / (TERMS * COLUMNS) % ROWS, n = e / (TERMS * COLUMNS * ROWS);
    int h = i * STRIDE_H + r * DILATION_H - TOP, w = j * STRIDE_W + s * DILATION_W - LEFT;
    bool inside = 0 <= h && h < HEIGHT && 0 <= w && w < WIDTH;
    columns[e / TERMS * TERM_PITCH + e % TERMS] = inside ? x[((n * HEIGHT + h) * WIDTH + w) * CHANNELS + c] : (real)0;
}

// dx[n, h, w, c] = the sum of dcolumns wherever im2col reads x[n, h, w, c].
extern "C" __global__ void col2im(int threads, const real* dcolumns, real* dx) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= threads) return;
    int c = e % CHANNELS, w = e / CHANNELS % WIDTH, h = e / (CHANNELS * WIDTH) % HEIGHT;
    int n = e / (CHANNELS * WIDTH * HEIGHT);
    real sum = 0;
    for (int r = 0; r < KERNEL_H; ++r) {
        int down = h + TOP - r * DILATION_H, i = down / STRIDE_H;
        if (down < 0 || down % STRIDE_H != 0 || i >= ROWS) continue;
        for (int s = 0; s < KERNEL_W; ++s) {
            int across = w + LEFT - s * DILATION_W, j = across / STRIDE_W;
            if (across < 0 || across % STRIDE_W != 0 || j >= COLUMNS) continue;
            sum += dcolumns[((n * ROWS + i) * COLUMNS + j) * TERM_PITCH + (r * KERNEL_W + s) * CHANNELS + c];
        }
    }
    dx[e] = sum;
}

// y = pooled z, and its ReLU; a byte of `choice` keeps which of the four was the largest (the first of equals) and, in
// bit 2, whether y > 0. NaN stays NaN.
extern "C" __global__ void epilogue(int threads, const real* z, real* y, int y_image, int y_row, int y_column,
                                    unsigned char* choice) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= threads) return;
    int f = e % FILTERS, j = e / FILTERS % POOLED_COLUMNS, i = e / (FILTERS * POOLED_COLUMNS) % POOLED_ROWS;
    int n = e / (FILTERS * POOLED_COLUMNS * POOLED_ROWS), where = 0;
    const real* window = z + ((n * ROWS + i * POOL) * COLUMNS + j * POOL) * FILTER_PITCH + f;
    real best = *window;
    for (int k = 1; k < POOL * POOL; ++k) {
        real value = window[(k / POOL * COLUMNS + k % POOL) * FILTER_PITCH];
        if (value > best || value != value) best = value, where = k;
    }
    if (RELU && best < 0) best = 0;
    choice[e] = where | (best > 0) << 2;
    y[n * y_image + i * y_row + j * y_column + f] = best;
}

// dz from dy: to the entry that was chosen, if ReLU let it pass. The filters that only fill up have none.
extern "C" __global__ void epilogue_backward(int threads, const real* dy, int dy_image, int dy_row, int dy_column,
                                             const unsigned char* choice, real* dz) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= threads) return;
    int f = e % FILTER_PITCH, j = e / FILTER_PITCH % COLUMNS, i = e / (FILTER_PITCH * COLUMNS) % ROWS;
    int n = e / (FILTER_PITCH * COLUMNS * ROWS), p = i / POOL, q = j / POOL;
    bool passes = false;
    if (f < FILTERS) {
        int chosen = choice[((n * POOLED_ROWS + p) * POOLED_COLUMNS + q) * FILTERS + f];
        passes = (chosen & 3) == i % POOL * POOL + j % POOL && (!RELU || chosen & 4);
    }
    dz[e] = passes ? dy[n * dy_image + p * dy_row + q * dy_column + f] : (real)0;
}
