"""The order of the house, by folder: files import files; a folder imports the files and, where its
docstring says so, another folder; nothing goes round in a circle."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import llmkit

PACKAGE = Path(llmkit.__file__).parent
FOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
CORE = sorted(path.stem for path in PACKAGE.glob("*.py"))


def imported(path: Path) -> set[str]:
    """The modules of llmkit that a file imports, wherever in it: "data", "bpe.tokenizer"."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "llmkit":
            names |= {f"llmkit.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module}
    return {name.removeprefix("llmkit.") for name in names if name.startswith("llmkit.")}


def rooms(path: Path) -> set[str]:
    """The files and folders of llmkit that a file imports."""
    return {name.split(".")[0] for name in imported(path)}


def stands_on(folder: str) -> set[str]:
    """The other folders that a folder's files import."""
    return set().union(*map(rooms, (PACKAGE / folder).rglob("*.py"))) & set(FOLDERS) - {folder}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """What is left when all that stands on nothing left is taken away, again and again."""
    left = dict(graph)
    while free := [name for name, below in left.items() if not below & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


@pytest.mark.parametrize("name", sorted(set(CORE) - {"__main__"}))
def test_a_file_imports_no_folder(name):
    assert rooms(PACKAGE / f"{name}.py") & set(FOLDERS) == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_names_each_folder_that_it_imports(folder):
    told = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text("utf-8")))
    assert [other for other in stands_on(folder) if f"`llmkit.{other}`" not in told] == []


def test_no_circle():
    assert circle({"a": {"b"}, "b": {"a"}, "c": {"a"}, "d": set()}) == ["a", "b", "c"]
    assert circle({name: rooms(PACKAGE / f"{name}.py") - {name} for name in CORE}) == []
    assert circle({folder: stands_on(folder) for folder in FOLDERS}) == []


def test_importing_llmkit_loads_the_core_alone():
    code = "import sys, llmkit; print(*[n for n in sys.modules if n.startswith('llmkit.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("llmkit.") for name in done.stdout.split()}
    assert loaded <= set(CORE)
    assert len(loaded) < 20


def test_the_front_page_names_each_folder_and_its_notebooks():
    lines = re.findall(r"(?m)^    (\w+)/ +(\S.*)$", llmkit.__doc__)
    assert sorted(folder for folder, _ in lines) == FOLDERS
    for folder, line in lines:
        source = (PACKAGE / folder / "__init__.py").read_text("utf-8")
        own = ast.get_docstring(ast.parse(source)).splitlines()[0]
        if numbers := re.findall(r"\b\d\d\w?\b", line):
            assert numbers == re.findall(r"\b\d\d\w?\b", own), folder
