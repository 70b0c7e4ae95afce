"""llmkit's modules stand on each other in one order, which `llmkit.__doc__` tells: none imports one
that is listed after it, and none is left out."""

import ast
import re
from pathlib import Path

import pytest

import llmkit

PACKAGE = Path(llmkit.__file__).parent
ORDER = re.findall(r"\w+", re.search(r"\n\n(\w+ ·.*?)\n\n", llmkit.__doc__, re.DOTALL)[1])
ABOVE = {"__init__", "__main__", "commands"}  # what stands on all the others


def rooms() -> dict[str, list[Path]]:
    """Modules, and packages with their files, by name."""
    folders = [path.parent for path in PACKAGE.glob("*/__init__.py")]
    packages = {folder.name: [*folder.glob("*.py")] for folder in folders}
    return packages | {path.stem: [path] for path in PACKAGE.glob("*.py")}


def imported(path: Path) -> set[str]:
    """The modules of llmkit that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= set(inside) if node.module == "llmkit" else {node.module}
    return {name.split(".")[1] for name in names if name.startswith("llmkit.")}


def test_every_module_has_its_place():
    assert sorted(ORDER) == sorted(set(rooms()) - ABOVE)


@pytest.mark.parametrize("name", ORDER)
def test_a_module_imports_only_from_those_before_it(name):
    below = set(ORDER[: ORDER.index(name) + 1])
    assert set().union(*map(imported, rooms()[name])) - below == set()
