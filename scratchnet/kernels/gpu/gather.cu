// A batch from the data set: x[n, h, w, c] = images[order[start + n], c, h, w] / 255, and its labels. A thread a pixel's
// channel. Constants: real, HEIGHT, WIDTH, CHANNELS.

extern "C" __global__ void gather(int threads, const unsigned char* images, const long long* labels,
                                  const long long* order, const long long* start, real* x, int x_image, int x_row, int x_column,
                                  long long* batch_labels) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= threads) return;
    int c = e % CHANNELS, w = e / CHANNELS % WIDTH, h = e / (CHANNELS * WIDTH) % HEIGHT;
    int n = e / (CHANNELS * WIDTH * HEIGHT);
    long long pixel = ((order[*start + n] * CHANNELS + c) * HEIGHT + h) * WIDTH + w;
    x[n * x_image + h * x_row + w * x_column + c] = images[pixel] / (real)255;
    if (e < threads / (HEIGHT * WIDTH * CHANNELS)) batch_labels[e] = labels[order[*start + e]];
}
