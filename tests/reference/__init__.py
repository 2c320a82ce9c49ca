"""Tests of the reference kernels, and what the tests of the layers share: drawn shapes and checks."""
