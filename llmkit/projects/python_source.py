"""Python source as a corpus: the standard library of the running Python, split by file, its lines
and functions made into tasks. Code is parsed here, and never run. How a model completes it:
`code_completion`.

The library's licence is the PSF's, which allows this use and asks that its notice goes with copies:
https://docs.python.org/3/license.html.
"""

from __future__ import annotations

import ast
import io
import keyword
import re
import sysconfig
import tokenize
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from llmkit.bpe.tokenizer import PATTERN

LEFT_OUT = {  # folders that are no part of the library proper, or not written to be read
    *("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"),
    *("encodings", "lib2to3"),  # a hundred near copies; a grammar of another Python
}
GENERATED = re.compile(r"\b(?:auto)?-?generated (?:from|by|with)\b|\bdo not edit\b", re.IGNORECASE)
MOST_DIGITS = 0.1  # the share of digits above which a file is a table
KINDS = {  # of a line, by its first word
    "import": "import",
    "from": "import",
    "return": "return",
    **dict.fromkeys(("def", "class", "async"), "def, class"),
    **dict.fromkeys(("if", "elif", "for", "while", "with", "except"), "if, for, with"),
}


@dataclass(frozen=True)
class SourceFile:
    """A file's name, as its path below the library's folder (with /), and its text."""

    name: str
    text: str


def library(folder: str | Path | None = None) -> list[SourceFile]:
    """The Python files below a folder, by name; None: the running Python's standard library.

    Left out: tests, installed packages, generated files and tables, files that do not decode or
    parse, empty ones. Raises FileNotFoundError where nothing is left.
    """
    root = Path(sysconfig.get_paths()["stdlib"] if folder is None else folder)
    files = []
    for path in root.rglob("*.py"):
        name = path.relative_to(root)
        if any(part in LEFT_OUT or part.startswith("config-") for part in name.parts):
            continue
        text = read(path)
        if text is not None and not is_table(text):
            files.append(SourceFile(name.as_posix(), text))
    if not files:
        raise FileNotFoundError(
            f"there is no Python source below {str(root)!r}; give library() a folder that has some"
        )
    return sorted(files, key=lambda file: file.name)


def read(path: Path) -> str | None:
    """The text of a Python file, its lines ended by "\\n"; None if it has none, or is no Python."""
    try:
        with tokenize.open(path) as file:  # in the encoding that its first lines name
            text = file.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
    return text.rstrip() + "\n" if text.strip() and parses(text) else None


def is_table(text: str) -> bool:
    """Whether a program wrote the file, or it is mostly numbers."""
    digits = sum(character.isdigit() for character in text)
    return bool(GENERATED.search(text[:1000])) or digits > MOST_DIGITS * len(text)


def split_files(
    files: Iterable[SourceFile], val_fraction: float = 0.1
) -> tuple[list[SourceFile], list[SourceFile]]:
    """The files to train on, and about val_fraction of them to measure on.

    A checksum of its name says where a file goes: whatever else there is, it always goes there.
    ValueError where a side would be empty.
    """
    train: list[SourceFile] = []
    val: list[SourceFile] = []
    for file in files:
        held_out = zlib.crc32(file.name.encode()) < val_fraction * 2**32
        (val if held_out else train).append(file)
    if not train or not val:
        count = len(train) + len(val)
        raise ValueError(f"val_fraction {val_fraction} of {count} files leaves one side empty")
    return train, val


