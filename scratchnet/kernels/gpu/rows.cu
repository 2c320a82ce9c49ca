// A gradient of blocks from its parts, a thread an element of a part: rows[i] belongs to block index[i], and the first
// part of a block sums them all, in their order. Constants: real, WIDTH (of a block).

extern "C" __global__ void add_rows(int threads, const long long* index, const real* rows, int count, real* gradient) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= threads) return;
    int part = e / WIDTH, column = e % WIDTH;
    long long block = index[part];
    for (int i = 0; i < part; ++i)
        if (index[i] == block) return;
    real sum = 0;
    for (int i = part; i < count; ++i)
        if (index[i] == block) sum += rows[i * WIDTH + column];
    gradient[block * WIDTH + column] = sum;
}
