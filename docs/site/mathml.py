"""Formulas as MathML, which browsers render: no script, nothing loaded from elsewhere."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

_LOGGER = logging.getLogger(__name__)
# between `log` and what it is applied to, unless that is in brackets
_APPLIED = re.compile(r"(<mo>&ApplyFunction;</mo>)(?=\s*<m(?!o))")
_THIN_SPACE = '<mspace width="0.1667em"></mspace>'


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(_render(node, as_block=False))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f"<div class='math'>{_render(node, as_block=True)}</div>\n")
    raise nodes.SkipNode


def _render(node: nodes.math | nodes.math_block, *, as_block: bool) -> str:
    """MathML; a command that is not known is a warning, which fails the build."""
    try:
        return spaced(tex2mathml(node.astext(), as_block=as_block))
    except MathError as error:
        _LOGGER.warning("%s: %s", node.astext(), error, location=node)
        return ""


def spaced(mathml: str) -> str:
    """With a thin space behind `log` in `log p`, as TeX sets it; browsers set none."""
    return _APPLIED.sub(rf"\1{_THIN_SPACE}", mathml)
