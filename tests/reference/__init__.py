"""What every kernel must compute, in plain loops, and what the tests of the layers share: drawn shapes and checks."""
