"""Function signatures read from source files, without importing them.

A config names functions. Whether a name exists, and which arguments it takes, is known from the
syntax tree alone, so that a mistake is answered before JAX is imported, and nothing of a file is
run to find out.
"""

import ast
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vi_jax.files import read_bytes

NUMBER = "a whole number"
NUMBERS = "a tuple of whole numbers"
SIZES = {"int": NUMBER, "Sequence[int]": NUMBERS, "tuple[int, ...]": NUMBERS}  # by annotation
MAX_HOPS = 12  # re-exports that are followed from a package's __init__ to a definition


class Parameter(NamedTuple):
    """One argument of a function."""

    name: str
    is_required: bool
    default: str  # its source text; "" where there is none
    annotation: str = ""  # likewise


class Signature(NamedTuple):
    """What a function takes."""

    function: str
    file: Path
    parameters: dict[str, Parameter]
    takes_any: bool  # it has **kwargs
    summary: str  # the first sentence of its docstring

    def describe(self) -> str:
        """`name(a, b=1)`, for an error message."""
        shown = [
            parameter.name if parameter.is_required else f"{parameter.name}={parameter.default}"
            for parameter in self.parameters.values()
        ]
        return f"{self.function}({', '.join(shown)})"


class NoSuchFunction(LookupError):
    """The module or the function is not there."""


def find(module: str, name: str) -> Signature:
    """The signature of a module's function, through re-exports and plain assignments.

    Args:
      module: dotted, such as "vi_jax.bounds" or "optax".
      name: of a function or a class there.

    Raises:
      NoSuchFunction: there is no such module, or it defines no such function.
    """
    return _follow(module_file(module), module, name, MAX_HOPS)


def find_in_file(file: Path, name: str) -> Signature:
    """The signature of a function in a Python file.

    Raises:
      NoSuchFunction: the file is absent, or defines no such function.
    """
    return _follow(file, "", name, MAX_HOPS)


