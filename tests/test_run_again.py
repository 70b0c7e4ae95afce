"""Readers run cells again, or all of them: neither what a cell has left in memory nor files from
before may make it fail."""

import build
import nbformat
import pytest
from nbformat import NotebookNode

NOTEBOOKS = sorted(build.NOTEBOOKS.glob("*.ipynb"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in NOTEBOOKS]),
]


def code_of(path) -> list[NotebookNode]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def run(cells: list[NotebookNode], folder) -> None:
    """Run the cells in a kernel of their own; `build.BuildError` names the one that fails."""
    copies = [nbformat.v4.new_code_cell(cell.source, metadata=cell.metadata) for cell in cells]
    build.execute(nbformat.v4.new_notebook(cells=copies), folder)


def test_each_cell_may_be_run_twice_in_a_row(path, tmp_path):
    run([cell for cell in code_of(path) for _ in range(2)], tmp_path)


def test_the_notebook_may_be_run_again(path, tmp_path):
    """In the same kernel, and after a restart, where the first run's files are still there."""
    run(code_of(path) * 2, tmp_path)
    run(code_of(path), tmp_path)
