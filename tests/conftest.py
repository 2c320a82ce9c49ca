"""What all tests have in common.

Hypothesis draws the same examples in every run, few enough for the whole suite to stay under five minutes. Ctrl-C works
even where the suite was started with SIGINT ignored, as a shell starts its background jobs.
"""

import signal

from hypothesis import settings

settings.register_profile("scratchnet", deadline=None, derandomize=True, max_examples=40, database=None)
settings.load_profile("scratchnet")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
