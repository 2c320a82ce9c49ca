"""The package stays small enough to be read in two evenings."""

from tests.size import BUDGET, lines_of_code, sizes


def test_the_package_is_within_its_budget() -> None:
    parts, _ = sizes()
    assert set(parts) == set(BUDGET)
    over = {part: f"{lines:,} lines" for part, lines in parts.items() if lines > BUDGET[part]}
    assert not over, f"python -m tests.size says where they are: {over}"


def test_blanks_comments_and_docstrings_are_no_code() -> None:
    module = '"""Of a module.\n\nLong.\n"""\n\nx = 1  # a remark\n# another\n\n\n'
    source = module + 'def f():\n    """Of a function."""\n    return """\n    a text"""\n'
    assert lines_of_code(source) == 4
