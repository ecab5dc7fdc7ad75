"""The reference: a page for each room and each public module, written from the docstrings.

Pages are Markdown in docs/reference/, which git ignores; Sphinx's Python domain makes the index
and the targets, its viewcode the links to the source.
"""

import ast
import inspect
import textwrap
from pathlib import Path
from typing import Any

from docs.site import docstrings, public

FOLDER = "reference"
_NOTE = "<!-- written by docs/site/reference.py -->"


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this: the pages are written before Sphinx looks for pages."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / FOLDER))
    app.connect("viewcode-follow-imported", _module_with_source)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _module_with_source(app: Any, module: str, name: str) -> str | None:
    """The module itself for aliases, whose types are defined elsewhere; None: Sphinx looks."""
    found = public.objects().get(f"{module}.{name}")
    home = getattr(found.value, "__module__", "vi_jax") if found else "vi_jax"
    return None if home.startswith("vi_jax") else module


def write(folder: Path) -> None:
    """Writes every page whose text has changed, and removes those of modules that are gone."""
    folder.mkdir(exist_ok=True)
    texts = {"index.md": index_page()}
    for dotted in public.modules():
        texts[file_name(dotted)] = module_page(dotted)
    for path in folder.glob("*.md"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def file_name(dotted: str) -> str:
    return dotted.removeprefix("vi_jax.") + ".md"


def index_page() -> str:
    """The rooms with what each is, and the names that `vi_jax` itself has."""
    rooms = public.rooms()
    lines = [_NOTE, "# Reference", "", "```python\nimport vi_jax as vi\n```", ""]
    lines += ["## At the top", "", "| name | what |", "|---|---|"]
    for name in public.names_of(public.vi):
        home = public.addresses().get(name)
        if home in public.objects():
            sentence = _summary(public.objects()[home].value)
            lines.append(f"| `vi.{name}` | {sentence} |")
    lines += ["", "## Rooms", "", "| room | what |", "|---|---|"]
    for room in rooms:
        module = public.modules()[f"vi_jax.{room}"]
        lines.append(f"| [`vi.{room}`]({room}.md) | {_summary(module)} |")
    lines += ["", "```{toctree}", ":hidden:", "", *rooms, "```", ""]
    return "\n".join(lines)


def module_page(dotted: str) -> str:
    """The page of a room or of a public module in one."""
    module = public.modules()[dotted]
    name = dotted.removeprefix("vi_jax.")
    inner = [other for other in public.modules() if other.startswith(dotted + ".")]
    objects = [each for each in public.objects().values() if each.module == dotted]
    lines = [_NOTE, f"# vi.{name}", "", f":::{{py:module}} {dotted}\n:::", ""]
    lines += [docstrings.markdown(module.__doc__), ""]
    if inner or objects:
        lines += ["| name | what |", "|---|---|"]
        lines += [
            f"| `vi.{each.removeprefix('vi_jax.')}` | {_summary(public.modules()[each])} |"
            for each in inner
        ]
        lines += [f"| `vi.{name}.{each.name}` | {_summary(each.value)} |" for each in objects]
    elsewhere = _elsewhere(dotted)
    if elsewhere:
        lines += ["", "Here too: " + ", ".join(elsewhere) + "."]
    for each in objects:
        lines += ["", _object(each)]
    if inner:
        names = [file_name(each).removesuffix(".md") for each in inner]
        lines += ["", "```{toctree}", ":hidden:", "", *names, "```"]
    return "\n".join(lines) + "\n"


def _elsewhere(dotted: str) -> list[str]:
    """Names that a module lists and another one documents."""
    module = public.modules()[dotted]
    short = dotted.removeprefix("vi_jax.")
    found = []
    for name in public.names_of(module):
        home = public.addresses().get(f"{short}.{name}")
        if home in public.objects() and public.objects()[home].module != dotted:
            found.append(f"`vi.{home.removeprefix('vi_jax.')}`")
    return found


def _summary(value: Any) -> str:
    if not callable(value) and not inspect.ismodule(value):
        return escape_cell(f"`{_short(value)}`")
    return escape_cell(docstrings.first_sentence(inspect.getdoc(value)))


def escape_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\\\\|", "\\|")


def _object(each: public.Public) -> str:
    """The directive of one object, with its signature, docstring and members."""
    value = each.value
    if inspect.isclass(value):
        body = [docstrings.markdown(_own_doc(value)), _fields(value)]
        body += [_member(name, member) for name, member in public.members(value).items()]
        text = "\n\n".join(part for part in body if part)
        return _directive("class", each.name, each.module, text, ":::::")
    if callable(value) and inspect.isfunction(inspect.unwrap(value)):
        signature = f"{each.name}{_signature(value)}"
        return _directive("function", signature, each.module, docstrings.markdown(value.__doc__))
    return _directive("data", each.name, each.module, f"`{_short(value)}`")


def _own_doc(value: type) -> str:
    """A docstring that was written, rather than one that a NamedTuple or a dataclass makes."""
    doc = inspect.getdoc(value) or ""
    return "" if doc.startswith(f"{value.__name__}(") else doc


def _directive(kind: str, signature: str, module: str, text: str, fence: str = "::::") -> str:
    option = f":module: {module}\n" if module else ""
    return f"{fence}{{py:{kind}}} {signature}\n{option}\n{text}\n{fence}"


def _member(name: str, member: Any) -> str:
    function = getattr(member, "fget", None) or getattr(member, "func", None)
    if function is not None:
        return _directive("property", name, "", docstrings.markdown(function.__doc__))
    kind = "method"
    if isinstance(member, (staticmethod, classmethod)):
        kind = type(member).__name__
        member = member.__func__
    signature = f"{name}{_signature(member, skip_first=kind != 'staticmethod')}"
    return _directive(kind, signature, "", docstrings.markdown(member.__doc__))


def _node(value: Any) -> Any:
    """The syntax tree of a function's or a class's definition; None where its source is unknown."""
    try:
        source = inspect.getsource(inspect.unwrap(value))
    except (OSError, TypeError):
        return None
    return ast.parse(textwrap.dedent(source)).body[0]


def _signature(function: Any, *, skip_first: bool = False) -> str:
    """The arguments as they are written in the source."""
    node = _node(function)
    if not isinstance(node, ast.FunctionDef):
        return str(inspect.signature(function))
    arguments = node.args
    if skip_first:
        (arguments.posonlyargs or arguments.args).pop(0)
    names = _FullNames(inspect.unwrap(function).__globals__)
    names.visit(node)
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(arguments)}){result}"