def parses(code: str) -> bool:
    """Whether Python can parse the code. It is not run, and no warning is shown."""
    try:
        syntax_tree(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False  # too deeply nested for the parser counts as wrong
    return True


def syntax_tree(code: str) -> ast.Module:
    """``ast.parse`` without its warnings, of "\\d" for one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def line_kinds(text: str) -> list[str]:
    """What each line of a text that parses is: "blank", "text" (docstring, comment, long string),
    "import", "def, class", "return", "if, for, with", "assignment" or "other"."""
    inside: set[int] = set()  # the lines of strings
    for node in ast.walk(syntax_tree(text)):
        if not isinstance(node, ast.expr | ast.Expr) or node.end_lineno is None:
            continue
        string = isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", None), str)
        alone = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if alone or (string and node.end_lineno > node.lineno):
            inside.update(range(node.lineno, node.end_lineno + 1))
    kinds: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        code = line.strip()
        if not code:
            kinds.append("blank")
        elif number in inside or code.startswith("#"):
            kinds.append("text")
        else:
            word = re.split(r"\W", code, maxsplit=1)[0]
            assigned = re.search(r"[^=!<>]=[^=]", code)
            kinds.append(KINDS.get(word) or ("assignment" if assigned else "other"))
    return kinds


class Part(NamedTuple):
    """A word or sign of a Python text, text[start:end], the spaces before it included."""

    kind: str
    start: int
    end: int


def parts(text: str) -> list[Part]:
    """What a text that parses is made of, in order and without gaps, by Python's own `tokenize`.

    Kinds: "keyword", "self", "name, first time", "name, again" (as met in this text), "closing
    bracket", "other sign", "comment, string, number", and "line end, indentation" for the gap
    between the last word of a line and the first of the next.
    """
    line_starts = [0]
    for line in text.split("\n"):
        line_starts.append(line_starts[-1] + len(line) + 1)
    found: list[Part] = []
    end, met = 0, set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        word = token.string
        if not word.strip():
            continue  # a line end or an indentation: part of the gap before the next word
        start = line_starts[token.start[0] - 1] + token.start[1]
        if "\n" in text[end:start]:
            found.append(Part("line end, indentation", end, start))
            end = start
        kind = "comment, string, number"
        if token.type == tokenize.NAME:
            kind = "name, again" if word in met else "name, first time"
            kind = "keyword" if keyword.iskeyword(word) else "self" if word == "self" else kind
            met.add(word)
        elif token.type == tokenize.OP:
            kind = "closing bracket" if word in ")]}" else "other sign"
        found.append(Part(kind, end, line_starts[token.end[0] - 1] + token.end[1]))
        end = found[-1].end
    return found


@dataclass(frozen=True)
class Task:
    """A line to be completed: all of its file before the cut, the rest of the line, its kind."""

    file: str
    kind: str
    prompt: str
    rest: str


def line_tasks(files: Iterable[SourceFile], at: float = 0.5) -> list[Task]:
    """Every line of four words or more (as the tokenizer's regular expression cuts it), cut where
    the share `at` of its words, rounded down, is given. So a cut never divides a word, and the
    tokens before it are those of the file."""
    if not 0 < at < 1:
        raise ValueError(f"at must be above 0 and below 1, a share of the words, not {at}")
    tasks = []
    for file in files:
        start = 0
        for line, kind in zip(file.text.split("\n"), line_kinds(file.text), strict=True):
            words = PATTERN.findall(line.lstrip())
            if len(words) >= 4:
                rest = "".join(words[max(1, int(at * len(words))) :])
                cut = start + len(line) - len(rest)
                tasks.append(Task(file.name, kind, file.text[:cut], rest.rstrip()))
            start += len(line) + 1
    return tasks


@dataclass(frozen=True)
class Function:
    """A function of a file: all of the file up to the end of its `def` line, the line itself, and
    its body, whose lines are indented more than the def line."""

    file: str
    prompt: str
    head: str
    body: str


def functions(files: Iterable[SourceFile], most_lines: int = 12) -> list[Function]:
    """Every function whose head is one line and whose body is 2 to most_lines lines."""
    found = []
    for file in files:
        lines = re.split("(?<=\n)", file.text)  # splitlines would cut at form feeds, too
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = [node for node in ast.walk(syntax_tree(file.text)) if isinstance(node, kinds)]
        for node in sorted(nodes, key=lambda node: node.lineno):
            head, end = lines[node.lineno - 1], node.end_lineno or node.lineno
            if head.rstrip().endswith(":") and 2 <= end - node.lineno <= most_lines:
                body = "".join(lines[node.lineno : end])
                prompt = "".join(lines[: node.lineno])
                found.append(Function(file.name, prompt, head, body))
    return found
