"""Hypothesis draws the same examples in every run, few enough for the whole suite to stay under a minute."""

from hypothesis import settings

settings.register_profile("scratchnet", deadline=None, derandomize=True, max_examples=40, database=None)
settings.load_profile("scratchnet")
