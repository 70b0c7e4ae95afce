"""How Sphinx makes the book of what notebooks/book.py lays out.

Sphinx with myst-nb and the PyData theme: all come whole from the package index, so that a site is
made without a network and asks no other host for anything; MyST's own builder (Jupyter Book 2)
fetches its theme while it builds. The theme is looked after, and its makers test it with axe.
Formulas become MathML, which browsers draw and screen readers read by themselves: no script, no font.
"""

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.util.logging import getLogger

LOGGER = getLogger(__name__)

project = "How a language model is made"
extensions = ["myst_nb"]
language = "en"

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["style.css"]
html_css_files = ["style.css"]
templates_path = ["templates"]
html_sidebars = {"**": ["pages.html"]}
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_theme_options = {
    "navbar_center": [],
    "navbar_persistent": ["search-button-field"],
    "secondary_sidebar_items": ["page-toc"],
    "search_bar_text": "Search the book",
    "search_as_you_type": True,
    "footer_start": [],
    "footer_end": [],
}


TO_MATHML = LatexToMathML(fancy_error=False)


def formula(writer, node):
    block = isinstance(node, nodes.math_block)
    try:
        mathml = TO_MATHML.convert_with_local_state(node.astext(), displaystyle=block)
    except LatexError as error:
        LOGGER.warning("%s: %s", node.astext(), error, location=node)
    else:
        writer.body.append(f'<div class="formula">{mathml}</div>\n' if block else mathml)
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
