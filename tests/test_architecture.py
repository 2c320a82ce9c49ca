"""The imports point the way docs/design.md says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "scratchnet"
FLOORS = [  # from the bottom up; a module may import its own floor and those below
    {"errors", "arguments"},
    {"backend", "sealed"},
    {"kernels", "initializers", "schedules", "data"},
    {"layers"},
    {"heads", "optimizers"},
    {"on_gpu", "gradcheck", "training"},
    {"experiments", "classifier", "exchange"},
]
FOR_OTHER_TOOLS = {"classifier", "exchange"}
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    """Full names of what a file imports from this package or from CuPy."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports(path):
        if name.split(".")[0] == "cupy":
            assert own == "backend", f"{path} imports CuPy"
        if name.startswith("scratchnet.") and room_of(name) in LEVEL:
            assert LEVEL[room_of(name)] <= LEVEL[own], f"{path} imports {name}, which is above it"
            assert room_of(name) not in FOR_OTHER_TOOLS - {own}, f"{path} imports {name}, which is for other tools"


def test_every_room_has_its_floor() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert rooms == set(LEVEL)


def test_only_what_is_asked_for_is_imported() -> None:
    """Defining a network needs neither CuPy nor matplotlib, scikit-learn, a progress bar or a process."""
    heavy = "cupy", "matplotlib", "sklearn", "tqdm", "torch", "multiprocessing.context"
    code = f"import sys, scratchnet; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
