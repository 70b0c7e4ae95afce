"""How Sphinx makes the book of what notebooks/book.py lays out.

Sphinx with myst-nb and the PyData theme: all come whole from the package index, so that a site is
made without a network and asks no other host for anything; MyST's own builder (Jupyter Book 2)
fetches its theme while it builds. The theme is looked after, and its makers test it with axe.
Formulas become MathML, which browsers draw, and screen readers read, with no script and no font.
"""

from html import escape

from docutils import nodes
from math_core import LatexError, LatexToMathML
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.util.logging import getLogger

LOGGER = getLogger(__name__)

project = "How a language model is made"
extensions = ["myst_nb"]
language = "en"

nb_execution_mode = "off"
nb_merge_streams = True
smartquotes = False
myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["style.css"]
html_favicon = "icon.svg"
html_css_files = ["style.css"]
templates_path = ["templates"]
html_sidebars = {"**": ["pages.html"]}
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "article_header_start": [],
    "navbar_center": [],
    "navbar_persistent": ["search-button-field"],
    "secondary_sidebar_items": ["page-toc"],
    "search_bar_text": "Search the book",
    "search_as_you_type": True,
    "footer_start": [],
    "footer_end": [],
}


WIDE = "formula pst-scrollable-table-container"  # which the theme lets the keyboard scroll
TO_MATHML = LatexToMathML(fancy_error=False)


def formula(writer, node):
    block = isinstance(node, nodes.math_block)
    try:
        mathml = TO_MATHML.convert_with_local_state(node.astext(), displaystyle=block)
    except LatexError as error:
        LOGGER.warning("%s: %s", node.astext(), error, location=node)
    else:
        writer.body.append(f'<div class="{WIDE}">{mathml}</div>\n' if block else mathml)
    raise nodes.SkipNode


def open_fold(writer, node):
    """A fold is named by its title; myst-nb would name all alike to a screen reader."""
    title = escape(node["prompt_show"])
    writer.body.append(f'<details class="fold">\n<summary>{title}</summary>\n')


def close_fold(writer, node):
    writer.body.append("</details>\n")


def setup(app):
    app.add_node(HideCodeCellNode, override=True, html=(open_fold, close_fold))
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
