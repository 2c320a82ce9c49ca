"""How much code there is, and how much there may be: `python -m tests.size`.

A line of code is one that is neither blank nor comment nor docstring. The library is everything in `scratchnet/` but
`experiments/` and what speaks to other tools.
"""

import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "scratchnet"
BUDGET = {
    "library": 4580,
    "for other tools": 380,
    "experiments": 1470,
}  # what it has; what is added is paid for by what is made simpler
PARTS = {"experiments": "experiments", "exchange": "for other tools", "classifier.py": "for other tools"}
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of_code(source: str) -> int:
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docstrings |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def sizes() -> tuple[Counter[str], Counter[str]]:
    """Lines by part, and by file within the package."""
    parts: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        files[str(inside)] = lines_of_code(path.read_text(encoding="utf-8"))
        parts[PARTS.get(inside.parts[0], "library")] += files[str(inside)]
    return parts, files


def main() -> None:
    parts, files = sizes()
    for file, lines in files.most_common():
        print(f"{lines:6,}  {file}")
    for part, limit in BUDGET.items():
        print(f"{parts[part]:6,}  {part} (at most {limit:,})")


if __name__ == "__main__":
    main()
