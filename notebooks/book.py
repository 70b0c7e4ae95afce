"""The notebooks as a static site: `python notebooks/book.py OUT`. Nothing is executed.

The README is its first page, each notebook with its stored outputs a page, then the glossary, the
API and the benchmarks. This file lays them out as Sphinx wants them: links from page to page, links
to other files on to the repository, pictures with their sentences as alternative texts, solutions
folded. `book/conf.py` says why Sphinx, and how the pages look; tests/test_book.py what must hold.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from build import BADGE, NOTEBOOKS, notebook_of, repository, scripts, tag, tags
from nbformat import NotebookNode
from sphinx.application import Sphinx

ROOT = NOTEBOOKS.parent
CONF = NOTEBOOKS / "book"
BESIDE = {  # what is not a notebook: where it stands in the repository -> its page
    "README.md": "index.md",
    "notebooks/GLOSSARY.md": "glossary.md",
    "API.md": "api.md",
    "benchmarks/README.md": "benchmarks.md",
}
CONTENTS = """
```{{toctree}}
:hidden:
:caption: {caption}
{pages}
```
"""
LOCAL_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")


class BookError(Exception):
    """What the person who makes the book should read, in a sentence."""


class Book:
    """The pages on their way into ``folder``, from which Sphinx makes the site.

    notebooks: the paths of those that become pages, in reading order.
    """

    def __init__(self, folder: Path, notebooks: list[Path]) -> None:
        self.folder = folder
        self.notebooks = notebooks
        self.pages = BESIDE | {path.relative_to(ROOT).as_posix(): path.name for path in notebooks}

    def lay_out(self) -> None:
        for source, page in BESIDE.items():
            text = self.linked((ROOT / source).read_text(encoding="utf-8"), source)
            if page == "index.md":
                text += contents("Notebooks", [path.name for path in self.notebooks])
                text += contents("Beside them", [name for name in BESIDE.values() if name != page])
            (self.folder / page).write_text(text, encoding="utf-8")
        for path in self.notebooks:
            notebook = nbformat.read(path, as_version=4)
            for cell in notebook.cells:
                if cell.cell_type == "markdown":
                    cell.source = self.linked(cell.source, path.relative_to(ROOT).as_posix())
                else:
                    fold(cell)
                    describe_pictures(cell)
            # the theme has links to the pages before and after
            notebook.cells[0].source = re.sub(r"\n\n(← )?\[\d\d.*$", "", notebook.cells[0].source)
            nbformat.write(notebook, self.folder / path.name)

    def linked(self, text: str, source: str) -> str:
        """Markdown whose links hold in the book. source: the file's place in the repository."""
        text = re.sub(rf"\[!\[(Open in Colab)\]\({re.escape(BADGE)}\)\](\([^)]+\))", COLAB, text)

        def target(match: re.Match[str]) -> str:
            path = os.path.normpath(Path(source).parent / match[1])
            if path in self.pages:
                return f"]({self.pages[path]}{match[2] or ''})"
            if not (ROOT / path).exists():
                raise BookError(f"{source} has a link to {match[1]}, which does not exist.")
            if Path(path).suffix in (".png", ".svg"):
                shutil.copy(ROOT / path, self.folder / Path(path).name)
                return f"]({Path(path).name})"
            kind = "tree" if (ROOT / path).is_dir() else "blob"
            return f"]({repository()}/{kind}/{tag()}/{path}{match[2] or ''})"

        return LOCAL_LINK.sub(target, text)


COLAB = r"[\1]\2{.colab}"


def contents(caption: str, pages: list[str]) -> str:
    return CONTENTS.format(caption=caption, pages="\n".join(pages))


def fold(cell: NotebookNode) -> None:
    """Solutions and the setup cell open at a click."""
    if "solution" in tags(cell):
        title, _, cell.source = cell.source.partition("\n")
        folded, prompt = "hide-cell", title.removeprefix("# @title ")
    elif "setup" in tags(cell):
        folded, prompt = "hide-input", "Setup: installs llmkit where it is missing, as on Colab"
    else:
        return
    cell.source = cell.source.strip("\n")
    cell.metadata.tags = [*tags(cell), folded]
    cell.metadata.mystnb = {"code_prompt_show": prompt, "code_prompt_hide": prompt}


def describe_pictures(cell: NotebookNode) -> None:
    """A picture's text form, `<picture: sentence>`, becomes its alternative text."""
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data or "image/svg+xml" in data:
            cell.metadata.setdefault("mystnb", {})["image"] = {"alt": sentence(data["text/plain"])}


def sentence(text: str) -> str:
    """`<picture: Ten characters make up 65%>` without its frame; a view's `<TokenExplorer>` in words."""
    kind, _, said = text.strip("<>").partition(": ")
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).capitalize()
    return said or f"{words}: a view with controls, as it looks before anything is moved"


def make(out: Path, notebooks: list[Path] | None = None) -> int:
    """Write the site into ``out``, in place of an earlier one; returns the number of its pages."""
    if out.exists() and any(out.iterdir()) and not (out / "searchindex.js").exists():
        raise BookError(f"{out} holds something that is no book; name a new or an empty folder.")
    with tempfile.TemporaryDirectory() as room:
        source, site = Path(room, "source"), Path(room, "site")
        source.mkdir()
        Book(source, notebooks or [notebook_of(script) for script in scripts()]).lay_out()
        complaints = io.StringIO()
        with contextlib.chdir(NOTEBOOKS):
            app = Sphinx(
                source, CONF, site, Path(room, "doctrees"), "html", status=None, warning=complaints
            )
            app.build()
        if told := complaints.getvalue().strip():
            raise BookError(told.replace(f"{source}/", ""))
        if out.exists():
            shutil.rmtree(out)
        shutil.move(site, out)
        return len(app.env.found_docs)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make a static site of the notebooks.")
    parser.add_argument("out", type=Path, help="the folder to write it into")
    out = parser.parse_args(arguments).out
    try:
        print(f"{make(out)} pages: open {out / 'index.html'}")
    except BookError as error:
        sys.exit(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
