// The noise of backend/noise.py, number by number: Philox4x64-10 (Salmon et al. 2011). Constants: real.

typedef unsigned long long word;

// Four words in place of the counter.
__device__ void philox(word counter[4], word key_0, word key_1) {
    for (int round = 0; round < 10; ++round) {
        word high_0 = __umul64hi(0xD2E7470EE14C6C93ull, counter[0]), low_0 = 0xD2E7470EE14C6C93ull * counter[0];
        word high_1 = __umul64hi(0xCA5A826395121157ull, counter[2]), low_1 = 0xCA5A826395121157ull * counter[2];
        counter[0] = high_1 ^ counter[1] ^ key_0, counter[1] = low_1;
        counter[2] = high_0 ^ counter[3] ^ key_1, counter[3] = low_0;
        key_0 += 0x9E3779B97F4A7C15ull, key_1 += 0xBB67AE8584CAA73Bull;
    }
}

// The words of a tick, eight numbers, of which a row of the batch takes `ticks`.
__device__ void draw(word words[4], word row, int ticks, int tick, word step, word seed, word stream) {
    words[0] = row * ticks + tick + 1, words[1] = words[2] = 0, words[3] = step;  // NumPy counts up first
    philox(words, seed, stream);
}

// u = (bits + 1/2) / 2^32 of the j-th half word of a tick, to float's precision and at most 1 - 2^-24: in (0, 1).
__device__ real uniform(const word words[4], int j) {
    unsigned bits = (unsigned)(words[j / 2] >> j % 2 * 32);
    float u = ((float)bits + 0.5f) * (1.0f / 4294967296.0f), largest = 1 - 1.0f / (1 << 24);
    return u < largest ? u : largest;
}
