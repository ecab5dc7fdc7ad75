"""Links from code in prose to what it names: `vi.bounds.iwae`, `iwae`, `docs/guide.md`.

A code span that begins with `vi.` or `vi_jax.` and names nothing is a warning, which fails the
build. A bare name is linked where a single public object has it.
"""

import re
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

from docs.site import public

_LOGGER = logging.getLogger(__name__)
_NAME = re.compile(r"(?:(vi|vi_jax)\.)?([A-Za-z_]\w*(?:\.\w+)*)(?:\(.*\))?", re.DOTALL)
_PAGE = re.compile(r"(?:docs/)?([\w/]+)\.md")
_SHORTEST = 4  # of a bare name that is linked
# words of the prose that are names of arguments or of the field before they are ours
_WORDS = frozenset({"check", "fields", "observed", "report", "score", "step", "value"})


@cache
def _bare_names() -> dict[str, str]:
    """{bare name: full name} of the names that one public object alone has."""
    found: dict[str, set[str]] = {}
    for full_name, each in public.objects().items():
        found.setdefault(each.name, set()).add(full_name)
    return {
        name: next(iter(homes))
        for name, homes in found.items()
        if len(homes) == 1 and len(name) >= _SHORTEST and name not in _WORDS
    }


def target_of(text: str) -> str | None:
    """The full name of the public object that a code span names, None where there is none.

    Raises:
      LookupError: if it begins with `vi.` or `vi_jax.` and names nothing.
    """
    found = _NAME.fullmatch(text.strip())
    if found is None or text.endswith((".py", ".md")):
        return None
    package, dotted = found.groups()
    if dotted.startswith("result."):
        dotted = f"fitting.Result.{dotted.removeprefix('result.')}"
    if not package and "." not in dotted:
        return _bare_names().get(dotted)
    address = public.addresses().get(dotted)
    if package and address is None:
        _resolve(dotted)
    return address


def _resolve(dotted: str) -> None:
    """Follows a name through attributes, for what has no entry of its own in the reference."""
    value: Any = public.vi
    for name in dotted.split("."):
        if not hasattr(value, name):
            raise LookupError(f"vi_jax has no {dotted}")
        value = getattr(value, name)


class LinkNames(SphinxTransform):
    """Wraps the code spans of a page that name a public object or a page in links."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(nodes.literal)):
            if self._may_link(node):
                self._link(node)

    def _may_link(self, node: nodes.literal) -> bool:
        parents = []
        parent = node.parent
        while parent is not None:
            parents.append(parent)
            parent = parent.parent
        kinds = (nodes.reference, pending_xref, nodes.title)
        return not any(isinstance(parent, kinds) for parent in parents)

    def _link(self, node: nodes.literal) -> None:
        text = node.astext()
        page = _PAGE.fullmatch(text)
        if page and page[1] in self.env.found_docs:
            self._wrap(node, "std", "doc", f"/{page[1]}")
            return
        try:
            address = target_of(text)
        except LookupError as error:
            _LOGGER.warning("`%s`: %s", text, error, location=node)
            return
        if address is not None and address in public.modules():
            page_of = PurePosixPath("/reference") / address.removeprefix("vi_jax.")
            self._wrap(node, "std", "doc", str(page_of))
        elif address is not None:
            self._wrap(node, "py", "obj", address)

    def _wrap(self, node: nodes.literal, domain: str, kind: str, target: str) -> None:
        link = pending_xref(
            "",
            refdomain=domain,
            reftype=kind,
            reftarget=target,
            refexplicit=True,
            refwarn=True,
            refdoc=self.env.current_document.docname,
        )
        node.replace_self(link)
        link += node


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_transform(LinkNames)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
