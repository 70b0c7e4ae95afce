"""Writes API.md from the docstrings: `python tests/api_page.py`, after any change to a public name.

Signatures are read from the source, so that no optional library need be there and every version of
Python writes the same page. Left out: what begins with an underscore, and what is used by other
means than `import`: `llmkit/commands` (`python -m llmkit --help`) and the server (`/docs`).
"""

from __future__ import annotations

import ast
from pathlib import Path

import llmkit

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "API.md"
TREES = {
    path: ast.parse(path.read_text("utf-8")) for path in sorted((ROOT / "llmkit").rglob("*.py"))
}
CLASSES = {n.name: n for tree in TREES.values() for n in tree.body if isinstance(n, ast.ClassDef)}
HEAD = """# The API

Made from the docstrings by `python tests/api_page.py`; a test keeps it up to date. First the files
of `llmkit/`, then its folders. What is **bold** is also a name of `llmkit` itself: `llmkit.GPT`.
"""


def public(body: list[ast.stmt]) -> list[ast.stmt]:
    """The classes and functions among these statements that have a docstring and no underscore."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    defined = [node for node in body if isinstance(node, kinds)]
    return [node for node in defined if node.name[0] != "_" and ast.get_docstring(node)]


def paragraph(node: ast.AST) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())


def signature(node: ast.AST, classes: dict[str, ast.ClassDef]) -> str:
    """What is written after the name: the arguments, and what a function returns.

    A class has those of its __init__, the fields of a dataclass, or what its base class has.
    """
    decorators = " ".join(map(ast.unparse, node.decorator_list))
    if isinstance(node, ast.ClassDef):
        for inner in node.body:
            if getattr(inner, "name", None) == "__init__":
                return signature(inner, classes).removesuffix(" -> None")
        if "dataclass" in decorators:
            fields = [ast.unparse(each) for each in node.body if isinstance(each, ast.AnnAssign)]
            return f"({', '.join(fields)})"
        bases = [classes[ast.unparse(base)] for base in node.bases if ast.unparse(base) in classes]
        return signature(bases[0], classes) if bases else ""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if "property" in decorators:
        return returns
    arguments = ast.unparse(node.args)
    if arguments.split(",")[0] in ("self", "cls"):
        arguments = arguments.partition(", ")[2]
    return f"({arguments}){returns}"


def section(path: Path, bold: set[tuple[str, str]]) -> list[str]:
    """What is said of one file; nothing where it has nothing public."""
    tree = TREES[path]
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    classes = CLASSES | {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    short = f"llmkit.{path.stem}"
    also = f", also {short}" if (name, path.stem) in bold and name != short else ""
    lines = [f"\n### {name}{also}\n\n{paragraph(tree)}\n"]
    for node in public(tree.body):
        mark = "**" if (name, node.name) in bold else ""
        lines.append(f"- {mark}`{node.name}{signature(node, classes)}`{mark}: {paragraph(node)}")
        for inner in public(node.body) if isinstance(node, ast.ClassDef) else []:
            lines.append(f"    - `.{inner.name}{signature(inner, classes)}`: {paragraph(inner)}")
    return lines if len(lines) > 1 else []


def page() -> str:
    """The whole of API.md."""
    bold = set()  # (where it is defined, name in `llmkit.`)
    for name in llmkit.__all__:
        given = getattr(llmkit, name)
        bold.add((getattr(given, "__module__", None) or given.__name__, name))
    lines = [HEAD, "## llmkit"]
    for path in sorted((ROOT / "llmkit").glob("[!_]*.py")):
        lines += section(path, bold)
    for folder in sorted((ROOT / "llmkit").glob("*/__init__.py")):
        if folder.parent.name != "commands":
            about = paragraph(TREES[folder])
            lines.append(f"\n## llmkit.{folder.parent.name}\n\n{about}")
            for path in sorted(folder.parent.glob("[!_]*.py")):
                lines += section(path, bold)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
