"""llmkit on each Python that pyproject.toml names, and with the oldest libraries that it accepts.

`python -m pytest -n 0 -s -m slow tests/test_pythons.py`, one Python alone by `-k 3.12`. Each gets a
fresh environment (minutes; on Linux 5 GB, given back at its end) of what llmkit needs and of what
these tests need, and in it: `import llmkit` without a warning, the tests of the core, a notebook.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import build
import pytest
from packaging.requirements import Requirement
from test_readme import PROJECT, PYTHONS

ROOT = build.NOTEBOOKS.parent
NEEDS = PROJECT["project"]["dependencies"]
TOOLS = ["pytest", "hypothesis", "nbval", "ipykernel", "jupytext", "nbclient", "psutil"]
CORE = (
    "attention model data tokenizer training generation evaluation checkpoint optim ngram runtime "
    "plots widgets"
)
NBVAL = [
    option for option in PROJECT["tool"]["pytest"]["ini_options"]["addopts"] if "nbval" in option
]
# transformers is no need of llmkit; two tests compare with it, in the pinned environment.
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", *NBVAL]
SELECT = ["-m", "not slow and not browser", "-k", "not transformers"]


def least(need: str) -> str:
    """The oldest version that a requirement accepts, as a pin."""
    [bound] = Requirement(need).specifier
    assert bound.operator == ">=", need
    return f"{Requirement(need).name}=={bound.version}"


def interpreter(version: str) -> str | None:
    """A Python of this version, from PATH or pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for command in (shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")):
        if command:
            ask = [command, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
            done = subprocess.run(ask, capture_output=True, encoding="utf-8")
            if done.stdout.strip() == version:
                return str(command)
    return None


def test_the_oldest_version_is_pinned():
    assert least("numpy>=2.0") == "numpy==2.0"
    assert all(map(least, NEEDS))


@pytest.fixture(
    scope="module",
    params=[(PYTHONS[0], "oldest"), *((version, "newest") for version in PYTHONS)],
    ids="-".join,
)
def python(request, tmp_path_factory) -> Iterator[Path]:
    version, libraries = request.param
    command = interpreter(version)
    if command is None:
        pytest.skip(f"there is no Python {version} here")
    folder = tmp_path_factory.mktemp(f"python{version}")
    subprocess.run([command, "-m", "venv", folder], check=True)
    made = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    needs = [least(need) for need in NEEDS] if libraries == "oldest" else NEEDS
    subprocess.run([made, "-m", "pip", "-q", "install", *needs, *TOOLS], check=True)
    yield made
    shutil.rmtree(folder)  # pytest would keep it, with its gigabytes


def run(python: Path, *arguments: str) -> None:
    """It ends with 0; what it says is shown where it does not."""
    done = subprocess.run(
        [python, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_llmkit_is_imported_without_a_warning(python):
    run(python, "-W", "error", "-c", "import llmkit")


@pytest.mark.slow
def test_the_tests_of_the_core_pass(python):
    run(python, *PYTEST, *SELECT, *(f"tests/test_{name}.py" for name in CORE.split()))


@pytest.mark.slow
def test_a_notebook_prints_what_is_stored(python):
    [notebook] = build.NOTEBOOKS.glob("04_*.ipynb")
    run(python, *PYTEST, str(notebook))
