"""Tests of the experiments: the command line as a user meets it, and the parts it is made of."""
