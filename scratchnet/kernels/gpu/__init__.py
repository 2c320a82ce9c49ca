"""The kernels of a GPU: CUDA sources, and a launcher for each with the contract of its counterpart on the CPU."""