def members(module: str) -> tuple[str, ...]:
    """The public names of a package: its `__all__`.

    Raises:
      NoSuchFunction: there is no such module, or it has no `__all__`.
    """
    for node in _tree(module_file(module)).body:
        is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if is_all:
            return tuple(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    raise NoSuchFunction(f"{module} lists no public names (__all__)")


def functions_in_file(file: Path) -> list[str]:
    """The names of the public functions that a file defines at its top level."""
    tree = _tree(file)
    found = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [name for name in found if not name.startswith("_")]


def wrong_sizes(signature: Signature, given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The arguments that are annotated as whole numbers and given something else, and what they
    take.
    """
    found = []
    for name in signature.parameters.keys() & given.keys():
        wanted = SIZES.get(signature.parameters[name].annotation)
        value = given[name]
        values = (value,) if wanted == NUMBER else value
        is_several = isinstance(values, list | tuple)
        is_whole = is_several and all(type(each) is int for each in values)
        if wanted is not None and not is_whole:
            found.append((name, wanted))
    return found


@functools.cache
def module_file(module: str) -> Path:
    """The source file of a module; of its packages nothing is imported.

    Raises:
      NoSuchFunction: it is not installed, or has no Python source.
    """
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top) if top.isidentifier() else None
    if spec is None:
        raise NoSuchFunction(f"there is no module {module}")
    file = Path(spec.origin or "")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    for part in rest:
        (present, packages) = _inside(folders, part)
        if not part.isidentifier() or not (present or packages):
            raise NoSuchFunction(f"there is no module {module}")
        file = present[0] if present else Path()
        folders = packages
    if file.suffix != ".py":
        raise NoSuchFunction(f"{module} has no Python source file")
    return file


def _inside(folders: list[Path], name: str) -> tuple[list[Path], list[Path]]:
    """The source files of a module in the folders of a package, and its own folders."""
    candidates = [folder / name for folder in folders]
    packages = [folder for folder in candidates if folder.is_dir()]
    files = [folder / "__init__.py" for folder in packages]
    files += [folder.with_name(f"{name}.py") for folder in candidates]
    return [each for each in files if each.is_file()], packages


@functools.lru_cache(maxsize=512)
def _tree_at(file: Path, modified: int) -> ast.Module:
    del modified  # part of the key: a file that was edited is read again
    try:
        return ast.parse(read_bytes(file, follow=True), str(file))
    except (OSError, SyntaxError, ValueError) as error:
        raise NoSuchFunction(f"{file} is no Python file ({error})") from None


def _tree(file: Path) -> ast.Module:
    try:
        modified = file.stat().st_mtime_ns
    except OSError as error:
        raise NoSuchFunction(f"{file} cannot be read ({error.strerror})") from None
    return _tree_at(file, modified)


def _follow(file: Path, module: str, name: str, hops: int) -> Signature:
    """The definition behind a name, hop by hop."""
    if hops == 0:
        raise NoSuchFunction(f"{module}.{name} is re-exported too often to be followed")
    defined = _definition(file, name)
    if defined is not None:
        return defined
    imported = None
    for node in ast.walk(_tree(file)):
        match node:
            case ast.ImportFrom():
                imported = _of_import(node, name, file, module) or imported
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                other = _other_name(value)
                if other is not None:
                    return _follow(file, module, other, hops - 1)
                imported = _of_attribute(value, file, module) or imported
    if imported is None:
        raise NoSuchFunction(f"{module or file} defines no function {name}")
    (source, original) = imported
    return _follow(module_file(source), source, original, hops - 1)


def _definition(file: Path, name: str) -> Signature | None:
    """Of a function at the top of a file, or of a class; None where there is neither."""
    tree = _tree(file)
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=defined) if defined == name and node in tree.body:
                return _of_function(node, file)
            case ast.ClassDef(name=defined) if defined == name:
                return _of_class(node, file)
    return None


def _other_name(value: ast.expr) -> str | None:
    """The name in the same file that an assigned value is, by itself or in a `partial`."""
    match value:
        case ast.Name(id=other):
            return other
        case ast.Call(func=called, args=[ast.Name(id=other), *_]):
            return other if ast.unparse(called).endswith("partial") else None
    return None


def _of_import(node: ast.ImportFrom, name: str, file: Path, module: str) -> tuple[str, str] | None:
    """(module, name there) of a name that an import brings; None of another."""
    for alias in node.names:
        if (alias.asname or alias.name) == name:
            return _absolute(node, module, file), alias.name
    return None


def _of_attribute(value: ast.expr, file: Path, module: str) -> tuple[str, str] | None:
    """(module, name) of `alias.name`, where alias is an imported module; None of another value."""
    if not isinstance(value, ast.Attribute):
        return None
    alias, _, name = ast.unparse(value).rpartition(".")
    for node in _tree(file).body:
        if isinstance(node, ast.Import):
            for each in node.names:
                if (each.asname or each.name) == alias:
                    return each.name, name
        if isinstance(node, ast.ImportFrom):
            for each in node.names:
                if (each.asname or each.name) == alias:
                    return f"{_absolute(node, module, file)}.{each.name}", name
    return None


def _absolute(node: ast.ImportFrom, module: str, file: Path) -> str:
    """The dotted module that `from X import ...` names, relative imports resolved."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    if file.name != "__init__.py":
        parts = parts[:-1]
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def _of_function(node: ast.FunctionDef, file: Path) -> Signature:
    positional = [*node.args.posonlyargs, *node.args.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(node.args.defaults))
    defaults += node.args.defaults
    pairs = [*zip(positional, defaults, strict=True)]
    pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    parameters = {
        argument.arg: Parameter(
            argument.arg,
            default is None,
            "" if default is None else ast.unparse(default),
            "" if argument.annotation is None else ast.unparse(argument.annotation),
        )
        for argument, default in pairs
    }
    return Signature(node.name, file, parameters, node.args.kwarg is not None, _summary(node))


def _of_class(node: ast.ClassDef, file: Path) -> Signature:
    """What a class takes: its __init__, else its annotated fields."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            signature = _of_function(each, file)
            rest = dict(list(signature.parameters.items())[1:])
            return signature._replace(function=node.name, parameters=rest)
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    parameters = {
        ast.unparse(each.target): Parameter(
            ast.unparse(each.target),
            each.value is None,
            "" if each.value is None else ast.unparse(each.value),
        )
        for each in fields
    }
    return Signature(node.name, file, parameters, False, _summary(node))


def _summary(node: ast.FunctionDef | ast.ClassDef) -> str:
    text = ast.get_docstring(node) or ""
    return " ".join(text.split("\n\n")[0].split())
