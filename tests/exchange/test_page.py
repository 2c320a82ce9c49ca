"""The examples of docs/exchange.md that need PyTorch or Keras; its doctest runs the others."""

import doctest
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "exchange.md").read_text(encoding="utf-8")
BLOCKS = [code for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if ">>>" not in code]


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_its_examples_run(framework: str) -> None:
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    names: dict[str, Any] = {"__name__": "exchange"}
    for example in doctest.DocTestParser().get_examples(PAGE):
        if example.source.startswith(("from ", "def ", "network = ")):
            exec(example.source, names)
    before = names["network"].weights()
    of_it = [code for code in BLOCKS if f"import {framework}" in code or (framework == "torch" and "nn." in code)]
    assert len(of_it) == {"torch": 2, "keras": 1}[framework]
    for code in of_it:
        exec(code, names)
    for name, array in names["network"].weights().items():
        np.testing.assert_array_equal(array, before[name])


def test_every_layer_with_weights_is_in_its_table() -> None:
    from scratchnet.exchange.layouts import TORCH

    for layer, rows in TORCH.items():
        (line,) = re.findall(rf"^\| {layer.__name__} \|.*$", PAGE, re.MULTILINE)
        for _, _, theirs in rows:
            assert f"`{theirs}`" in line, (layer.__name__, theirs)
