"""What every benchmark prints: the machine and the versions, and plain aligned tables."""

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from joblib import cpu_count
from threadpoolctl import threadpool_info

QUIET = 0.5  # a load average above it means that something else is running


def machine() -> str:
    """Processor, cores, libraries and load average, with a warning where the machine is busy."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "unknown")
    blas = [f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}" for pool in threadpool_info()]
    load = os.getloadavg()[0]
    parts = (
        f"{model}, {cpu_count(only_physical_cores=True)} cores, {os.cpu_count()} threads",
        f"Python {platform.python_version()}",
        f"NumPy {np.__version__} ({', '.join(blas).strip()})",
        *(f"{name} {_version(package)}" for name, package in (("PyTorch", "torch"), ("TensorFlow", "tensorflow"))),
        f"load average {load:.2f}"
        + ("; SOMETHING ELSE IS OR WAS RUNNING: do not trust the figures" if load > QUIET else ""),
    )
    return ", ".join(parts)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def table(header: Sequence[str], rows: Iterable[Sequence[str | float]], decimals: int = 1) -> str:
    """Aligned columns, the first to the left and numbers to the right."""
    lines = [list(header), *([_cell(value, decimals) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    form = f"  {{:{widths[0]}}}" + "".join(f"  {{:>{width}}}" for width in widths[1:])
    return "\n".join(form.format(*line).rstrip() for line in lines)


def _cell(value: str | float, decimals: int) -> str:
    return value if isinstance(value, str) else f"{value:,.{0 if isinstance(value, int) else decimals}f}"


SPREAD = "ratio", "25 %", "75 %", "min", "max"


def spread(ratios: np.ndarray) -> list[str]:
    """Cells for the median of the rounds' ratios, their quartiles and their extremes."""
    return [f"{value:.3f}" for value in np.quantile(ratios, [0.5, 0.25, 0.75, 0, 1])]
