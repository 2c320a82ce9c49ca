"""Kill training at random moments, resume it until it is done, and compare its bits with those of a run left alone.

`python -m tests.reliability.kill --kills 200` prints what it did and found, and fails on any difference, on a process,
a piece of shared memory or a temporary file that stays behind, and on a run that ends as it should not. A run is
killed by SIGKILL to its first process, to a worker or to all processes at once, while it starts, trains or writes a
checkpoint, and stopped by SIGTERM and Ctrl-C. The same --seed draws the same moments, in parts of the time a whole run
takes; what the run is doing then depends on the machine.
"""

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability.harness import DIGITS, Run, asides, differing_bits, results, segments

EVERY = "--checkpoint-every", "7steps"
VALID, GUMBEL = ("--recipe", "valid-padding"), ("--head", "gumbel")
CASES = {
    "one process, softmax": ("--workers", 1),
    "two workers, gumbel": ("--workers", 2, *GUMBEL),
    "two workers, annealed": (
        "--workers",
        2,
        "--recipe",
        "valid-padding",
        "--head",
        "gumbel",
        "--temperature",
        "anneal",
    ),
}
KILLS_A_RUN = 12  # at most, before it is left to finish
STATUS = {"worker": 1, "SIGTERM": 128 + signal.SIGTERM, "Ctrl-C": 128 + signal.SIGINT}  # else that of a SIGKILL
SENTENCE = {"worker": "error: worker ", "SIGTERM": "error: interrupted", "Ctrl-C": "error: interrupted"}
KINDS = "start", "training", "writing", "all", "SIGTERM", "Ctrl-C", "worker"


@dataclass
class Findings:
    """What must be zero in the end, and what was done."""

    kills: Counter[str] = field(default_factory=Counter)
    unfinished_writes: int = 0  # kills that left a file aside for the next run to remove
    resumed: int = 0  # runs that went on from a checkpoint
    compared: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    def note(self, what: str, count: int, detail: object = "") -> None:
        self.wrong[what] += count
        if count:
            print(f"WRONG: {what}: {detail or count}", flush=True)

    def table(self) -> str:
        rows = [(f"kills: {kind}", self.kills[kind]) for kind in KINDS]
        rows += [("kills in all", self.kills.total()), ("of these with a file half written", self.unfinished_writes)]
        rows += [("runs resumed from a checkpoint", self.resumed), ("final results compared", self.compared)]
        return "\n".join(f"{name:36}{count:>8,}" for name, count in [*rows, *self.wrong.items()])


WRONG = (
    "differing bits", "leaked processes", "leaked shared memory", "leaked temporary files", "damaged files",
    "checkpoints lost", "wrong endings",
)  # fmt: skip


def kill(run: Run, kind: str, part: float, seconds: float) -> bool:
    """Kill a run at a moment; False where it had ended before. `seconds` are those of a whole training."""
    if kind == "start":
        time.sleep(part * 2)
    elif kind == "writing":
        if not run.writing():
            return False
        time.sleep(part * 0.03)
    else:
        if not run.training() or (kind == "worker" and not run.until(run.workers)):
            return False
        time.sleep(part * seconds / 3)
    if run.process.poll() is not None:
        return False
    if kind == "all":
        os.killpg(run.pid, signal.SIGKILL)
    elif kind == "Ctrl-C":
        os.killpg(run.pid, signal.SIGINT)
    elif kind == "worker":
        workers = run.workers()
        if not workers:
            return False
        os.kill(workers[int(part * 1e6) % len(workers)], signal.SIGKILL)
    else:
        run.process.send_signal(signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL)
    return True


def check_ending(run: Run, kind: str, findings: Findings) -> bool:
    """Wait for the end of a run that was killed; False where it came to its own end first."""
    status = run.wait()
    findings.note("leaked processes", len(run.survivors()))
    if status == 0:
        return False
    wanted = STATUS.get(kind, -signal.SIGKILL)
    sentence = run.error()
    if status != wanted or not sentence.startswith(SENTENCE.get(kind, "")):
        findings.note("wrong endings", 1, f"{kind}: exit status {status}, {sentence!r}")
    return True


