"""The work behind the equations: plain loops as the reference, im2col for any convolution, Winograd for 3x3."""
