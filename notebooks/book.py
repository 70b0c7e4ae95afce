"""The notebooks as a static site: `python notebooks/book.py OUT`. Nothing is executed.

The README is its first page, each notebook with its stored outputs a page, then the glossary, the
API and the benchmarks. This file lays them out for Sphinx: links lead from page to page, or on to
the repository; a picture's sentence is its alternative text; solutions are folded. `book/conf.py`
says why Sphinx, and how pages look; tests/test_book.py holds what must be true of the site.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from build import BADGE, NOTEBOOKS, notebook_of, repository, scripts, tag, tags
from nbformat import NotebookNode

CONF = NOTEBOOKS / "book"
BESIDE = {  # what is not a notebook: its place in the repository -> its page
    "README.md": "index.md",
    "notebooks/GLOSSARY.md": "glossary.md",
    "API.md": "api.md",
    "benchmarks/README.md": "benchmarks.md",
}
CONTENTS = "\n```{{toctree}}\n:hidden:\n:caption: {}\n{}\n```\n"
LOCAL_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")


class BookError(Exception):
    """What the person who makes the book should read: a sentence."""


def lay_out(pages: Path, folder: Path = NOTEBOOKS) -> None:
    """Fill the folder ``pages`` with what Sphinx makes the site of."""
    root = folder.parent
    notebooks = [notebook_of(script) for script in scripts(folder)]
    names = BESIDE | {f"notebooks/{path.name}": path.name for path in notebooks}

    def linked(text: str, place: str) -> str:
        """Markdown of a file at ``place`` in the repository, with links that hold in the book."""

        def target(link: re.Match[str]) -> str:
            path, anchor = os.path.normpath(Path(place).parent / link[1]), link[2] or ""
            if path in names:
                return f"]({names[path]}{anchor})"
            if not (root / path).exists():
                raise BookError(f"{place} has a link to {link[1]}, which does not exist.")
            if path.endswith((".png", ".svg")):
                shutil.copy(root / path, pages)
                return f"]({Path(path).name})"
            kind = "tree" if (root / path).is_dir() else "blob"
            return f"]({repository(folder)}/{kind}/{tag(folder)}/{path}{anchor})"

        badge = rf"\[!\[Open in Colab\]\({re.escape(BADGE)}\)\](\([^)]+\))"
        return LOCAL_LINK.sub(target, re.sub(badge, r"[Open in Colab]\1{.colab}", text))

    for place, page in BESIDE.items():
        text = linked((root / place).read_text(encoding="utf-8"), place)
        if page == "index.md":
            text += CONTENTS.format("Notebooks", "\n".join(path.name for path in notebooks))
            text += CONTENTS.format("Beside them", "\n".join(list(BESIDE.values())[1:]))
        (pages / page).write_text(text, encoding="utf-8")
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = linked(cell.source, f"notebooks/{path.name}")
            else:
                fold(cell)
                describe_pictures(cell)
        head = notebook.cells[0]
        head.source = re.sub(r"\n\n(← )?\[\d\d.*$", "", head.source)  # the theme has such links
        head.source = head.source.replace("\n\nAbout ", "\nAbout ")  # beside Colab's
        nbformat.write(notebook, pages / path.name)


def fold(cell: NotebookNode) -> None:
    """Let solutions and the setup cell open at a click."""
    if "solution" in tags(cell):
        title, _, cell.source = cell.source.partition("\n")
        how, title = "hide-cell", title.removeprefix("# @title ")
    elif "setup" in tags(cell):
        how, title = "hide-input", "Setup: installs llmkit where it is missing, as on Colab"
    else:
        return
    cell.source = cell.source.strip("\n")
    cell.metadata.tags = [*tags(cell), how]
    cell.metadata.mystnb = {"code_prompt_show": title}


def describe_pictures(cell: NotebookNode) -> None:
    """Make a picture's text form its alternative text."""
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data or "image/svg+xml" in data:
            cell.metadata.setdefault("mystnb", {})["image"] = {"alt": sentence(data["text/plain"])}


def sentence(text: str) -> str:
    """What `<picture: Few pairs do most of the work>` says; `<TokenExplorer>` says what it is."""
    kind, _, said = text.removeprefix("<").removesuffix(">").partition(": ")
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).capitalize()
    return said or f"{words}: a view with controls, as it looks before anything is moved"


def make(out: Path, folder: Path = NOTEBOOKS) -> int:
    """Write the site into ``out``, in place of an earlier one; returns the number of pages."""
    if out.exists() and any(out.iterdir()) and not (out / "searchindex.js").exists():
        raise BookError(f"{out} holds something that is no book; name a new or an empty folder.")
    with tempfile.TemporaryDirectory() as room:
        pages, site, trees = (Path(room, name) for name in ("pages", "site", "trees"))
        pages.mkdir()
        lay_out(pages, folder)
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "--no-color"]
        command += ["-b", "html", "-c", CONF, "-d", trees, pages, site]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        if done.returncode != 0:
            raise BookError(done.stderr.replace(f"{pages.resolve()}/", "").strip())
        if out.exists():
            shutil.rmtree(out)
        shutil.move(site, out)
        return sum(1 for page in pages.iterdir() if page.suffix in (".md", ".ipynb"))


def main(arguments: list[str] | None = None, folder: Path = NOTEBOOKS) -> int:
    parser = argparse.ArgumentParser(description="Make a static site of the notebooks.")
    parser.add_argument("out", type=Path, help="the folder to write it into")
    out = parser.parse_args(arguments).out
    try:
        print(f"{make(out, folder)} pages: open {out / 'index.html'}")
    except BookError as error:
        sys.exit(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
