"""What K classes cost: operations, milliseconds, and seconds to a clean cross-entropy. `docs/cost.md` says what came.

    python -m tests.benchmarks.classes operations
    python -m tests.benchmarks.classes milliseconds --figure docs/figures/classes.png
    python -m tests.benchmarks.classes prediction
    python -m tests.benchmarks.classes share
    python -m tests.benchmarks.classes pairs --output FOLDER
    python -m tests.benchmarks.classes groupings --output FOLDER

CPU only, one thread: on a GPU a head is a kernel or two of a graph, which a clock out here cannot see.
"""
