"""notebooks/GLOSSARY.md: each term is explained where it says so, and not used before.

An earlier notebook may use a term where it says beside it which notebook explains it.
"""

import re

import build
import nbformat
import pytest

LINES = (build.NOTEBOOKS / "GLOSSARY.md").read_text("utf-8").splitlines()
ENTRIES = [line for line in LINES if line.startswith("- ")]
ENTRY = re.compile(r"- \*\*(.+?)\*\*: \S.+[.)] \[(\d\d[b-z]?)\]\((\S+\.ipynb)\)")
ORDER = [script.stem for script in build.scripts()]


def prose(stem):
    """What a reader has read of a notebook before its exercises, code aside."""
    cells = nbformat.read(build.NOTEBOOKS / f"{stem}.ipynb", 4).cells[1:]
    texts = []
    for cell in cells:
        if cell.cell_type == "markdown":
            if re.search(r"^## Exercises", cell.source, re.MULTILINE):
                break
            texts.append(re.sub(r"\]\([^)]*\)", "]", cell.source))
    return " ".join("\n".join(texts).split())


PROSE = {stem: prose(stem) for stem in ORDER}


def uses(term, text):
    return list(re.finditer(rf"(?<![\w-]){re.escape(term)}(?:s|es)?(?![\w-])", text, re.IGNORECASE))


def test_the_entries_are_in_order_and_of_one_form():
    terms = [ENTRY.fullmatch(line)[1] for line in ENTRIES]
    assert len(terms) >= 50
    assert terms == sorted(set(terms), key=str.lower)


@pytest.mark.parametrize("line", ENTRIES, ids=lambda line: line[4:30].partition("*")[0])
def test_a_term_is_used_first_where_it_is_explained(line):
    term, number, file = ENTRY.fullmatch(line).groups()
    stem = file.removesuffix(".ipynb")
    assert build.number(build.NOTEBOOKS / "src" / f"{stem}.py") == number
    for before in ORDER[: ORDER.index(stem)]:
        for use in uses(term, PROSE[before]):
            around = PROSE[before][max(0, use.start() - 160) : use.end() + 160]
            assert re.search(rf"\b{number}\b", around), f"{before} uses {term!r}: ... {around} ..."
    assert uses(term, PROSE[stem])


def test_an_early_use_would_be_found():
    assert uses("key", "three Keys, then")
    assert not uses("key", "the keyboard, a turn-key thing")
