"""The layout of the code: columns, assignments, sizes of functions and files, complexity."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("vi_jax", "experiments", "configs", "benchmarks", "docs", "tests")
COLUMNS = 100
PRAGMA = re.compile(r"  # (noqa|type: ignore).*")  # does not count
FUNCTION_LINES = 60  # without the docstring; outside tests
COMMAND_LINES = 100
FILE_LINES = 300  # outside tests
UNPACKED = ("vi_jax/",)  # no conditional expression or walrus in an argument or a condition
COMPLEXITY = 12  # branches of a function and of those inside it, plus one; outside tests

# {path or path:function -> reason}: what is over a limit. Take an entry out when it no longer is.
OVER: dict[str, str] = {}
BRANCHES = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.comprehension,
    ast.match_case,
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def files():
    """{path within the repository: source} of every file."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def functions(tree, prefix=""):
    """(qualified name, node) of every function that is not inside another one."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, FUNCTIONS):
            yield f"{prefix}{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        elif not isinstance(node, ast.expr):
            yield from functions(node, prefix)


def num_lines(function):
    """Lines from `def` to the end, without the docstring."""
    size = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        size -= first.end_lineno - first.lineno + 1
    return size


def complexity(function):
    """Cyclomatic complexity: 1, one for each branch, and one for each further operand of a Boolean
    operation (McCabe 1976); those of functions inside are added.
    """
    nodes = list(ast.walk(function))
    operands = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    return 1 + operands + sum(isinstance(node, BRANCHES) for node in nodes)


def parallel_assignments(source):
    """Lines of `a, b = x, y`: statements that assign each name a value of its own."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
    ]


def packed(source):
    """Lines with a conditional expression or a walrus inside an argument list or a condition, or
    with one conditional expression directly inside another.
    """
    lines = set()
    for node in ast.walk(ast.parse(source)):
        inner = []
        if isinstance(node, ast.Call):
            inner = [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
            inner = list(ast.walk(node.test))
        if isinstance(node, ast.IfExp):
            inner += [node.body, node.orelse]
        lines |= {each.lineno for each in inner if isinstance(each, (ast.IfExp, ast.NamedExpr))}
    return sorted(lines)


def over(path, source):
    """{what is over a limit: sentence} of one file."""
    found = {}
    if path.startswith("tests/"):
        return found
    size = source.count("\n")
    if size > FILE_LINES:
        found[path] = f"{path} has {size} lines, more than {FILE_LINES}"
    for name, node in functions(ast.parse(source)):
        lines = num_lines(node)
        branches = complexity(node)
        if lines > FUNCTION_LINES or branches > COMPLEXITY:
            found[f"{path}:{name}"] = (
                f"{path}:{name} has {lines} lines (at most {FUNCTION_LINES}) and a complexity of "
                f"{branches} (at most {COMPLEXITY})"
            )
    return found


def test_lines_are_at_most_100_columns():
    long = [
        f"{path}:{number}"
        for path, source in files().items()
        for number, line in enumerate(source.splitlines(), 1)
        if len(PRAGMA.sub("", line)) > COLUMNS
    ]
    assert not long, f"more than {COLUMNS} columns: {', '.join(long)}"


def test_a_command_is_its_flags_and_a_call():
    """What a command does is in the rooms of experiments/."""
    sizes = {
        path: source.count("\n")
        for path, source in files().items()
        if re.fullmatch(r"experiments/\w+\.py", path) and '__name__ == "__main__"' in source
    }
    assert len(sizes) >= 5
    long = [f"{path} has {size} lines" for path, size in sizes.items() if size >= COMMAND_LINES]
    assert not long, f"a command has fewer than {COMMAND_LINES} lines: {', '.join(long)}"


@pytest.mark.integration
def test_an_assignment_is_of_one_value():
    found = [
        f"{path}:{line}"
        for path, source in files().items()
        for line in parallel_assignments(source)
    ]
    assert not found, f"one assignment a statement; parallel ones at {', '.join(found)}"


def test_arguments_and_conditions_are_not_packed():
    found = [
        f"{path}:{line}"
        for path, source in files().items()
        if path.startswith(UNPACKED)
        for line in packed(source)
    ]
    assert not found, f"give the value a name in a line of its own: {', '.join(found)}"


def test_functions_and_files_are_short_and_simple():
    found = {}
    for path, source in files().items():
        found.update(over(path, source))
    new = [sentence for name, sentence in found.items() if name not in OVER]
    assert not new, "\n".join(new)
    gone = sorted(set(OVER) - set(found))
    assert not gone, f"no longer over a limit, take it out of OVER: {', '.join(gone)}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(x):\n    return x", 1),
        ("def f(x):\n    return 1 if x and not x or 2 else 3", 4),
        ("def f(x):\n    for a in x:\n        if a:\n            pass", 3),
        ("def f(x):\n    def g():\n        while x:\n            pass\n    return g", 2),
        ("def f(x):\n    return [a for a in x if a]", 2),
    ],
)
def test_complexity_counts_branches(source, expected):
    assert complexity(ast.parse(source).body[0]) == expected


def test_what_is_over_a_limit_is_seen():
    body = "\n".join(["    x = 1"] * 61)
    assert over("vi_jax/a.py", f"class A:\n  def f():\n{body}") == {
        "vi_jax/a.py:A.f": (
            "vi_jax/a.py:A.f has 62 lines (at most 60) and a complexity of 1 (at most 12)"
        )
    }
    assert list(over("vi_jax/a.py", "\n" * 301)) == ["vi_jax/a.py"]
    assert not over("tests/test_a.py", "\n" * 301)
    assert parallel_assignments("a, b = f()\na, b = 1, 2\na = 1, 2") == [2]
    assert packed("f(1 if a else 2)\nif (b := c):\n    x = 1 if a else (2 if b else 3)\nf(a)") == [
        1,
        2,
        3,
    ]
