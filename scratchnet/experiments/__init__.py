"""The two reports as experiments: recipes, one run and its files, studies of many, their report, the command line."""

from scratchnet.experiments.config import Config, Settings, configure
from scratchnet.experiments.published import Report
from scratchnet.experiments.recipes import RECIPES, Recipe
from scratchnet.experiments.report import write_report
from scratchnet.experiments.result import Result
from scratchnet.experiments.run import Observer, run_experiment
from scratchnet.experiments.study import plan, run_study

__all__ = [
    "RECIPES", "Config", "Observer", "Recipe", "Report", "Result", "Settings", "configure", "plan", "run_experiment",
    "run_study", "write_report",
]  # fmt: skip
