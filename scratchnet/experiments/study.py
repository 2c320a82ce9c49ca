"""A study: heads of the recipes over several seeds, each run done once and several at a time."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread
from typing import Any

from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from tqdm import tqdm

from scratchnet.errors import ScratchnetError
from scratchnet.experiments.config import ANNEAL, FOUND, Config, Temperature, configure, differences, parameters
from scratchnet.experiments.reading import read_json
from scratchnet.experiments.recipes import RECIPES
from scratchnet.experiments.report.statistics import BASELINE
from scratchnet.experiments.result import METRICS, Metrics, Result
from scratchnet.experiments.run import Observer, run_experiment

TEMPERATURES: tuple[Temperature, ...] = 0.1, 0.5, 1.0, 2.0, ANNEAL
COMPARED = BASELINE, "gumbel"  # of a recipe that no report has figures of
BACKENDS = "loky", "dask", "ray"
IDLE = 10.0  # seconds after which a process without a run ends, should the one that began the study be gone
LOOK = 1.0  # seconds between two looks at what the runs have written


def plan(
    recipes: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    heads: Sequence[str] | None = None,
    temperature_study: str | None = None,
    **settings: Any,
) -> list[Config]:
    """The runs of a study, in `folder`/runs: recipes x heads x seeds, and for one recipe x temperatures x seeds.

    `heads` are compared with softmax, by default those of which the recipe has a report, or gumbel.
    `settings` are those of `configure`. Raises ValueError for a setting that cannot be.
    """

    def compared(recipe: str) -> list[str]:
        return list(dict.fromkeys([BASELINE, *((RECIPES[recipe].reports or COMPARED) if heads is None else heads)]))

    cases: list[tuple[str, str, Temperature | None]]
    cases = [(recipe, head, None) for recipe in recipes for head in compared(recipe)]
    if temperature_study is not None:
        tempered = [head for head in compared(temperature_study) if "temperature" in parameters(head)]
        cases += [(temperature_study, head, temperature) for head in tempered for temperature in TEMPERATURES]
    configs: dict[Path, Config] = {}
    settings = settings | {"resume": True}  # a study that is run again goes on where it was
    for recipe, head, temperature in cases:
        if temperature == RECIPES[recipe].temperature:
            temperature = None
        case = f"{recipe}-{head}" if temperature is None else f"{recipe}-{head}-temperature-{temperature}"
        for seed in seeds:
            output = folder / "runs" / f"{case}-seed{seed}"
            configs[output] = configure(recipe, head, temperature=temperature, seed=seed, output=output, **settings)
    return list(configs.values())


def run_study(configs: Sequence[Config], jobs: int | None = None, backend: str = "loky") -> list[Result]:
    """Do the runs that are not finished yet, `jobs` at a time, and return the results of all.

    `backend` names what joblib hands the runs to: "loky" processes on this machine (by default one a physical core),
    "dask" the cluster at $DASK_SCHEDULER_ADDRESS, or a local one, "ray" that at $RAY_ADDRESS, or a local one. A
    cluster's machines must see the same folders. Raises ScratchnetError, once all others are done, where a run failed.
    """
    unfinished = sorted(
        (config for config in configs if not _finished(config)), key=lambda config: config.settings.epochs, reverse=True
    )  # the longest first, lest one is left running alone
    if unfinished:
        with _backend(backend, jobs), _progress(configs):
            failures = Parallel(batch_size=1)(delayed(_attempt)(config) for config in unfinished)
        failures = [failure for failure in failures if failure is not None]
        if failures:
            raise ScratchnetError(f"{len(failures)} of {len(unfinished)} runs failed: {'; '.join(failures)}")
    results = [Result.read(config.output) for config in configs]
    data = {(result.settings.data, result.settings.data_digest) for result in results}
    if len(names := sorted(f"{name} {digest[:12]}".strip() for name, digest in data)) > 1:
        raise ScratchnetError(f"the runs of this study are on {' and '.join(names)}: name one data set with --data")
    return results


class _Attended(Observer):
    """Ends a run, with a checkpoint, once the process that began the study is gone."""

    def __init__(self) -> None:
        self.parent = os.getppid()

    def step(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        if self.alone():
            raise KeyboardInterrupt

    def alone(self) -> bool:
        return os.getppid() != self.parent


def _attempt(config: Config) -> str | None:
    """Do one run; return what went wrong, if something did that others need not share."""
    observer = _Attended()
    try:
        run_experiment(config, observer)
    except ScratchnetError as error:
        return f"{config.output.name}: {error}"
    except KeyboardInterrupt:
        if observer.alone():
            os._exit(1)  # else the process would wait for more to do
        raise
    return None


def _finished(config: Config) -> bool:
    """Whether the folder holds this very run; ScratchnetError where it holds another finished one."""
    if _written(config).final is None:
        return False
    found, wanted = (asdict(each.settings) for each in (Result.read(config.output), config))
    ours = {name: value for name, value in wanted.items() if name not in FOUND}
    if differing := differences(ours, found):
        raise ScratchnetError(
            f"{config.output} has a finished run whose settings (in brackets) differ from this study's: "
            f"{', '.join(differing)}; choose another folder with --output"
        )
    return True


def _written(config: Config) -> Metrics:
    """What the run has written so far."""
    try:
        return read_json(config.output / METRICS, Metrics)
    except ScratchnetError:
        return Metrics(config.settings, {})


@contextmanager
def _progress(configs: Sequence[Config]) -> Iterator[None]:
    """A bar of the epochs done and the time left, and a line for each run that finishes, from what the runs write."""
    over, total = Event(), sum(config.settings.epochs for config in configs)
    done = {config.output: _written(config) for config in configs}
    counted = sum(len(metrics.epochs) for metrics in done.values())

    def look() -> None:
        for config in configs:
            before, now = done[config.output], _written(config)
            done[config.output] = now
            bar.update(len(now.epochs) - len(before.epochs))
            if before.final is None and now.final is not None:
                bar.write(
                    f"{config.output.name}: accuracy {now.final['accuracy']:.4f} by argmax, "
                    f"{now.final['expected_sampled_accuracy']:.4f} expected with the noise on"
                )
        bar.set_description(f"{sum(each.final is not None for each in done.values())} of {len(configs)} runs")

    def watch() -> None:
        while not over.wait(LOOK):
            look()

    with tqdm(total=total, initial=counted, unit="epoch", file=sys.stderr) as bar:
        thread = Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            look()


@contextmanager
def _backend(name: str, jobs: int | None) -> Iterator[None]:
    """joblib set to run `jobs` tasks at a time on a backend, which is imported, and its cluster joined, only here."""
    if name == "loky":
        try:
            jobs = jobs or cpu_count(only_physical_cores=True)
            with parallel_config(name, n_jobs=jobs, inner_max_num_threads=1, idle_worker_timeout=IDLE):
                yield
        finally:
            get_reusable_executor().shutdown(wait=True)  # else its processes wait five minutes for more to do
        return
    cluster: AbstractContextManager[Any] = nullcontext()
    try:
        if name == "dask":
            from distributed import Client

            cluster = Client(threads_per_worker=1)
        else:
            from ray.util.joblib import register_ray

            register_ray()
    except ImportError as error:
        package = {"dask": "'scratchnet[cluster]'"}.get(name, name)
        raise ScratchnetError(f"backend {name} cannot be imported ({error}): pip install {package}") from error
    with cluster, parallel_config(name, n_jobs=jobs or -1):
        yield
