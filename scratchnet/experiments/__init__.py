"""The two reports as experiments: recipes, one run, its metrics, files and figures, and the command line."""

from scratchnet.experiments.config import Config, configure
from scratchnet.experiments.published import Report
from scratchnet.experiments.recipes import RECIPES, Recipe
from scratchnet.experiments.result import Result
from scratchnet.experiments.run import Observer, run_experiment

__all__ = ["RECIPES", "Config", "Observer", "Recipe", "Report", "Result", "configure", "run_experiment"]
