"""The notebooks as a static site: `python notebooks/book.py OUT`. Nothing is executed.

The README is its first page, each notebook with its stored outputs a page, then the glossary, the
API and the benchmarks. This file lays them out for Sphinx: links lead from page to page, or on to
the repository; a picture's sentence is its alternative text; solutions are folded. Some pages show
the small model of `book/model` at work (`llmkit.deploy.web`), where its runtime is to be had.
`book/conf.py` says why Sphinx, and how pages look; tests/test_book.py holds what must be true of
the site.
"""

from __future__ import annotations

import argparse
import functools
import html
import json
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
MODEL = CONF / "model"  # an int8 export of it, and what its page says
BESIDE = {  # what is not a notebook: its place in the repository -> its page
    "README.md": "index.md",
    "notebooks/GLOSSARY.md": "glossary.md",
    "API.md": "api.md",
    "benchmarks/README.md": "benchmarks.md",
}
LIVE = {  # page: its panels that are open, the text in its box (None: the model's), what is asked
    "index.md": (
        "next",
        None,
        "What does a language model do? At each step it gives every possible next character a "
        "share, and one is drawn. This one learned from the play in the box, in a minute.",
    ),
    "02_char_tokenizer.ipynb": (
        "tokens",
        None,
        "Which integers does your text become? And what does the model do with a character that it "
        "has never seen, an `é`?",
    ),
    "04_attention.ipynb": (
        "attention",
        None,
        "What do the heads of a trained model look at in *your* text? Choose a layer and a head, "
        "and move along the text.",
    ),
    "07_perplexity.ipynb": (
        "surprise",
        None,
        "How surprised is a model by what *you* write? Type in the manner of the play, then in "
        "another one: the bits per character of both can be compared.",
    ),
    "08_generation.ipynb": (
        "next",
        None,
        "Which characters are left at another temperature, or with a smaller top p? Move the two, "
        "and draw one at a time.",
    ),
    "13_instruction_tuning.ipynb": (
        "next",
        "Who rings the bell?\n",
        "What does a model do with a question that was never taught to answer one? This one has "
        "read the play and no instructions.",
    ),
}
RUNS = (
    "The model was trained by this project's own command, and runs in your browser: nothing that "
    "you type leaves it. (Where the book is a folder on your disk, `python -m http.server` in it "
    "is server enough.)"
)
LEFT_OUT = (
    "The live model is left out of this copy of the book, because the runtime that it needs could "
    "not be fetched when the book was made."
)
ELEMENT = """<llmkit-model wait open="{panels}"{text}>
The model runs where a file server hands out this page, in a current browser with scripts.
</llmkit-model>
<script type="module" src="model/page.js"></script>
"""
CONTENTS = "\n```{{toctree}}\n:hidden:\n:caption: {}\n{}\n```\n"
LOCAL_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")


class BookError(Exception):
    """What the person who makes the book should read: a sentence."""


def lay_out(pages: Path, folder: Path = NOTEBOOKS, live: bool = False) -> None:
    """Fill the folder ``pages`` with what Sphinx makes the site of; live: with the model."""
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
            before, heading, after = text.partition("\n## ")
            text = f"{before}\n{live_section(page, live)}{heading}{after}"
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
        if path.name in LIVE:
            at, cell = next(
                (n, cell)
                for n, cell in enumerate(notebook.cells)
                if "## What we saw" in cell.source
            )
            before, heading, after = cell.source.partition("## What we saw")
            cell.source = heading + after
            section = f"{before}{live_section(path.name, live)}"
            notebook.cells.insert(at, nbformat.v4.new_markdown_cell(section, id="live-model"))
        nbformat.write(notebook, pages / path.name)


def live_section(page: str, live: bool) -> str:
    """Markdown of the model on a page, or the sentence that it is left out."""
    panels, text, asked = LIVE[page]
    if not live:
        return f"## A model in the page\n\n{LEFT_OUT}\n"
    text = "" if text is None else ' text="' + html.escape(text).replace("\n", "&#10;") + '"'
    element = ELEMENT.format(panels=panels, text=text)
    return f"## A model in the page\n\n{asked}\n\n{RUNS}\n\n{element}"


@functools.cache
def runtime_files(unpacked: Path | None = None) -> dict[str, bytes] | None:
    """What runs the model in a browser; None, and a sentence on stderr, where there is none."""
    from llmkit.deploy.web import runtime

    try:
        return runtime.find(unpacked)
    except (OSError, ValueError) as error:
        print(f"The live model is left out: {error}", file=sys.stderr)
        return None


def add_model(site: Path, found: dict[str, bytes]) -> None:
    """The model's own folder in the site."""
    from llmkit.deploy import export, web

    model, tokenizer = export.load(MODEL / "int8")
    about = json.loads((MODEL / "about.json").read_text(encoding="utf-8"))
    web.save_web(site / "model", model, tokenizer, about, found)


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


def make(out: Path, folder: Path = NOTEBOOKS, unpacked: Path | None = None) -> int:
    """Write the site into ``out``, in place of an earlier one; returns the number of pages.

    unpacked: the folder of the runtime's package; None: the one that was fetched, or npm fetches.
    """
    if out.exists() and any(out.iterdir()) and not (out / "searchindex.js").exists():
        raise BookError(f"{out} holds something that is no book; name a new or an empty folder.")
    with tempfile.TemporaryDirectory() as room:
        pages, site, trees = (Path(room, name) for name in ("pages", "site", "trees"))
        pages.mkdir()
        found = runtime_files(unpacked)
        lay_out(pages, folder, live=found is not None)
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "--no-color"]
        command += ["-b", "html", "-c", CONF, "-d", trees, pages, site]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        if done.returncode != 0:
            raise BookError(done.stderr.replace(f"{pages.resolve()}/", "").strip())
        if found is not None:
            add_model(site, found)
        if out.exists():
            shutil.rmtree(out)
        shutil.move(site, out)
        return sum(1 for page in pages.iterdir() if page.suffix in (".md", ".ipynb"))


def main(arguments: list[str] | None = None, folder: Path = NOTEBOOKS) -> int:
    parser = argparse.ArgumentParser(description="Make a static site of the notebooks.")
    parser.add_argument("out", type=Path, help="the folder to write it into")
    known = "the unpacked npm package of the live model's runtime (default: npm fetches it)"
    parser.add_argument("--runtime", type=Path, metavar="FOLDER", help=known)
    options = parser.parse_args(arguments)
    out = options.out
    try:
        print(f"{make(out, folder, options.runtime)} pages: open {out / 'index.html'}")
    except BookError as error:
        sys.exit(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
