"""Fuzzes every reader guided by the code it reaches: `python -m tests.fuzz.guided --inputs 1000000` (extra `fuzz`).

Each reader gets an equal share of the inputs, in a process of its own and an empty folder. Prints a table; the status
is 1 if any input raised what is not documented, took code, files or the network into use, or took too long.
"""

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SECONDS = 10  # of the processor for one input; waiting for it is not counted
MAX_MEMORY = 1024  # MiB of the process, which with NumPy and the fuzzer's own tables takes 150 to begin with
MAX_BYTES = 1 << 16  # of an input
INSTRUMENTED = "scratchnet.data", "scratchnet.experiments", "pickle", "tarfile", "gzip", "safetensors"
REPORT = "report.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="for all readers together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader", help="the one reader to fuzz (default: all)")
    options = parser.parse_args()
    from tests.fuzz.readers import all_readers

    names = [reader.name for reader in all_readers() if options.reader in (None, reader.name)]
    share, failed = -(-options.inputs // len(names)), False
    columns = "{:16}" + 8 * "{:>11}" + "  {}"
    titles = "inputs", "read", "refused", "others", "edges", "MiB more", "slowest ms", "inputs/s"
    print(columns.format("reader", *titles, "refused with"), flush=True)
    for name in names:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
            command = [sys.executable, "-W", "error", "-m", __spec__.name, "child", name, folder, str(share)]
            flags = [f"-seed={options.seed}", "-timeout=600", f"-rss_limit_mb={MAX_MEMORY}", "-verbosity=1"]
            flags += [f"-max_len={MAX_BYTES}", f"-artifact_prefix={folder}/", "-mutate_depth=3"]
            child = subprocess.run(command + flags, capture_output=True, text=True, check=False)
            path = Path(folder) / REPORT
            report = json.loads(path.read_text()) if path.exists() else None
        if child.returncode or report is None:
            failed = True
            print(f"{name}: ended with status {child.returncode}\n{child.stderr[-5000:]}")
            continue
        edges = re.findall(r"cov: (\d+)", child.stderr)[-1]
        outcomes, others = report["outcomes"], report["others"]
        read, failures = outcomes.pop("read", 0), report["failures"]
        refused = sum(outcomes.values())
        print(
            columns.format(
                name, read + refused + failures, read, refused, failures, edges,
                round(report["memory"]), round(1000 * report["slowest"]), round(report["speed"]), ", ".join(outcomes),
            ), flush=True,
        )  # fmt: skip
        for problem, content in others:
            failed = True
            print(f"  {problem}\n  input: {content}")
    return int(failed)


def child(name: str, folder: Path, inputs: int, flags: list[str]) -> None:
    """Fuzz one reader; the report is left in the folder."""
    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from tests.fuzz.mutations import mutate
        from tests.fuzz.readers import Room, all_readers

    reader = next(reader for reader in all_readers() if reader.name == name)
    place, corpus = folder / "room", folder / "corpus"
    for each in place, corpus:
        each.mkdir()
    for number, seed in enumerate(reader.seeds):
        (corpus / str(number)).write_bytes(seed)
    room, outcomes, others, slowest = Room(reader, place), Counter[str](), [], 0.0
    os.chdir(place)

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def one(content: bytes) -> None:
        nonlocal slowest
        start = time.process_time()
        try:
            outcomes[room.try_out(content)] += 1
        except Exception as error:
            others.append((f"{type(error).__name__}: {error}", content.hex()))
        slowest = max(slowest, taken := time.process_time() - start)
        if taken > SECONDS:
            others.append((f"{taken} seconds", content.hex()))
        if sum(outcomes.values()) + len(others) >= inputs:
            room.close()
            report = {"outcomes": outcomes, "others": others[:20], "failures": len(others), "slowest": slowest}
            report |= {"memory": peak() - before, "speed": inputs / (time.process_time() - began)}
            (folder / REPORT).write_text(json.dumps(report))
            os._exit(0)  # libFuzzer's own way out gives no word to Python

    def change(content: bytes, longest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        changed = atheris.Mutate(content, longest) if rng.random() < 0.2 else mutate(content, reader.seeds, rng)
        return (reader.mend(changed) if rng.random() < 0.9 else changed)[:longest]

    atheris.Setup([sys.argv[0], *flags, "-runs=-1", str(corpus)], one, custom_mutator=change)
    before, began = peak(), time.process_time()
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
    sys.exit(main())
