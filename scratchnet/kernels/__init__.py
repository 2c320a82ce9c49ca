"""The work behind the equations: im2col for any convolution, Winograd for 3x3, CUDA for a GPU."""
