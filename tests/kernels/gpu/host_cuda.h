// The part of CUDA that the kernels use, for a host compiler. Blocks run one after the other. The threads of a block
// are coroutines that take turns at barriers and shuffles; in a kernel without those each runs to its end.

#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__ static
#define __shared__ static

extern "C" {
double exp(double);
double log(double);
double log1p(double);
double sqrt(double);
}
static inline float exp(float x) { return __builtin_expf(x); }
static inline float log(float x) { return __builtin_logf(x); }
static inline float log1p(float x) { return __builtin_log1pf(x); }
static inline float sqrt(float x) { return __builtin_sqrtf(x); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}

struct Dimensions {
    unsigned x;
};
static Dimensions threadIdx, blockIdx, blockDim, gridDim;

const unsigned MOST = 1024, STACK = 1 << 16;
static ucontext_t turns, threads[MOST];
static char stacks[MOST][STACK];
static bool ended[MOST];
static unsigned long progress;  // barriers passed and threads ended: without any in a round, all wait for ever

struct Barrier {
    unsigned size, arrived;
    unsigned long passed;
    void wait() {
        unsigned long before = passed;
        if (++arrived == size) arrived = 0, ++passed, ++progress;
        while (passed == before) swapcontext(&threads[threadIdx.x], &turns);
    }
};
static Barrier of_block, of_warp[MOST / 32];
static unsigned char shuffled[MOST][8];

static inline void __syncthreads() { of_block.wait(); }

template <class T>
static T __shfl_xor_sync(unsigned, T value, int distance) {
    T other;
    memcpy(shuffled[threadIdx.x], &value, sizeof value);
    of_warp[threadIdx.x / 32].wait();
    memcpy(&other, shuffled[threadIdx.x ^ distance], sizeof other);
    of_warp[threadIdx.x / 32].wait();
    return other;
}

template <class... A>
struct Call {
    Call(void (*kernel)(A...), A... values) { kernel(values...); }
};
template <class... A>
static void call(void (*kernel)(A...), void** arguments) {
    Call<A...>{kernel, *(A*)*arguments++...};  // braces: from left to right
}

static void** arguments_of_thread;

static bool run_block(void (*thread)()) {
    of_block = {blockDim.x, 0, 0};
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) of_warp[warp] = {32, 0, 0};
    for (unsigned t = 0; t < blockDim.x; ++t) {
        ended[t] = false;
        getcontext(&threads[t]);
        threads[t].uc_stack.ss_sp = stacks[t], threads[t].uc_stack.ss_size = STACK, threads[t].uc_link = &turns;
        makecontext(&threads[t], thread, 0);
    }
    for (unsigned left = blockDim.x; left > 0;) {
        unsigned long before = progress;
        for (unsigned t = 0; t < blockDim.x; ++t) {
            if (ended[t]) continue;
            threadIdx.x = t;
            swapcontext(&turns, &threads[t]);
            left -= ended[t];
        }
        if (progress == before) return false;
    }
    return true;
}

// launch_KERNEL(...) is 0, or 1 where threads wait at a barrier that the others never reach.
#define HOST_LAUNCH(kernel, cooperates)                                                       \
    static void thread_of_##kernel() {                                                        \
        call(kernel, arguments_of_thread);                                                    \
        ended[threadIdx.x] = true, ++progress;                                                \
    }                                                                                         \
    extern "C" int launch_##kernel(unsigned grid, unsigned block, void** arguments) {         \
        gridDim.x = grid, blockDim.x = block, arguments_of_thread = arguments;                \
        for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x) {                               \
            if (cooperates && !run_block(thread_of_##kernel)) return 1;                       \
            for (threadIdx.x = 0; !cooperates && threadIdx.x < block; ++threadIdx.x)          \
                call(kernel, arguments);                                                      \
        }                                                                                     \
        return 0;                                                                             \
    }