class _FullNames(ast.NodeTransformer):
    """Names of public classes in annotations in full, so that each is linked to its own page;
    Sphinx shows their last parts.
    """

    def __init__(self, scope: dict[str, Any]) -> None:
        self.scope = scope

    def visit_arg(self, node: ast.arg) -> ast.arg:
        if node.annotation is not None:
            node.annotation = _AnnotationNames(self.scope).visit(node.annotation)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.visit(node.args)
        if node.returns is not None:
            node.returns = _AnnotationNames(self.scope).visit(node.returns)
        return node


class _AnnotationNames(ast.NodeTransformer):
    def __init__(self, scope: dict[str, Any]) -> None:
        self.scope = scope

    def visit_Name(self, node: ast.Name) -> ast.expr:
        value = self.scope.get(node.id)
        home = public.homes().get(id(value))
        if home is None and str(getattr(value, "__module__", "")).startswith("vi_jax"):
            home = f"{value.__module__}.{node.id}"  # private: it has no page
        return ast.parse(home, mode="eval").body if home else node


def _fields(value: type) -> str:
    """The annotated fields of a class, with the comments beside them."""
    node = _node(value)
    if node is None:
        return ""
    lines = inspect.getsource(value).split("\n")
    items = []
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            if each.target.id.startswith("_"):
                continue
            comment = _comment(lines, each.lineno - 1, each.end_lineno - 1)
            items.append(f"- `{each.target.id}: {ast.unparse(each.annotation)}`{comment}")
    return "**Fields**\n\n" + "\n".join(items) if items else ""


def _comment(lines: list[str], first: int, last: int) -> str:
    """The comment behind a field, or else those in the lines above it."""
    beside = lines[last].partition("  # ")[2]
    above = []
    while first > 0 and lines[first - 1].strip().startswith("# "):
        first -= 1
        above.insert(0, lines[first].strip()[2:])
    text = beside or " ".join(above)
    return f": {docstrings.escape(text)}" if text else ""


def _short(value: Any) -> str:
    """A value in at most sixty characters."""
    text = " ".join(repr(value).replace("`", "'").split())
    text = text.split(" at 0x")[0]
    return text if len(text) <= 60 else text[:57] + "..."
