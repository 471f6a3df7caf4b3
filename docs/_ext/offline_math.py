"""Equations as MathML, which browsers draw themselves: no script, no network.

Docutils, on which Sphinx is built, converts them.
"""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)
# What LaTeX's authors write and docutils does not know.
SPELLINGS = [
    (r"\\[bB]ig(?=[(\[])", r"\\left"),
    (r"\\[bB]ig(?=[)\]])", r"\\right"),
    (r"\\[bB]ig(?![a-zA-Z])", ""),
    (r"\\dots\b", r"\\ldots"),
]


def mathml(node):
    text = node.astext()
    for spelling, known in SPELLINGS:
        text = re.sub(spelling, known, text)
    try:
        return tex2mathml(text)
    except MathError as error:
        logger.warning("no MathML for %s: %s", node.astext(), error, location=node)
        return ""


def visit_inline(writer, node):
    writer.body.append(mathml(node))
    raise nodes.SkipNode


def visit_block(writer, node):
    block = mathml(node).replace("<math ", '<math display="block" ', 1)
    writer.body.append(writer.starttag(node, "div", CLASS="math") + block + "</div>")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True}
