"""Train CIFAR-100 with a softmax or a Gumbel-softmax head as one of two reports did: `python train_cifar.py --help`."""

import sys

if __name__ == "__main__":  # worker processes import this file, and need nothing of it
    from scratchnet.experiments.cli import main

    sys.exit(main())
