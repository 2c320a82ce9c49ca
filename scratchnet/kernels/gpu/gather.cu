// A batch from the data set: x[n, h, w, c] = images[order[start + n], c, h, w] / SCALE, and its labels; without an order,
// the images as they lie. A thread a pixel's channel. Constants: real, PIXEL (a type), SCALE, HEIGHT, WIDTH, CHANNELS.

extern "C" __global__ void gather(int threads, const PIXEL* images, const long long* labels,
                                  const long long* order, const long long* start, real* x, int x_image, int x_row,
                                  int x_column, long long* batch_labels) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= threads) return;
    int c = e % CHANNELS, w = e / CHANNELS % WIDTH, h = e / (CHANNELS * WIDTH) % HEIGHT;
    int n = e / (CHANNELS * WIDTH * HEIGHT);
    long long image = order ? order[*start + n] : *start + n;
    long long pixel = ((image * CHANNELS + c) * HEIGHT + h) * WIDTH + w;
    x[n * x_image + h * x_row + w * x_column + c] = images[pixel] / (real)SCALE;
    if (e % (HEIGHT * WIDTH * CHANNELS) == 0) batch_labels[n] = labels[image];
}
