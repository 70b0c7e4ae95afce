"""A rehearsal of Colab: `python -m pytest -n 0 -s -m slow tests/test_colab.py` (minutes).

A fresh environment holds what Colab ships and no llmkit. Each notebook, alone in an empty folder,
must then run through: its setup cell installs llmkit from LLMKIT_SOURCE (by default this repository
at its last commit) and must leave everything that was there as it was, torch above all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import build
import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

# What Colab had in August 2026, and what else of it llmkit needs. Its torch was older, 2.11.
SHIPPED = [
    "torch==2.13.0",
    "datasets==4.0.0",
    "ipywidgets==7.7.1",
    "ipython==7.34.0",
    "numpy==2.1.*",
    "matplotlib==3.10.*",
    "ipykernel",
    "transformers",
    "accelerate",
]
INSTALLED = """
import importlib.metadata, pathlib
for package in importlib.metadata.distributions():
    record = pathlib.Path(package.locate_file("")) / f"{package._path.name}/RECORD"
    print(package.name, package.version, record.stat().st_mtime_ns if record.exists() else "")
"""


class Colab:
    """An environment like Colab's, and how a notebook runs in it."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        self.folder = folder
        bin_ = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.python = next(bin_.glob("python*"))
        subprocess.run([self.python, "-m", "pip", "install", "-q", *SHIPPED], check=True)
        site = self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        (Path(site) / "google/colab").mkdir(parents=True)
        (Path(site) / "google/colab/__init__.py").touch()

    def run(self, *arguments: str) -> str:
        command = [self.python, *arguments]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout

    def installed(self) -> set[str]:
        """Each package but llmkit with its version and when it was installed."""
        lines = self.run("-c", INSTALLED).splitlines()
        return {line for line in lines if not line.startswith("llmkit ")}

    def execute(self, path: Path) -> NotebookClient:
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
        client.execute(env=environment, stderr=subprocess.DEVNULL)
        return client


def seconds(cell: nbformat.NotebookNode) -> float:
    times = cell.metadata.execution
    start, end = (
        datetime.fromisoformat(times[key].replace("Z", "+00:00"))
        for key in ("iopub.execute_input", "shell.execute_reply")
    )
    return (end - start).total_seconds()


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Colab:
    return Colab(tmp_path_factory.mktemp("colab"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem) for path in sorted(build.NOTEBOOKS.glob("*.ipynb"))],
)
def test_the_notebook_runs_on_colab(path, colab):
    colab.run("-m", "pip", "uninstall", "-q", "-y", "llmkit")
    before = colab.installed()
    notebook = colab.execute(path).nb
    after = colab.installed()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    print(f"\n{path.stem}: setup {seconds(code[0]):.1f} s, all {sum(map(seconds, code)):.1f} s")
    assert code[0].outputs == []
    assert any(line.startswith("torch ") for line in before)
    assert before <= after, f"changed by the setup cell: {before - after}"
    assert "llmkit" in colab.run("-m", "pip", "list")