def check_progress(run: Run, before: int, findings: Findings) -> int:
    """The step from which a run went on, which may not be before that of an earlier one."""
    match = re.search(r"going on after step ([\d,]+)", run.out())
    if match is None:
        if "starting from the beginning" in run.out():
            findings.note("checkpoints lost", int(before > 0), f"of step {before}")
        return before
    step = int(match[1].replace(",", ""))
    findings.note("checkpoints lost", int(step < before), f"after step {before} came step {step}")
    findings.resumed += 1
    return step


def leftovers(folder: Path, whole: Path) -> list[str]:
    """Files that a run that is done should have removed."""
    allowed = set(os.listdir(whole)) | {"checkpoint.previous.scratchnet"}
    return sorted(set(os.listdir(folder / "out")) - allowed) + os.listdir(folder / "tmp")


def campaign(kills: int, seed: int, epochs: int, cases: dict[str, tuple[object, ...]], folder: Path) -> Findings:
    """Run after run is killed, resumed and compared, until there have been enough kills."""
    draw, findings = random.Random(seed), Findings(wrong=Counter(dict.fromkeys(WRONG, 0)))
    memory, wholes, deck = segments(), {}, list[str]()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell, and then in the runs too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, (name, case) in enumerate(cases.items()):
        run = Run(folder / f"whole {number}", *DIGITS, *EVERY, "--epochs", epochs, *case)
        assert run.training(), run.error()
        began = time.monotonic()
        assert run.wait() == 0, run.error()
        wholes[name] = run.output, results(run.output), time.monotonic() - began
        print(f"{name}: left alone it trains for {wholes[name][2]:.1f} s", flush=True)
    trial = 0
    while findings.kills.total() < kills:
        name = list(cases)[trial % len(cases)]
        (whole, bits, seconds), case = wholes[name], cases[name]
        home, step, killed = folder / f"trial {trial}", 0, list[str]()
        trial += 1
        assert trial <= 9 + kills, "most runs end before they are killed: give them more --epochs"
        while True:
            run = Run(home, *DIGITS, *EVERY, "--epochs", epochs, *case, "--resume")
            if findings.kills.total() < kills and len(killed) < KILLS_A_RUN:
                deck = deck or draw.sample(KINDS, len(KINDS))
                kind = next((each for each in deck if each != "worker" or 2 in case), "training")
                part = draw.random()
                if kill(run, kind, part, seconds) and check_ending(run, kind, findings):
                    if kind in deck:
                        deck.remove(kind)
                    killed.append(f"{kind} {part:.3f}")
                    findings.kills[kind] += 1
                    findings.unfinished_writes += bool(asides(home / "out"))
                    step = check_progress(run, step, findings)
                    try:
                        results(home / "out")
                    except Exception as error:  # whatever a reader may say of a damaged file
                        findings.note("damaged files", 1, repr(error))
                    continue
            whole_run = run.wait() == 0
            check_progress(run, step, findings)
            findings.note("leaked processes", len(run.survivors()))
            findings.note("wrong endings", int(not whole_run), f"left alone: {run.wait()}, {run.error()!r}")
            break
        findings.compared += 1
        findings.note("differing bits", differing_bits(results(home / "out"), bits), f"{name} after {killed}")
        left = leftovers(home, whole)
        findings.note("leaked temporary files", len(left), left)
        print(f"{findings.kills.total():4} kills; {name}: {', '.join(killed) or 'none'}", flush=True)
        shutil.rmtree(home)
    new = segments() - memory
    findings.note("leaked shared memory", len(new), new)
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8, help="of a run, which has 23 steps in each")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        findings = campaign(arguments.kills, arguments.seed, arguments.epochs, CASES, Path(folder))
    print(f"\nseed {arguments.seed}, {time.monotonic() - began:.0f} s\n{findings.table()}")
    return int(findings.wrong.total() > 0)


if __name__ == "__main__":
    sys.exit(main())
