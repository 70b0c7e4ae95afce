"""What Colab has installed, and a rehearsal of it. `colab/` has one file: its image's versions.

Quick: whatever llmkit needs is there and new enough, so that its setup cells change nothing.
Slow: `python -m pytest -n 0 -s -m slow tests/test_colab.py`, a notebook alone by `-k 12_lora`. A
fresh environment holds those versions and no llmkit (minutes, 5 GB on Linux). Each notebook, alone
in an empty folder, must run through in it: its setup cell installs llmkit from LLMKIT_SOURCE (by
default this repository at its last commit) and leaves everything that was there as it was, but for
what build.REPLACED names; and nothing comes on stderr.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import build
import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from test_readme import PROJECT

[IMAGE] = (Path(__file__).parent / "colab").glob("*.txt")
TEXT = IMAGE.read_text(encoding="utf-8")
PYTHON = re.search(r"Python (\d\.\d+)", TEXT)[1]
COLAB = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", TEXT, re.MULTILINE)
}
INSTALLED = """
import importlib.metadata, pathlib
for package in importlib.metadata.distributions():
    record = pathlib.Path(package.locate_file("")) / f"{package._path.name}/RECORD"
    print(package.name, package.version, record.stat().st_mtime_ns if record.exists() else "")
"""


# ------------------------------------------------------------------------------------- quick


def too_old(needs: list[str]) -> set[str]:
    """Which of these requirements' packages Colab has, in a version that they refuse."""
    found = {Requirement(need).name: Requirement(need).specifier for need in needs}
    names = {name for name in found if canonicalize_name(name) in COLAB}
    return {n for n in names if not found[n].contains(COLAB[canonicalize_name(n)])}


def test_the_file_is_dated_and_names_the_same_image():
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", IMAGE.stem)
    assert f"image of {IMAGE.stem}, Python {PYTHON}:" in TEXT.splitlines()[0]
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(PYTHON)


def test_colab_has_all_that_llmkit_needs():
    needs = PROJECT["project"]["dependencies"]
    assert {canonicalize_name(Requirement(need).name) for need in needs} <= COLAB.keys()
    assert too_old(needs) == set()


@pytest.mark.parametrize("name", build.EXTRAS)
def test_extras_replace_what_the_setup_cell_says(name):
    extras = PROJECT["project"]["optional-dependencies"]
    needs = [need for extra in build.EXTRAS[name][0].split(",") for need in extras[extra]]
    assert too_old(needs) == set(build.REPLACED.get(name, ()))


def test_a_version_that_is_too_old_is_seen(monkeypatch):
    monkeypatch.setitem(COLAB, "numpy", "1.25.0")
    assert too_old(PROJECT["project"]["dependencies"]) == {"numpy"}


# -------------------------------------------------------------------------------- the rehearsal


def interpreter() -> str:
    """Colab's version of Python, on this machine."""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    for command in filter(None, (sys.executable, shutil.which(f"python{PYTHON}"))):
        done = subprocess.run([command, "-c", ask], capture_output=True, encoding="utf-8")
        if done.stdout.strip() == PYTHON:
            return command
    pytest.skip(f"Colab has Python {PYTHON}, and there is no python{PYTHON} here")


class Colab:
    """An environment like Colab's, and how a notebook runs in it."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([interpreter(), "-m", "venv", folder / "venv"], check=True)
        self.folder = folder
        bin_ = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.python = next(bin_.glob("python*"))
        self.pip("install", "-r", IMAGE)
        site = self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        (Path(site) / "google/colab").mkdir(parents=True, exist_ok=True)
        (Path(site) / "google/colab/__init__.py").touch()
        self.own = self.installed()

    def run(self, *arguments: str | Path) -> str:
        command = [self.python, *arguments]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout

    def pip(self, *arguments: str | Path) -> None:
        subprocess.run([self.python, "-m", "pip", "-q", *arguments], check=True)

    def installed(self) -> dict[str, str]:
        """Each package's name -> its version and when it was installed."""
        return dict(line.split(" ", 1) for line in self.run("-c", INSTALLED).splitlines())

    def changed(self) -> set[str]:
        """Which of Colab's own packages are no longer as they were."""
        now = self.installed()
        return {name for name, was in self.own.items() if now.get(name) != was}

    def restore(self) -> None:
        """Undo what a notebook's setup cell installed."""
        if new := sorted(self.installed().keys() - self.own.keys()):
            self.pip("uninstall", "-y", *new)
        if changed := sorted(self.changed()):
            pins = [f"{name}=={self.own[name].split()[0]}" for name in changed]
            self.pip("install", "--no-deps", *pins)
        self.own = self.installed()

    def execute(self, path: Path) -> nbformat.NotebookNode:
        """Run the notebook in a kernel of this environment, alone in an empty folder."""
        room = self.folder / path.stem
        room.mkdir()
        notebook = nbformat.read(shutil.copy(path, room), as_version=4)
        local = ("LLMKIT_", "PYTHON", "HF_", "MPLBACKEND")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(local)}
        environment["LLMKIT_SOURCE"] = os.environ.get(
            "LLMKIT_SOURCE",
            f"git+file://localhost{build.NOTEBOOKS.parent}",  # older pips want a host
        )

        class Specs(KernelSpecManager):
            def get_kernel_spec(_, name: str) -> KernelSpec:
                arguments = ["-m", "ipykernel_launcher", "-f", "{connection_file}"]
                return KernelSpec(argv=[str(self.python), *arguments], language="python")

        class Manager(AsyncKernelManager):
            def _kernel_spec_manager_default(_) -> Specs:
                return Specs()

        client = NotebookClient(
            notebook,
            kernel_manager_class=Manager,
            kernel_name="python3",
            timeout=600,
            resources={"metadata": {"path": str(room)}},
        )
        return client.execute(env=environment, stderr=subprocess.DEVNULL)


def seconds(cell: nbformat.NotebookNode) -> float:
    times = cell.metadata.execution
    start, end = (
        datetime.fromisoformat(times[key].replace("Z", "+00:00"))
        for key in ("iopub.execute_input", "shell.execute_reply")
    )
    return (end - start).total_seconds()


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Iterator[Colab]:
    folder = tmp_path_factory.mktemp("colab")
    yield Colab(folder)
    shutil.rmtree(folder)  # pytest would keep it, with its gigabytes


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem) for path in sorted(build.NOTEBOOKS.glob("*.ipynb"))],
)
def test_the_notebook_runs_on_colab(path, colab):
    colab.restore()
    code = [cell for cell in colab.execute(path).cells if cell.cell_type == "code"]
    print(f"\n{path.stem}: setup {seconds(code[0]):.1f} s, all {sum(map(seconds, code)):.1f} s")
    assert code[0].outputs == []
    assert "llmkit" in colab.installed()
    assert colab.changed() == set(build.REPLACED.get(path.stem, ()))
    said = [
        output.text for cell in code for output in cell.outputs if output.get("name") == "stderr"
    ]
    assert said == []
