// Adam on a flat vector, a thread a parameter; docs/derivations/adam.md has the equations. What changes from step to
// step is read from `scalars`: 1 - beta_1, beta_2, 1 - beta_2, rate, floor. Constant: real.

extern "C" __global__ void adam(int threads, const real* scalars, const real* gradient, real* parameter, real* m,
                                real* v) {
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= threads) return;
    real g = gradient[e];
    m[e] += (g - m[e]) * scalars[0];
    v[e] = v[e] * scalars[1] + g * g * scalars[2];
    parameter[e] -= m[e] / (sqrt(v[e]) + scalars[4]) * scalars[3];
}
