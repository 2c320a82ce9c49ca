"""Train CIFAR-100 with a softmax or a Gumbel-softmax head as one of two reports did: `python train_cifar.py --help`."""

import signal
import sys

if __name__ == "__main__":  # worker processes import this file, and need nothing of it
    try:
        from scratchnet.experiments.cli import main

        status = main()
        for signum in signal.SIGINT, signal.SIGTERM:  # all is done, and Python takes a while to end
            signal.signal(signum, signal.SIG_IGN)
    except KeyboardInterrupt:  # while modules are imported, which takes a second
        print("error: interrupted", file=sys.stderr)
        status = 130
    except (ImportError, MemoryError) as error:
        print(f"error: cannot start ({error}): install what is missing, or free some memory", file=sys.stderr)
        status = 1
    sys.exit(status)
